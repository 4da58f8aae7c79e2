"""Fit a depth network and evaluate it: python train.py model=irv2_attn data=nyu data.root=PATH (README.md has more)."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

import depthnet
from depthnet.core.device import claim_gpu, describe_device, job_devices
from depthnet.core.errors import error_line, log_failure
from depthnet.core.types import BEST, InputError
from depthnet.run.command_line import SweepStart, check_command, plain_errors
from depthnet.run.config import check_choices, plain_config, register_resolvers
from depthnet.run.distributed import first_process, started_processes
from depthnet.run.files import CONFIG, JOB
from depthnet.run.naming import name_run
from depthnet.run.overrides import MULTIRUN, check_words
from depthnet.run.paths import has_last, is_new, remove_start, run_lock
from depthnet.run.provenance import RESOLVED_ONCE, kept_words
from depthnet.run.signals import Signals
from depthnet.run.targets import USER_ERRORS, build, check_groups, restrict_environment
from depthnet.training.resume import finished, resolve_config
from depthnet.training.sweep import check_job, note_end, note_start, sweeping

CONF = Path(__file__).resolve().parent / "conf"

register_resolvers()
restrict_environment()


def resolve_auto(cfg: DictConfig, directory: Path) -> None:
    """Decide, in place, what a config leaves to the machine, print it, and seed all that is random."""
    from lightning import seed_everything

    from depthnet.training.batch_size import resolve_batch_size
    from depthnet.training.fit import quiet_libraries
    from depthnet.training.overview import resolve_weights

    quiet_libraries()
    print(f"device: {describe_device({**cfg.trainer, **job_devices(cfg.trainer)})}", flush=True)
    print(resolve_weights(cfg, directory), flush=True)
    resolve_batch_size(cfg)
    seed_everything(cfg.seed, verbose=False)


def run(cfg: DictConfig, directory: Path, signals: Signals, command: dict[str, Any]) -> float:
    """Fit a network and evaluate its best checkpoint, or evaluate a checkpoint only; return the watched metric.

    Args:
        cfg: The run's config.
        directory: The run's.
        signals: What may ask the run to stop.
        command: The words of the command line, and the config composed of them; empty with resume=DIR.
    """
    from torch import nn

    from depthnet.evaluation.protocols import choose_protocols
    from depthnet.models.depth_net import load_network
    from depthnet.training.callbacks.clock import Clock
    from depthnet.training.callbacks.panels import Panels
    from depthnet.training.callbacks.results import Results
    from depthnet.training.checkpoint_io import DurableCheckpointIO
    from depthnet.training.fine_tune import start_network
    from depthnet.training.fit import fit_and_evaluate, start_run
    from depthnet.training.loggers import make_loggers
    from depthnet.training.module import DepthModule
    from depthnet.training.overview import TimeEstimate
    from depthnet.training.sync_norm import SyncNorm

    fit = cfg.mode == "fit"
    network = load_network(cfg.ckpt, size=cfg.model.image_size) if not fit else build(cfg.model, "model")
    data = build(cfg.data, "data", size_for=network.size_for)
    data.test_split = "val" if fit else cfg.split
    parts = {part: build(cfg[part], part) for part in ("loss", "optimizer", "scheduler")}
    parts["scheduler"](parts["optimizer"](nn.Linear(1, 1)), 2)  # what they refuse shows before anything is stored
    results = Results(directory)
    callbacks = [callback for callback in build(cfg.callbacks, "callbacks").values() if callback is not None]
    callbacks += [results, Panels(directory), Clock(directory), *[TimeEstimate()] * fit]
    trainer = build(
        cfg.trainer,
        "trainer",
        callbacks=callbacks,
        logger=False,
        plugins=[DurableCheckpointIO(), *([SyncNorm()] if cfg.trainer.get("sync_batchnorm") else [])],
        default_root_dir=str(directory),
        **job_devices(cfg.trainer),
    )
    print(f"data: {data.describe()}\nrun:  {directory}", flush=True)

    protocols = choose_protocols(cfg.protocols, data.layout, data.test_split)
    if fit and not has_last(directory):  # a resumed run has weights and a camera of its own
        asked = any(word.startswith("model.depth_range") for word in command.get("overrides", ()))
        stored = (directory / CONFIG).exists()
        start_network(network, data, cfg.ckpt, cfg.model.get("camera") == "auto", any_range=asked or stored)
    OmegaConf.update(cfg, "model.camera", network.camera, force_add=True)

    config = plain_config(cfg, directory)
    module = DepthModule(network, protocols=protocols, seed=cfg.seed, run=config, compile=cfg.compile, **parts)
    start_run(trainer, config, module, data if fit else None, cfg.resume_allow, command)
    trainer.loggers = make_loggers(build(cfg.logger, "logger"))  # last: W&B writes at once
    fit_and_evaluate(trainer, module, data, fit, signals)
    if fit and trainer.is_global_zero and (directory / BEST).exists():
        print(f"best: {directory / BEST}\npictures: {directory / 'panels'}")
        print(f"next: depthnet predict PHOTO... --ckpt {shlex.quote(str(directory))}")
    if cfg.get("report") and trainer.is_global_zero:
        from depthnet.evaluation.report.write import write_report

        print(f"report: {write_report(directory)}")
    return results.figure(cfg.watch)


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="train")
def job(cfg: DictConfig) -> float | None:
    """Run one of Hydra's jobs, alone or in a sweep; what goes wrong in it stands in its own log."""
    about = HydraConfig.get()
    directory, sweeps, words = Path(about.runtime.output_dir), about.mode == RunMode.MULTIRUN, about.overrides.task
    new = first_process() and not sweeps and is_new(directory)
    try:
        if sweeps:
            check_job(cfg.trainer, about.launcher)
        with run_lock(directory, wait=sweeps) as signals:
            if sweeps:
                note_start(cfg, directory, words)
            check_choices(cfg)
            check_words(words, cfg, sweeps)
            command = {"overrides": kept_words(words), "composed": plain_config(cfg, directory)}
            cfg, changed = resolve_config(cfg, directory, words)
            check_choices(cfg)
            check_groups(cfg, RESOLVED_ONCE)
            name_run(cfg, about.runtime.choices, words, about.sweep.dir if sweeps else None)
            if sweeps:
                claim_gpu(cfg.trainer, Path(about.sweep.dir), about.job.num)
            figure = None if changed else finished(cfg, directory)
            if figure is None:
                resolve_auto(cfg, directory)
                figure = run(cfg, directory, signals, {} if cfg.resume not in (None, "auto") else command)
            return note_end(directory, figure) if sweeps else figure
    except Exception as error:
        line = log_failure(error, USER_ERRORS)
        if new and line is not None:
            remove_start(directory)
        if sweeps and (directory / JOB).exists():
            return note_end(directory, line or repr(error))
        sys.exit(1 if line is None else 2)


def main() -> None:
    """Compose the command line's config and run it."""
    if "--version" in sys.argv[1:]:
        print(f"depthnet {depthnet.__version__}")
        return
    try:
        os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra raises errors instead of printing them
        SweepStart.directory = None
        arguments = sys.argv[1:] = sorted(sys.argv[1:], key=lambda word: word not in MULTIRUN)  # Hydra takes it first
        check_command(arguments, CONF)
        if MULTIRUN & set(arguments) and started_processes() > 1:
            raise InputError("a sweep starts its own jobs, outside torchrun and srun: python train.py -m")
        with sweeping(arguments, lambda: SweepStart.directory, USER_ERRORS), plain_errors(arguments):
            job()
        sys.stdout.flush()
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:  # its reader, such as head, has closed it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except Exception as error:
        line = error_line(error, (*USER_ERRORS, OSError))
        if line is None:
            raise
        print(f"error: {line}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
