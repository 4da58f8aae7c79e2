"""The LightningDataModule: loaders of samples from any layout."""

from __future__ import annotations

import functools
import os
import statistics
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, Literal

import numpy as np
import torch
from lightning import LightningDataModule
from pydantic import NonNegativeInt, PositiveInt
from torch.utils.data import DataLoader

from depthnet.core.atomic_io import cache_folder
from depthnet.core.images import is_stretched
from depthnet.core.progress import progress_bar
from depthnet.core.types import DepthRange, ImageSize, InputError, RangeLike, Sample, read_size
from depthnet.data.cache import PairCache, Size
from depthnet.data.dataset import DepthDataset, MixedDataset
from depthnet.data.layouts.layout import (
    SPLITS,
    Finding,
    Layout,
    Pair,
    SourceLayout,
    describe_camera,
    first_frames,
    sample_frames,
)
from depthnet.data.layouts.official import NYU_CAMERA
from depthnet.data.layouts.registry import open_root
from depthnet.data.rooms.layout import ROOMS_CAMERA, RoomsLayout
from depthnet.data.sampler import TrainSampler, eval_frames
from depthnet.data.transforms import Augment
from depthnet.data.validation.check import cheap_findings, examine, no_frames, require_sound

_SIZES_NAMED = 3  # in a line


