"""Reference bits in tests/golden/: what must stay the same while files move.

    DEPTHNET_WRITE_GOLDEN=1 pytest tests/test_golden.py      writes them anew, after a change that is meant

Floats are compared to the bit on the processor and torch that wrote them, else to 1e-5.
"""

import hashlib
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from depthnet.core.types import DepthRange
from depthnet.data.rooms.layout import RoomsLayout
from depthnet.models.checkpoint import read_checkpoint
from depthnet.models.depth_net import load_network

GOLDEN = Path(__file__).parent / "golden"
WRITE = bool(os.environ.get("DEPTHNET_WRITE_GOLDEN"))
MACHINE = f"torch {torch.__version__}, {torch.backends.cpu.get_cpu_capability()}"

ERRORS = [
    "train data=rooms model=tiny data.image_size=240",
    "train data=rooms model=tiny seed=-1",
    "train data=rooms model=tiny mode=train",
    "train data=rooms model=tiny split=test",
    "train data=rooms model=tiny watch=val/accuracy",
    "train data=rooms model=tiny model.attention=flase",
    "train data=rooms model=tiny model.attenton=true",
    "train data=rooms model=nothing",
    "train data=rooms model=tiny trainer.max_epochs=many",
    "train data=rooms model=tiny ckpt=missing.ckpt",
    "train data=rooms model=tiny resume=missing",
    "train data=rooms model=tiny protocols=nyu_egen",
    "train data=nyu data.root=missing model=tiny",
    "train mode=test data=rooms",
    "train mode=test data=rooms ckpt=nyu_small model.encoder=resnet18",
    "predict missing.jpg",
    "predict broken.jpg --ckpt missing.ckpt",
    "predict broken.jpg --focal 500 --fov-x 60",
    "data check missing",
    "score missing missing",
]


def compare(name, found):
    """Compare plain data with a stored file, floats as the module's docstring says."""
    path = GOLDEN / f"{name}.json"
    if WRITE:
        path.write_text(json.dumps({"machine": MACHINE, "found": found}, indent=1) + "\n")
    stored = json.loads(path.read_text())
    if stored["machine"] == MACHINE:
        assert found == stored["found"]
    else:
        assert found["values"] == pytest.approx(stored["found"]["values"], rel=1e-5)


def digest(depth):
    return {"sha256": hashlib.sha256(depth.tobytes()).hexdigest(), "values": depth[::16, ::16].ravel().tolist()}


def test_nyu_small_predicts_a_room_as_it_did():
    image = RoomsLayout({"val": 1}, (192, 256), depth_range=DepthRange(1e-3, 10.0)).read("val", 0)[0]
    compare("prediction", digest(load_network("nyu_small").infer(image)))


@pytest.mark.slow
def test_nyu_small_scores_on_val_as_it_did(train, real_nyu):
    done = train(
        "mode=test", "ckpt=nyu_small", "data=nyu", f"data.root={real_nyu}", "data.check=cheap", "data.cache=none",
        "trainer=cpu", "logger=none", "data.num_workers=0", "hydra.run.dir=run",
    )  # fmt: skip
    assert done.code == 0, done.err
    figures = json.loads(Path("run/metrics.json").read_text())["protocols"]["nyu_eigen_filled"]
    assert {name: round(figures[name], 3) for name in ("delta1", "abs_rel", "rmse")} == {
        "delta1": 0.803,
        "abs_rel": 0.150,
        "rmse": 0.549,
    }
    rows = Path("run/per_image.csv").read_text().splitlines()
    values = [float(value) for row in rows[1:] for value in row.split(",")[4:]]
    compare("val", {"figures": figures, "rows": rows, "values": values})


ROOMS = ["data=rooms", "data.frames={train: 4, val: 2, test: 0}", "data.num_workers=0", "data.cache=none"]
HERE = ["trainer=cpu", "logger=none"]


def test_a_stored_run_and_its_checkpoint_are_read_as_they_were(train, tmp_path):
    stored = GOLDEN / "run"
    if WRITE:
        shutil.rmtree(stored, ignore_errors=True)
        small = ["data.image_size=[24,32]", "data.batch_size=2", "model=basic", "+model.widths=[4,8]"]
        done = train(*ROOMS, *HERE, *small, "trainer.max_epochs=1", "hydra.run.dir=run")
        assert done.code == 0, done.err
        shutil.copytree("run", stored, ignore=shutil.ignore_patterns("panels", "last*", "*.log", ".*"))
    image = np.random.default_rng(0).integers(0, 255, (24, 32, 3), dtype=np.uint8)
    network = load_network(stored / "checkpoints/best.ckpt")
    compare("checkpoint", digest(network.infer(image)))
    record = read_checkpoint(stored / "checkpoints/best.ckpt").record
    assert record["config"] == network.config()
    shutil.copytree(stored, "copy")
    done = train("mode=test", "ckpt=copy/checkpoints/best.ckpt", *ROOMS, *HERE, "hydra.run.dir=again")
    assert done.code == 0, done.err
    figures = json.loads(Path("again/metrics.json").read_text())["protocols"]
    assert figures == json.loads((stored / "metrics.json").read_text())["protocols"]


def run_command(line, train, capfd):
    tool, *arguments = line.split()
    if tool == "train":
        done = train(*arguments)
        return done.code, done.err.strip().splitlines()[-1]
    if tool == "predict":
        from predict import main
    elif tool == "score":
        from depthnet.evaluation.predictions import main
    else:
        from depthnet.data.cli import main
    capfd.readouterr()
    code = main(arguments)
    return code, capfd.readouterr().err.strip().splitlines()[-1]


@pytest.mark.parametrize("line", ERRORS)
def test_a_mistake_has_the_line_it_had(line, train, capfd):
    Path("broken.jpg").write_bytes(b"no photograph")
    path = GOLDEN / "errors.json"
    code, message = run_command(line, train, capfd)
    if WRITE:
        stored = json.loads(path.read_text()) if path.exists() else {}
        path.write_text(json.dumps({**stored, line: [code, message]}, indent=1) + "\n")
    assert [code, message] == json.loads(path.read_text())[line]
    assert code == 2
    assert not Path("runs").exists()
