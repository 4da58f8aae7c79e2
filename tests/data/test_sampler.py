import pytest
import torch

from depthnet.core.types import InputError
from depthnet.data import sampler as sampling
from depthnet.data.sampler import TrainSampler, derive_seed, eval_frames


def order(frames, batch_size, seed, epoch):
    sampler = TrainSampler([(24, 32)] * frames, batch_size, seed)
    sampler.set_epoch(epoch)
    found = list(sampler)
    assert len(found) == len(sampler)
    return [key for batch in found for key in batch]


def test_the_order_is_a_function_of_seed_and_epoch():
    assert order(50, 5, 1, 3) == order(50, 5, 1, 3)
    assert len({tuple(frame for _, frame in order(50, 5, seed, epoch)) for seed in range(3) for epoch in range(3)}) == 9
    assert {epoch for epoch, _ in order(50, 5, 1, 3)} == {3}


def test_every_frame_comes_once():
    assert sorted(frame for _, frame in order(50, 5, 0, 0)) == list(range(50))


def test_an_incomplete_last_batch_is_left_out_unless_it_is_the_only_one():
    assert len(order(23, 5, 0, 0)) == 20
    assert len(order(3, 5, 0, 0)) == 3
    assert set(range(23)) == {frame for epoch in range(5) for _, frame in order(23, 5, 0, epoch)}


@pytest.mark.parametrize("processes", [2, 3])
def test_processes_together_see_what_one_with_the_joint_batch_sees(monkeypatch, processes):
    alone = [frame for _, frame in order(50, 4 * processes, 7, 2)]
    parts = []
    for rank in range(processes):
        monkeypatch.setattr(sampling, "_place", lambda frames, rank=rank: (rank, processes))
        parts.append([frame for _, frame in order(50, 4, 7, 2)])
    for batch in range(len(alone) // (4 * processes)):
        joint = {frame for part in parts for frame in part[4 * batch : 4 * batch + 4]}
        assert joint == set(alone[4 * processes * batch : 4 * processes * (batch + 1)])


GROUPS = [0, 1, 0] * 11 + [2, 2, 2]  # 22 of one size, 11 of another, 3 of a third


def batches(seed=0, epoch=0, done=(0, 0), batch_size=4, groups=GROUPS):
    sampler = TrainSampler(groups, batch_size, seed)
    sampler.set_epoch(epoch)
    sampler.skip(*done)
    found = [[frame for _, frame in batch] for batch in sampler]
    if done[0] != epoch or not done[1]:
        assert len(found) == len(sampler)
    return found


def test_batches_hold_one_size_and_each_frame_once():
    found = batches()
    assert all(len({GROUPS[frame] for frame in batch}) == 1 for batch in found)
    frames = [frame for batch in found for frame in batch]
    assert len(frames) == len(set(frames))
    assert sorted((GROUPS[batch[0]], len(batch)) for batch in found) == [*[(0, 4)] * 5, *[(1, 4)] * 2, (2, 3)]
    everything = {frame for epoch in range(9) for batch in batches(epoch=epoch) for frame in batch}
    assert everything == set(range(len(GROUPS)))
    assert len({tuple(GROUPS[batch[0]] for batch in batches(epoch=epoch)) for epoch in range(5)}) > 1, "sizes are mixed"


def test_batches_of_one_size_are_a_function_of_seed_and_epoch():
    assert batches(1, 3) == batches(1, 3)
    assert len({str(batches(seed, epoch)) for seed in range(3) for epoch in range(3)}) == 9
    assert batches(1, 3, done=(3, 2)) == batches(1, 3)[2:]
    assert batches(1, 3, done=(2, 2)) == batches(1, 3)


def test_one_size_gives_the_order_of_old():
    assert [frame for batch in batches(5, 1, groups=[4] * 23) for frame in batch] == [f for _, f in order(23, 4, 5, 1)]


@pytest.mark.parametrize("processes", [2, 3])
def test_processes_together_see_batches_of_one_size(monkeypatch, processes):
    """As the one with the joint batch; of a size with fewer frames than a joint batch, what divides evenly."""
    alone = batches(7, 2, batch_size=4 * processes)
    parts = []
    for rank in range(processes):
        monkeypatch.setattr(sampling, "_place", lambda frames, rank=rank: (rank, processes))
        parts.append(batches(7, 2))
    joint = [[frame for share in shares for frame in share] for shares in zip(*parts, strict=True)]
    assert all(len({len(share) for share in shares}) == 1 for shares in zip(*parts, strict=True))
    assert all(len({GROUPS[frame] for frame in batch}) == 1 for batch in joint)
    full = [sorted(batch) for batch in joint if len(batch) == 4 * processes]
    assert full == [sorted(batch) for batch in alone if len(batch) == 4 * processes]
    rest = {GROUPS[batch[0]]: set(batch) for batch in alone if len(batch) < 4 * processes}
    assert all(set(batch) <= rest[GROUPS[batch[0]]] for batch in joint if len(batch) < 4 * processes)


def test_evaluation_shares_out_every_frame_once(monkeypatch):
    frames = []
    for rank in range(3):
        monkeypatch.setattr(sampling, "_place", lambda frames, rank=rank: (rank, 3))
        frames += eval_frames(7)
    assert sorted(frames) == list(range(7))


@pytest.mark.parametrize("share", [lambda: len(TrainSampler([0, 0], 4, 0)), lambda: eval_frames(2)])
def test_a_process_without_a_frame_is_refused_instead_of_waited_for(monkeypatch, share):
    for name, value in {"is_initialized": True, "get_world_size": 3, "get_rank": 0}.items():
        monkeypatch.setattr(torch.distributed, name, lambda value=value: value)
    with pytest.raises(InputError, match=r"2 frames are too few for 3 processes; lower trainer\.devices"):
        share()


def test_seeds_of_neighbors_are_spread():
    seeds = {derive_seed(a, b, c) for a in range(10) for b in range(10) for c in range(10)}
    assert len(seeds) == 1000
    assert max(seeds) > 2**31
