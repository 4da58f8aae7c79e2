import json
import os
import pickle
import zipfile

import pytest
import torch
from torch import nn

from depthnet.checkpoint import (
    FORMAT,
    RECORD_KEY,
    count_test,
    load_plain,
    load_weights,
    make_record,
    read_checkpoint,
    save_plain,
)
from depthnet.durable import file_digest
from depthnet.types import InputError


class Net(nn.Module):
    def __init__(self, width=2):
        super().__init__()
        self.layer = nn.Linear(3, width)
        self.norm = nn.BatchNorm1d(width)

    def config(self):
        return {"width": 2}


def content(net):
    state = {f"network.{name}": value for name, value in net.state_dict().items()}
    return {"state_dict": state | {"loss.scale": torch.ones(1)}, RECORD_KEY: make_record(net, {"seed": 3})}


def test_a_round_trip_is_bit_equal(tmp_path):
    net = Net()
    save_plain(tmp_path / "a.ckpt", content(net))
    back = read_checkpoint(tmp_path / "a.ckpt")
    assert (back.network, back.config, back.record["run"]) == ("Net", {"width": 2}, {"seed": 3})
    assert back.state.keys() == net.state_dict().keys()
    assert all(torch.equal(back.state[name], value) for name, value in net.state_dict().items())
    assert load_weights(Net(), back.state) == []


def test_the_digest_beside_it_is_the_files(tmp_path):
    save_plain(tmp_path / "a.ckpt", content(Net()))
    assert (tmp_path / "a.ckpt.sha256").read_text() == f"{file_digest(tmp_path / 'a.ckpt')}  a.ckpt\n"


def test_a_record_holds_only_plain_data():
    with pytest.raises(TypeError):
        make_record(Net(), {"optimizer": print})


class Evil:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.mark.parametrize("force", [False, True])
def test_a_hostile_file_does_nothing(tmp_path, monkeypatch, force):
    if force:
        monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    mark = tmp_path / "acted"
    torch.save({"state_dict": {}, "x": Evil(str(mark))}, tmp_path / "zip.ckpt")
    torch.save({"x": Evil(str(mark))}, tmp_path / "old.ckpt", _use_new_zipfile_serialization=False)
    (tmp_path / "plain.ckpt").write_bytes(pickle.dumps(Evil(str(mark))))
    for name in ("zip.ckpt", "old.ckpt", "plain.ckpt"):
        with pytest.raises(InputError, match=name):
            load_plain(tmp_path / name)
    assert not mark.exists()


def test_torn_empty_missing_and_foreign_files_are_refused_in_a_line(tmp_path):
    save_plain(tmp_path / "a.ckpt", content(Net()))
    whole = (tmp_path / "a.ckpt").read_bytes()
    for number, length in enumerate(range(0, len(whole) - 1, len(whole) // 12)):
        (tmp_path / f"torn{number}.ckpt").write_bytes(whole[:length])
    (tmp_path / "text.ckpt").write_text("not a checkpoint")
    with zipfile.ZipFile(tmp_path / "zip.ckpt", "w") as archive:
        archive.writestr("a", "b")
    torch.save([1, 2], tmp_path / "list.ckpt")
    torch.save({"state_dict": {"layer.weight": torch.ones(1)}}, tmp_path / "foreign.ckpt")
    newer = content(Net())
    newer[RECORD_KEY]["format"] = FORMAT + 1
    torch.save(newer, tmp_path / "newer.ckpt")
    (tmp_path / "folder.ckpt").mkdir()
    names = [path for path in tmp_path.iterdir() if path.name not in ("a.ckpt", "a.ckpt.sha256")]
    assert len(names) >= 17
    for path in [*names, tmp_path / "missing.ckpt"]:
        with pytest.raises(InputError, match=path.name) as caught:
            read_checkpoint(path)
        assert "\n" not in str(caught.value)


def test_what_does_not_fit_is_listed_and_the_rest_copied():
    source, target = Net(), Net(width=4)
    kept = target.layer.weight.clone()
    state = source.state_dict() | {"extra": torch.ones(1)}
    del state["norm.weight"]
    lines = load_weights(target, state)
    assert "layer.weight: (2, 3) in the checkpoint, (4, 3) here" in lines
    assert "norm.weight: not in the checkpoint" in lines
    assert "extra: only in the checkpoint" in lines
    assert torch.equal(target.layer.weight, kept)


def test_judgements_on_test_are_counted_beside_the_checkpoint(tmp_path):
    path = tmp_path / "best.ckpt"
    path.write_bytes(b"weights")
    assert [count_test(path, {"when": when}) for when in ("a", "b", "c")] == [1, 2, 3]
    record = tmp_path / "best.ckpt.tests.json"
    assert [entry["when"] for entry in json.loads(record.read_text())] == ["a", "b", "c"]
    path.write_bytes(b"other weights")
    assert count_test(path, {}) == 1
    record.write_text('{"a": 1}')
    assert count_test(path, {}) is None
    record.write_text("torn")
    assert count_test(path, {}) is None
    assert record.read_text() == "torn"  # nothing is lost
    assert count_test(tmp_path / "best.ckpt.tests.json" / "lent.ckpt", {}) is None