class DepthDataModule(LightningDataModule):
    """Loaders of NYU pairs, rooms or any other layout; works in anybody's own LightningModule.

    Use it with ``Trainer(use_distributed_sampler=False)``: its samplers share the frames out themselves, without the
    repeats that Lightning's would add. :meth:`from_root` and :meth:`rooms` make one in a line.

    Args:
        layout: Where the pairs come from.
        image_size: (height, width) that the images are resized to, where ``size_for`` is not given.
        batch_size: Samples in a training batch of one process.
        eval_batch_size: Samples in a batch of evaluation; one where a split's frames differ in size.
        augment: Augmentation of the training samples.
        num_workers: Loader processes; "auto" for one less than the cores, at least one and at most eight.
        seed: Order and augmentation follow from it and the epoch.
        check: "full": before the first batch, every pair is decoded once and examined, and the result is kept in
            ``cache_dir`` until a file changes; "cheap": only lists and names are looked at.
        allow: Names of findings (:data:`depthnet.data.layouts.layout.FINDINGS`) that do not stop training.
        cache: "disk": decoded and resized pairs are kept in ``cache_dir``; "none".
        cache_dir: A folder; None for ``DEPTHNET_CACHE`` or the user's own cache.
        extra_rooms: How many built-in rooms are trained on beside the layout's frames.
        extra_rooms_share: How many of them an epoch has, others each time until all were used; None for all.
        size_for: Gives the (height, width) that an image of (height, width) is resized to. Called in this process only.
            Where sizes differ, each training batch holds one of them, and a batch of evaluation one image.

    Raises:
        InputError: If an option is impossible.
    """

    test_split = "test"
    """The split that ``Trainer.test`` evaluates."""

    def __init__(
        self,
        layout: Layout,
        image_size: ImageSize = (240, 320),
        batch_size: PositiveInt = 16,
        eval_batch_size: PositiveInt = 8,
        augment: Augment | None = None,
        num_workers: NonNegativeInt | Literal["auto"] = "auto",
        seed: int = 0,
        check: Literal["full", "cheap"] = "full",
        allow: str | Sequence[str] = (),
        cache: Literal["disk", "none"] = "none",
        cache_dir: str | os.PathLike[str] | None = None,
        extra_rooms: NonNegativeInt = 0,
        extra_rooms_share: int | None = None,
        size_for: Callable[[Size], Size] | None = None,
    ) -> None:
        super().__init__()
        self.layout = layout
        self.image_size = read_size("data.image_size", image_size)
        self._share = extra_rooms if extra_rooms_share is None else extra_rooms_share
        if not min(extra_rooms, 1) <= self._share <= extra_rooms:
            known = f"it is from 1 to data.extra_rooms={extra_rooms}, or null for all"
            raise InputError(f"data.extra_rooms_share={extra_rooms_share}: {known}")
        self._sampled = sample_frames(layout, "train")
        self._full_check = check == "full" and isinstance(layout, SourceLayout)
        self._allow = (allow,) if isinstance(allow, str) else tuple(allow)
        require_sound((), self._allow, SPLITS)
        self._cached, self._cache_folder = cache == "disk", cache_folder(cache_dir)
        self._extra_rooms = extra_rooms
        self._size_for = functools.cache(size_for) if size_for else None
        self.batch_size, self._eval_batch_size = batch_size, eval_batch_size
        self._augment = augment or Augment()
        cores = os.cpu_count() or 1
        self._workers = max(1, min(8, cores - 1)) if num_workers == "auto" else num_workers
        self._spare_workers = cores if self._workers else 0  # before training, no core is busy
        self._seed = seed
        self._done = (0, 0)  # epoch, and its batches that a resumed run has had

    @classmethod
    def from_root(
        cls,
        root: str | os.PathLike[str],
        layout: str = "auto",
        ground_truth: Literal["auto", "raw", "filled"] = "auto",
        depth_range: RangeLike | None = None,
        val: Literal["scenes", "random_frames"] = "scenes",
        test_root: str | os.PathLike[str] | None = None,
        lists: str | os.PathLike[str] | None = None,
        unit: str | float | None = None,
        focal: float | None = None,
        fov_x: float | None = None,
        **options: Any,
    ) -> DepthDataModule:
        """Serve the pairs of a data set: arguments as in :class:`layout.Source`, ``options`` as here."""
        opened = open_root(
            root,
            layout,
            ground_truth=ground_truth,
            depth_range=depth_range,
            val=val,
            test_root=test_root,
            lists=lists,
            unit=unit,
            focal=focal,
            fov_x=fov_x,
        )
        return cls(opened, **options)

    @classmethod
    def rooms(
        cls,
        frames: Mapping[Literal["train", "val", "test"], NonNegativeInt],
        image_size: ImageSize = (240, 320),
        depth_range: RangeLike = DepthRange(1e-3, 10.0),  # noqa: B008  frozen
        scene_seed: NonNegativeInt = 0,
        holes: bool = False,
        **options: Any,
    ) -> DepthDataModule:
        """Serve built-in rooms, rendered at ``image_size``.

        Args:
            frames: The number of rooms in each split.
            image_size: (height, width) of images and ground truth.
            depth_range: Depths that count as valid [m].
            scene_seed: Which rooms; apart from the run's seed, so that runs are evaluated on the same ones.
            holes: Whether depth misses what a Kinect misses.
            options: As this class takes them.
        """
        counts = {str(split): count for split, count in frames.items()}
        size, limits = read_size("data.image_size", image_size), DepthRange.of(depth_range)
        return cls(RoomsLayout(counts, size, scene_seed, limits, holes), image_size=size, **options)

    def prepare_data(self) -> None:
        """Examine the data, once per state of its files; Lightning calls this on one process of each machine.

        Raises:
            InputError: If a finding invalidates training or validation, and a fit begins.
        """
        splits: tuple[str, ...] = ()
        if self.trainer is None or self.trainer.state.fn == "fit":
            validates = self.trainer.enable_validation if self.trainer else self.layout.count("val") > 0
            splits = ("train", "val") if validates else ("train",)
        require_sound(cheap_findings(self.layout), self._allow, splits)  # before minutes of decoding
        require_sound(self._examined[0], self._allow, splits)

    def train_dataloader(self) -> DataLoader[Sample]:
        """Return the loader of training batches.

        Raises:
            InputError: If the data set has no training frames, or they are unsound.
        """
        self._require_sound("train")
        sizes = self._image_sizes("train")
        dataset: DepthDataset | MixedDataset
        dataset = pairs = self._train_dataset(self.layout, sizes)
        if self._rooms:
            size = self._rooms.size("train", 0)
            rooms = self._train_dataset(self._rooms, [size] * self._extra_rooms)
            dataset, sizes = MixedDataset(pairs, rooms, self._share), sizes + [size] * self._share
        sampler = TrainSampler(sizes, self.batch_size, self._seed)
        sampler.skip(*self._done)
        return self._loader(dataset, batch_sampler=sampler)

    def val_dataloader(self) -> DataLoader[Sample]:
        """Return the loader of the validation split. Raises as :meth:`eval_dataloader`."""
        return self.eval_dataloader("val")

    def test_dataloader(self) -> DataLoader[Sample]:
        """Return the loader of :attr:`test_split`. Raises as :meth:`eval_dataloader`."""
        return self.eval_dataloader(self.test_split)

    def eval_dataloader(self, split: str) -> DataLoader[Sample]:
        """Return a loader that gives every frame of a split once, in order, the ground truth at its own size.

        Raises:
            InputError: If the data set has no such split, or it is unsound.
        """
        self._require_sound(split)
        image_sizes = self._image_sizes(split)
        depth_sizes = [self.layout.size(split, frame) for frame in range(len(image_sizes))]
        read = self._cached_read(self.layout, split, image_sizes, depth_sizes)
        dataset = DepthDataset(self.layout, split, image_sizes, read=read)
        batch_size = self._eval_batch_size if len(set(depth_sizes)) == 1 else 1
        return self._loader(dataset, batch_size=batch_size, sampler=eval_frames(len(dataset)))

    def state_dict(self) -> dict[str, Any]:
        """Return, for a checkpoint, how many batches of which epoch were trained on."""
        trainer = self.trainer
        return {"epoch": trainer.current_epoch, "batches": trainer.fit_loop.batch_idx + 1} if trainer else {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Resume after the batches that were trained on before the checkpoint."""
        self._done = (int(state_dict["epoch"]), int(state_dict["batches"]))

    def facts(self) -> dict[str, Any]:
        """Return what is learned from as plain values; the same, wherever it lies, if and only if the data is.

        Pairs are known by their contents where they are examined, else by their names, sizes and times.
        """
        record = self.record()
        facts = {name: record[name] for name in ("frames", "ground_truth", "scenes", "val", "image_size")}
        if self._rooms:
            facts["extra_rooms"] = [self._rooms.identity(), self._extra_rooms, self._share]
        if self.layout.camera not in ("", NYU_CAMERA, ROOMS_CAMERA):  # their contents do not show it
            facts["camera"] = self.training_focal()
        return facts | {"contents": record["digest"] or self.layout.identity()}

    def training_focal(self) -> float | None:
        """Return the median focal length of the training images as the network sees them, before augmentation [px].

        Up to 100 evenly spaced frames are looked at; None where the camera of more than half is not known.

        Raises:
            InputError: If what is stated of a camera cannot be.
        """
        focals = []
        for frame in self._sampled:
            if camera := self.layout.intrinsics("train", frame):
                camera = camera.resized(self.layout.size("train", frame), self._image_size("train", frame))
                focals.append(camera.focal)
        return statistics.median(focals) if focals and 2 * len(focals) >= len(self._sampled) else None

    def beyond_range(self, low: float, high: float) -> float:
        """Return the share of the valid training depth that is outside [low, high] [m].

        Up to 100 evenly spaced frames are read; none where the data's depth range lies inside.

        Raises:
            InputError: If a frame cannot be read.
        """
        limits = self.layout.depth_range
        if low <= limits.min and limits.max <= high:
            return 0.0
        depths = [self.layout.read("train", frame)[1] for frame in self._sampled]
        valid = np.concatenate([np.empty(0, np.float32), *(depth[limits.contains(depth)] for depth in depths)])
        return float(((valid < low) | (valid > high)).mean()) if valid.size else 0.0

    def train_label(self, frame: int) -> str:
        """Return the name of a frame that is trained on, by the number that its sample has."""
        count = self.layout.count("train")
        if self._rooms and frame >= count:
            return self._rooms.label("train", frame - count)
        return self.layout.label("train", frame)

    def describe(self) -> str:
        """Return a line that describes the data, and one for each note or warning."""
        counts = ", ".join(f"{self.layout.count(split)} {split}" for split in SPLITS)
        if self._extra_rooms:
            counts += f", {self._share} of {self._extra_rooms} built-in rooms in each epoch"
        counts += f"; {self.layout.ground_truth} ground truth"
        line = f"{self.layout.description} ({counts}), images {self._describe_sizes()}"
        notes = [f"camera: {describe_camera(self.layout)}", *(f"note: {note}" for note in self.layout.notes)]
        if self.layout.val == "random_frames":
            notes.append("warning: val frames are drawn at random and have neighbors in train, so val figures flatter")
        return "\n      ".join([line, *notes])

    def record(self) -> dict[str, Any]:
        """Return what this data is as plain values, to stand beside figures."""
        return {
            "description": self.layout.description,
            "layout": self.layout.name,
            "ground_truth": self.layout.ground_truth,
            "frames": {split: self.layout.count(split) for split in SPLITS},
            "extra_rooms": self._extra_rooms,
            "extra_rooms_share": self._share,
            "scenes": self.layout.scene_rule,
            "val": self.layout.val,
            "allowed": list(self._allow),
            "digest": self._examined[1],
            "image_size": list(self.image_size),
            "camera": describe_camera(self.layout),
        }

    @functools.cached_property
    def _rooms(self) -> RoomsLayout | None:
        """The built-in rooms beside the pairs, at the size of most of them."""
        if not self._extra_rooms:
            return None
        size = Counter(self._image_sizes("train") or [self.image_size]).most_common(1)[0][0]
        return RoomsLayout({"train": self._extra_rooms}, size, depth_range=self.layout.depth_range)

    def _image_size(self, split: str, frame: int) -> Size:
        """Return the (height, width) that an image is resized to."""
        return self._size_for(self.layout.size(split, frame)) if self._size_for else self.image_size

    def _image_sizes(self, split: str) -> list[Size]:
        """Return the (height, width) that each image of a split is resized to."""
        return [self._image_size(split, frame) for frame in range(self.layout.count(split))]

    def _describe_sizes(self) -> str:
        """Return the sizes of some images, in words."""
        found: Counter[Size] = Counter()
        stretched = ""
        for split, frame in first_frames(self.layout):
            with suppress(InputError):  # the data's check reports it
                (height, width), size = self.layout.size(split, frame), self._image_size(split, frame)
                found[size] += 1
                if size == self.image_size and is_stretched((height, width), size):  # others are rounded, at most
                    stretched = f"; of another aspect, such as {width}x{height}, they are stretched"
        sizes = found.most_common() or [(self.image_size, 0)]
        words = ", ".join(f"{width}x{height}" for (height, width), _ in sizes[:_SIZES_NAMED])
        return words + (" and others" if len(sizes) > _SIZES_NAMED else "") + stretched

    def _require_sound(self, split: str) -> None:
        if not self.layout.count(split):
            require_sound([no_frames(self.layout, split)], (), (split,))
        require_sound(self._examined[0], self._allow, (split,))

    def _train_dataset(self, layout: Layout, sizes: list[Size]) -> DepthDataset:
        read = self._cached_read(layout, "train", sizes, sizes)
        return DepthDataset(layout, "train", sizes, self._augment, self._seed, read=read)

    def _cached_read(
        self, layout: Layout, split: str, image_sizes: list[Size], depth_sizes: list[Size]
    ) -> Callable[[int], Pair] | None:
        """Return what reads a split's pairs from the cache, which is completed first; None where there is none."""
        if not (self._cached and layout.identity()):
            return None
        cache = PairCache(layout, split, self._cache_folder, image_sizes, depth_sizes)
        with progress_bar(f"{split} pairs decoded") as advance:
            cache.build(self._spare_workers, advance)
        return cache.read

    @functools.cached_property
    def _examined(self) -> tuple[Sequence[Finding], str | None]:
        """What is wrong with the data, and a digest of its contents where every pair was to be decoded."""
        if not self._full_check:
            return cheap_findings(self.layout), None
        with progress_bar("pairs examined") as advance:
            examination = examine(self.layout, self._cache_folder, self._spare_workers, advance)
        return examination.findings, examination.digest

    def _loader(self, dataset: DepthDataset | MixedDataset, **batches: Any) -> DataLoader[Sample]:
        # pinning takes memory of the GPU, so not where the trainer keeps off it
        pinned = torch.cuda.is_available() if self.trainer is None else self.trainer.strategy.root_device.type == "cuda"
        return _LazyLoader(
            dataset,
            **batches,
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
