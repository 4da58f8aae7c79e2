import errno
import json
import os
import pickle
import subprocess
import sys
import zipfile

import pytest
import torch
from torch import nn

from depthnet.core.atomic_io import file_digest
from depthnet.core.types import InputError
from depthnet.models.checkpoint import (
    FORMAT,
    RECORD_KEY,
    count_test,
    load_plain,
    load_weights,
    make_record,
    newest_whole,
    not_finite,
    previous,
    read_checkpoint,
    save_plain,
)


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
    assert "norm.weight: nothing in the checkpoint, (4,) here" in lines
    assert "extra: (1,) in the checkpoint, nothing here" in lines
    assert torch.equal(target.layer.weight, kept)


def test_evaluations_on_test_are_counted_beside_the_checkpoint(tmp_path):
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


def digests(path):
    return [line.split()[0] for line in path.with_name(path.name + ".sha256").read_text().splitlines()]


def test_the_generation_before_stays_whole(tmp_path):
    path = tmp_path / "last.ckpt"
    for step in range(4):
        save_plain(path, {"step": step}, keep=True)
        kept = [generation for generation in (path, previous(path)) if generation.exists()]
        assert [load_plain(generation)["step"] for generation in kept] == [step, step - 1][: step + 1]
        assert digests(path)[: len(kept)] == [file_digest(generation) for generation in kept]
        assert len(list(tmp_path.iterdir())) == len(kept) + 1
    lines = (tmp_path / "last.ckpt.sha256").read_text().splitlines()
    assert [line.split()[1] for line in lines[:2]] == ["last.ckpt", "last.previous.ckpt"]


def test_without_keep_there_is_one_generation(tmp_path):
    for step in range(2):
        save_plain(tmp_path / "best.ckpt", {"step": step})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["best.ckpt", "best.ckpt.sha256"]
    assert digests(tmp_path / "best.ckpt") == [file_digest(tmp_path / "best.ckpt")]


@pytest.mark.parametrize("sidecar", [None, "", "nonsense", "0" * 64 + "  last.ckpt\n"])
def test_what_stands_beside_the_old_file_does_not_condemn_the_new_one(tmp_path, monkeypatch, sidecar):
    path = tmp_path / "last.ckpt"
    torch.save({"step": 0}, path)
    if sidecar is not None:
        (tmp_path / "last.ckpt.sha256").write_text(sidecar)
    replace = os.replace

    def look(source, target):
        replace(source, target)
        if os.fspath(target) == os.fspath(path):
            assert load_plain(path)["step"] == 1

    monkeypatch.setattr(os, "replace", look)
    save_plain(path, {"step": 1}, keep=True)
    if sidecar is None or "0" not in sidecar:
        assert load_plain(previous(path))["step"] == 0


def test_a_full_disk_is_a_users_error_that_names_the_room_for_all_tensors(tmp_path, monkeypatch):
    weight, sync = torch.zeros(1_000_000), os.fsync

    def full(descriptor):
        if os.fstat(descriptor).st_size > 100_000:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(InputError, match=r"No space left on device; 4\.0 MB needed"):
        save_plain(tmp_path / "a.ckpt", {"a": weight, "same": [weight[:3]]})
    assert not (tmp_path / "a.ckpt").exists()


def test_a_flipped_bit_is_refused_wherever_it_is(tmp_path):
    path = tmp_path / "last.ckpt"
    for _ in range(2):
        save_plain(path, content(Net()), keep=True)
    whole = path.read_bytes()
    for place in range(0, len(whole), 97):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 16]) + whole[place + 1 :])
        with pytest.raises(InputError, match=r"last\.ckpt: damaged.* remove .*last\.ckpt\.sha256$"):
            load_plain(path)
    path.write_bytes(whole)
    load_plain(path)


def test_one_put_there_on_purpose_loads_without_the_old_digest(tmp_path):
    save_plain(tmp_path / "best.ckpt", content(Net()))
    torch.save({"step": 7}, tmp_path / "best.ckpt")
    with pytest.raises(InputError, match=r"if it is intended, remove .*best\.ckpt\.sha256$"):
        read_checkpoint(tmp_path / "best.ckpt")
    (tmp_path / "best.ckpt.sha256").unlink()
    assert load_plain(tmp_path / "best.ckpt") == {"step": 7}


