"""A run of several processes: one directory, one config, one end, whoever has started them.

The first process decides what is run, and stores it. Lightning starts its children then; those that torchrun or srun
have started wait until then. Each takes the config from the directory that the first one names. When one of them dies,
the others end too.
"""

from __future__ import annotations

import contextlib
import faulthandler
import json
import logging
import os
import re
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from subprocess import Popen
from threading import Event, Thread, Timer
from typing import TYPE_CHECKING, Any, NoReturn

from depthnet.run import CONFIG, RUN, first_process, has_last
from depthnet.signals import Stopped
from depthnet.types import InputError
from depthnet.words import MULTIRUN

if TYPE_CHECKING:
    from lightning import Trainer

__all__ = ["LAST_WORDS", "check_processes", "gathered", "together"]

log = logging.getLogger("depthnet")

LAST_WORDS: list[Callable[[Path, str], object]] = []
"""What is called where a first process has to end at once: with the run's directory, and with why it failed, which is
empty where it was told to stop."""

_COME = timedelta(minutes=10)  # for all processes to be there
_HEARD = timedelta(minutes=1)
_SEEN = 60.0  # seconds until a file that another host has written is seen
_LOOK = 1.0  # seconds
_GRACE = 10.0  # seconds for the first process to find out by itself that another has died
_STOP = 3.0  # that another was told to stop
_END = 60.0  # seconds that a process has to end after the first one
_PARENT = "DEPTHNET_PARENT"  # the first process, which may have died before a child can ask for its parent
_SET = ("MASTER_ADDR", "MASTER_PORT", "NODE_RANK", "LOCAL_RANK", "WORLD_SIZE", "OMP_NUM_THREADS", RUN, _PARENT)

_store: Any = None  # where the processes meet that were started one by one
_word = f"depthnet/{os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}"  # torchrun's store outlives a start
_told = False
_script = ""


@contextlib.contextmanager
def gathered(script: str) -> Iterator[None]:
    """Make one run of the processes that were started together: all but the first wait here for its word.

    The first one says which directory it runs in as soon as :func:`together` begins; the others then compose nothing
    of their own. If it ends before that, they end too.

    Args:
        script: The path of ``train.py``, which Lightning's children run.

    Raises:
        InputError: If a sweep was started so, not all processes came, the first one has died, or its directory is not
            seen from here.
    """
    global _store, _script
    _script, place = str(Path(script).resolve()), _started()
    if place is None and "SLURM_JOB_ID" in os.environ:
        # alone, whatever its batch script was given; by this name Lightning starts processes itself instead of waiting
        os.environ |= {"SLURM_JOB_NAME": "interactive", "SLURM_PROCID": "0"}
    if place is not None and _store is None:
        rank, count = place
        if MULTIRUN & set(sys.argv):
            raise InputError(f"a sweep starts its own processes, and here are {count}: start it by python train.py -m")
        _store = _meet(rank, count)
        if rank:
            _follow(_await_word(_store, rank), rank)
        try:
            with _quiet(rank > 0):
                yield
        finally:
            if not rank and not _told:
                with contextlib.suppress(RuntimeError):
                    _store.set(_word, "")
                    _store.wait([f"{_word}/{other}" for other in range(1, count)], _HEARD)
    elif first_process():
        os.environ.pop(RUN, None)
        yield
    else:
        if place is None and RUN in os.environ:
            _follow(os.environ[RUN], int(os.environ["LOCAL_RANK"]))
        with _quiet(True):
            yield


def check_processes(trainer: Trainer) -> None:
    """Refuse a trainer that would wait for processes that were not started, or not use those that were.

    Raises:
        InputError: If they do not fit.
    """
    devices, nodes, place = trainer.num_devices, trainer.num_nodes, _started()
    if place is None and nodes > 1 and first_process():
        raise InputError(f"trainer.num_nodes={nodes}: start it on every host, by torchrun or srun (docs/scale.md)")
    if place is not None and (trainer.strategy.launcher is None or place[1] != devices * nodes):
        raise InputError(
            f"{place[1]} processes were started, and the trainer has {devices} on {nodes} hosts; give trainer=ddp, "
            "trainer.devices (processes a host) and trainer.num_nodes (hosts)"
        )
    if place is not None:
        strategy: Any = trainer.strategy
        try:
            strategy.cluster_environment.validate_settings(num_devices=devices, num_nodes=nodes)
        except ValueError as error:  # such as two hosts with a process each, for two processes on one host
            raise InputError(f"trainer.devices={devices}, trainer.num_nodes={nodes}: {error}") from None


