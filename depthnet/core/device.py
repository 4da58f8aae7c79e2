"""Which GPU can be used, in which precision, and why not where none can; which GPU is a sweep's job's own.

torch takes a second to import, so it is imported where it is needed and not with this module.
"""

from __future__ import annotations

import contextlib
import functools
import os
import re
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from depthnet.core.atomic_io import locked
from depthnet.core.types import InputError

BF16 = (8, 0)
"""The first compute capability that has units for bfloat16."""

_claims = contextlib.ExitStack()  # held until this process ends
_claimed: list[int] = []


class Gpu(NamedTuple):
    """A GPU, or why none can be used.

    Attributes:
        name: Such as "NVIDIA H200"; empty where none was found.
        capability: Its compute capability, (major, minor).
        reason: Why it cannot be used, or why there is none; empty where it can.
    """

    name: str
    capability: tuple[int, int]
    reason: str


def find_gpu(index: int = 0) -> Gpu:
    """Return a CUDA GPU that torch can compute on, or why there is none.

    Args:
        index: Which of those that ``CUDA_VISIBLE_DEVICES`` shows.
    """
    import torch

    if reason := _why_no_cuda():
        return Gpu("", (0, 0), reason)
    name, capability = torch.cuda.get_device_name(index), torch.cuda.get_device_capability(index)
    kernels = torch.cuda.get_arch_list() if torch.version.cuda else []  # AMD's have other names
    if kernels and not any(_runs_on(kernel, capability) for kernel in kernels):
        lacking = f"{name}, compute capability {capability[0]}.{capability[1]}, only for {', '.join(kernels)}"
        reason = f"torch {torch.__version__} has no kernels for {lacking}; install a torch that has (pytorch.org)"
    return Gpu(name, capability, reason)


def torch_device() -> str:
    """Return torch's name of the fastest device here that can be used: cuda, mps or cpu."""
    import torch

    return "cuda" if not find_gpu().reason else "mps" if torch.backends.mps.is_available() else "cpu"


def auto_precision() -> str:
    """Return Lightning's name of the fastest precision here: bf16 on a GPU that has units for it, else float16."""
    import torch

    if find_gpu().reason:
        return "32-true"
    lowest = min(find_gpu(index).capability for index in range(torch.cuda.device_count()))
    return "bf16-mixed" if lowest >= BF16 or torch.version.hip else "16-mixed"


def describe_device(trainer: Mapping[str, Any]) -> str:
    """Return what a run computes on, in which precision, and why.

    Args:
        trainer: The config of the Trainer.

    Raises:
        InputError: If a GPU is asked for and none can be used.
    """
    import torch

    kind, precision = str(trainer.get("accelerator", "auto")), str(trainer.get("precision", "32-true"))
    words = "float32" if precision in ("32", "32-true") else precision
    if kind == "mps" or (kind in ("gpu", "auto") and torch.backends.mps.is_available()):
        return f"Apple GPU, {words}"
    gpus = [find_gpu(index) for index in _indices(trainer.get("devices", "auto"))]
    reason = next((gpu.reason for gpu in gpus if gpu.reason), "")
    if kind in ("gpu", "cuda") or (kind == "auto" and gpus[0].name):
        if reason:
            raise InputError(f"trainer.accelerator={kind}: {reason}; or choose trainer=cpu")
        count, names = f"{len(gpus)} x " if len(gpus) > 1 else "", " and ".join(sorted({gpu.name for gpu in gpus}))
        capability, note = min(gpu.capability for gpu in gpus), ""
        if capability < BF16 and precision.startswith("bf16"):
            note = " has no units for it: slow; trainer.precision=16-mixed is faster"
        elif capability < BF16 and precision.startswith("16"):
            note = "; bf16 needs 8.0"
        return f"{count}{names}, {words} (compute capability {capability[0]}.{capability[1]}{note})"
    if kind not in ("cpu", "auto"):
        return f"{kind}, {words}"
    return f"CPU ({reason or f'trainer.accelerator={kind}; {gpus[0].name} is left idle'}), {words}"


def claim_gpu(trainer: Mapping[str, Any], sweep: Path, number: int) -> None:
    """Give this process, which runs jobs of a sweep, a GPU that no other one has, where there are several.

    It keeps it until it ends; :func:`job_devices` names it. Where every GPU has a process, the jobs take turns.

    Args:
        trainer: The config of the job's Trainer; nothing is done unless it uses one GPU, whichever.
        sweep: The sweep's directory; a lock in it stands for each GPU.
        number: The job's, from 0.
    """
    import torch

    wanted = trainer.get("accelerator") in ("gpu", "cuda", "auto") and trainer.get("devices") == 1
    count = torch.cuda.device_count() if wanted and not _why_no_cuda() else 0
    if count < 2 or _claimed:
        return
    for index in ((number + step) % count for step in range(count)):
        with contextlib.suppress(InputError):  # another process has it
            _claims.enter_context(locked(sweep / ".gpus" / str(index)))
            _claimed.append(index)
            return
    _claimed.append(number % count)


def job_devices(trainer: Mapping[str, Any]) -> dict[str, list[int]]:
    """Return ``{"devices": [index]}`` where :func:`claim_gpu` has chosen a GPU for this Trainer, else nothing."""
    return {"devices": list(_claimed)} if _claimed and trainer.get("devices") == 1 else {}


@functools.cache  # CUDA warns the first time alone
def _why_no_cuda() -> str:
    """Return why torch cannot use CUDA here; empty where it can."""
    import torch

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        if torch.cuda.is_available():
            return ""
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
    if hidden is not None and hidden.strip() in ("", "-1"):
        return f"CUDA_VISIBLE_DEVICES={hidden} hides every GPU"
    if warned := next((text for text in map(str, (one.message for one in caught)) if "CUDA" in text), ""):
        text = " ".join(re.sub(r"CUDA initialization: |\(Triggered internally.*", "", warned).split())
        return f"CUDA does not start: {text[:200].rstrip('. ')}"
    built = "" if torch.version.cuda or torch.version.hip else f"; torch {torch.__version__} is built without CUDA"
    return f"no GPU found{built}"


def _runs_on(kernel: str, capability: tuple[int, int]) -> bool:
    """Return whether a GPU runs what is compiled for an architecture such as sm_86 or, as a draft, compute_90.

    Example:
        >>> [_runs_on(kernel, (8, 9)) for kernel in ("sm_86", "sm_90", "compute_75", "sm_75")]
        [True, False, True, False]
    """
    kind, _, number = kernel.partition("_")
    number = number.rstrip("af")
    built = int(number[:-1]), int(number[-1])
    return built <= capability and (kind == "compute" or built[0] == capability[0])


def _indices(devices: Any) -> Sequence[int]:
    """Return the GPUs that a Trainer's ``devices`` stand for; the Trainer itself refuses what is impossible."""
    import torch

    count = max(torch.cuda.device_count(), 1)
    if isinstance(devices, Sequence) and not isinstance(devices, str):
        return [index for index in devices if index < count] or [0]
    return range(min(devices, count) if isinstance(devices, int) and devices > 0 else count)
