"""A run from its start or from where it stopped: settled once, fitted, judged; one that has ended tells its figures."""

from __future__ import annotations

import json
import logging
import socket
import time
from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer, seed_everything
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from rich.console import Console
from torch import nn

from depthnet.core.types import BEST, LAST, InputError
from depthnet.data.datamodule import DepthDataModule
from depthnet.evaluation.evaluator import metrics_table
from depthnet.evaluation.per_image import count_in_words
from depthnet.evaluation.report.write import write_report
from depthnet.models.checkpoint import fits, load_plain, newest_whole, read_checkpoint
from depthnet.run.config import (
    CONFIG,
    METRICS,
    altered,
    first_process,
    quiet_libraries,
    started_processes,
    store,
)
from depthnet.run.provenance import check_changes, note_overrides, versions
from depthnet.run.signals import Signals, Stopped
from depthnet.training.batch_size import settle_batch_size
from depthnet.training.checkpoint_io import Last
from depthnet.training.loggers import logged
from depthnet.training.overview import resolve_weights

log = logging.getLogger("depthnet")

_SEEN = 60.0  # seconds until a file that another host has written is seen


def settle(cfg: Any, directory: Path) -> None:
    """Decide, in place, what a config leaves to the machine, and seed all that is random.

    Args:
        cfg: The run's config.
        directory: The run's.

    Raises:
        InputError: If the pretrained weights are not available.
    """
    quiet_libraries()  # now that they are imported
    print(resolve_weights(cfg, directory), flush=True)
    settle_batch_size(cfg)
    seed_everything(cfg.seed, verbose=False)


def begin(
    trainer: Trainer,
    text: str,
    module: nn.Module,
    data: DepthDataModule | None,
    allow: Sequence[str],
    overrides: Sequence[str],
) -> None:
    """Store what a run is started with.

    Args:
        trainer: Its directory is the run's.
        text: The run's config, as :func:`depthnet.run.config.stored_text` gives it.
        module: What learns.
        data: What it learns from; None where it does not learn.
        allow: The kinds of change that do not stop a resumed run.
        overrides: The command line that the config is from.

    Raises:
        InputError: If a resumed run would learn from other data or by other code, its weights fit no more, or the
            trainer does not fit the processes that were started.
    """
    check_processes(trainer)
    directory = Path(trainer.default_root_dir)
    if trainer.num_devices * trainer.num_nodes > 1:
        trainer.callbacks.append(_OneConfig(directory, text))  # type: ignore[attr-defined]
    if data is not None and first_process():
        path = directory / CONFIG
        changed = path.exists() and path.read_text(encoding="utf-8") != text
        last = last_whole(directory) if changed else None
        if last and not fits(module, load_plain(last)["state_dict"]):
            raise InputError(
                f"resume={directory}: its weights do not fit this model; start another run with "
                f"ckpt={directory / BEST}, which takes what fits"
            )
        check_changes(directory, data.facts(), versions(), allow)
    if first_process():
        note_overrides(directory, overrides)
        store(directory, text)


def check_processes(trainer: Trainer) -> None:
    """Refuse a trainer that would wait for processes that were not started, or not use those that were.

    Raises:
        InputError: If they do not fit.
    """
    started, devices, nodes = started_processes(), trainer.num_devices, trainer.num_nodes
    environment = getattr(trainer.strategy, "cluster_environment", None)
    if environment is not None and not environment.creates_processes_externally:  # Lightning starts them
        if nodes > 1:
            raise InputError(f"trainer.num_nodes={nodes}: start it on every host, by torchrun or srun (docs/scale.md)")
    elif started != devices * nodes:
        raise InputError(
            f"{started} processes were started (torchrun and srun start several), and the trainer has {devices} on "
            f"{nodes} hosts; give trainer=ddp, trainer.devices (processes a host) and trainer.num_nodes (hosts)"
        )
    if environment is not None:
        try:
            environment.validate_settings(num_devices=devices, num_nodes=nodes)
        except ValueError as error:  # such as two hosts with a process each, for two processes on one host
            raise InputError(f"trainer.devices={devices}, trainer.num_nodes={nodes}: {error}") from None