@contextlib.contextmanager
def together(trainer: Trainer) -> Iterator[None]:
    """Fit and judge on all processes of a run, and let none outlive it.

    Args:
        trainer: Its directory holds the run's stored config.

    Raises:
        InputError: In the first process, if another one has died.
    """
    global _told
    launcher: Any = trainer.strategy.launcher
    place = _started()
    if launcher is None:
        yield
        return
    import torch
    from lightning.pytorch.strategies.launchers import subprocess_script as lightning_launcher

    directory = Path(trainer.default_root_dir)
    if _store is not None and first_process() and not _told:
        _told = True
        _store.set(_word, json.dumps([str(directory), socket.gethostname()]))
    environment, threads = {name: os.environ.get(name) for name in _SET}, torch.get_num_threads()
    over, child = Event(), place is None and not first_process()
    parent = int(os.environ.get(_PARENT, os.getppid())) if child else os.getpid()
    line = f"the run failed, and its processes do not part; {_way_on(directory)}"

    def observe(children: Sequence[Popen[bytes]]) -> None:
        Thread(target=_watch_children, args=(children, over, directory), daemon=True).start()

    # private names of Lightning's; its version is bounded, and the tests fail where they have moved
    ours = {"_hydra_subprocess_cmd": _command, "_launch_process_observer": observe}
    former = {name: getattr(lightning_launcher, name) for name in ours}
    for name, function in ours.items():
        setattr(lightning_launcher, name, function)
    os.environ |= {RUN: str(directory), _PARENT: str(parent)}
    if child:
        Thread(target=_watch_parent, args=(parent, over, directory), daemon=True).start()
    failed = True
    try:
        yield
        failed = False
    except RuntimeError as error:
        over.set()
        lost = _lost(launcher.procs, error)
        if lost is None:
            raise
        if first_process():
            line = f"{lost}; {_way_on(directory)}"
            raise InputError(line) from error
        log.info("%s", lost)  # who has started the processes, or the first one, says it to the user
        _exit(_orphaned(directory) if child and os.getppid() != parent else "")
    finally:
        first = place is None and not child
        if not child:
            over.set()
        for name, function in former.items():
            setattr(lightning_launcher, name, function)
        if first and failed:
            _end(launcher.procs, _GRACE)
        if torch.distributed.is_initialized() and (first or not failed):
            # all at once: NCCL may wait for the others, and gloo may abort a process that ends with its group
            last = Timer(_END, _give_up, (directory, line))
            if first:  # what a group does that has lost a process is up to its backend
                last.start()
            torch.distributed.destroy_process_group()
            last.cancel()
        over.set()
        if failed and not first_process():
            # as it exits it leaves its group, and NCCL may wait for processes that wait for it; by then no thread runs
            faulthandler.dump_traceback_later(_END, exit=True, file=os.open(os.devnull, os.O_WRONLY))
        if first:
            _end(launcher.procs, _END)
            torch.set_num_threads(threads)
            for name, value in environment.items():
                if value is None:
                    os.environ.pop(name, None)
                else:
                    os.environ[name] = value


def _started() -> tuple[int, int] | None:
    """The number of this process and of all, if a launcher such as torchrun or srun has started several."""
    names = ("RANK", "WORLD_SIZE")
    if "RANK" not in os.environ:
        if os.environ.get("SLURM_JOB_NAME") in ("bash", "interactive"):
            return None  # the names are Lightning's
        names = ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS")  # a batch script without srun has SLURM_NTASKS too
    rank, count = (int(os.environ.get(name, 0)) for name in names)
    return (rank, count) if count > 1 else None


def _meet(rank: int, count: int) -> Any:
    """Return the store of all processes, which is torchrun's or in the first one."""
    from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
    from torch.distributed import TCPStore  # type: ignore[attr-defined]

    try:
        if "RANK" not in os.environ:
            slurm = SLURMEnvironment()
            os.environ["MASTER_ADDR"], os.environ["MASTER_PORT"] = slurm.main_address, str(slurm.main_port)
        address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        hosts = rank == 0 and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True"
        return TCPStore(address, port, count, hosts, _COME, multi_tenant=True)
    except KeyError as error:
        raise InputError(f"process {rank} of {count}: {error.args[0]} is not set; start by torchrun or srun") from None
    except RuntimeError as error:
        why = " ".join(str(error).split())[:300]
        raise InputError(f"process {rank} of {count}: the {count} processes do not meet ({why})") from None


