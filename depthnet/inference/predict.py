"""Photographs to depth files: ``predict.py`` for the command line, :func:`predict_files` from Python.

A photograph ``<stem>.jpg`` gives ``<stem>_depth.npy``, ``<stem>_depth.png``, ``<stem>_color.png`` and the sidecar
``<stem>.json``, which states what they are made from before they are written, and lists them once they are whole. Where
two photographs in a folder share a stem, theirs is the whole name (``a.jpg_depth.npy`` beside ``a.png_depth.npy``).
Named files go straight into the output folder; what lies in a named folder keeps its sub-folder. What has a sidecar of
ours is an output and never a photograph.

Nothing heavy is imported, and no network is loaded, before a photograph needs it.
"""
# os.path answers False where pathlib raises: a name too long, a link to itself, a closed folder
# ruff: noqa: PTH100, PTH110, PTH112, PTH113, PTH118, PTH119, PTH120, PTH121, PTH122, PTH202, PTH207

from __future__ import annotations

import errno
import functools
import glob
import json
import math
import os
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import depthnet
from depthnet.core.atomic_io import file_digest, open_durable, require_writable, write_json
from depthnet.core.camera import find_camera
from depthnet.core.device import torch_device
from depthnet.core.images import image_size, read_image, write_depth_png, write_image_png
from depthnet.core.types import InputError, read_size
from depthnet.core.visualize import colorize, depth_limits, with_scale_bar
from depthnet.models.shipped import find_checkpoint

if TYPE_CHECKING:
    from depthnet.models.network import DepthNetwork


SUFFIXES = (".png", ".jpg", ".jpeg")
"""What a folder is searched for, in upper or lower case. A file that is named may have any suffix."""

_ENDINGS = ("_depth.npy", "_depth.png", "_color.png")
_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO)  # what stops one file stops them all


@dataclass(frozen=True)
class PredictionReport:
    """How many photographs were predicted, kept from a former run, or failed; and where the files are.

    Attributes:
        cameras: How many photographs had their camera from where, such as ``{"K.txt": 3}``.
    """

    written: int
    kept: int
    failed: int
    output: Path
    cameras: Mapping[str, int] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.written} written, {self.kept} kept, {self.failed} failed → {self.output}"

    @property
    def camera_line(self) -> str:
        """Where the photographs' cameras were taken from, in a line; empty where none was looked at."""
        several = len(self.cameras) > 1
        found = [f"{source} ({count})" if several else source for source, count in self.cameras.items()]
        return f"camera: {', '.join(found)}" if found else ""


def predict_files(
    paths: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    network: DepthNetwork | str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    overwrite: bool = False,
    color_range: tuple[float, float] | None = None,
    device: str = "auto",
    focal: float | None = None,
    fov_x: float | None = None,
    size: tuple[int, int] | None = None,
    tell: Callable[[str], None] | None = None,
    advance: Callable[[int, int], None] | None = None,
) -> PredictionReport:
    """Predict depth for photographs and write it; what a former run made the same way is kept.

    Args:
        paths: Files, folders and globs; a name that exists is never read as a glob. In folders, hidden files and links
            to folders are left.
        network: A checkpoint file or a shipped model's name, loaded when the first photograph needs it; or a network,
            and then nothing is kept.
        output: The folder to write in; it may be, hold or lie in a folder of ``paths``.
        overwrite: Predict anew whatever is there.
        color_range: Ends of the colour scale of ``_color.png`` [m]; None: each picture's own.
        device: Where a checkpoint's network runs: "auto", "cpu", "cuda", "cuda:1" or "mps".
        focal: The focal length of every photograph [px], instead of what lies beside it or stands in it.
        fov_x: The horizontal field of view of every photograph [degrees], likewise.
        size: (height, width) that the network sees instead of the one that it was trained at [px].
        tell: Takes a line about each file that failed; None prints it to stderr.
        advance: Called after each file with how many were seen and how many there are.

    Raises:
        InputError: Before any work, if an option is impossible, nothing matches, the output cannot be written, or two
            photographs would be written under one name; at the first photograph, if the checkpoint or the device is no
            good; later, if the disk is full. A photograph that is no good fails alone.
    """
    check_options(color_range, focal, fov_x, size)
    given = [paths] if isinstance(paths, str | os.PathLike) else list(paths)
    arguments = [os.fspath(path) for path in given]
    photographs, faults = _find(arguments)
    if not photographs:
        raise InputError(_one_line(f"{', '.join(arguments)}: no photograph ({', '.join(SUFFIXES)}) there"))
    ends = None if color_range is None else [float(end) for end in color_range]
    chosen = find_checkpoint(network) if isinstance(network, str | os.PathLike) else network
    job = _Job(chosen, device, require_writable(output), overwrite, ends, focal, fov_x, size)
    counts = Counter(failed=len(faults))
    say = tell or functools.partial(print, file=sys.stderr, flush=True)
    for fault in faults:
        say(_one_line(fault))
    for place, path in photographs.items():
        try:
            counts["written" if job.run(path, place) else "kept"] += 1
        except (InputError, OSError, MemoryError) as error:
            if isinstance(error, _NoNetworkError) or getattr(error.__cause__, "errno", None) in _DISK:
                raise
            counts["failed"] += 1
            why = getattr(error, "strerror", None) or "too large for this machine's memory"
            say(_one_line(str(error) if isinstance(error, InputError) else f"{path}: {why}"))
        if advance is not None:
            advance(counts.total(), len(photographs) + len(faults))
    cameras = dict(job.cameras)
    if cameras and "network" in vars(job) and getattr(job.network, "camera", None) is None:
        cameras = {"not used, as the checkpoint states no training camera": sum(cameras.values())}
    return PredictionReport(counts["written"], counts["kept"], counts["failed"], job.output, cameras)


