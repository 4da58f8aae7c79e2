"""Training from Python: ``depthnet.fit(["model=tiny", "data=rooms"])`` runs ``train.py`` in a process of its own."""

from __future__ import annotations

import os
import runpy
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import depthnet
from depthnet.core.types import InputError
from depthnet.run.files import read_metrics


class RunResult(NamedTuple):
    """A finished run.

    Attributes:
        directory: Its directory; checkpoints/best.ckpt in it is the best checkpoint.
        metrics: Its ``metrics.json``: under "protocols" and "intervals" the metrics by protocol.
    """

    directory: Path
    metrics: dict[str, Any]


def train_script() -> Path:
    """Return the path of ``train.py``: inside an installed package, beside the package in a checkout."""
    package = Path(depthnet.__file__).parent
    return next(path for path in (package / "train.py", package.parent / "train.py") if path.is_file())


def main(arguments: Sequence[str]) -> int:
    """Run ``depthnet train``: ``train.py`` in this process, which exits by itself unless all went well."""
    path = str(train_script())
    sys.argv = [path, *arguments]  # Lightning's launcher starts further processes by these words
    runpy.run_path(path, run_name="__main__")
    return 0


def fit(config: Sequence[str], directory: str | os.PathLike[str] | None = None) -> RunResult:
    """Fit a network and evaluate it, or resume that run if ``directory`` holds it; its output is printed.

    Args:
        config: What follows ``python train.py`` on a command line, such as ``["model=irv2_attn", "seed=1"]``.
        directory: The run's directory; None for ``runs/<time>``.

    Raises:
        InputError: If the config or the data cannot be used; the message is the run's.
        RuntimeError: If the run failed or was stopped.
    """
    place = Path(directory or Path("runs", time.strftime("%Y-%m-%d_%H-%M-%S"))).absolute()
    resume = [] if any(word.startswith("resume=") for word in config) else ["resume=auto"]
    quoted = str(place).replace("\\", "\\\\").replace('"', '\\"')
    words = [sys.executable, str(train_script()), *config, f'hydra.run.dir="{quoted}"', *resume]
    last, pipe = "", subprocess.PIPE
    with subprocess.Popen(words, stdout=pipe, stderr=subprocess.STDOUT, text=True, errors="replace") as process:
        for line in process.stdout or ():
            print(line, end="", flush=True)
            last = line.strip() or last
    if process.returncode == 2:
        raise InputError(last.removeprefix("error: "))
    if process.returncode:
        raise RuntimeError(f"the run in {place} ended with exit code {process.returncode}: {last}")
    return RunResult(place, read_metrics(place))
