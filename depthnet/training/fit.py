"""A run after its parts are built: store what it is started with, fit, evaluate."""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from lightning import Trainer
from lightning.pytorch.callbacks import EarlyStopping
from omegaconf import OmegaConf
from torch import nn

from depthnet.core.types import BEST, LAST, InputError
from depthnet.data.datamodule import DepthDataModule
from depthnet.models.checkpoint import fits, load_plain, newest_whole, read_checkpoint
from depthnet.run.config import store_config
from depthnet.run.distributed import check_processes, first_process
from depthnet.run.files import CONFIG, update_record
from depthnet.run.paths import link_latest
from depthnet.run.provenance import check_changes, versions
from depthnet.run.signals import Signals, Stopped
from depthnet.training.callbacks.resume_checkpoint import ResumeCheckpoint
from depthnet.training.loggers import logged

log = logging.getLogger("depthnet")

_NOISE = (
    r".*treespec, LeafSpec.*is deprecated",  # Lightning's own call of torch
    r"You're resuming from a checkpoint that ended before the epoch ended",  # as the data module does
    r".*does not have many workers",  # one worker is what two cores have room for
    r"Checkpoint directory .* exists and is not empty",  # so it is in a run that is resumed
    r"The `srun` command is available",  # one process does without
    r"Detected call of `lr_scheduler.step",  # the loss scale of 16-mixed is found by steps that are not taken
    r".*smaller than the logging interval",  # short runs log their last step all the same
    r"It is recommended to use `self.log\('(train|val)/",  # those metrics are of all processes already
)


def quiet_libraries() -> None:
    """Keep Lightning's greetings and needless advice out of a run's output; let any file's name be printed."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # a frame's name may be no valid text
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.getLogger("lightning.pytorch.profilers").setLevel(logging.INFO)  # the report of trainer.profiler
    logging.getLogger("lightning").handlers.clear()  # or it would come twice
    for message in _NOISE:
        warnings.filterwarnings("ignore", message=message)


def start_run(
    trainer: Trainer,
    config: Mapping[str, Any],
    module: nn.Module,
    data: DepthDataModule | None,
    allow: Sequence[str],
    command: Mapping[str, Any],
) -> None:
    """Store what a run is started with; of several processes, the first one does.

    Args:
        trainer: Its directory is the run's.
        config: The run's config, as :func:`depthnet.run.config.plain_config` gives it.
        module: What learns.
        data: What it learns from; None where it does not learn.
        allow: The kinds of change that do not stop a resumed run.
        command: What ``run.json`` keeps of the command line: its words and the config composed of them.

    Raises:
        InputError: If a resumed run would learn from other data or by other code, its weights fit no more, or the
            trainer does not fit the processes that were started.
    """
    check_processes(trainer)
    if not first_process():
        return
    directory, text = Path(trainer.default_root_dir), OmegaConf.to_yaml(OmegaConf.create(dict(config)))
    path = directory / CONFIG
    if data is not None:
        changed = path.exists() and path.read_text(encoding="utf-8") != text
        last = last_whole(directory) if changed else None
        if last and not fits(module, load_plain(last)["state_dict"]):
            raise InputError(
                f"resume={directory}: its weights do not fit this model; start another run with "
                f"ckpt={directory / BEST}, which takes what fits"
            )
        check_changes(directory, data.facts(), versions(), allow)
    if path.exists():  # the config first: a kill in between leaves a change that the next start sees again
        store_config(directory, text)
        update_record(directory, **command)
    else:
        update_record(directory, **command)
        store_config(directory, text)
        link_latest(directory)


def fit_and_evaluate(trainer: Trainer, module: Any, data: DepthDataModule, fit: bool, signals: Signals) -> None:
    """Fit from the start or from the last step that was saved, and evaluate the best checkpoint.

    Args:
        trainer: Carries both out; its loggers' runs are ended.
        module: The DepthModule.
        data: The data of both.
        fit: Whether to fit; otherwise the weights that the module holds are evaluated.
        signals: What may ask the run to stop.

    Raises:
        InputError: If none of the run's checkpoints is whole, or training cannot continue.
        Stopped: If a signal asked for it; a fit has saved its place.
    """
    directory = Path(trainer.default_root_dir)
    for callback in trainer.callbacks:  # type: ignore[attr-defined]  # Lightning's type leaves it out
        if isinstance(callback, ResumeCheckpoint):
            callback.signals = signals
    # what it saves holds the state of the others after this step
    trainer.callbacks.sort(key=lambda callback: isinstance(callback, ResumeCheckpoint))  # type: ignore[attr-defined]
    try:
        with logged(trainer.loggers, module.run):
            if fit:
                _check_stopping(trainer)
                trainer.fit(module, data, ckpt_path=last_whole(directory), weights_only=True)
                if (directory / BEST).exists():
                    module.network.load_state_dict(read_checkpoint(directory / BEST).state)
                else:
                    _report_no_best(trainer, directory)
            trainer.test(module, datamodule=data, verbose=False)
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


def last_whole(directory: Path) -> Path | None:
    """Return the newest whole checkpoint of a run, logging why a newer one is not taken; None for a new run.

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


def _check_stopping(trainer: Trainer) -> None:
    """Raise InputError if training is to stop by a metric that no validation gives."""
    if trainer.limit_val_batches:
        return
    for callback in trainer.callbacks:  # type: ignore[attr-defined]  # Lightning's type leaves it out
        if isinstance(callback, EarlyStopping) and callback.monitor.startswith("val/"):
            raise InputError(
                f"callbacks.early_stopping watches {callback.monitor}, and with trainer.limit_val_batches=0 nothing is "
                "validated; leave out one of them"
            )


def _report_no_best(trainer: Trainer, directory: Path) -> None:
    """Log that a fit has no best checkpoint; raise InputError if it had one."""
    if any(getattr(callback, "best_model_score", None) is not None for callback in trainer.checkpoint_callbacks):
        raise InputError(
            f"{directory / BEST}: is missing, though the run had chosen it; put it back, or evaluate "
            f"{directory / LAST} with mode=test ckpt="
        )
    log.warning(
        "no best checkpoint was kept, so the last weights are evaluated: trainer.fast_dev_run keeps none, no callback "
        "keeps one, or no validation gave a finite metric (trainer.limit_val_batches=0 and short runs validate nothing)"
    )
