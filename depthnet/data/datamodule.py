"""The LightningDataModule: loaders of samples from any layout."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import torch
from lightning import LightningDataModule
from torch.utils.data import DataLoader

from depthnet.data.cache import CachedLayout
from depthnet.data.check import cheap_findings, examine, require_sound
from depthnet.data.dataset import DepthDataset, MixedDataset
from depthnet.data.layout import SPLITS, Finding, Layout, SourceLayout
from depthnet.data.rooms import RoomsLayout
from depthnet.data.roots import cache_folder, open_root
from depthnet.data.sampling import EvalSampler, TrainSampler
from depthnet.data.transforms import Augment
from depthnet.progress import progress_bar
from depthnet.types import DepthRange, ImageSize, InputError, RangeLike, Sample, read_size

__all__ = ["DepthDataModule"]


class DepthDataModule(LightningDataModule):
    """Loaders of NYU pairs, rooms or any other layout; works in anybody's own LightningModule.

    Use it with ``Trainer(use_distributed_sampler=False)``: its samplers share the frames out themselves, without the
    repeats that Lightning's would add. :meth:`from_root` and :meth:`rooms` make one in a line.

    Args:
        layout: Where the pairs come from.
        image_size: (height, width) that the images are resized to.
        batch_size: Samples in a training batch of one process.
        eval_batch_size: Samples in a batch of evaluation; one where a split's frames differ in size.
        augment: Augmentation of the training samples.
        num_workers: Loader processes; "auto" for one less than the cores, at least one and at most eight.
        seed: Order and augmentation follow from it and the epoch.
        check: "full": before the first batch, every pair is decoded once and examined, and the result is kept in
            ``cache_dir`` until a file changes; "cheap": only lists and names are looked at.
        allow: Names of findings (:data:`depthnet.data.layout.FINDINGS`) that do not stop training.
        cache: "disk": decoded and resized pairs are kept in ``cache_dir``; "none".
        cache_dir: A folder; None for ``DEPTHNET_CACHE`` or the user's own cache.
        extra_rooms: How many built-in rooms are trained on beside the layout's frames.
        extra_rooms_share: How many of them an epoch has, others each time until all were used; None for all.

    Raises:
        InputError: If an option is impossible.
    """

    def __init__(
        self,
        layout: Layout,
        image_size: ImageSize = (240, 320),
        batch_size: int = 16,
        eval_batch_size: int = 8,
        augment: Augment | None = None,
        num_workers: int | Literal["auto"] = "auto",
        seed: int = 0,
        check: Literal["full", "cheap"] = "full",
        allow: str | Sequence[str] = (),
        cache: Literal["disk", "none"] = "none",
        cache_dir: str | os.PathLike[str] | None = None,
        extra_rooms: int = 0,
        extra_rooms_share: int | None = None,
    ) -> None:
        super().__init__()
        self.layout = layout
        self.image_size = read_size("data.image_size", image_size)
        for name, value in (("batch_size", batch_size), ("eval_batch_size", eval_batch_size)):
            if not isinstance(value, int) or value < 1:
                raise InputError(f"data.{name}={value}: it is a whole number, at least 1")
        if num_workers != "auto" and (not isinstance(num_workers, int) or num_workers < 0):
            raise InputError(f"data.num_workers={num_workers}: it is auto or a whole number, at least 0")
        for name, word, known in (("check", check, ("full", "cheap")), ("cache", cache, ("disk", "none"))):
            if word not in known:
                raise InputError(f"data.{name}={word}: it is {' or '.join(known)}")
        if not isinstance(extra_rooms, int) or extra_rooms < 0:
            raise InputError(f"data.extra_rooms={extra_rooms}: it is a whole number, at least 0")
        self._share = extra_rooms if extra_rooms_share is None else extra_rooms_share
        if not isinstance(self._share, int) or not min(extra_rooms, 1) <= self._share <= extra_rooms:
            raise InputError(
                f"data.extra_rooms_share={extra_rooms_share}: it is a whole number from 1 to data.extra_rooms="
                f"{extra_rooms}, or null for all"
            )
        self._full_check = check == "full" and isinstance(layout, SourceLayout)
        self._allow = (allow,) if isinstance(allow, str) else tuple(allow)
        self._cached = cache == "disk"
        self._cache_folder = cache_folder(cache_dir)
        limits = layout.depth_range
        self._rooms = RoomsLayout({"train": extra_rooms}, self.image_size, depth_range=limits) if extra_rooms else None
        self._digest: str | None = None  # of the pairs' contents, once they were examined
        self._findings: Sequence[Finding] | None = None  # what is wrong, once the data was examined
        require_sound((), self._allow, SPLITS)
        self.batch_size = batch_size
        self._eval_batch_size = eval_batch_size
        self._augment = augment or Augment()
        self._workers = max(1, min(8, (os.cpu_count() or 1) - 1)) if num_workers == "auto" else num_workers
        self._spare_workers = (os.cpu_count() or 1) if self._workers else 0  # before training, no core is busy
        self._seed = seed
        self._done = (0, 0)  # epoch, and its batches that a resumed run has had

    @classmethod
    def from_root(
        cls,
        root: str | os.PathLike[str],
        layout: str = "auto",
        truth: Literal["auto", "raw", "filled"] = "auto",
        depth_range: RangeLike | None = None,
        val: Literal["scenes", "random_frames"] = "scenes",
        test_root: str | os.PathLike[str] | None = None,
        lists: str | os.PathLike[str] | None = None,
        unit: str | float | None = None,
        **options: Any,
    ) -> DepthDataModule:
        """Serve the pairs of a data set: arguments as in :class:`depthnet.data.layout.Source`, ``options`` as here."""
        source = {"truth": truth, "depth_range": depth_range, "val": val}
        return cls(open_root(root, layout, **source, test_root=test_root, lists=lists, unit=unit), **options)

    @classmethod
    def rooms(
        cls,
        frames: Mapping[str, int],
        image_size: ImageSize = (240, 320),
        depth_range: RangeLike = DepthRange(1e-3, 10.0),  # noqa: B008  frozen
        scene_seed: int = 0,
        holes: bool = False,
        **options: Any,
    ) -> DepthDataModule:
        """Serve built-in rooms, rendered at ``image_size``.

        Args:
            frames: The number of rooms in each split.
            image_size: (height, width) of images and truth.
            depth_range: Depths that count as valid [m].
            scene_seed: Which rooms; apart from the run's seed, so that runs are judged on the same ones.
            holes: Whether depth misses what a Kinect misses.
            options: As this class takes them.
        """
        size = read_size("data.image_size", image_size)
        layout = RoomsLayout(dict(frames), size, scene_seed, DepthRange.of(depth_range), holes)
        return cls(layout, image_size=size, **options)

    def prepare_data(self) -> None:
        """Examine the data, once per state of its files; Lightning calls this on one process of each machine.

        Raises:
            InputError: If something was found that spoils training or validation, and a fit begins.
        """
        findings = self._examine()
        if self.trainer is None or self.trainer.state.fn == "fit":
            require_sound(findings, self._allow, ("train", "val"))

    def train_dataloader(self) -> DataLoader[Sample]:
        """Return the loader of training batches.

        Raises:
            InputError: If the data set has no training frames, or they are unsound.
        """
        options = "train", self.image_size, self._augment, self._seed
        pairs = DepthDataset(self._served("train", self.image_size), *options)
        dataset: DepthDataset | MixedDataset = pairs
        if self._rooms:
            rooms = self._cache_of(self._rooms, "train", self.image_size)
            dataset = MixedDataset(pairs, DepthDataset(rooms, *options), self._share)
        sampler = TrainSampler(len(dataset), self.batch_size, self._seed)
        sampler.go_on(*self._done)
        return self._loader(dataset, sampler, self.batch_size)

    def val_dataloader(self) -> DataLoader[Sample]:
        """Return the loader of the validation split. Raises as :meth:`eval_dataloader`."""
        return self.eval_dataloader("val")

    def test_dataloader(self) -> DataLoader[Sample]:
        """Return the loader of the test split. Raises as :meth:`eval_dataloader`."""
        return self.eval_dataloader("test")

    def eval_dataloader(self, split: str) -> DataLoader[Sample]:
        """Return a loader that gives every frame of a split once, in order, the truth at its own size.

        Raises:
            InputError: If the data set has no such split, or it is unsound.
        """
        dataset = DepthDataset(self._served(split, None), split, self.image_size)
        sizes = {dataset.layout.size(split, frame) for frame in range(len(dataset))}
        return self._loader(dataset, EvalSampler(len(dataset)), self._eval_batch_size if len(sizes) == 1 else 1)

    def state_dict(self) -> dict[str, Any]:
        """Return, for a checkpoint, how many batches of which epoch were trained on."""
        trainer = self.trainer
        return {"epoch": trainer.current_epoch, "batches": trainer.fit_loop.batch_idx + 1} if trainer else {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on after the batches that were trained on before the checkpoint."""
        self._done = (int(state_dict["epoch"]), int(state_dict["batches"]))

    def facts(self) -> dict[str, Any]:
        """Return what is learned from as plain values; the same, wherever it lies, if and only if the data is.

        Pairs are known by their contents where they are examined, else by their names, sizes and times.
        """
        self._examine()
        known = ("frames", "truth", "scenes", "val", "image_size")
        facts = {name: value for name, value in self.record().items() if name in known}
        if self._rooms:
            facts["extra_rooms"] = [self._rooms.identity(), self._rooms.count("train"), self._share]
        return facts | {"contents": self._digest or self.layout.identity()}

    def train_label(self, frame: int) -> str:
        """Return the name of a frame that is trained on, by the number that its sample has."""
        count = self.layout.count("train")
        if self._rooms and frame >= count:
            return self._rooms.label("train", frame - count)
        return self.layout.label("train", frame)

    def describe(self) -> str:
        """Return a line that says what this data is, and another for each thing one has to know."""
        counts = ", ".join(f"{self.layout.count(split)} {split}" for split in SPLITS)
        if self._rooms:
            counts += f", {self._share} of {self._rooms.count('train')} built-in rooms in each epoch"
        height, width = self.image_size
        line = f"{self.layout.description} ({counts}; {self.layout.truth} truth), images {width}x{height}"
        notes = [f"note: {note}" for note in self.layout.notes]
        if self.layout.val == "random_frames":
            notes.append("warning: val frames are drawn at random and have neighbours in train, so val figures flatter")
        return "\n      ".join([line, *notes])

    def record(self) -> dict[str, Any]:
        """Return what this data is as plain values, to stand beside figures."""
        return {
            "description": self.layout.description,
            "layout": self.layout.name,
            "truth": self.layout.truth,
            "frames": {split: self.layout.count(split) for split in SPLITS},
            "extra_rooms": self._rooms.count("train") if self._rooms else 0,
            "extra_rooms_share": self._share,
            "scenes": self.layout.scene_rule,
            "val": self.layout.val,
            "allowed": list(self._allow),
            "digest": self._digest,
            "image_size": list(self.image_size),
        }

    def _served(self, split: str, depth_size: tuple[int, int] | None) -> Layout:
        """Return the layout that a split is read from, after it was examined; its cache is made if it is wanted."""
        if not self.layout.count(split):
            raise InputError("; ".join([f"{self.layout.description}: it has no {split} frames", *self.layout.notes]))
        require_sound(self._examine(), self._allow, (split,))
        # truth that is not stored as levels would be rounded, which training does not mind and evaluation must not have
        frames = range(self.layout.count(split))
        exact = depth_size is not None or all(self.layout.metres_per_level(split, i) is not None for i in frames)
        return self._cache_of(self.layout, split, depth_size) if exact else self.layout

    def _cache_of(self, layout: Layout, split: str, depth_size: tuple[int, int] | None) -> Layout:
        """Return a layout's split from the cache, which is made if it is wanted and not there."""
        if not (self._cached and layout.identity()):
            return layout
        cached = CachedLayout(layout, split, self._cache_folder, self.image_size, depth_size)
        with progress_bar(f"{split} pairs decoded") as advance:
            cached.build(self._spare_workers, advance)
        return cached

    def _examine(self) -> Sequence[Finding]:
        """Return what is wrong with the data; it is looked for once, by decoding every pair if that is wanted."""
        if self._findings is None and self._full_check:
            with progress_bar("pairs examined") as advance:
                examination = examine(self.layout, self._cache_folder, self._spare_workers, advance)
            self._findings, self._digest = examination.findings, examination.digest
        elif self._findings is None:
            self._findings = cheap_findings(self.layout)
        return self._findings

    def _loader(
        self, dataset: DepthDataset | MixedDataset, sampler: TrainSampler | EvalSampler, batch_size: int
    ) -> DataLoader[Sample]:
        # pinning takes memory of the GPU, so not where the trainer keeps off it
        pinned = torch.cuda.is_available() if self.trainer is None else self.trainer.strategy.root_device.type == "cuda"
        return _LazyLoader(
            dataset,
            batch_size=batch_size,
            sampler=sampler,
            num_workers=self._workers,
            persistent_workers=self._workers > 0,
            pin_memory=pinned,
            worker_init_fn=_in_own_group,
        )


def _in_own_group(worker: int) -> None:
    """Keep Ctrl-C and a signal to the whole group from a worker: the run still needs the step that it works for."""
    if hasattr(os, "setpgrp"):
        os.setpgrp()


class _LazyLoader(DataLoader[Sample]):
    """A loader whose workers start with the first batch that is asked for.

    Lightning makes the iterator of a resumed run before it knows the epoch; workers that started then would read the
    frames of epoch 0.
    """

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]  # torch names a private class
        yield from super().__iter__()