def test_reading_while_a_run_saves_is_no_damage(tmp_path, monkeypatch):
    path = tmp_path / "last.ckpt"
    save_plain(path, {"step": 0})

    def slow_digest(read):
        save_plain(path, {"step": 1})  # between reading the digest beside it and the file
        return file_digest(read)

    monkeypatch.setattr("depthnet.models.checkpoint.file_digest", slow_digest)
    assert load_plain(path) == {"step": 1}


def test_the_newest_whole_generation_is_found_and_the_others_named(tmp_path):
    path = tmp_path / "last.ckpt"
    assert newest_whole(path) == (None, [])
    for step in range(2):
        save_plain(path, {"step": step}, keep=True)
    assert newest_whole(path) == (path, [])
    path.write_bytes(path.read_bytes()[:-100])
    newest, refused = newest_whole(path)
    assert newest == previous(path)
    assert len(refused) == 1
    assert "last.ckpt: damaged" in refused[0]
    (tmp_path / "last.ckpt.sha256").rename(tmp_path / "aside")  # then what torch says counts
    newest, refused = newest_whole(path)
    assert newest == previous(path)
    assert "torn" in refused[0]
    (tmp_path / "aside").unlink()
    torch.save([1], path)
    previous(path).write_text("no checkpoint")
    newest, refused = newest_whole(path)
    assert newest is None
    assert "holds a list" in refused[0]
    assert "last.previous.ckpt: " in refused[1]
    path.unlink()
    torch.save({"step": 5}, previous(path))
    assert newest_whole(path) == (previous(path), [])


def test_tensors_that_are_not_finite_are_named():
    large = torch.full((4,), 3e38)
    fine = {"a": torch.ones(3), "large": large, "half": torch.full((9,), 6e4, dtype=torch.half), "n": torch.tensor([1])}
    assert large.sum().isinf()
    assert not_finite({"state_dict": fine, "rows": [{"loss": float("nan")}], "empty": torch.zeros(0)}) == []
    nan, inf = torch.tensor([[0.0, torch.nan]]), torch.tensor(-torch.inf)
    both = torch.tensor([torch.inf, -torch.inf], dtype=torch.bfloat16)
    bad = {"state_dict": {"w.x": nan, "y": fine["a"]}, "optimizer_states": [{"state": {3: {"exp_avg": inf}}}, (both,)]}
    names = ["state_dict.w.x", "optimizer_states.0.state.3.exp_avg", "optimizer_states.1.0"]
    assert not_finite(bad) == names
    assert not_finite(nan) == [""]


def test_no_environment_makes_loading_run_code(tmp_path):
    mark = tmp_path / "acted"
    torch.save({"state_dict": {}, "x": Evil(str(mark))}, tmp_path / "evil.ckpt")
    program = """
import sys
from depthnet.models.checkpoint import load_plain, newest_whole
from depthnet.core.types import InputError
assert newest_whole(sys.argv[1])[0] is None
try:
    load_plain(sys.argv[1])
except InputError as error:
    sys.exit(str(error))
"""
    forced = {**os.environ, "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD": "1"}
    command = [sys.executable, "-c", program, str(tmp_path / "evil.ckpt")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=forced)
    assert done.returncode == 1
    assert "holds more than tensors and plain data" in done.stderr
    assert not mark.exists()
    command[2] = "import sys, torch; torch.load(sys.argv[1])"
    subprocess.run(command, capture_output=True, check=False, env=forced)
    assert mark.exists()  # the file is as evil as it claims


def test_compressed_parts_are_refused_before_they_are_unpacked(tmp_path):
    torch.save({"state_dict": {"a": torch.zeros(1000)}}, tmp_path / "plain.ckpt")
    with zipfile.ZipFile(tmp_path / "plain.ckpt") as plain, zipfile.ZipFile(tmp_path / "bomb.ckpt", "w") as bomb:
        for entry in plain.infolist():
            bomb.writestr(entry.filename, plain.read(entry), compress_type=zipfile.ZIP_DEFLATED)
    with pytest.raises(InputError, match="compressed"):
        load_plain(tmp_path / "bomb.ckpt")
