"""The optimizer with its parameter groups."""

from __future__ import annotations

import inspect
from typing import Annotated, Any, cast

import torch
from pydantic import Field
from torch import nn
from torch.optim import Optimizer

from depthnet.core.types import InputError

Rate = Annotated[float, Field(gt=0, allow_inf_nan=False), "a number above 0"]


def build_optimizer(
    network: nn.Module,
    algorithm: str = "AdamW",
    lr: Rate = 3e-4,
    weight_decay: Annotated[float, Field(ge=0, allow_inf_nan=False), "a number from 0"] = 0.01,
    encoder_lr_scale: Rate = 1.0,
    fused: bool | None = None,
    **options: Any,
) -> Optimizer:
    """Build one of torch's optimizers over a network's trainable parameters.

    Normalization and bias parameters get no weight decay. A part of the network named ``encoder`` may learn at another
    rate, which pretrained weights want.

    Args:
        network: The network; frozen parameters are left out.
        algorithm: The name of a class in ``torch.optim``.
        lr: The peak learning rate.
        weight_decay: For weights of two dimensions and more.
        encoder_lr_scale: The encoder's rate as a share of ``lr``.
        fused: Whether one kernel updates all weights; None where they are on a GPU and the algorithm can.
        options: Further arguments of that class.

    Raises:
        InputError: If there is no such optimizer, or it refuses an argument.
    """
    kind = getattr(torch.optim, algorithm, None)
    if not (isinstance(kind, type) and issubclass(kind, Optimizer)):
        raise InputError(f"optimizer.algorithm={algorithm}: torch.optim has no such optimizer")
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            groups.setdefault((name.startswith("encoder."), parameter.ndim > 1), []).append(parameter)
    if fused is None and "fused" in inspect.signature(kind).parameters:
        fused = all(parameter.is_cuda for parameters in groups.values() for parameter in parameters) or None
    if fused is not None:
        options["fused"] = fused
    scales = {True: encoder_lr_scale, False: 1.0}
    settings = [
        {"params": parameters, "lr": lr * scales[encoder], "weight_decay": weight_decay if decays else 0.0}
        for (encoder, decays), parameters in groups.items()
    ]
    try:
        optimizer: Optimizer = cast(Any, kind)(settings, lr=lr, **options)
    except (TypeError, ValueError) as error:
        raise InputError(f"optimizer: {algorithm} refuses its arguments: {error}") from error
    # or a fused one would take float16's loss scale off the gradients in its own step, after they were looked at and
    # clipped, and Lightning would let none clip in any mixed precision
    optimizer._step_supports_amp_scaling = False  # type: ignore[attr-defined]  # private; a test fails where it moves
    return optimizer