def _await_word(store: Any, rank: int) -> str:
    """Wait until the first process says which directory the run is in."""
    try:
        while not store.check([_word]):  # no blocking call, which signals would have to wait for
            time.sleep(_LOOK / 2)
        word = store.get(_word).decode()
        store.set(f"{_word}/{rank}", "")
    except RuntimeError:
        raise InputError(f"process {rank}: the first process has ended before the run began") from None
    if not word:
        raise SystemExit(0)
    directory, host = json.loads(word)
    until = time.monotonic() + _SEEN
    while not Path(directory, CONFIG).exists():
        if time.monotonic() > until:
            raise InputError(
                f"{directory}: process 0 on {host} runs there, and process {rank} on {socket.gethostname()} finds no "
                f"{CONFIG} in it; several hosts need a file system that all share: name it by hydra.run.dir=DIR"
            )
        time.sleep(_LOOK)
    return str(directory)


def _follow(directory: str, rank: int) -> None:
    """Let Hydra compose no more than where this process logs; the stored config has the rest."""
    os.environ[RUN] = directory
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # or it prints a stack where the first process has ended
    sys.argv[1:] = [f"hydra.job.name=process_{rank}", "+hydra.job_logging.handlers.console.level=ERROR"]


@contextlib.contextmanager
def _quiet(wanted: bool) -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        if wanted:
            stack.enter_context(contextlib.redirect_stdout(stack.enter_context(Path(os.devnull).open("w"))))
        yield


def _command(local_rank: int) -> tuple[list[str], str]:
    """What Lightning starts a child by, and where: it is told the directory by its environment."""
    return [sys.executable, _script], str(Path.cwd())


def _lost(children: Sequence[Popen[bytes]], error: RuntimeError) -> str | None:
    """Say which process has died, if that is what an error came of."""
    import torch

    until = time.monotonic() + _GRACE
    apart = isinstance(error, torch.distributed.DistError) or "gloo" in str(error).lower()
    while not (died := _died(children)):
        if not apart or not children or time.monotonic() > until:
            break
        time.sleep(0.1)
    why = re.sub(r"^\[\S+\] ", "", " ".join(str(error).split())).partition(". ")[0]
    return died or (f"another process of this run has ended ({why[:200]})" if apart else None)


def _died(children: Sequence[Popen[bytes]]) -> str:
    for number, process in enumerate(children, 1):
        if code := process.poll():
            log_file = f"(see process_{number}.log)"
            how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code} {log_file}"
            return f"process {number} of {len(children) + 1} {how}"
    return ""


def _way_on(directory: Path) -> str:
    return f"go on with resume={directory}" if has_last(directory) else "nothing was saved yet"


def _watch_children(children: Sequence[Popen[bytes]], over: Event, directory: Path) -> None:
    """End this process where it does not find out by itself that a child has ended, because it waits for it."""
    while not over.wait(_LOOK):
        died, stop = _died(children), _stopped(children)
        # a first process that was told to stop itself may still end its loggers
        if died and not over.wait(_END if Stopped.raised else _STOP if stop else _GRACE):
            for process in children:
                process.kill()
            _give_up(directory, f"{died}; {_way_on(directory)}", stop)


def _watch_parent(parent: int, over: Event, directory: Path) -> None:
    """End this process where the first one has died."""
    while not over.wait(_LOOK):
        if os.getppid() != parent:
            _exit(_orphaned(directory))


def _orphaned(directory: Path) -> str:
    """What the second process says for all where the first has died."""
    first = os.environ["LOCAL_RANK"] == "1"
    return f"the first process of this run was killed; {_way_on(directory)}" if first else ""


def _stopped(children: Sequence[Popen[bytes]]) -> int:
    """The number of the signal that has stopped a child, and most likely was sent to all; 0 where none has."""
    names = ("SIGINT", "SIGTERM", "SIGUSR1")  # Windows has no SIGUSR1
    numbers = [getattr(signal, name) for name in names if hasattr(signal, name)]
    return next((n for process in children for n in numbers if process.poll() in (-n, 128 + n)), 0)


def _give_up(directory: Path, line: str, stop: int = 0) -> NoReturn:
    """End the first process, which cannot be reached where it waits."""
    log.error("error: %s", line)
    for say in LAST_WORDS:
        with contextlib.suppress(Exception):
            say(directory, "" if stop else line)
    _exit("", 128 + stop if stop else 1 if MULTIRUN & set(sys.argv) else 2)


def _exit(line: str, code: int = 1) -> NoReturn:
    """End at once: to leave a broken group in order takes seconds, or for ever."""
    if line:
        print(f"error: {line}", file=sys.stderr, flush=True)
    logging.shutdown()
    os._exit(code)


def _end(children: Sequence[Popen[bytes]], seconds: float) -> None:
    """Wait for the children to end, and end those that do not."""
    until = time.monotonic() + seconds
    for process in children:
        with contextlib.suppress(Exception):
            process.wait(max(0.0, until - time.monotonic()))
        process.kill()
        process.wait()
