"""Photographs to depth files: ``predict.py`` for the command line, :func:`predict_files` from Python.

A photograph ``<stem>.jpg`` gives ``<stem>_depth.npy``, ``<stem>_depth.png``, ``<stem>_color.png`` and the sidecar
``<stem>.json``, which states what they are made from before they are written, and lists them once they are whole. If
two photographs in a folder share a stem, the whole name is used (``a.jpg_depth.npy`` beside ``a.png_depth.npy``). Named
files go straight into the output folder; files of a named folder keep their sub-folder. A file with one of our sidecars
is an output and never a photograph.

All photographs are checked first; torch is imported and the network loaded only if one has to be predicted.
"""
# os.path answers False where pathlib raises: a name too long, a link to itself, a closed folder
# ruff: noqa: PTH100, PTH112, PTH113, PTH118, PTH119, PTH120, PTH122, PTH202, PTH207

from __future__ import annotations

import contextlib
import errno
import functools
import glob
import json
import math
import os
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from depthnet.core.atomic_io import file_digest, require_writable
from depthnet.core.camera import Intrinsics, find_camera
from depthnet.core.device import torch_device
from depthnet.core.images import image_size, read_image
from depthnet.core.types import InputError, read_size, reason_of
from depthnet.inference.outputs import ENDINGS, describe_network, write_outputs, written_sizes
from depthnet.models.checkpoint import find_checkpoint

if TYPE_CHECKING:
    from depthnet.models.network import DepthNetwork


SUFFIXES = (".png", ".jpg", ".jpeg")
"""The suffixes that are searched for in folders, in any case. A file that is named may have any suffix."""

_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO)  # an error with one of these stops the run


@dataclass(frozen=True)
class PredictionReport:
    """How many photographs were predicted, kept from an earlier run, or failed; and where the files are.

    Attributes:
        cameras: How many photographs took their camera from each source, such as ``{"K.txt": 3}``.
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
        """The sources of the photographs' cameras in a line; empty if there is none."""
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
    log: Callable[[str], None] | None = None,
    advance: Callable[[int, int], None] | None = None,
) -> PredictionReport:
    """Predict depth for photographs and write it; what an earlier run made the same way is kept.

    Args:
        paths: Files, folders and globs; a name that exists is never read as a glob. Hidden files and links to folders
            are skipped in folders.
        network: A checkpoint file or a shipped model's name, loaded if any photograph needs it; or a network, and then
            nothing is kept.
        output: The folder to write in; it may be, hold or lie in a folder of ``paths``.
        overwrite: Predict every photograph again.
        color_range: Ends of the color scale of ``_color.png`` [m]; None: each picture's own.
        device: Where a checkpoint's network runs: "auto", "cpu", "cuda", "cuda:1" or "mps".
        focal: The focal length of every photograph [px], instead of a file's or EXIF's.
        fov_x: The horizontal field of view of every photograph [degrees], likewise.
        size: (height, width) that the network sees instead of its training size [px].
        log: Takes a line about each file that failed; None prints it to stderr.
        advance: Called after each file with how many are done and how many there are.

    Raises:
        InputError: Before any work, if an option is impossible, nothing matches, the output cannot be written, or two
            photographs would be written under one name; before the first prediction, if the checkpoint or the device
            cannot be used; later, if the disk is full. A photograph that cannot be used fails alone.
    """
    check_options(color_range, focal, fov_x, size)
    given = [paths] if isinstance(paths, str | os.PathLike) else list(paths)
    arguments = [os.fspath(path) for path in given]
    photographs, faults = _find(arguments)
    if not photographs:
        raise InputError(_one_line(f"{', '.join(arguments)}: no photograph ({', '.join(SUFFIXES)}) there"))
    file = find_checkpoint(network) if isinstance(network, str | os.PathLike) else None
    folder, digest = require_writable(output), None if file is None else file_digest(file)
    settings = {"color_range": None if color_range is None else [float(end) for end in color_range]}
    settings |= {} if size is None else {"size": list(size)}  # older sidecars state none
    counts: Counter[str] = Counter()

    def count(kind: str, line: str = "") -> None:
        counts[kind] += 1
        if line:
            (log or functools.partial(print, file=sys.stderr, flush=True))(_one_line(line))
        if advance is not None:
            advance(counts.total(), len(photographs) + len(faults))

    @contextlib.contextmanager
    def failing_alone(path: str) -> Iterator[None]:
        try:
            yield
        except (InputError, OSError, MemoryError) as error:
            if getattr(error.__cause__, "errno", None) in _DISK:
                raise
            why = getattr(error, "strerror", None) or "too large for this machine's memory"
            count("failed", str(error) if isinstance(error, InputError) else f"{path}: {why}")

    for fault in faults:
        count("failed", fault)
    tasks: list[_Task] = []
    cameras: Counter[str] = Counter()
    for place, path in photographs.items():
        with failing_alone(path):
            height_width = image_size(path)  # first: a file that is no photograph may have no end
            camera, source = find_camera(Path(path), height_width, focal, fov_x)
            source = source or "not known, the training camera's field of view is assumed"
            cameras[source] += 1
            stated = {"source": source, "intrinsics": None if camera is None else camera._asdict()}
            digests = {"source_sha256": file_digest(path), "checkpoint_sha256": digest}
            task = _Task(path, os.path.join(folder, place), camera, {**digests, "settings": settings, "camera": stated})
            if overwrite or not _is_done(task):
                tasks.append(task)
            else:
                count("kept")
    if tasks and file is not None:
        from depthnet.models.depth_net import load_network

        network = load_network(file, find_device(device), size)
    for task in tasks:
        with failing_alone(task.path):
            _predict(task, network, file)  # type: ignore[arg-type]  # it is loaded
            count("written")
    if cameras and tasks and getattr(network, "camera", None) is None:
        cameras = Counter({"not used, as the checkpoint states no training camera": cameras.total()})
    return PredictionReport(counts["written"], counts["kept"], counts["failed"], folder, cameras)


