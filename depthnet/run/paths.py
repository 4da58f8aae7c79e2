"""A run's directory: its name, the lock that keeps it to one run, and its removal after a start that failed."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from depthnet.core.atomic_io import locked, remove_leftovers, require_writable
from depthnet.core.types import LAST, InputError
from depthnet.run.distributed import first_process, started_processes
from depthnet.run.files import CONFIG, RECORD
from depthnet.run.naming import start_name
from depthnet.run.signals import Signals, Stopped, requeue

_RUNS = "runs"
_OF_A_START = (".lock", "multirun.yaml", CONFIG, RECORD)


def run_directory(
    data: str,
    model: str,
    encoder: str | None,
    mode: str,
    resume: str | None,
    ckpt: str | None = None,
    overrides: Sequence[str] = (),
) -> str:
    """Return the directory of a run: the one that is resumed, or a new one named after data, model and time.

    The model is the checkpoint's that the run starts from, unless the command line names another.

    Raises:
        InputError: If the run to resume is not there, or resume=auto or several processes have no directory named.
    """
    if resume == "auto":
        raise InputError("resume=auto resumes in a directory that every start names: add hydra.run.dir=DIR")
    if resume is not None:
        if not Path(resume, CONFIG).is_file():
            raise InputError(f"resume={resume}: no run there (looked for {CONFIG}); name the directory of a run")
        return str(resume)
    if (count := started_processes()) > 1:
        raise InputError(
            f"{count} processes were started, and each would name another directory: add hydra.run.dir=DIR"
        )
    name = mode if mode != "fit" else encoder if model == "unet_attn" and encoder else model
    if mode == "fit" and ckpt and not any(word.startswith("model=") for word in overrides):
        name = f"from_{start_name(ckpt)}"
    stem = Path(_RUNS, f"{data}_{name}", time.strftime("%Y-%m-%d_%H-%M-%S"))
    number, path = 1, stem
    while path.exists():
        number += 1
        path = stem.with_name(f"{stem.name}_{number}")
    return str(path)


@contextlib.contextmanager
def run_lock(directory: Path, wait: bool = False) -> Iterator[Signals]:
    """Keep a directory to one run, cleared of what a killed one left half written, and listen to signals.

    Of several processes, the first one does so; the others report errors only.

    Args:
        directory: Of the run.
        wait: For the end of another that is at work there: the same job of a sweep.

    Raises:
        InputError: If another run is at work there, or nothing can be written there.
    """
    require_writable(directory)
    with Signals() as signals, contextlib.ExitStack() as stack:
        if first_process():
            stack.enter_context(locked(directory, wait))
            for folder in ("", LAST.parent, "panels", "nonfinite"):
                remove_leftovers(directory / folder)
        else:
            stack.enter_context(contextlib.redirect_stdout(stack.enter_context(Path(os.devnull).open("w"))))
            stack.callback(logging.disable, logging.root.manager.disable)
            logging.disable(logging.WARNING)
        try:
            yield signals
        except Stopped:
            if not first_process():  # Lightning's launcher would kill the first one, which may still end its loggers
                raise SystemExit(0) from None
            if signals.requeues:
                print(requeue(), flush=True)
            raise


def link_latest(directory: Path) -> None:
    """Point ``latest``, beside a run that was named after its time, to that run, where the file system has links."""
    if directory.absolute().parents[1].name != _RUNS:
        return
    link = directory.with_name("latest")
    with contextlib.suppress(OSError, NotImplementedError):
        if link.is_symlink():
            link.unlink()
        link.symlink_to(directory.name, target_is_directory=True)


def is_new(directory: Path) -> bool:
    """Return whether a directory holds nothing but the empty log that Hydra makes."""
    return all(path.suffix == ".log" and not path.stat().st_size for path in directory.iterdir())


def has_last(directory: Path) -> bool:
    """Return whether a run has saved a checkpoint to resume from, in whichever generation."""
    return any((directory / LAST.parent).glob(f"{LAST.stem}*{LAST.suffix}"))


def remove_start(directory: Path, since: float = 0.0) -> None:
    """Remove the directory of a run or sweep that a user's mistake has ended before it trained or evaluated anything.

    Folders above it, inside the working directory, go too where nothing else is in them.

    Args:
        directory: The run's or sweep's.
        since: Seconds since the epoch; a file that was there before keeps the directory.
    """
    there = {path.name: path for path in directory.rglob("*") if not path.is_dir()}
    if any(path.stat().st_mtime < since for path in there.values()):
        return
    steps = there.pop("steps.csv", None)
    if steps and steps.read_bytes().count(b"\n") > 1:
        return
    if any(name not in _OF_A_START and not name.endswith(".log") for name in there):
        return
    shutil.rmtree(directory, ignore_errors=True)
    link = directory.with_name("latest")
    if link.is_symlink() and not link.exists():
        link.unlink()
    with contextlib.suppress(OSError, ValueError):  # outside the working directory
        for parent in directory.resolve().relative_to(Path.cwd()).parents[:-1]:
            parent.rmdir()
