"""Faults while files are written: kills between any two calls and at random, full disks, flipped bits, for real.

:func:`run_all` gives a row for each fault. The saves are killed in processes forked from one that has imported torch,
so that a hundred kills take a minute; so are the predictions.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import io
import itertools
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(REPOSITORY)]

from depthnet.core.atomic_io import remove_leftovers  # noqa: E402
from depthnet.core.types import DepthRange, InputError  # noqa: E402
from depthnet.models.checkpoint import RECORD_KEY, load_plain, make_record, newest_whole, previous, save_plain  # noqa: E402

Row = tuple[str, int, int, int, int]  # fault, tries, landed, survived, lost

FLOATS = 5_000_000  # 20 MB
PHOTOGRAPHS = 40
_MOUNTS_OF_ITS_OWN = 0x00020000  # CLONE_NEWNS


def run_all(folder: Path, quick: bool) -> list[Row]:
    """Inject every fault in a process of its own, with TMPDIR on another file system where there is one.

    Args:
        folder: An empty one; what is written goes there.
        quick: A fifth of the tries: for every change; else what the issue asks for.

    Returns:
        A row for each fault; one that cannot be injected here, such as a full disk without root, has no tries.
    """
    elsewhere = {"TMPDIR": "/dev/shm"} if os.access("/dev/shm", os.W_OK) else {}
    environment = {**os.environ, **elsewhere, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, __file__, str(folder), "quick" if quick else "long"]
    done = subprocess.run(command, stdout=subprocess.PIPE, env=environment, check=True, text=True)
    return [tuple(row) for row in json.loads(done.stdout)]


def content(step: int, floats: int = 1000) -> dict[str, Any]:
    """Return what a checkpoint of that step holds."""
    return {"step": step, "state_dict": {"weight": torch.full((floats,), float(step))}}


def steps(path: Path) -> list[int]:
    """Return the steps of a checkpoint's generations, newest first; none at all if one of them is not whole."""
    found = []
    for generation in filter(Path.exists, (path, previous(path))):
        try:
            loaded = load_plain(generation)
        except InputError as error:
            print(error, file=sys.stderr)
            return []
        if not (loaded["state_dict"]["weight"] == loaded["step"]).all():
            return []
        found.append(loaded["step"])
    return found


def forked(work: Callable[[], object]) -> int:
    """Start ``work`` in a process of its own and return its id."""
    child = os.fork()
    if child == 0:
        try:
            work()
            os._exit(0)
        finally:
            os._exit(1)
    return child