def check_options(
    color_range: Sequence[float] | None, focal: float | None, fov_x: float | None, size: Sequence[int] | None
) -> None:
    """Check the options that do not depend on a photograph; arguments as for :func:`predict_files`.

    Raises:
        InputError: For the first impossible one, by its name on the command line.
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


def _find(arguments: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """Return the photographs of files, folders and globs, and a line for each argument or folder that cannot be read.

    Returns:
        The path of each photograph, by its place in the output: folder and name, without an ending.

    Raises:
        InputError: If nothing is there, or two photographs have one place.
    """
    faults: list[str] = []

    def unreadable(error: OSError) -> None:
        faults.append(f"{error.filename}: cannot be searched: {error.strerror}")

    groups: dict[tuple[str, str], dict[str, str]] = defaultdict(dict)  # (folder, its place) -> name -> path
    for argument in dict.fromkeys(match for given in arguments for match in _expand(given)):
        if os.path.isdir(argument):
            for folder, folders, names in os.walk(argument, onerror=unreadable):
                folders[:] = sorted(name for name in folders if not name.startswith("."))
                group = groups[os.path.abspath(folder), os.path.relpath(folder, argument)]
                seen = sorted(name for name in names if name.lower().endswith(SUFFIXES) and not name.startswith("."))
                group.update({name: os.path.join(folder, name) for name in seen})
        elif os.path.lexists(argument):
            folder, name = os.path.split(os.path.abspath(argument))
            groups[folder, "."][name] = argument
        else:
            faults.append(f"{argument}: no such file or folder, and no glob that matches")
    if not groups:
        raise InputError(_one_line("; ".join(faults)))
    found: dict[str, str] = {}
    for (_, below), group in groups.items():
        stems = {name: os.path.splitext(name)[0] for name, path in group.items() if not _is_output(path)}
        shared = Counter([*stems.values(), *stems])
        for name, stem in stems.items():
            place = os.path.normpath(os.path.join(below, stem if shared[stem] == 1 else name))
            path, other = group[name], found.setdefault(place, group[name])
            if os.path.realpath(path) != os.path.realpath(other):
                ways = "use two outputs, or name the folder above to keep its sub-folders"
                raise InputError(_one_line(f"{path} and {other} would both be written as {place}; {ways}"))
    return found, faults


def _expand(argument: str) -> list[str]:
    """Return what an argument matches, or itself; a name that exists is never read as a glob."""
    if os.path.lexists(argument):
        return [argument]
    matches = sorted(glob.glob(argument, recursive=True))
    # "**" matches a folder's files as well
    return [match for match in matches if "**" not in argument or not os.path.isdir(match)] or [argument]


def _is_output(path: str) -> bool:
    base = next((path.removesuffix(ending) for ending in (*ENDINGS, ".json") if path.endswith(ending)), None)
    return base is not None and _is_ours(_read_json(f"{base}.json"))


class _Task(NamedTuple):
    """A photograph to predict: its path, that of its outputs without their endings, and what they are made from."""

    path: str
    base: str
    camera: Intrinsics | None
    origin: dict[str, Any]


def _predict(task: _Task, network: DepthNetwork, checkpoint: Path | None) -> None:
    """Predict one photograph and write its files."""
    image = read_image(task.path)
    try:
        depth = network.infer(image, task.camera)
    except RuntimeError as error:  # a photograph may be too large for a GPU
        raise InputError(f"{task.path}: the network fails on it: {reason_of(error)}") from None
    about = {
        "source": os.path.basename(task.path),
        **task.origin,
        "checkpoint": None if checkpoint is None else checkpoint.name,
        **describe_network(network, depth.shape, task.camera),
    }
    write_outputs(task.base, depth, about, task.origin["settings"]["color_range"])


def find_device(name: str) -> str:
    """Return the device to predict on; "auto": a GPU if torch can use one, else the CPU.

    Raises:
        InputError: If there is no such device here.
    """
    import torch

    if name == "auto":
        return torch_device()
    try:
        torch.empty(1, device=name).cpu()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise InputError(f"device {name}: not available here ({reason_of(error)})") from None
    return name


def _is_done(task: _Task) -> bool:
    """Return whether an earlier run made the same files; raise InputError if others' files would be lost."""
    sidecar = _read_json(f"{task.base}.json")
    if _is_ours(sidecar):
        same = task.origin["checkpoint_sha256"] is not None and {**sidecar, **task.origin} == sidecar
        return same and sidecar.get("files") == written_sizes(task.base)
    beside = os.path.realpath(os.path.dirname(task.path)) == os.path.realpath(os.path.dirname(task.base))
    endings = [".json"] if sidecar is not None else ENDINGS if beside else []
    for path in (task.base + ending for ending in endings):
        if os.path.lexists(path):
            raise InputError(f"{path}: exists and is not from depthnet; name another output folder or add --overwrite")
    return False


def _read_json(path: str) -> Any:
    """Return the content of a JSON file; None if there is none, or it is torn or too large for a sidecar."""
    try:
        small = os.path.isfile(path) and os.path.getsize(path) < 1 << 20  # ours have a thousand bytes; a pipe blocks
        return json.loads(Path(path).read_bytes()) if small else None
    except (OSError, ValueError, RecursionError):
        return None


def _is_ours(sidecar: Any) -> bool:
    return isinstance(sidecar, dict) and "checkpoint_sha256" in sidecar


def _one_line(text: str) -> str:
    """Escape what cannot be printed: a file's name may hold line breaks and worse."""
    return "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in text)