class _OneConfig(Callback):
    """Ends processes that have another config than the first one, or do not see its directory.

    Args:
        directory: The run's.
        text: The config that this process has composed.
    """

    def __init__(self, directory: Path, text: str) -> None:
        self._path = directory / CONFIG
        self._text = text

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Compare the config with that of the first process, and wait until what it has stored is seen."""
        first, host = trainer.strategy.broadcast((self._text, socket.gethostname()))
        here, until = f"process {trainer.global_rank} on {socket.gethostname()}", time.monotonic() + _SEEN
        if self._text != first:
            lines = zip_longest(self._text.splitlines(), first.splitlines(), fillvalue="nothing")
            own, other = next((own, other) for own, other in lines if own != other)
            raise InputError(f"{here} has {own.strip()}, and process 0 has {other.strip()}: write it out for both")
        while not self._path.exists():
            if time.monotonic() > until:
                raise InputError(
                    f"{here} does not see {self._path}, which process 0 on {host} has written; several hosts need a "
                    "file system that all share: name a directory there by hydra.run.dir=DIR"
                )
            time.sleep(1.0)


def last_whole(directory: Path) -> Path | None:
    """Return the newest checkpoint of a run that is whole, and say why a newer one is not taken; None for a new run.

    Raises:
        InputError: If there are some, but none is whole.
    """
    newest, refused = newest_whole(directory / LAST)
    for line in refused:
        log.warning("resume: not taken: %s", line)
    if newest is None and refused:
        best = directory / BEST
        weights = f"ckpt={best} starts a new run from its best weights" if best.exists() else "start a new run"
        raise InputError(f"resume={directory}: none of its checkpoints is whole ({refused[0]}); {weights}")
    return newest


def fit_and_judge(
    trainer: Trainer, module: Any, data: DepthDataModule, split: str, directory: Path | None, signals: Signals
) -> None:
    """Fit from the start or from the last step that was saved, and judge the best checkpoint.

    Args:
        trainer: Carries both out; its loggers' runs are ended.
        module: The DepthModule.
        data: The data of both.
        split: The split that is judged.
        directory: The run's directory; None to judge the weights that the module holds.
        signals: What may ask the run to stop.

    Raises:
        InputError: If none of the run's checkpoints is whole, or training cannot go on.
        Stopped: If a signal asked for it; a fit has saved its place.
    """
    for callback in trainer.callbacks:  # type: ignore[attr-defined]  # Lightning's type leaves it out
        if isinstance(callback, Last):
            callback.signals = signals
    # what Last saves holds the state of the others after this step
    trainer.callbacks.sort(key=lambda callback: isinstance(callback, Last))  # type: ignore[attr-defined]
    try:
        with logged(trainer.loggers, module.run):
            if directory is not None:
                _check_stopping(trainer)
                trainer.fit(module, data, ckpt_path=last_whole(directory), weights_only=True)
                chosen = [c for c in trainer.checkpoint_callbacks if getattr(c, "best_model_score", None) is not None]
                if (directory / BEST).exists():
                    module.network.load_state_dict(read_checkpoint(directory / BEST).state)
                elif chosen:
                    raise InputError(
                        f"{directory / BEST}: is missing, though the run had chosen it; put it back, or judge "
                        f"{directory / LAST} with mode=test ckpt="
                    )
                else:
                    log.warning("%s, so the last weights are judged", _why_no_best(trainer))
            trainer.test(module, data.eval_dataloader(split), verbose=False)
    except Exception:
        signals.check()  # a worker that was sent the signal too is no fault
        raise
    except Stopped:
        _leave_group()
        raise
    _leave_group()


def _leave_group() -> None:
    """Leave the group of processes where all do so: gloo may abort one that ends in it."""
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def _check_stopping(trainer: Trainer) -> None:
    """Raise InputError if training is to stop by a figure that no validation gives."""
    for callback in trainer.callbacks:  # type: ignore[attr-defined]  # Lightning's type leaves it out
        if isinstance(callback, EarlyStopping) and callback.monitor.startswith("val/") and not _validates(trainer):
            raise InputError(
                f"callbacks.early_stopping watches {callback.monitor}, and with trainer.limit_val_batches=0 nothing is "
                "validated; leave out one of them"
            )


def _validates(trainer: Trainer) -> bool:
    return trainer.limit_val_batches != 0


def _why_no_best(trainer: Trainer) -> str:
    """Why a fit that has ended has no best checkpoint."""
    if trainer.fast_dev_run:  # type: ignore[attr-defined]  # Lightning's type leaves it out
        return "trainer.fast_dev_run keeps no best checkpoint"
    if not _validates(trainer):
        return "with trainer.limit_val_batches=0 nothing was validated"
    if not any(isinstance(callback, ModelCheckpoint) for callback in trainer.checkpoint_callbacks):
        return "no callback keeps a best checkpoint"
    if not trainer.fit_loop.epoch_loop.val_loop.batch_progress.total.completed:
        return "no validation took place before the last step"
    return "no validation gave a finite figure to choose by"


def finished(cfg: Any, directory: Path) -> float | None:
    """Print the figures of a run that has ended, and return the watched one; None where it has not.

    Args:
        cfg: The config to run; one by which the run learns otherwise lets it go on.
        directory: The run's directory.

    Raises:
        InputError: If its record cannot be read.
    """
    path = directory / METRICS
    if not cfg.resume or not path.is_file() or altered(cfg, directory):
        return None
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        figures = {"this checkpoint": stored["protocols"]}
        if stored.get("mean_map"):
            figures["mean map"] = stored["mean_map"]
        counts = count_in_words(stored["images"], stored["expected"])
        title = f"{stored['data']['description']}, {stored['split']}: {counts}"
        table = metrics_table(figures, title, {"this checkpoint": stored["intervals"]})
        figure = float(next(iter(stored["protocols"].values()))[cfg.watch.partition("/")[2]])
    except (ValueError, LookupError, TypeError, AttributeError, StopIteration):
        raise InputError(f"{path}: no record of a judgement; remove it, and the run is judged again") from None
    print(f"run:  {directory}\nit has ended; its figures, as {path} holds them:")
    Console().print(table)
    if cfg.get("report") and first_process() and not (directory / "report.html").exists():
        print(f"report: {write_report(directory)}")
    return figure
