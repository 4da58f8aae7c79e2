import json
import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
import torch
import yaml
from conftest import REPOSITORY
from safetensors.torch import save, save_file

from depthnet.core.atomic_io import file_digest
from depthnet.core.types import InputError
from depthnet.evaluation.report.write import main as report
from depthnet.export.portable import portable
from depthnet.export.weights import pack_weights
from depthnet.models import shipped
from depthnet.models.checkpoint import RECORD_KEY, count_test, find_checkpoint, make_record, read_checkpoint, save_plain
from depthnet.models.depth_net import DepthNet, load_network
from depthnet.models.shipped import shipped_models

RECORD = {"format": 1, "network": "DepthNet", "config": {}}


def small(seed=0):
    torch.manual_seed(seed)
    return DepthNet("test_resnet", decoder_widths=(8,) * 5, depth_range=(1e-3, 10.0), image_size=(48, 64)).eval()


def packed(net, run=None):
    return pack_weights(net.state_dict(), make_record(net, run))


@pytest.fixture
def weights(tmp_path, monkeypatch):
    """The folder of shipped models, with one in it, and another folder to work in."""
    folder, work = tmp_path / "weights", tmp_path / "work"
    folder.mkdir()
    work.mkdir()
    (folder / "rooms_small.safetensors").write_bytes(packed(small()))
    monkeypatch.setattr(shipped, "WEIGHTS", folder)
    monkeypatch.chdir(work)
    return folder


def test_it_is_read_back_as_the_network_that_it_was(weights):
    net = small()
    checkpoint = read_checkpoint(weights / "rooms_small.safetensors")
    assert (checkpoint.network, checkpoint.config) == ("DepthNet", net.config())
    assert all(value.dtype in (torch.float32, torch.int64) for value in checkpoint.state.values())
    again = load_network("rooms_small")
    image = torch.randint(0, 256, (1, 3, 48, 64), dtype=torch.uint8)
    with torch.inference_mode():
        assert torch.allclose(again(image), net(image), rtol=1e-3)
    for name, value in net.state_dict().items():
        exact = value.ndim < 2 or value.numel() <= 4096  # all of normalization, and biases
        assert torch.equal(again.state_dict()[name], value if exact else value.half().float()), name
    ours = sum(value.nbytes for value in net.state_dict().values())
    assert (weights / "rooms_small.safetensors").stat().st_size < 0.6 * ours


def test_what_float16_would_ruin_stays_float32(tmp_path):
    large, tiny, mixed, zero = (torch.full((80, 80), value) for value in (1e6, 3e-7, 3e-7, 0.0))
    mixed[0, 0], small = 1.0, torch.full((60, 60), 0.1)
    state = {"large": large, "tiny": tiny, "mixed": mixed, "zero": zero, "small": small, "count": torch.tensor(2**40)}
    path = tmp_path / "a.safetensors"
    path.write_bytes(pack_weights(state, RECORD))
    back = read_checkpoint(path).state
    assert all(torch.equal(back[name], state[name]) for name in ("large", "tiny", "zero", "small"))
    assert torch.equal(back["mixed"], mixed.half().float())
    assert not torch.equal(back["mixed"], mixed)
    assert path.stat().st_size < 80 * 80 * (4 + 4 + 2 + 2) + 60 * 60 * 4 + 1000
    assert back["count"].item() == 2**40


def test_the_same_weights_give_the_same_bytes():
    net = small()
    state = net.state_dict()
    backwards = dict(reversed(list(state.items())))
    laid_out = {name: value.clone() for name, value in net.to(memory_format=torch.channels_last).state_dict().items()}
    run = {"seed": 1, "data": {"root": "x"}}
    files = [pack_weights(some, make_record(net, run)) for some in (state, backwards, laid_out)]
    assert files[0] == files[1] == files[2]