def check_options(
    color_range: Sequence[float] | None, focal: float | None, fov_x: float | None, size: Sequence[int] | None
) -> None:
    """Refuse options that are impossible for any photograph; arguments as for :func:`predict_files`.

    Raises:
        InputError: For the first that is, by its name on the command line.
    """
    if color_range is not None and not 0 <= color_range[0] < color_range[1] < math.inf:
        low, high = color_range
        raise InputError(f"--color-range {low:g} {high:g}: needs 0 <= low < high, in meters")
    if focal is not None and fov_x is not None:
        raise InputError("--focal and --fov-x both state the camera; give one of them")
    if focal is not None and not 0 < focal < math.inf:
        raise InputError(f"--focal {focal:g}: needs a focal length in pixels, above 0")
    if fov_x is not None and not 0 < fov_x < 180:
        raise InputError(f"--fov-x {fov_x:g}: needs a horizontal field of view in degrees, above 0 and below 180")
    if size is not None:
        read_size("--size", size)


class _NoNetworkError(InputError):
    """No photograph can be predicted."""


def _find(arguments: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """Return the photographs of files, folders and globs, and a line for each argument or folder that cannot be read.

    Returns:
        The path of each photograph, by its place in the output: folder and name, without an ending.

    Raises:
        InputError: If nothing is there, or two photographs have one place.
    """
    errors: list[OSError] = []
    faults: list[str] = []
    groups: dict[tuple[str, str], dict[str, str]] = defaultdict(dict)  # (folder, its place) -> name -> path
    for argument in dict.fromkeys(match for given in arguments for match in _expand(given)):
        if os.path.isdir(argument):
            for folder, folders, names in os.walk(argument, onerror=errors.append):
                folders[:] = sorted(name for name in folders if not name.startswith("."))
                group = groups[os.path.abspath(folder), os.path.relpath(folder, argument)]
                seen = sorted(name for name in names if name.lower().endswith(SUFFIXES) and not name.startswith("."))
                group.update({name: os.path.join(folder, name) for name in seen})
        elif os.path.lexists(argument):
            folder, name = os.path.split(os.path.abspath(argument))
            groups[folder, "."][name] = argument
        else:
            faults.append(f"{argument}: no such file or folder, and no glob that matches")
    faults += [f"{error.filename}: cannot be searched: {error.strerror}" for error in errors]
    if not groups:
        raise InputError(_one_line("; ".join(faults)))
    found: dict[str, str] = {}
    for (_, below), group in groups.items():
        stems = {name: os.path.splitext(name)[0] for name, path in group.items() if not _is_output(path)}
        shared = Counter([*stems.values(), *stems])
        for name, stem in stems.items():
            place = os.path.normpath(os.path.join(below, stem if shared[stem] == 1 else name))
            path, other = group[name], found.setdefault(place, group[name])
            if path != other and not (os.path.exists(path) and os.path.exists(other) and os.path.samefile(path, other)):
                ways = "use two outputs, or name the folder above to keep its sub-folders"
                raise InputError(_one_line(f"{path} and {other} would both be written as {place}; {ways}"))
    return found, faults


def _expand(argument: str) -> list[str]:
    """Return what an argument matches, or itself; a name that exists is never read as a glob."""
    if os.path.lexists(argument):
        return [argument]
    matches = sorted(glob.glob(argument, recursive=True))
    # where all levels are matched, so are the files of a folder
    return [match for match in matches if "**" not in argument or not os.path.isdir(match)] or [argument]


def _is_output(path: str) -> bool:
    base = next((path.removesuffix(ending) for ending in (*_ENDINGS, ".json") if path.endswith(ending)), None)
    return base is not None and _is_ours(_read_json(f"{base}.json"))


@dataclass(eq=False)
class _Job:
    """What is done to every photograph."""

    given: DepthNetwork | Path
    device: str
    output: Path
    overwrite: bool
    color_range: list[float] | None
    focal: float | None
    fov_x: float | None
    size: tuple[int, int] | None
    cameras: Counter[str] = field(default_factory=Counter)

    @functools.cached_property
    def network(self) -> DepthNetwork:
        """The network, loaded when it is first needed."""
        if not isinstance(self.given, Path):
            return self.given
        from depthnet.models.depth_net import load_network

        try:
            return load_network(self.given, _find_device(self.device), self.size)
        except InputError as error:
            raise _NoNetworkError(str(error)) from error

    @functools.cached_property
    def digest(self) -> str | None:
        """The digest of the checkpoint; None for a network in hand."""
        try:
            return file_digest(self.given) if isinstance(self.given, Path) else None
        except OSError as error:
            raise _NoNetworkError(f"checkpoint {self.given}: cannot be read: {error.strerror}") from None

    def run(self, path: str, place: str) -> bool:
        """Predict and write one photograph; False where a former run did the same."""
        size = image_size(path)  # first: what is no photograph may have no end
        camera, source = find_camera(Path(path), size, self.focal, self.fov_x)
        source = source or "not known, the training camera's field of view is assumed"
        self.cameras[source] += 1
        settings: dict[str, Any] = {"color_range": self.color_range}
        origin = {
            "source_sha256": file_digest(path),
            "checkpoint_sha256": self.digest,
            "settings": settings if self.size is None else settings | {"size": list(self.size)},
            "camera": {"source": source, "intrinsics": None if camera is None else camera._asdict()},
        }
        base = os.path.join(self.output, place)
        beside = os.path.realpath(os.path.dirname(path)) == os.path.realpath(os.path.dirname(base))
        if not self.overwrite and _is_done(base, origin, beside):
            return False
        image, network = read_image(path), self.network
        try:
            depth = network.infer(image, camera)
        except RuntimeError as error:  # a photograph may be too large for a GPU
            raise InputError(f"{path}: the network fails on it: {' '.join(str(error).split())[:200]}") from None
        ratio = network.focal_ratio(size, camera)
        nearest, deepest = network.depth_range.min * ratio, network.depth_range.max * ratio
        scale = 10.0 ** min(3, math.floor(math.log10(65535 / deepest)))  # outdoors, millimeters do not fit 16 bits
        low, high = self.color_range or depth_limits(depth)
        sidecar = {
            "depthnet": depthnet.__version__,
            "source": os.path.basename(path),
            **origin,
            "focal_ratio": ratio,
            "size": list(depth.shape),
            "unit": "metre",
            "scale": scale,
            "depth_range": {"min": nearest, "max": deepest},
            "color_range": [low, high],
            "checkpoint": self.given.name if isinstance(self.given, Path) else None,
            "model": {"network": type(network).__name__, "encoder": network.config().get("encoder")},
            "image_size": list(network.size_for(depth.shape)),
        }
        write_json(f"{base}.json", sidecar)
        with open_durable(base + _ENDINGS[0]) as file:
            np.save(file, depth, allow_pickle=False)
        write_depth_png(base + _ENDINGS[1], depth if scale == 1000 else depth * (scale / 1000))
        write_image_png(base + _ENDINGS[2], with_scale_bar(colorize(depth, low, high), low, high))
        write_json(f"{base}.json", {**sidecar, "files": _sizes(base)})
        return True


def _find_device(name: str) -> str:
    import torch

    if name == "auto":
        return torch_device()
    try:
        torch.empty(1, device=name).cpu()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise InputError(f"device {name}: not to be had here ({str(error).strip().splitlines()[0]})") from None
    return name


def _is_done(base: str, origin: Mapping[str, Any], beside: bool) -> bool:
    """Whether a former run made the same files; raises InputError where others' files would be lost."""
    sidecar = _read_json(f"{base}.json")
    if _is_ours(sidecar):
        same = origin["checkpoint_sha256"] is not None and {**sidecar, **origin} == sidecar
        return same and sidecar.get("files") == _sizes(base)
    endings = [".json"] if sidecar is not None else _ENDINGS if beside else []
    for path in (base + ending for ending in endings):
        if os.path.lexists(path):
            raise InputError(f"{path}: is there and not from here; name another output folder or add --overwrite")
    return False


def _sizes(base: str) -> dict[str, int | None]:
    """Bytes of each output, by its name."""
    paths = [base + ending for ending in _ENDINGS]
    return {os.path.basename(path): os.path.getsize(path) if os.path.isfile(path) else None for path in paths}


def _read_json(path: str) -> Any:
    """What a JSON file holds; None where there is none, or one that is torn or too large to be a sidecar."""
    try:
        small = os.path.isfile(path) and os.path.getsize(path) < 1 << 20  # ours have a thousand bytes; a pipe blocks
        return json.loads(Path(path).read_bytes()) if small else None
    except (OSError, ValueError, RecursionError):
        return None


def _is_ours(sidecar: Any) -> bool:
    return isinstance(sidecar, dict) and "checkpoint_sha256" in sidecar


def _one_line(text: str) -> str:
    """The text with what cannot be printed escaped: a file name may hold line breaks and worse."""
    return "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in text)
