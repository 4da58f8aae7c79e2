"""What every test stands on: one thread, no network, no account, and small data in the true forms."""

from __future__ import annotations

import os

os.environ["OMP_WAIT_POLICY"] = "PASSIVE"  # before torch: idle threads would crawl over a busy machine
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["WANDB_MODE"] = "offline"
os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"
os.environ.pop("NYU_ROOT", None)

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from drawing import millimetres, picture
from PIL import Image

REPOSITORY = Path(__file__).resolve().parent.parent
DATA = Path(os.environ.get("DEPTHNET_TEST_DATA", REPOSITORY.parent / "shared"))  # real pairs and weights, if any


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(autouse=True, scope="session")
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    os.environ["DEPTHNET_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Every connection to another machine fails at once and loudly."""
    import socket

    connect = socket.socket.connect

    def only_here(self: socket.socket, address: object) -> None:
        if isinstance(address, tuple) and address[0] not in ("127.0.0.1", "::1", "localhost"):
            raise AssertionError(f"a test reached for the network: {address}")
        connect(self, address)  # type: ignore[arg-type]

    monkeypatch.setattr(socket.socket, "connect", only_here)
    return


@pytest.fixture(scope="session")
def real_nyu() -> Path:
    """The folder of real NYU pairs, where this machine has them."""
    root = DATA / "nyu"
    if not (root / "nyudepthv2_val_files_with_gt.txt").is_file():
        pytest.skip("no real NYU pairs here")
    return root


@pytest.fixture
def make_lists(tmp_path: Path) -> Callable[..., Path]:
    """Write a small data set in the ``lists`` layout and return its root."""

    def make(
        train: int = 6, val: int = 3, test: int = 0, size: tuple[int, int] = (48, 64), holes: bool = False
    ) -> Path:
        root = tmp_path / "nyu"
        (root / "train").mkdir(parents=True)
        number = 0
        for split, count in (("train", train), ("val", val), ("test", test)):
            rows = []
            for _ in range(count):
                Image.fromarray(picture(number, size)).save(root / f"train/rgb_{number:05d}.jpg", quality=95)
                Image.fromarray(millimetres(number, size, holes)).save(root / f"train/sync_depth_{number:05d}.png")
                rows.append(f"train/rgb_{number:05d}.jpg train/sync_depth_{number:05d}.png 518.8579\n")
                number += 1
            number += 1  # a gap in the numbers parts two scenes
            if rows:
                (root / f"nyudepthv2_{split}_files_with_gt.txt").write_text("".join(rows))
        return root

    return make


@pytest.fixture
def make_kaggle(tmp_path: Path) -> Callable[..., Path]:
    """Write a small data set in the ``kaggle`` layout and return the folder above its ``data``."""

    def make(scenes: int = 4, frames: int = 3, test: int = 2, size: tuple[int, int] = (48, 64)) -> Path:
        root = tmp_path / "kaggle"
        rows = []
        for scene in range(scenes):
            folder = f"data/nyu2_train/living_room_{scene:04d}_out"
            (root / folder).mkdir(parents=True)
            for frame in range(1, frames + 1):
                seed = 10 * scene + frame
                Image.fromarray(picture(seed, size)).save(root / folder / f"{frame}.jpg", quality=95)
                levels = (millimetres(seed, size) / 10000 * 255).round().astype(np.uint8)
                if frame == 1:  # some copies of this archive hold three equal channels
                    levels = np.repeat(levels[:, :, None], 3, axis=2)
                Image.fromarray(levels).save(root / folder / f"{frame}.png")
                rows.append(f"{folder}/{frame}.jpg,{folder}/{frame}.png\n")
        (root / "data/nyu2_train.csv").write_text("".join(rows))
        rows = []
        if test:
            (root / "data/nyu2_test").mkdir()
        for frame in range(test):
            name = f"data/nyu2_test/{frame:05d}"
            Image.fromarray(picture(900 + frame, size)).save(root / f"{name}_colors.png")
            Image.fromarray(millimetres(900 + frame, size)).save(root / f"{name}_depth.png")
            rows.append(f"{name}_colors.png,{name}_depth.png\n")
        if test:
            (root / "data/nyu2_test.csv").write_text("".join(rows))
        return root

    return make


class Outcome(NamedTuple):
    """What a run of train.py left: its exit code, and what it wrote to stdout and stderr."""

    code: int
    out: str
    err: str


@pytest.fixture
def train(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Outcome]:
    """Run ``train.py`` in this process, in an empty working directory, as a command line would."""
    import train as script

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")

    def run(*overrides: str) -> Outcome:
        monkeypatch.setattr("sys.argv", ["train.py", *overrides])
        capfd.readouterr()
        code = 0
        try:
            script.main()
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
        return Outcome(code, *capfd.readouterr())

    return run