def test_nothing_of_one_machine_is_in_it(tmp_path):
    root, run = "/home/me/my pairs", {"model": {"pretrained": "/srv/a b/net.safetensors"}, "x": [r"C:\data\nyu", 1.5]}
    data = packed(small(), {**run, "data": {"root": root}, "directory": "${directory}/checkpoints", "size": "192/256"})
    assert b"/home" not in data
    (tmp_path / "a.safetensors").write_bytes(data)
    record = read_checkpoint(tmp_path / "a.safetensors").record
    assert record["run"] == {
        "data": {"root": "PATH"},
        "model": {"pretrained": "PATH/net.safetensors"},
        "x": ["PATH", 1.5],
        "directory": "${directory}/checkpoints",
        "size": "192/256",
    }
    kept = ["https://a.org/b", "s3://b/c", "at ~1/4", "../shared/nyu", "runs/a/b.ckpt", "m / s", "a [1/2] b", "${a}/b"]
    assert portable(kept) == kept
    assert portable("x --root=/a/b,/c/d.ckpt '/e/f'") == "x --root=PATH,PATH/d.ckpt 'PATH'"
    assert portable("a={val:/home/me/c.csv} file:///home/me/d ~me/e //f") == "a={val:PATH/c.csv} file:PATH PATH PATH"


def test_a_path_that_exists_wins_then_a_name_then_the_error_names_the_models(weights):
    inside = weights / "rooms_small.safetensors"
    assert find_checkpoint("rooms_small") == find_checkpoint(Path("rooms_small")) == inside
    assert shipped_models() == {"rooms_small": inside}
    for path in ("none", "rooms", "./rooms_small", "rooms_small.safetensors"):
        with pytest.raises(InputError, match=rf"{path}: no such checkpoint file; .*: rooms_small$"):
            read_checkpoint(path)
    own = Path("rooms_small")
    own.write_bytes(b"")
    assert find_checkpoint("rooms_small") == own
    own.unlink()
    own.mkdir()
    assert find_checkpoint("rooms_small") == inside
    inside.unlink()
    with pytest.raises(InputError, match=r"rooms_small: a folder without checkpoints/best\.ckpt"):
        find_checkpoint("rooms_small")
    os.mkfifo("pipe.ckpt")
    with pytest.raises(InputError, match=r"pipe\.ckpt: not a regular file"):
        find_checkpoint("pipe.ckpt")
    with pytest.raises(InputError, match=r"none\.ckpt: no such checkpoint file$"):
        find_checkpoint("none.ckpt")


def test_a_run_stands_for_its_best_checkpoint(weights):
    best = Path("run/checkpoints/best.ckpt")
    best.parent.mkdir(parents=True)
    with pytest.raises(InputError, match=r"^checkpoint run: a folder without checkpoints/best\.ckpt"):
        find_checkpoint("run")
    net = small()
    state = {f"network.{name}": value for name, value in net.state_dict().items()}
    save_plain(best, {"state_dict": state, RECORD_KEY: make_record(net)})
    for path in ("run", "run/", Path("run").absolute()):
        assert find_checkpoint(path).resolve() == best.resolve()
        assert read_checkpoint(path).config == net.config()
    assert load_network("run").image_size == (48, 64)
    assert count_test("run", {}) == count_test(best, {}) - 1 == 1
    with pytest.raises(InputError, match=r"checkpoints: a folder without"):
        find_checkpoint(best.parent)
    best.parent.parent.rename("rooms_small")
    assert find_checkpoint("rooms_small").parent == weights
    assert find_checkpoint("./rooms_small") == Path("rooms_small/checkpoints/best.ckpt")


FOREIGN = {
    "an empty file": (lambda path: path.write_bytes(b""), "cannot be read as a checkpoint"),
    "a web page": (
        lambda path: path.write_text("\n<!DOCTYPE html><html><title>404"),
        "is no checkpoint; not loaded",
    ),
    "a state dict": (
        lambda path: torch.save({"conv1.weight": torch.ones(2)}, path),
        "not a depthnet checkpoint (it has no 'depthnet' record)",
    ),
    "a module": (
        lambda path: torch.save(torch.nn.Linear(1, 1), path),
        "holds more than tensors and plain data, or is no checkpoint; not loaded",
    ),
    "an older form": (
        lambda path: torch.save({"a": torch.ones(2)}, path, _use_new_zipfile_serialization=False),
        "not a depthnet checkpoint",
    ),
    "Lightning": (
        lambda path: torch.save({"pytorch-lightning_version": "2.5", "state_dict": {}}, path),
        "not a depthnet checkpoint",
    ),
    "an encoder": (lambda path: save_file({"conv1.weight": torch.ones(2)}, path), "model.pretrained=PATH"),
}


