"""Several processes in a test: forked, because each new interpreter would take seconds to import torch."""

from __future__ import annotations

import contextlib
import functools
import multiprocessing
import os
import queue
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import pytest
from torch import distributed

PATIENCE = 300.0  # seconds; only a hang takes so long

_T = TypeVar("_T")


def forks(test: _T) -> _T:
    """Mark a test that forks."""
    quiet = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
    return pytest.mark.skipif(not hasattr(os, "fork"), reason="fork saves imports of torch")(quiet(test))


class Forked:
    """A process that calls a function; it ends with the function's SystemExit, or with 1 and a traceback."""

    def __init__(self, work: Callable[[], Any]) -> None:
        context = multiprocessing.get_context("fork")
        self._answer = context.Queue()
        self._process = context.Process(target=self._run, args=(work,))
        self._process.start()

    def _run(self, work: Callable[[], Any]) -> None:
        os.setsid()
        try:
            self._answer.put(work())
        except Exception:
            traceback.print_exc()
            sys.exit(1)

    def code(self) -> int:
        """Wait for the end and return the exit code."""
        self._process.join(PATIENCE)
        if self._process.exitcode is None:
            self._hangs()
        return self._process.exitcode

    def answer(self) -> Any:
        """Wait for what the function returns."""
        until = time.monotonic() + PATIENCE
        while True:
            try:
                found = self._answer.get(timeout=0.2)
                assert self.code() == 0
                return found
            except queue.Empty:
                assert self._process.exitcode in (None, 0), f"a process ended with {self._process.exitcode}"
                if time.monotonic() > until:
                    self._hangs()

    def _hangs(self) -> NoReturn:
        with contextlib.suppress(OSError):
            os.killpg(self._process.pid, signal.SIGKILL)  # and those that it has started
        pytest.fail("a process hangs")


def gloo(work: Callable[[int], _T], folder: Path, count: int = 2) -> list[_T]:
    """Call ``work(rank)`` in processes that form one gloo group, and return what each returned.

    Args:
        work: What they do.
        folder: An empty one, where they meet.
        count: How many there are.
    """

    def process(rank: int) -> _T:
        place = f"file://{folder}/rendezvous"
        distributed.init_process_group("gloo", init_method=place, rank=rank, world_size=count)
        try:
            return work(rank)
        finally:
            distributed.destroy_process_group()

    members = [Forked(functools.partial(process, rank)) for rank in range(count)]
    return [member.answer() for member in members]
