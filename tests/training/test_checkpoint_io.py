import pytest
import torch

from depthnet.core.types import InputError
from depthnet.models.checkpoint import newest_whole
from depthnet.training.checkpoint_io import DurableCheckpointIO


def test_checkpoints_are_written_with_a_digest_and_removed_with_it(tmp_path):
    io = DurableCheckpointIO()
    io.save_checkpoint({"a": torch.ones(2)}, tmp_path / "a.ckpt")
    assert {path.name for path in tmp_path.iterdir()} == {"a.ckpt", "a.ckpt.sha256"}
    assert io.load_checkpoint(tmp_path / "a.ckpt")["a"].tolist() == [1, 1]
    io.remove_checkpoint(tmp_path / "a.ckpt")
    assert list(tmp_path.iterdir()) == []


def test_a_checkpoint_that_is_not_plain_is_not_loaded_whatever_is_asked(tmp_path):
    torch.save({"a": print}, tmp_path / "a.ckpt")
    with pytest.raises(InputError, match="plain data"):
        DurableCheckpointIO().load_checkpoint(tmp_path / "a.ckpt", weights_only=False)


def test_the_last_checkpoint_keeps_the_one_before_it_and_others_do_not(tmp_path):
    io = DurableCheckpointIO()
    for value in (1.0, 2.0):
        for name in ("last.ckpt", "best.ckpt"):
            io.save_checkpoint({"state_dict": {"a": torch.tensor(value)}}, tmp_path / name)
    assert {path.name for path in tmp_path.glob("*.ckpt")} == {"last.ckpt", "last.previous.ckpt", "best.ckpt"}
    (tmp_path / "last.ckpt").write_bytes(b"torn")
    newest, refused = newest_whole(tmp_path / "last.ckpt")
    assert io.load_checkpoint(newest)["state_dict"]["a"] == 1
    assert len(refused) == 1


@pytest.mark.parametrize("part", ["state_dict", "current_model_state", "optimizer_states"])
def test_weights_that_are_not_finite_are_not_kept(tmp_path, part):
    io = DurableCheckpointIO()
    good = {"state_dict": {"a": torch.ones(2)}, "callbacks": {"kth_value": torch.tensor(torch.inf)}}
    io.save_checkpoint(good, tmp_path / "last.ckpt")
    with pytest.raises(InputError, match=rf"last\.ckpt: not written, because 1 of its tensors .*{part}\.a the first"):
        io.save_checkpoint(good | {part: {"a": torch.tensor([1.0, torch.nan])}}, tmp_path / "last.ckpt")
    assert io.load_checkpoint(tmp_path / "last.ckpt")["state_dict"]["a"].tolist() == [1, 1]
