import multiprocessing
import re

import pytest
from gpus import show_gpus

from depthnet.core import device
from depthnet.core.atomic_io import locked
from depthnet.core.device import auto_precision, claim_gpu, describe_device, find_gpu, job_devices, torch_device
from depthnet.core.types import InputError
from depthnet.run.config import gpu_or_cpu
from depthnet.run.targets import build

TOO_OLD = (
    "CUDA initialization: The NVIDIA driver on your system is too old (found version 11040). Please update your GPU "
    "driver by downloading and installing a new version from the URL: http://www.nvidia.com/Download/index.aspx "
    "(Triggered internally at /pytorch/c10/cuda/CUDAFunctions.cpp:119.)"
)
BROKEN = (
    "CUDA initialization: Unexpected error from cudaGetDeviceCount(). Error 804: forward compatibility was attempted "
    "on non supported HW (Triggered internally at /pytorch/c10/cuda/CUDAFunctions.cpp:119.)"
)
GPU = {"accelerator": "gpu", "devices": 1, "precision": "bf16-mixed"}
CPU = {"accelerator": "cpu", "devices": 1, "precision": "32-true"}
NO_GPU = [
    ({}, "^no GPU found$"),
    ({"warning": TOO_OLD}, r"CUDA does not start: The NVIDIA driver on your system is too old \(found version 11040\)"),
    ({"warning": BROKEN}, "CUDA does not start: .*Error 804: forward compatibility .* HW$"),
    ({"cuda": None}, "^no GPU found; torch .* is built without CUDA$"),
    ({"visible": ""}, "CUDA_VISIBLE_DEVICES= hides every GPU"),
    ({"visible": "-1", "warning": BROKEN}, "CUDA_VISIBLE_DEVICES=-1 hides every GPU"),
]


@pytest.mark.parametrize(("there", "reason"), NO_GPU)
def test_where_no_gpu_can_be_used_the_line_says_why_and_one_that_is_asked_for_stops_the_run(monkeypatch, there, reason):
    show_gpus(monkeypatch, **there)
    for _ in range(2):  # CUDA itself warns once, and so does Python
        assert gpu_or_cpu("gpu", "cpu") == torch_device() == "cpu"
        assert auto_precision() == "32-true"
        with pytest.raises(InputError, match=f"trainer.accelerator=gpu: .*{reason.strip('^$')}.*; or choose"):
            describe_device(GPU)
        line = describe_device(CPU)
        assert line.startswith("CPU (")
        assert line.endswith("), float32")
        assert find_gpu().reason in line
    assert re.search(reason, find_gpu().reason)
    assert "Triggered" not in line


def test_a_gpu_that_torch_has_no_kernels_for_is_not_used(monkeypatch):
    show_gpus(monkeypatch, "NVIDIA GeForce GTX 1080", capability=(6, 1))
    assert gpu_or_cpu("gpu", "cpu") == torch_device() == "cpu"
    assert auto_precision() == "32-true"
    for kind in ("gpu", "auto"):  # Lightning's own auto would take it
        with pytest.raises(InputError, match=r"no kernels for NVIDIA GeForce GTX 1080, compute capability 6\.1, only"):
            describe_device(GPU | {"accelerator": kind})
    assert "no kernels for NVIDIA GeForce GTX 1080" in describe_device(CPU)


@pytest.mark.parametrize(
    ("name", "capability", "precision", "line"),
    [
        ("NVIDIA H200", (9, 0), "bf16-mixed", "NVIDIA H200, bf16-mixed (compute capability 9.0)"),
        ("NVIDIA A100", (8, 0), "bf16-mixed", "NVIDIA A100, bf16-mixed (compute capability 8.0)"),
        ("NVIDIA L4", (8, 9), "bf16-mixed", "NVIDIA L4, bf16-mixed (compute capability 8.9)"),
        ("Tesla T4", (7, 5), "16-mixed", "Tesla T4, 16-mixed (compute capability 7.5; bf16 needs 8.0)"),
    ],
)
def test_the_precision_follows_the_compute_capability(monkeypatch, name, capability, precision, line):
    show_gpus(monkeypatch, name, capability=capability)
    assert gpu_or_cpu("gpu", "cpu") == "gpu"
    assert torch_device() == "cuda"
    assert auto_precision() == precision
    assert describe_device(GPU | {"precision": precision}) == line


