"""Signals that stop a run: the step is finished and saved, and the exit code names the signal.

The first SIGTERM, SIGINT (Ctrl-C) or, in a SLURM job, SIGUSR1 is only noted while a training step is under way;
the training loop reads :attr:`Signals.received` after each. At any other time it ends the process as an exception
would. A second one ends it at once.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from types import FrameType, TracebackType
from typing import Any


class Stopped(SystemExit):
    """A signal stopped the process; the exit code is 128 plus the signal's number, as in shells."""

    def __init__(self, number: int) -> None:
        super().__init__(128 + number)


class Signals:
    """Handlers of the signals that ask a run to stop, from ``with`` to its end; of one process, never of its forks.

    Attributes:
        received: The number of the signal that came; None where none has.
        patient: Whether a first signal is only noted, because the training loop reads it after each step.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self.patient = False
        self._process = os.getpid()
        self._former: dict[int, Any] = {}

    def __enter__(self) -> Signals:
        numbers = [signal.SIGTERM, signal.SIGINT]
        if "SLURM_JOB_ID" in os.environ:
            numbers.append(signal.SIGUSR1)  # what `sbatch --signal=USR1@120` sends before the time is up
        self._former = {number: signal.signal(number, self._handle) for number in numbers}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._former.items():
            signal.signal(number, handler)
        self._former.clear()

    def renew(self) -> None:
        """Set the handlers again, after a library has set its own."""
        for number in self._former:
            signal.signal(number, self._handle)

    @property
    def requeues(self) -> bool:
        """Whether SLURM's signal came, after which the job is to run again."""
        return self.received is not None and self.received == getattr(signal, "SIGUSR1", None)

    def check(self) -> None:
        """Raise :class:`Stopped` if a signal came."""
        if self.received is not None:
            raise Stopped(self.received)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._process:  # a forked worker: its parent decides
            return
        if self.received is not None:
            os._exit(128 + number)
        self.received = number
        name = signal.Signals(number).name
        words = "finishing the step and saving; a second signal stops at once" if self.patient else "stopping"
        os.write(sys.__stderr__.fileno() if sys.__stderr__ else 2, f"{name}: {words}\n".encode())
        if not self.patient:
            raise Stopped(number)


def requeue() -> str:
    """Ask SLURM to run this job again, and return a line about the result."""
    array = os.environ.get("SLURM_ARRAY_JOB_ID")
    job = f"{array}_{os.environ.get('SLURM_ARRAY_TASK_ID')}" if array else os.environ.get("SLURM_JOB_ID", "")
    try:
        done = subprocess.run(["scontrol", "requeue", job], capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.SubprocessError) as error:
        return f"SLURM: job {job} could not be queued again ({error})"
    if done.returncode:
        return f"SLURM: job {job} could not be queued again ({' '.join(done.stderr.split())})"
    return f"SLURM: job {job} is queued again"
