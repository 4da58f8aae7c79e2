"""Which of a run's processes this is, by what torchrun, srun or Lightning has set for each."""

from __future__ import annotations

import os
from typing import Any

from depthnet.core.types import InputError


def first_process() -> bool:
    """Return whether this is the first of a run's processes."""
    rank = next((os.environ[name] for name in ("RANK", "LOCAL_RANK", "SLURM_PROCID") if name in os.environ), "0")
    return rank == "0" and ("RANK" in os.environ or os.environ.get("NODE_RANK", "0") == "0")


def started_processes() -> int:
    """Return how many processes were started as one run, by torchrun, srun or, for its children, Lightning."""
    return int(os.environ.get("WORLD_SIZE") or os.environ.get("SLURM_STEP_NUM_TASKS") or 1)


def check_processes(trainer: Any) -> None:
    """Refuse a trainer that would wait for processes that were not started, or not use those that were.

    Args:
        trainer: Lightning's.

    Raises:
        InputError: If they do not fit.
    """
    started, devices, nodes = started_processes(), trainer.num_devices, trainer.num_nodes
    environment = getattr(trainer.strategy, "cluster_environment", None)
    if environment is not None and not environment.creates_processes_externally:  # Lightning starts them
        if nodes > 1:
            raise InputError(
                f"trainer.num_nodes={nodes}: start it on every host, by torchrun or srun (docs/cluster.md)"
            )
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
