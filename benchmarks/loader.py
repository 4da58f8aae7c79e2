"""Pairs of image and depth loaded per second on one core, beside bare decoders and an ordinary PyTorch dataset.

    python benchmarks/loader.py --root PATH             (half a minute)
    python benchmarks/loader.py --root PATH --memory    (the memory of four workers over twenty epochs; a minute)

One process, one thread; all are measured in one run, their rounds interleaved, so that a machine that slows down slows
them alike; files lie in the page cache. Images are resized to 240x320. The bare decoders are Pillow's, from file to
array at full size: no loading without a cache can be faster. The ordinary dataset is PIL and torchvision as commonly
written, with the same augmentation as conf/augment/standard.yaml where there is one. PATH holds NYU as files; by
default it is NYU_ROOT or data/nyu.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from PIL import Image
from rich import box
from rich.console import Console
from rich.table import Table
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms
from torchvision.transforms import functional as F

from depthnet.data.datamodule import DepthDataModule
from depthnet.data.dataset import DepthDataset
from depthnet.data.layouts.registry import open_root
from depthnet.data.sampler import TrainSampler
from depthnet.data.transforms import Augment

SIZE = (240, 320)
STANDARD = Path(__file__).resolve().parent.parent / "conf/augment/standard.yaml"


def decode(files: tuple[Path, ...]) -> list[np.ndarray]:
    """Read the two files of a pair to arrays, and nothing else."""
    arrays = []
    for path in files:
        with Image.open(path) as picture:
            arrays.append(np.asarray(picture))
    return arrays


class PlainDataset(Dataset[tuple[torch.Tensor, torch.Tensor]]):
    """A dataset of PIL and torchvision as commonly written; the augmentation draws from the ranges of ours."""

    def __init__(self, files: Mapping[int, tuple[Path, ...]], augment: bool) -> None:
        self.files = files
        self.augment = augment
        self.jitter = transforms.RandomApply([transforms.ColorJitter(0.25, 0.2, 0.3, 0.05)], p=0.5)

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        image_path, depth_path = self.files[index]
        image = F.resize(Image.open(image_path).convert("RGB"), SIZE)
        depth = torch.from_numpy(np.array(Image.open(depth_path), dtype=np.float32) / 1000)[None]
        depth = F.resize(depth, SIZE, F.InterpolationMode.NEAREST)
        if self.augment:
            if random.random() < 0.5:
                image, depth = F.hflip(image), F.hflip(depth)
            image = self.jitter(image)
            if random.random() < 0.3:
                image = F.adjust_gamma(image, random.uniform(0.8, 1.25))
        return F.to_tensor(image), depth


def cached_dataset(root: str, folder: str, augment: Augment) -> DepthDataset:
    """Return our training data behind a cache of decoded pairs in a folder."""
    data = DepthDataModule.from_root(
        root, image_size=SIZE, augment=augment, check="cheap", cache="disk", cache_dir=folder
    )
    return data.train_dataloader().dataset  # type: ignore[return-value]  # torch says only Dataset


def loaders(root: str, folder: str, pairs: int) -> tuple[dict[str, Callable[[int, int], Any]], Sequence[int]]:
    """Return what is measured, functions of an epoch and a frame by name, and the frames to measure it with."""
    layout = open_root(root)
    frames = range(0, layout.count("train"), max(1, layout.count("train") // pairs))[:pairs]
    files = {frame: layout.files("train", frame) for frame in frames}
    standard = instantiate(OmegaConf.load(STANDARD), _convert_="all")

    def ours(dataset: DepthDataset) -> Callable[[int, int], Any]:
        return lambda epoch, frame: dataset[epoch, frame]

    plain, plain_augmented = PlainDataset(files, augment=False), PlainDataset(files, augment=True)
    load = {
        "bare decoders": lambda epoch, frame: decode(files[frame]),
        "PIL and torchvision": lambda epoch, frame: plain[frame],
        "PIL and torchvision, augmented": lambda epoch, frame: plain_augmented[frame],
        "ours": ours(DepthDataset(layout, "train", SIZE, Augment())),
        "ours, augmented": ours(DepthDataset(layout, "train", SIZE, standard)),
        "ours, cached": ours(cached_dataset(root, folder, Augment())),
        "ours, cached, augmented": ours(cached_dataset(root, folder, standard)),
    }
    return load, frames


def measure_speed(options: argparse.Namespace, folder: str) -> Table:
    """Time every loader and return the table."""
    load, frames = loaders(options.root, folder, options.pairs)
    rates: dict[str, list[float]] = {name: [] for name in load}
    for epoch in range(options.rounds + 1):
        for name, function in load.items():
            start = time.perf_counter()
            for frame in frames:
                function(epoch, frame)
            if epoch:  # the first one warms up
                rates[name].append(len(frames) / (time.perf_counter() - start))

    table = Table("loader", "pairs/s", "min to max", "to bare decoders", "to PIL, augmented", box=box.MARKDOWN)
    for name, taken in rates.items():
        ratios = [
            statistics.median(one / other for one, other in zip(taken, rates[rival], strict=True))
            for rival in ("bare decoders", "PIL and torchvision, augmented")
        ]
        spread = f"{min(taken):.0f} to {max(taken):.0f}"
        table.add_row(name, f"{statistics.median(taken):.0f}", spread, *(f"{ratio:.2f}" for ratio in ratios))
    return table


def proportional_mib(process: int) -> np.ndarray:
    """Return a process's share of the memory it uses [MiB]: all, and all without files.

    Pages in common are divided among those that hold them, so any other program with the same libraries changes the
    share in files.
    """
    lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()[1:]
    sizes = {name: int(size) / 1024 for name, size, *_ in (line.split() for line in lines)}
    return np.array([sizes["Pss:"], sizes["Pss_Anon:"] + sizes["Pss_Shmem:"]])


def measure_memory(options: argparse.Namespace, folder: str) -> Table:
    """Load epochs with four workers and return the memory after each as a table."""
    standard = instantiate(OmegaConf.load(STANDARD), _convert_="all")
    dataset = cached_dataset(options.root, folder, standard)
    sampler = TrainSampler([SIZE] * min(len(dataset), 256), batch_size=16, seed=0)
    loader = DataLoader(dataset, batch_sampler=sampler, num_workers=4, persistent_workers=True)
    sizes = []
    for epoch in range(20):
        sampler.set_epoch(epoch)
        for _ in loader:
            pass
        workers = [process.pid for process in multiprocessing.active_children() if process.pid]
        sizes.append(sum(proportional_mib(process) for process in [os.getpid(), *workers]))
    table = Table("epoch", "PSS of parent and 4 workers, MiB", "to epoch 2", "without files, MiB", "to epoch 2")
    table.box = box.MARKDOWN
    for epoch, size in enumerate(sizes, start=1):
        growth = 100 * (size / sizes[1] - 1)
        cells = [f"{size[0]:.1f}", f"{growth[0]:+.1f} %", f"{size[1]:.1f}", f"{growth[1]:+.1f} %"]
        table.add_row(str(epoch), *cells)
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", default=os.environ.get("NYU_ROOT", "data/nyu"), help="where NYU lies")
    parser.add_argument("--pairs", type=int, default=64, help="pairs in each timed round")
    parser.add_argument("--rounds", type=int, default=7, help="timed rounds, after one to warm up")
    parser.add_argument("--memory", action="store_true", help="measure the workers' memory instead")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        table = measure_memory(options, folder) if options.memory else measure_speed(options, folder)
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
