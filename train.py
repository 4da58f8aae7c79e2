"""Fit a depth network and judge it: python train.py model=irv2_attn data=nyu data.root=PATH (README.md has more)."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from depthnet.allowed import check_targets
from depthnet.durable import require_writable
from depthnet.run import check_choices, config_of, error_line, quiet_libraries, register_resolvers, store, stored_text

log = logging.getLogger("depthnet")
CONF = str(Path(__file__).resolve().parent / "conf")
USER_ERRORS = (HydraException, OmegaConfBaseException)
register_resolvers()


def run(cfg: DictConfig, directory: Path) -> float:
    """Fit a network and judge its best checkpoint, or judge one only; returns the watched figure."""
    from hydra.utils import instantiate

    from depthnet.callbacks import Panels, Results
    from depthnet.evaluation import choose_protocols
    from depthnet.models.depth_net import load_network
    from depthnet.module import DepthModule
    from depthnet.report.write import write_report
    from depthnet.resume import DurableCheckpointIO, fine_tune, fit_and_judge, settle

    quiet_libraries()
    fit, split = cfg.mode == "fit", "val" if cfg.mode == "fit" else cfg.split
    settle(cfg, directory)
    text = stored_text(cfg, directory)
    data = instantiate(cfg.data, _convert_="all")
    print(f"data: {data.describe()}\nrun:  {directory}", flush=True)
    protocols = choose_protocols(cfg.protocols, data.layout, split)
    network = instantiate(cfg.model, _convert_="all") if fit else load_network(cfg.ckpt)
    fine_tune(network, cfg.ckpt if fit else None)
    parts = {part: instantiate(cfg[part], _convert_="all") for part in ("loss", "optimizer", "scheduler")}
    record: Any = OmegaConf.to_container(OmegaConf.create(text))
    module = DepthModule(network, protocols=protocols, seed=cfg.seed, run=record, compile=cfg.compile, **parts)
    results = Results(directory, data, split, cfg.seed, cfg.ckpt)
    trainer = instantiate(
        cfg.trainer,
        callbacks=[instantiate(entry, _convert_="all") for entry in cfg.callbacks.values() if entry]
        + [results, Panels(directory, data.layout, split)],
        logger=instantiate(cfg.logger, _convert_="all") or False,
        plugins=[DurableCheckpointIO()],
        default_root_dir=str(directory),
        _convert_="all",
    )
    store(directory, text)
    fit_and_judge(trainer, module, data, split, directory if fit else None)
    if cfg.get("report") and trainer.is_global_zero:
        print(f"report: {write_report(directory)}")
    return results.figure(cfg.watch)


@hydra.main(version_base="1.3", config_path=CONF, config_name="train")
def job(cfg: DictConfig) -> float | None:
    """Run one of Hydra's jobs, alone or in a sweep; what goes wrong in it stands in its own log."""
    hydra_config = HydraConfig.get()
    try:
        directory = require_writable(hydra_config.runtime.output_dir)
        cfg = config_of(cfg, directory, hydra_config.overrides.task)
        check_choices(cfg)
        check_targets(OmegaConf.to_container(cfg, resolve=True))
        return run(cfg, directory)
    except Exception as error:
        line = error_line(error, USER_ERRORS)
        log.error("the run failed", exc_info=error) if line is None else log.error("error: %s", line)
        if hydra_config.mode == RunMode.MULTIRUN:
            raise
        sys.exit(1 if line is None else 2)


def main() -> None:
    """Compose the command line's config and run it."""
    os.environ["HYDRA_FULL_ERROR"] = "1"  # hands errors on instead of printing them
    try:
        job()
    except Exception as error:
        line, sweep = error_line(error, (*USER_ERRORS, OSError)), {"-m", "--multirun"} & set(sys.argv)
        if line is None and not sweep:
            raise
        print(f"error: {line or f'{error!r}; the log of its job has the traceback'}", file=sys.stderr)
        sys.exit(1 if sweep else 2)


if __name__ == "__main__":
    main()