def ended(child: int) -> int:
    """Wait for a process and return its exit code, negative for a signal."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def kills_between_calls(folder: Path) -> Row:
    """Kill a save before and after each call by which it changes the disk.

    Args:
        folder: Where it saves.
    """
    path, lost = folder / "last.ckpt", 0
    save_plain(path, content(0))
    # Between two writes it is killed by kills_at_random.
    calls: list[tuple[Any, str]] = [(os, name) for name in ("replace", "rename", "unlink", "fsync", "open")]
    calls += [(io, "open")]

    def killed_save(step: int, moment: int) -> None:
        clock = itertools.count()

        def at_risk(call: Callable[..., Any]) -> Callable[..., Any]:
            def risky(*args: Any, **options: Any) -> Any:
                if next(clock) == moment:
                    os.kill(os.getpid(), signal.SIGKILL)
                result = call(*args, **options)
                if next(clock) == moment:
                    os.kill(os.getpid(), signal.SIGKILL)
                return result

            return risky

        for owner, name in calls:
            setattr(owner, name, at_risk(getattr(owner, name)))
        save_plain(path, content(step), keep=True)

    for landed in itertools.count():  # each moment in its turn
        before, after = 2 * landed + 1, 2 * landed + 2
        save_plain(path, content(before), keep=True)
        inode = path.stat().st_ino
        code = ended(forked(functools.partial(killed_save, after, landed)))
        in_place = path.exists() and path.stat().st_ino != inode
        lost += steps(path)[:1] != [after if in_place else before] or newest_whole(path)[1] != []
        if code == 0:
            return "kill between calls", landed, landed, landed - lost, lost
        assert code == -signal.SIGKILL
        remove_leftovers(folder)
        assert list(folder.glob(".*")) == []
    raise AssertionError


def kills_at_random(folder: Path, tries: int) -> Row:
    """Kill a process at random times while it saves 20 MB again and again."""
    path, lost = folder / "last.ckpt", 0
    save_plain(path, content(0, FLOATS))

    def save_for_ever(told: int) -> None:
        for step in itertools.count(max(steps(path), default=0) + 1):
            save_plain(path, content(step, FLOATS), keep=True)
            os.write(told, step.to_bytes(4, "little"))

    for _ in range(tries):
        hear, tell = os.pipe()
        child = forked(functools.partial(save_for_ever, tell))
        os.close(tell)
        first = os.read(hear, 4)
        time.sleep(random.uniform(0, 0.3))
        os.kill(child, signal.SIGKILL)
        assert ended(child) == -signal.SIGKILL
        with os.fdopen(hear, "rb") as rest:
            saved = int.from_bytes((first + rest.read())[-4:], "little")
        lost += max(steps(path), default=-1) < saved or newest_whole(path)[1] != []
        remove_leftovers(folder)
    return "kill during saves, TMPDIR elsewhere", tries, tries, tries - lost, lost


def files_too_large(folder: Path, tries: int) -> Row:
    """Save where a file may not be as large as the checkpoint (RLIMIT_FSIZE)."""
    path, lost = folder / "last.ckpt", 0
    for step in (0, 1):
        save_plain(path, content(step, FLOATS), keep=True)

    def save() -> None:
        limit = random.randrange(1000, 4 * FLOATS)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
        _is_refused(path, "File too large; 20.0 MB needed")

    for _ in range(tries):
        lost += ended(forked(save)) != 0 or steps(path) != [1, 0]
    return "file size limit during a save", tries, tries, tries - lost, lost


def full_disks(folder: Path, tries: int) -> Row:
    """Save on a small disk with anything from no room to nearly enough."""
    name = "full disk during a save"

    def mount() -> None:
        commands = (["mount", "--make-rprivate", "/"], ["mount", "-t", "tmpfs", "-o", "size=60m", "tmpfs", str(folder)])
        if ctypes.CDLL(None).unshare(_MOUNTS_OF_ITS_OWN) or any(subprocess.call(command) for command in commands):
            os._exit(3)

    def save() -> None:
        mount()
        path, ballast = folder / "last.ckpt", folder / "ballast"
        for step in (0, 1):
            save_plain(path, content(step, FLOATS), keep=True)
        size, page = path.stat().st_size, 4096
        rooms = [0, page, size - page, size // page * page, *(random.randrange(size) for _ in range(tries))][:tries]
        for room in rooms:
            ballast.write_bytes(b"")
            ballast.write_bytes(bytes(shutil.disk_usage(folder).free - room))
            _is_refused(path, r"No space left on device; 20\.0 MB needed, [0-9.,]+ (MB|bytes) free")
            assert steps(path) == [1, 0]
            assert list(folder.glob(".*")) == []
        ballast.unlink()
        save_plain(path, content(2, FLOATS), keep=True)
        assert steps(path) == [2, 1]

    code = ended(forked(save))
    tries = 0 if code == 3 else tries
    lost = tries if code else 0  # all of them: one is too many
    return name, tries, tries, tries - lost, lost


def _is_refused(path: Path, words: str) -> None:
    with pytest.raises(InputError, match=words + ".*; what was there before is untouched"):
        save_plain(path, content(9, FLOATS), keep=True)


def flipped_bits(folder: Path, tries: int) -> Row:
    """Flip one bit anywhere in the newest generation."""
    path, lost = folder / "last.ckpt", 0
    for step in (0, 1):
        save_plain(path, content(step), keep=True)
    whole = path.read_bytes()
    for _ in range(tries):
        place, bit = random.randrange(len(whole)), 1 << random.randrange(8)
        path.write_bytes(whole[:place] + bytes([whole[place] ^ bit]) + whole[place + 1 :])
        newest, refused = newest_whole(path)
        lost += newest != previous(path) or "last.ckpt.sha256" not in "".join(refused)
    return "flipped bit in a checkpoint", tries, tries, tries - lost, lost


def killed_predictions(folder: Path, kills: int) -> Row:
    """Kill ``predict.py`` at random times after its first output; what is there decodes, and is not made again."""
    import predict
    from depthnet.models.depth_net import DepthNet

    network = DepthNet("test_resnet", depth_range=DepthRange(1e-3, 10.0), image_size=(48, 64))
    state = {f"network.{name}": value for name, value in network.state_dict().items()}
    save_plain(folder / "best.ckpt", {"state_dict": state, RECORD_KEY: make_record(network)})
    photographs, output = folder / "photographs", folder / "out"
    photographs.mkdir()
    for number in range(PHOTOGRAPHS):
        pixels = np.random.default_rng(number).integers(0, 256, (48, 64, 3), np.uint8)
        Image.fromarray(pixels).save(photographs / f"{number}.jpg")
    said = folder / "said.txt"

    def predict_all() -> None:
        with said.open("w") as file, contextlib.redirect_stdout(file):
            assert predict.main([str(photographs), "--ckpt", str(folder / "best.ckpt"), "--output", str(output)]) == 0

    def finish(whole: dict[Path, int]) -> bool:
        """Let it end; whether it did the rest only."""
        code = ended(forked(predict_all))
        counts = f"{PHOTOGRAPHS - len(whole)} written, {len(whole)} kept, 0 failed"
        done = predicted(output)
        return code == 0 and counts in said.read_text() and len(done) == PHOTOGRAPHS and whole.items() <= done.items()

    tries = landed = lost = 0
    whole: dict[Path, int] = {}
    while landed < kills:
        tries += 1
        if len(whole) > PHOTOGRAPHS - 10:
            lost += not finish(whole)
            shutil.rmtree(output)
            whole = {}
        child = forked(predict_all)
        deadline = time.monotonic() + 60
        while len(list(output.glob("*.json"))) == len(whole) and time.monotonic() < deadline:
            time.sleep(0.005)
        time.sleep(random.uniform(0, 0.2))
        os.kill(child, signal.SIGKILL)
        landed += ended(child) == -signal.SIGKILL
        try:
            kept, whole = whole, predicted(output)
            lost += not kept.items() <= whole.items()
        except (OSError, ValueError):
            lost += 1
    lost += not finish(whole)
    return "kill during predict.py", tries, landed, landed - lost, lost


def predicted(output: Path) -> dict[Path, int]:
    """Return the photographs that are done, each with its record's inode; all that is there must decode."""
    for path in output.glob("[!.]*.npy"):
        assert np.load(path, allow_pickle=False).shape == (48, 64)
    for path in output.glob("[!.]*.png"):
        with Image.open(path) as picture:
            picture.load()
    done = {path: json.loads(path.read_bytes()) for path in output.glob("[!.]*.json")}
    for record in done.values():
        for name, size in record.get("files", {}).items():  # a record without them is of unfinished work
            assert (output / name).stat().st_size == size
    return {path: path.stat().st_ino for path, record in done.items() if "files" in record}


def _run_here(folder: Path, quick: bool) -> Iterator[Row]:
    torch.set_num_threads(1)

    def fresh() -> Path:
        return Path(tempfile.mkdtemp(dir=folder))

    with tempfile.TemporaryDirectory() as memory:  # the order of calls is the same on every disk
        yield kills_between_calls(Path(memory))
    yield kills_at_random(fresh(), 20 if quick else 100)
    yield files_too_large(fresh(), 4 if quick else 20)
    yield full_disks(fresh(), 6 if quick else 20)
    yield flipped_bits(fresh(), 200 if quick else 5000)
    yield killed_predictions(fresh(), 5 if quick else 20)


if __name__ == "__main__":
    with contextlib.redirect_stdout(sys.stderr):
        rows = list(_run_here(Path(sys.argv[1]), quick=sys.argv[2] == "quick"))
    print(json.dumps(rows))