def test_a_slow_precision_and_an_idle_gpu_are_said(monkeypatch):
    show_gpus(monkeypatch, "Tesla T4", "Tesla T4", capability=(7, 5))
    assert describe_device(GPU) == (
        "Tesla T4, bf16-mixed (compute capability 7.5 has no units for it: slow; trainer.precision=16-mixed is faster)"
    )
    assert describe_device(GPU | {"devices": 2, "precision": "32-true"}).startswith("2 x Tesla T4, float32")
    assert describe_device(GPU | {"devices": [1]}).startswith("Tesla T4, bf16")
    assert describe_device(GPU | {"devices": 5}).startswith("2 x Tesla T4")  # the Trainer refuses it with its own words
    assert describe_device(CPU) == "CPU (trainer.accelerator=cpu; Tesla T4 is left idle), float32"


def test_jobs_of_a_sweep_take_a_gpu_each(monkeypatch, tmp_path):
    """As many processes as GPUs, whatever their jobs' numbers: job 2 comes when job 1 is done and job 0 is at work."""
    show_gpus(monkeypatch, "NVIDIA H200", "NVIDIA H200")
    with locked(tmp_path / ".gpus" / "0"):  # another job, in this process; as from outside it is not available
        claim_gpu(GPU, tmp_path, 2)
    assert job_devices(GPU) == {"devices": [1]}
    claim_gpu(GPU, tmp_path, 4)  # the same process's next job
    assert job_devices(GPU) == {"devices": [1]}
    assert describe_device(GPU | job_devices(GPU)) == "NVIDIA H200, bf16-mixed (compute capability 9.0)"
    assert job_devices(GPU | {"devices": 2}) == {}


def test_more_jobs_than_gpus_take_turns(monkeypatch, tmp_path):
    show_gpus(monkeypatch, "NVIDIA H200", "NVIDIA H200")
    with locked(tmp_path / ".gpus" / "0"), locked(tmp_path / ".gpus" / "1"):
        claim_gpu(GPU, tmp_path, 3)
    assert job_devices(GPU) == {"devices": [1]}


@pytest.mark.parametrize(
    ("count", "trainer"), [(1, GPU), (0, CPU), (4, CPU), (4, GPU | {"devices": 2}), (4, GPU | {"devices": [3]})]
)
def test_a_job_that_chooses_its_gpus_or_has_but_one_keeps_to_it(monkeypatch, tmp_path, count, trainer):
    show_gpus(monkeypatch, *["NVIDIA H200"] * count)
    claim_gpu(trainer, tmp_path, 1)
    assert job_devices(trainer) == {}
    assert not list(tmp_path.iterdir())


def _claim(sweep, number, gate):
    claim_gpu(GPU, sweep, number)
    gate.wait(30)
    return device._claimed[0]


def test_processes_side_by_side_have_different_gpus(monkeypatch, tmp_path):
    show_gpus(monkeypatch, *["NVIDIA H200"] * 3)
    context = multiprocessing.get_context("fork")
    found, gate = context.SimpleQueue(), context.Barrier(3)

    def job(number):
        found.put(_claim(tmp_path, number, gate))

    jobs = [context.Process(target=job, args=(number,)) for number in (0, 3, 6)]  # all would want the first one
    for process in jobs:
        process.start()
    assert {found.get() for _ in jobs} == {0, 1, 2}
    for process in jobs:
        process.join()


def test_the_trainer_of_a_job_is_on_its_own_gpu(monkeypatch, tmp_path):
    show_gpus(monkeypatch, "NVIDIA H200", "NVIDIA H200")
    config = {"_target_": "lightning.Trainer", "logger": False, "default_root_dir": str(tmp_path), **GPU}
    assert build(config, "trainer", **job_devices(config)).strategy.root_device.index == 0
    with locked(tmp_path / ".gpus" / "0"):
        claim_gpu(config, tmp_path, 0)
    assert build(config, "trainer", **job_devices(config)).strategy.root_device.index == 1
