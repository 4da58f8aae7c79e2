"""GPUs that are not there: what torch would report of them."""

import contextlib
import functools
import warnings

import torch

from depthnet.core import device


def show_gpus(monkeypatch, *names, capability=(9, 0), warning="", cuda="13.2", visible=None):
    """Let torch report GPUs of these names and a compute capability; or, with none, what CUDA warned of at its start.

    Args:
        names: One a GPU.
        capability: Of each.
        warning: What CUDA warns of.
        cuda: The version of CUDA that torch is built with; None for none.
        visible: ``CUDA_VISIBLE_DEVICES``.
    """

    def is_available():
        if warning:
            warnings.warn(warning, stacklevel=1)
        return bool(names)

    monkeypatch.setattr("torch.cuda.is_available", is_available)
    monkeypatch.setattr("torch.cuda.device_count", lambda: len(names))
    monkeypatch.setattr("torch.cuda.get_device_name", lambda index=0: names[index])
    monkeypatch.setattr("torch.cuda.get_device_capability", lambda index=0: capability)
    monkeypatch.setattr("torch.cuda.get_arch_list", lambda: ["sm_75", "sm_80", "sm_86", "sm_90", "sm_100", "sm_120"])
    monkeypatch.setattr(torch.version, "cuda", cuda)
    monkeypatch.setattr(device, "_why_no_cuda", functools.cache(device._why_no_cuda.__wrapped__))
    monkeypatch.setattr(device, "_claimed", [])
    monkeypatch.setattr(device, "_claims", contextlib.ExitStack())
    if visible is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