@pytest.mark.parametrize("suffix", [".ckpt", ".safetensors", ".pth"])
@pytest.mark.parametrize("kind", FOREIGN)
def test_a_foreign_file_is_called_what_it_is(tmp_path, kind, suffix):
    path = tmp_path / f"foreign{suffix}"
    make, words = FOREIGN[kind]
    make(path)
    with pytest.raises(InputError, match=re.escape(words)) as caught:
        read_checkpoint(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_a_name_does_not_hide_what_is_in_a_file(tmp_path):
    (tmp_path / "weights.bin").write_bytes(packed(small()))
    assert read_checkpoint(tmp_path / "weights.bin").network == "DepthNet"


def test_a_test_of_a_shipped_model_is_counted_in_the_users_cache(weights, tmp_path, monkeypatch):
    monkeypatch.setenv("DEPTHNET_CACHE", str(tmp_path / "cache"))
    assert count_test("rooms_small", {"when": "now"}) == 1
    assert count_test(weights / "rooms_small.safetensors", {"when": "then"}) == 2
    digest = file_digest(weights / "rooms_small.safetensors")
    record = tmp_path / "cache/tests" / f"{digest}.json"
    assert [entry["when"] for entry in json.loads(record.read_text())] == ["now", "then"]
    record.write_text("torn")
    assert count_test("rooms_small", {}) is None
    record.unlink()
    assert [path.name for path in weights.iterdir()] == ["rooms_small.safetensors"]
    shutil.copy(weights / "rooms_small.safetensors", "mine.safetensors")
    assert count_test("mine.safetensors", {"when": "now"}) == 1


def changed(state=(), **record):
    net = small()
    return pack_weights(net.state_dict() | dict(state), make_record(net) | record)


def with_header(text):
    return len(text).to_bytes(8, "little") + text


HOSTILE = {
    "empty": lambda: b"",
    "a pickle": lambda: b"\x80\x04cos\nsystem\n",
    "a header of an exabyte": lambda: (2**60).to_bytes(8, "little") + b"{}",
    "no JSON": lambda: with_header(b"{" * 50),
    "offsets beyond the end": lambda: with_header(b'{"a":{"dtype":"F32","shape":[9],"data_offsets":[0,36]}}'),
    "a shape that is not its bytes": lambda: (
        with_header(b'{"a":{"dtype":"F32","shape":[99999,99999],"data_offsets":[0,4]}}') + bytes(4)
    ),
    "a foreign network": lambda: save({"conv_stem.weight": torch.ones(2, 2)}, {"architecture": "mobilenetv2_100"}),
    "no metadata": lambda: save({"a": torch.ones(2)}),
    "a record that is no JSON": lambda: save({"a": torch.ones(2)}, {"depthnet": "{"}),
    "a record that is a list": lambda: save({"a": torch.ones(2)}, {"depthnet": "[1]"}),
    "a record without end": lambda: save({"a": torch.ones(2)}, {"depthnet": "[" * 100_000}),
    "a record of nothing": lambda: save({"a": torch.ones(2)}, {"depthnet": "{}"}),
    "a newer form": lambda: changed(format=2),
    "a target for a network": lambda: changed(network="os.system"),
    "a network of the wrong arguments": lambda: changed(config={"encoder": "test_resnet", "x": 1}),
    "a network of any size": lambda: changed(config=small().config() | {"decoder_widths": [10**7] * 5}),
    "a tensor too many": lambda: changed({"extra": torch.ones(1)}),
    "a tensor of another shape": lambda: changed({"head.projection.bias": torch.ones(3)}),
    "NaN": lambda: changed({"head.projection.bias": torch.tensor([torch.nan])}),
    "infinity among halves": lambda: changed({"head.projection.weight": torch.full((1, 8, 1, 1), torch.inf)}),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_bad_file_is_one_line(tmp_path, kind):
    path = tmp_path / "bad.safetensors"
    path.write_bytes(HOSTILE[kind]())
    with pytest.raises(InputError) as caught:
        load_network(path)
    assert "\n" not in str(caught.value)
    assert kind.startswith("a network") or kind.startswith("a target") or "bad.safetensors" in str(caught.value)
    if kind in ("a foreign network", "no metadata"):
        assert "model.pretrained=PATH" in str(caught.value)


def test_a_torn_file_is_one_line(tmp_path):
    data = packed(small())
    for length in range(0, len(data), len(data) // 9):
        path = tmp_path / "torn.safetensors"
        path.write_bytes(data[:length])
        with pytest.raises(InputError, match=r"torn\.safetensors: cannot be read"):
            load_network(path)


def test_what_is_read_does_not_hang_on_the_file(tmp_path):
    path = tmp_path / "a.safetensors"
    save_file({"a": torch.ones(5000)}, path, {"depthnet": json.dumps(RECORD)})
    state = read_checkpoint(path).state
    with path.open("r+b") as file:
        file.truncate(200)
    assert state["a"].sum() == 5000


def test_a_run_starts_from_a_name_evaluates_a_name_and_resumes(weights, train, tmp_path):
    rooms = ["data=rooms", "data.frames={train: 4, val: 2, test: 2}", "data.image_size=[48,64]", "data.num_workers=0"]
    small = [*rooms, "logger=none", "trainer=cpu"]
    tiny = ["model=tiny", "model.decoder_widths=[8,8,8,8,8]"]
    start = [*small, *tiny, "trainer.max_epochs=1", "ckpt=rooms_small", "hydra.run.dir=tuned", "resume=auto"]
    first = train(*start)
    assert first.code == 0, first.err
    assert "ckpt: started from rooms_small; all weights loaded" in first.err
    assert yaml.safe_load(Path("tuned/config.yaml").read_text())["ckpt"] == "rooms_small"
    for words, named in (
        (["model=unet_attn", "model.encoder=test_resnet"], "model.decoder_widths"),
        ([*tiny, "model.attention=false"], "model.attention=False (was None)"),
        ([*tiny, "data.depth_range.max=3"], "data.depth_range.max=3"),
    ):
        other = train(*small, *words, *start[len(small) + len(tiny) :])
        assert (other.code, named in other.err) == (2, True), other.err
    Path("tuned/metrics.json").unlink()
    again = train(*start)
    assert again.code == 0, again.err
    assert "started from" not in again.err
    moved = weights / "rooms_small.safetensors"
    assert train("resume=tuned").code == 0
    evaluate = [*small, "mode=test", "ckpt=rooms_small", "split=test", "hydra.run.dir=evaluated"]
    done = train(*evaluate)
    assert done.code == 0, done.err
    assert json.loads(Path("evaluated/metrics.json").read_text())["test_evaluations"] == 1
    assert "test: evaluation number 1 of this checkpoint" in done.err
    assert list(weights.iterdir()) == [moved]
    assert report(["evaluated"]) == 0
    assert "rooms_small.safetensors" in Path("evaluated/report.html").read_text()
    missing = train(*small, "ckpt=rooms_large", "hydra.run.dir=other")
    assert (missing.code, missing.err.count("\n")) == (2, 1)
    assert "rooms_large: no such checkpoint file; models that ship with depthnet: rooms_small" in missing.err


@pytest.mark.parametrize("name", shipped_models())
def test_a_shipped_model_is_small_whole_and_has_its_card(name):
    path = find_checkpoint(name)
    assert path.stat().st_size <= 8_000_000
    assert load_network(name).depth_range.max == 10.0
    card = path.with_suffix(".md").read_text(encoding="utf-8")
    for text in (card, json.dumps(read_checkpoint(path).record)):
        assert portable(text) == text
    assert re.search(r"\A---\n.*?\n---\n", card, re.DOTALL)


def test_wheel_and_sdist_take_the_weights_along():
    hatch = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["tool"]["hatch"]["build"]
    own = {"conf": "depthnet/conf", "train.py": "depthnet/train.py"}
    wheel = {"packages": ["depthnet"], "force-include": own}  # all in the package that git does not ignore
    assert hatch == {"targets": {"wheel": wheel}}
    if not (REPOSITORY / ".git").exists():
        pytest.skip("not a git checkout")
    names = [f"depthnet/weights/nyu_small.{suffix}" for suffix in ("safetensors", "md")]
    ignored = subprocess.run(
        ["git", "check-ignore", "--no-index", *names], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    assert (ignored.returncode, ignored.stdout) == (1, "")
