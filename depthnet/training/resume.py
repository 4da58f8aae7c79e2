"""Decide about a run that may be resumed: its config, and whether it has ended.

docs/training.md states the order. torch is imported where it is needed, so that a mistake is answered at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from depthnet.core.types import InputError
from depthnet.run.config import plain_config, stored_config
from depthnet.run.distributed import first_process
from depthnet.run.files import CONFIG, METRICS, read_metrics, read_record, reading
from depthnet.run.paths import has_last
from depthnet.run.provenance import FREE, RESOLVED_ONCE, config_changes, refuse_changes


def resolve_config(cfg: DictConfig, directory: Path, overrides: Sequence[str]) -> tuple[DictConfig, bool]:
    """Return the config that this start runs with, and whether a resumed run learns otherwise by it.

    Args:
        cfg: As composed from the command line.
        directory: The run's directory.
        overrides: The words of the command line.

    Raises:
        InputError: If the directory holds a run that is not to be resumed, the command line contradicts the run's
            stored config, or that cannot be read.
    """
    if cfg.resume not in (None, "auto") and Path(cfg.resume).resolve() != directory.resolve():
        raise InputError(f"resume={cfg.resume} resumes in that directory; leave out hydra.run.dir and -m")
    if not (directory / CONFIG).exists():
        if cfg.mode == "fit" and has_last(directory):
            raise InputError(f"{directory} holds checkpoints, but no {CONFIG}; put it back, or name another directory")
        _take_checkpoint(cfg, overrides)
        return cfg, False
    if cfg.resume is None and first_process():  # the others see what the first one has just stored
        raise InputError(f"{directory} holds a run already; resume it with resume={directory}, or name another")
    stored = stored_config(directory)
    stored.resume, stored.resume_allow = cfg.resume, cfg.resume_allow
    words = [word for word in overrides if not word.startswith(("resume=", "resume_allow="))]
    if cfg.resume != "auto":
        if cfg.resume and words:
            raise InputError(f"resume= takes the run's stored config; leave out {' '.join(words)}")
        return stored, False
    composed, record = plain_config(cfg, directory), read_record(directory)
    then = record.get("composed")
    differences = ["it was started by an older version"] if then is None else config_changes(then, composed)
    refuse_changes(directory, "config", differences, cfg.resume_allow)
    if differences:
        for key in RESOLVED_ONCE:
            if OmegaConf.select(cfg, key) == "auto":
                OmegaConf.update(cfg, key, OmegaConf.select(stored, key))
        _take_checkpoint(cfg, overrides)
        return cfg, True
    given = OmegaConf.create(composed)
    for key in FREE:
        value = OmegaConf.select(given, key)
        if value != OmegaConf.select(stored, key):
            OmegaConf.update(stored, key, value, merge=False, force_add=True)
    return stored, False


def _take_checkpoint(cfg: DictConfig, overrides: Sequence[str]) -> None:
    """Let a config, in place, have what the checkpoint brings that ``ckpt=`` names."""
    if cfg.ckpt:
        from depthnet.training.fine_tune import start_config

        start_config(cfg, overrides)


def finished(cfg: DictConfig, directory: Path) -> float | None:
    """Print the metrics of a resumed run that has ended, and return the watched one; None where it has not.

    Args:
        cfg: The run's config.
        directory: The run's directory.

    Raises:
        InputError: If its record cannot be read.
    """
    path = directory / METRICS
    if not cfg.resume or not path.is_file():
        return None
    from depthnet.core.tables import count_in_words
    from depthnet.evaluation.evaluator import metrics_table
    from depthnet.evaluation.report.write import write_report

    stored = read_metrics(directory)
    figures = {"this checkpoint": stored["protocols"]}
    if stored.get("mean_map"):
        figures["mean map"] = stored["mean_map"]
    with reading(path):
        counts = count_in_words(stored["images"], stored["expected"])
        title = f"{stored['data']['description']}, {stored['split']}: {counts}"
        table = metrics_table(figures, title, {"this checkpoint": stored["intervals"]})
        figure = float(next(iter(stored["protocols"].values()))[cfg.watch.partition("/")[2]])
    print(f"run:  {directory}\nalready finished; metrics from {path}:")
    table.print()
    if cfg.get("report") and first_process() and not (directory / "report.html").exists():
        print(f"report: {write_report(directory)}")
    return figure
