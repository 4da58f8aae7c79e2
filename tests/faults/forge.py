"""Runs of train.py as processes of their own, quickly: forks of one process that has imported everything.

    ended = Forge(folder).run(directory, "data=rooms", watch=functools.partial(send, signal.SIGKILL, b"S", 2, 0.01))

Each run tells, a byte at the start and the end of each phase, what it is doing, so that a fault can be aimed.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

REPOSITORY = Path(__file__).resolve().parents[2]
PHASES = {"t": "training", "S": "save", "s": "training", "V": "validation", "v": "training", "j": "evaluation"}


class Ended(NamedTuple):
    """How a process ended: its exit code, what it was doing, what it printed, and how many steps it took."""

    code: int
    phase: str
    output: str
    steps: int


class Forge:
    """Makes the forks.

    Args:
        folder: For pipes and outputs.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._count = 0
        quiet = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "HF_HUB_OFFLINE": "1", "WANDB_MODE": "offline"}
        quiet["DEPTHNET_CACHE"] = os.environ.get("DEPTHNET_CACHE", str(folder / "cache"))
        self._server = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=folder,
            env=os.environ | quiet,
        )  # fmt: skip
        atexit.register(self._server.kill)

    def run(
        self,
        directory: Path,
        *words: str,
        watch: Callable[[int, int], bytes] | None = None,
        before: str = "",
        environment: Mapping[str, str] | None = None,
    ) -> Ended:
        """Run ``train.py`` with these words to its end.

        Args:
            directory: The run's.
            words: Its command line.
            watch: Does something to the process (process, pipe that it tells its phases through), returns what it
                has heard.
            before: Python that the process executes first.
            environment: What is added to its environment.
        """
        self._count += 1
        pipe, output = (self._folder / f"{kind}_{self._count}_{time.monotonic_ns()}" for kind in ("pipe", "output"))
        os.mkfifo(pipe)
        order = {
            "words": [*words, f"hydra.run.dir={directory}"],
            "before": before,
            "environment": dict(environment or {}),
        }
        process = self._ask(order | {"pipe": str(pipe), "output": str(output)})
        hear = os.open(pipe, os.O_RDONLY)
        told = watch(process, hear) if watch else b""
        while part := os.read(hear, 65536):
            told += part
        os.close(hear)
        pipe.unlink()
        code = self._ask({"wait": process})
        return Ended(
            code, PHASES[chr(told[-1])] if told else "start", output.read_text(errors="replace"), told.count(b"t")
        )

    def _ask(self, order: Mapping[str, Any]) -> int:
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        print(json.dumps(order), file=self._server.stdin, flush=True)
        return int(self._server.stdout.readline())


def _serve() -> None:
    sys.path.insert(0, str(REPOSITORY))
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    import torch

    torch.set_num_threads(1)
    import lightning.pytorch.callbacks  # noqa: F401
    import timm  # noqa: F401

    import depthnet.evaluation.report.write
    import depthnet.training.fit  # noqa: F401
    import train  # noqa: F401

    for line in sys.stdin:
        order = json.loads(line)
        if "wait" in order:
            answer = os.waitstatus_to_exitcode(os.waitpid(order["wait"], 0)[1])
        elif not (answer := os.fork()):
            _work(order)
        print(answer, file=answers, flush=True)


def _work(order: Mapping[str, Any]) -> None:
    code: Any = 70
    try:
        os.setpgrp()
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        tell = os.open(order["pipe"], os.O_WRONLY)
        output = os.open(order["output"], os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.environ.update(order["environment"])
        os.register_at_fork(after_in_child=lambda: os.close(tell))  # a worker outlives its run by seconds
        _tell_phases(tell)
        import train

        exec(order["before"], {"tell": tell})
        sys.argv = ["train.py", *order["words"]]
        train.main()
        code = 0
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else 1
    except BaseException:
        traceback.print_exc()
        code = 1
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _tell_phases(tell: int) -> None:
    import depthnet.training.checkpoint_io
    from depthnet.training.module import DepthModule

    def around(owner: Any, name: str, before: bytes, after: bytes) -> None:
        inner = getattr(owner, name)

        def outer(*args: Any, **kwargs: Any) -> Any:
            os.write(tell, before)
            result = inner(*args, **kwargs)
            os.write(tell, after)
            return result

        setattr(owner, name, outer)

    around(depthnet.training.checkpoint_io, "save_plain", b"S", b"s")
    around(DepthModule, "on_train_batch_start", b"", b"t")
    around(DepthModule, "on_validation_epoch_start", b"V", b"")
    around(DepthModule, "on_validation_epoch_end", b"", b"v")
    around(DepthModule, "on_test_epoch_start", b"j", b"")


if __name__ == "__main__":
    _serve()
