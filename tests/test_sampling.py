import pytest
import torch

from depthnet.data import sampling
from depthnet.data.sampling import EvalSampler, TrainSampler, derive_seed
from depthnet.types import InputError


def order(frames, batch_size, seed, epoch):
    sampler = TrainSampler(frames, batch_size, seed)
    sampler.set_epoch(epoch)
    keys = list(sampler)
    assert len(keys) == len(sampler)
    return keys


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


def test_evaluation_shares_out_every_frame_once(monkeypatch):
    frames = []
    for rank in range(3):
        monkeypatch.setattr(sampling, "_place", lambda frames, rank=rank: (rank, 3))
        sampler = EvalSampler(7)
        keys = list(sampler)
        assert len(keys) == len(sampler)
        frames += [frame for _, frame in keys]
    assert sorted(frames) == list(range(7))


@pytest.mark.parametrize("sampler", [TrainSampler(2, 4, 0), EvalSampler(2)])
def test_a_process_without_a_frame_is_refused_instead_of_waited_for(monkeypatch, sampler):
    for name, value in {"is_initialized": True, "get_world_size": 3, "get_rank": 0}.items():
        monkeypatch.setattr(torch.distributed, name, lambda value=value: value)
    with pytest.raises(InputError, match=r"2 frames are too few for 3 processes; lower trainer\.devices"):
        len(sampler)


def test_seeds_of_neighbours_are_spread():
    seeds = {derive_seed(a, b, c) for a in range(10) for b in range(10) for c in range(10)}
    assert len(seeds) == 1000
    assert max(seeds) > 2**31
