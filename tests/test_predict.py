from __future__ import annotations

import functools
import importlib.util
import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

REPOSITORY = Path(__file__).resolve().parent.parent
SCRIPT = REPOSITORY / "predict.py"

FAKE = """
import runpy, sys
from fake_network import install
install(pause=0.05)
sys.argv = ["predict.py", *sys.argv[2:]]
runpy.run_path(%r, run_name="__main__")
"""


@pytest.fixture
def predict(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script as a module, in an empty folder that holds a checkpoint and two photographs."""
    spec = importlib.util.spec_from_file_location("predict_script", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.chdir(tmp_path)
    Path("best.ckpt").write_text("1")
    for number in range(2):
        photo(Path(f"in/{number}.jpg"), number)
    return module


def photo(path: Path, seed: int = 0, size: tuple[int, int] = (20, 30)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path, "PNG" if path.suffix == ".png" else "JPEG")


def environment(**more: str) -> dict[str, str]:
    folders = os.pathsep.join((str(REPOSITORY), str(REPOSITORY / "tests/support")))
    return {**os.environ, "PYTHONPATH": folders, "HF_HUB_OFFLINE": "1", **more}


def counts(out: str) -> str:
    """What was printed but for the line about cameras, which has to be there once."""
    kept = [line for line in out.splitlines(keepends=True) if not line.startswith("camera: ")]
    assert len(kept) == len(out.splitlines()) - 1
    return "".join(kept)


def faked(arguments: Sequence[str], **options: Any) -> subprocess.Popen[bytes]:
    """The script in a process of its own, with a network of one line that takes 50 ms."""
    command = [sys.executable, "-c", FAKE % str(SCRIPT), "predict.py", *arguments]
    return subprocess.Popen(command, env=environment(**options.pop("env", {})), **options)


def finish(process: subprocess.Popen[bytes]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=60)
    return process.returncode, out.decode(), err.decode()


PIPES: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}


def test_help_and_mistakes_answer_before_anything_is_imported() -> None:
    check = (
        "import runpy, sys\n"
        "sys.argv = ['predict.py', *sys.argv[1:]]\n"
        "try:\n    runpy.run_path(%r, run_name='__main__')\n"
        "except SystemExit as end:\n    code = end.code\n"
        "assert not {'numpy', 'PIL', 'torch', 'rich'} & sys.modules.keys()\n"
        "sys.exit(code)"
    )
    for arguments, code in ((["--help"], 0), (["--output", "out"], 2)):
        started = time.perf_counter()
        command = [sys.executable, "-c", check % str(SCRIPT), *arguments]
        answer = subprocess.run(command, capture_output=True, text=True, env=environment(), check=False)
        assert answer.returncode == code, answer.stderr
        assert time.perf_counter() - started < 3


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--ckpt", "best.ckpt"], "no photograph"),
        (["in", "--ckpt", "none.ckpt"], "none.ckpt"),
        (["in", "--ckpt", "in"], "in: a folder without checkpoints/best.ckpt"),
        (["in", "--ckpt", "best.ckpt", "--output", "best.ckpt"], "cannot write in best.ckpt"),
        (["nothing.jpg", "--ckpt", "best.ckpt"], "nothing.jpg: no such file"),
        (["in/*.gif", "--ckpt", "best.ckpt"], "no such file"),
        (["in", "--ckpt", "best.ckpt", "--overwrit"], "--overwrit"),
        (["in", "--ckpt", "best.ckpt", "--device", "abacus"], "device abacus"),
        (["in", "--ckpt", "best.ckpt", "--color-range", "3", "1"], "low < high"),
        (["in", "--ckpt", "best.ckpt", "--color-range", "a", "b"], "invalid float"),
        (["in/0.jpg", "twin/0.jpg", "--ckpt", "best.ckpt"], "would both be written"),
        (["in", "--color-range", "0", "inf"], "--color-range 0 inf: needs 0 <= low < high"),
        (["in", "--focal", "0"], "--focal 0: needs a focal length in pixels, above 0"),
        (["in", "--focal", "-50"], "--focal -50: needs a focal length in pixels, above 0"),
        (["in", "--focal", "nan"], "--focal nan: needs a focal length in pixels, above 0"),
        (["in", "--fov-x", "0"], "--fov-x 0: needs a horizontal field of view"),
        (["in", "--fov-x", "180"], "--fov-x 180: needs a horizontal field of view"),
        (["in", "--focal", "500", "--fov-x", "60"], "--focal and --fov-x both state the camera"),
        (["in", "--size", "0", "320"], "--size=[0, 320]: it is [height,width]"),
        (["in", "--size", "-240", "320"], "--size=[-240, 320]: it is [height,width]"),
    ],
)
def test_a_users_error_is_one_line_and_exit_code_2(
    predict: ModuleType, capsys: pytest.CaptureFixture[str], arguments: list[str], says: str
) -> None:
    photo(Path("twin/0.jpg"), 7)
    with pytest.raises(SystemExit) as end:
        sys.exit(predict.main(arguments))
    out, err = capsys.readouterr()
    assert end.value.code == 2
    assert out == ""
    assert err.startswith("depthnet predict: ")
    assert says in err
    assert err.count("\n") == 1
    assert not list(Path().rglob("*_depth.npy"))


def test_a_foreign_checkpoint_is_one_line(predict: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    assert predict.main(["in", "--ckpt", "best.ckpt", "--output", "out"]) == 2
    err = capsys.readouterr().err
    assert "best.ckpt" in err
    assert err.count("\n") == 1


def test_exit_codes_and_the_closing_line(predict: ModuleType) -> None:
    code, out, err = finish(faked(["in", "--ckpt", "best.ckpt", "--output", "out"], **PIPES))
    assert (code, counts(out), err) == (0, "2 written, 0 kept, 0 failed → out\n", "")
    Path("in/bad\n[red].jpg").write_text("x")
    code, out, err = finish(faked(["in", "--ckpt", "best.ckpt", "--output", "out"], **PIPES))
    assert (code, counts(out)) == (1, "0 written, 2 kept, 1 failed → out\n")
    assert err.startswith("in/bad\\n[red].jpg: ")
    assert err.count("\n") == 1


def test_names_that_start_with_a_dash_and_options_between_names(predict: ModuleType) -> None:
    photo(Path("-a.jpg"), 3)
    photo(Path("--ckpt"), 4)
    arguments = ["in/0.jpg", "--ckpt", "best.ckpt", "in/1.jpg", "--output", "out", "--", "-a.jpg", "--ckpt"]
    code, out, err = finish(faked(arguments, **PIPES))
    assert (code, err) == (0, "")
    assert out.splitlines()[-1].startswith("4 written")
    assert {path.name for path in Path("out").glob("*.json")} == {"-a.json", "--ckpt.json", "0.json", "1.json"}


def test_a_terminal_that_knows_ascii_only(predict: ModuleType) -> None:
    photo(Path("in/日本.jpg"))
    Path("in", os.fsdecode(b"\xff.jpg")).write_text("bad")
    code, out, err = finish(faked(["in", "--ckpt", "best.ckpt"], env={"PYTHONIOENCODING": "ascii"}, **PIPES))
    assert code == 1
    assert counts(out) == "3 written, 0 kept, 1 failed \\u2192 predictions\n"
    assert err.count("\n") == 1


def test_on_a_terminal_a_bar_counts_and_failures_stand_above_it(predict: ModuleType) -> None:
    Path("in/bad[1].jpg").write_text("x")
    leader, follower = pty.openpty()
    process = faked(["in", "--ckpt", "best.ckpt"], stdout=subprocess.PIPE, stderr=follower, env={"TERM": "xterm"})
    os.close(follower)
    shown = b""
    while True:
        try:
            piece = os.read(leader, 4096)
        except OSError:
            break
        if not piece:
            break
        shown += piece
    code, out, _ = (process.wait(60), process.stdout.read().decode(), "") if process.stdout else (1, "", "")
    text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", shown.decode())
    assert code == 1
    assert counts(out) == "2 written, 0 kept, 1 failed → predictions\n"
    assert "in/bad[1].jpg: " in text
    assert "3/3" in text


def test_interrupted_with_ctrl_c(predict: ModuleType) -> None:
    for number in range(30):
        photo(Path(f"in/{number}.jpg"), number)
    # a shell's background jobs, and so perhaps this test, are started with Ctrl-C ignored
    heed = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    process = faked(["in", "--ckpt", "best.ckpt", "--output", "out"], preexec_fn=heed, **PIPES)
    while len(list(Path("out").glob("*.json"))) < 2:
        assert process.poll() is None, process.communicate()
        time.sleep(0.005)
    process.send_signal(signal.SIGINT)
    code, out, err = finish(process)
    assert (code, out) == (130, "")
    assert err.count("\n") == 1
    assert "interrupted" in err
    assert not list(Path("out").glob(".*")), "no temporary file is left"
    done = sum("files" in json.loads(path.read_text()) for path in Path("out").glob("*.json"))
    code, out, err = finish(faked(["in", "--ckpt", "best.ckpt", "--output", "out"], **PIPES))
    assert (code, err) == (0, "")
    assert counts(out).startswith(f"{30 - done} written, {done} kept, 0 failed")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """A real checkpoint of a tiny network."""
    torch = pytest.importorskip("torch")
    from depthnet.models.checkpoint import RECORD_KEY, make_record, save_plain
    from depthnet.models.depth_net import DepthNet

    torch.manual_seed(0)
    network = DepthNet("test_resnet", decoder_widths=(8,) * 5, depth_range=(1e-3, 10.0), image_size=(60, 80)).eval()
    path = tmp_path_factory.mktemp("ckpt") / "tiny.ckpt"
    state = {f"network.{name}": value for name, value in network.state_dict().items()}
    save_plain(path, {"state_dict": state, RECORD_KEY: make_record(network)})
    return SimpleNamespace(path=path, network=network)


def test_a_real_checkpoint_gives_what_infer_gives(
    predict: ModuleType, tiny: SimpleNamespace, capsys: pytest.CaptureFixture[str]
) -> None:
    from depthnet.models.depth_net import load_network

    photo(Path("in/odd.png"), 5, (241, 323))
    photo(Path("in/one.png"), 5, (1, 1))
    arguments = ["in", "--ckpt", str(tiny.path), "--output", "out", "--device", "cpu"]
    assert predict.main(arguments) == 0
    assert counts(capsys.readouterr().out) == "4 written, 0 kept, 0 failed → out\n"
    loaded = load_network(tiny.path)
    for name in ("0.jpg", "odd.png", "one.png"):
        image = np.asarray(Image.open(f"in/{name}").convert("RGB"))
        depth = np.load(f"out/{Path(name).stem}_depth.npy")
        assert depth.shape == image.shape[:2]
        assert np.array_equal(depth, loaded.infer(image))
        assert np.allclose(depth, tiny.network.infer(image), atol=1e-4)
    sidecar = json.loads(Path("out/odd.json").read_text())
    assert sidecar["checkpoint"] == "tiny.ckpt"
    assert sidecar["model"] == {"network": "DepthNet", "encoder": "test_resnet"}
    assert sidecar["image_size"] == [60, 80]
    assert json.loads(Path("out/one.json").read_text())["image_size"] == list(loaded.size_for((1, 1))) == [64, 64]
    assert predict.main(arguments) == 0
    assert counts(capsys.readouterr().out) == "0 written, 4 kept, 0 failed → out\n"
    best = Path("runs/a/checkpoints/best.ckpt")
    best.parent.mkdir(parents=True)
    best.write_bytes(tiny.path.read_bytes())
    assert predict.main(["in/odd.png", "--ckpt", "runs/a", "--output", "again", "--device", "cpu"]) == 0
    assert np.array_equal(np.load("again/odd_depth.npy"), np.load("out/odd_depth.npy"))
    assert predict.main(["in/odd.png", "--ckpt", "runs", "--output", "again"]) == 2
    assert "checkpoint runs: a folder without checkpoints/best.ckpt; name a run" in capsys.readouterr().err


def test_without_a_checkpoint_the_shipped_model_predicts_and_says_so(
    predict: ModuleType, tiny: SimpleNamespace, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from depthnet.export.weights import pack_weights
    from depthnet.models import shipped
    from depthnet.models.checkpoint import read_checkpoint

    weights = Path("package").resolve()
    monkeypatch.setattr(shipped, "WEIGHTS", weights)
    assert predict.main(["in"]) == 2
    assert capsys.readouterr() == (
        "",
        "depthnet predict: no checkpoint: add --ckpt PATH, such as runs/<run>/checkpoints/best.ckpt\n",
    )
    weights.mkdir()
    source = read_checkpoint(tiny.path)
    (weights / "nyu_small.safetensors").write_bytes(pack_weights(source.state, source.record))
    Path("nyu_small").mkdir()  # is no reason to take another
    assert predict.main(["in", "--output", "out", "--device", "cpu"]) == 0
    said, _, closing = capsys.readouterr().out.splitlines()
    assert said == (
        "model: nyu_small, trained on NYU Depth V2; its metrics hold for similar indoor photographs; "
        f"see {weights}/nyu_small.md"
    )
    assert closing == "2 written, 0 kept, 0 failed → out"
    sidecar = json.loads(Path("out/0.json").read_text())
    assert sidecar["checkpoint"] == "nyu_small.safetensors"
    assert str(weights) not in json.dumps(sidecar)
    Path("nyu_small").rmdir()
    assert predict.main(["in", "--ckpt", "nyu_small", "--output", "out", "--device", "cpu"]) == 0
    assert counts(capsys.readouterr().out) == "0 written, 2 kept, 0 failed → out\n"
    assert [path.name for path in weights.iterdir()] == ["nyu_small.safetensors"]


@pytest.mark.slow
def test_prediction_imports_nothing_of_training(predict: ModuleType, tiny: SimpleNamespace) -> None:
    check = (
        "import runpy, sys\n"
        "sys.argv = ['predict.py', *sys.argv[1:]]\n"
        "try:\n    runpy.run_path(%r, run_name='__main__')\n"
        "except SystemExit as end:\n    code = end.code\n"
        "found = {'lightning', 'hydra', 'omegaconf', 'albumentations', 'torchmetrics', 'cv2'}\n"  # timm imports wandb
        "assert not found & sys.modules.keys(), found & sys.modules.keys()\n"
        "sys.exit(code)"
    )
    command = [sys.executable, "-c", check % str(SCRIPT), "in/0.jpg", "--ckpt", str(tiny.path)]
    answer = subprocess.run(command, capture_output=True, text=True, env=environment(), check=False)
    assert (answer.returncode, answer.stderr) == (0, "")
    assert counts(answer.stdout) == "1 written, 0 kept, 0 failed → predictions\n"
