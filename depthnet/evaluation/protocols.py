"""Protocols of evaluation: what is compared with what, as values with names, printed beside every number.

    protocol = PROTOCOLS["nyu_eigen"].within(depth_range)
    protocol.check(ground_truth="raw", size=(480, 640))
    pred, depth, mask = protocol(pred, depth, mask)          # comparable; now the metrics, per image

The same predictions score 0.903 or 0.887 by protocol alone (AdaBins on raw and on filled ground truth). So a protocol
states everything between a network's output and the metrics, refuses other data, and has a digest.
"""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from jinja2 import Template
from torch import Tensor

from depthnet.core.types import Crop, DepthRange, InputError, RelativeCrop
from depthnet.data.layouts.layout import Layout

GroundTruth = Literal["raw", "filled", "any"]
Align = Literal["none", "median", "scale_shift", "disparity_scale_shift", "min_max"]

_FLIP = "_flip"
_DIGESTED = {"ground_truth": "truth"}  # the field's name when digests were first published
_WORDS = ("name", "source")  # fields by which nothing is computed
_MIN_MAX = 7.5  # the published Keras project's 10 times 0.75

_DEFINITION = Template(Path(__file__).with_name("protocol.txt.j2").read_text(encoding="utf-8"))


@dataclass(frozen=True)
class Protocol:
    """One way to make prediction and ground truth comparable.

    Args:
        name: Printed beside its numbers.
        source: The paper or code that it is from.
        ground_truth: The ground truth it needs: ``raw`` (the sensor's, with holes), ``filled`` (in-painted) or ``any``.
        size: The (height, width) of ground truth it is made for [pixels]; None for any.
        crop: The pixels that count, as pixels or as shares of height and width; None for all.
        depth_range: The depths that count, both ends excluded, and the range that predictions are clamped to [m]; None
            for the data's own, which :meth:`within` fills in.
        align: What is done to an image before clamping. ``median`` (one factor: the ratio of the medians),
            ``scale_shift`` (factor and offset by least squares) and ``disparity_scale_shift`` (the same of 1 / pred to
            1 / depth, clamped to 1 / max to 1 / min and inverted: ``pred`` is depth, up to a factor) fit the prediction
            to the ground truth over the pixels that count. A least-squares factor below 0 becomes 0, the best that is
            not negative, so a prediction that runs the wrong way is worth the constant that fits best. Where nothing
            can be fitted (no such pixel, a median that is not above 0) the prediction stays as it is; so does a pixel
            that holds no number, or none above 0 where it is inverted.
            ``min_max`` scales prediction and ground truth, each by itself, to 0 to 7.5 over the whole map. ``none``.
        flip_test: Whether the prediction is the mean of the image's and the mirrored image's. The caller runs the
            network, so it averages them.

    Example:
        >>> depth = torch.tensor([[[[1.0, 2.0, 10.0]]]])
        >>> protocol = PROTOCOLS["uncropped"].within(DepthRange(1e-3, 10.0))
        >>> pred, depth, mask = protocol(depth * 2, depth, depth > 0)
        >>> pred.flatten().tolist(), mask.flatten().tolist()
        ([2.0, 4.0, 10.0], [True, True, False])
    """

    name: str
    source: str
    ground_truth: GroundTruth = "any"
    size: tuple[int, int] | None = None
    crop: Crop | RelativeCrop | None = None
    depth_range: DepthRange | None = None
    align: Align = "none"
    flip_test: bool = False

    @property
    def definition(self) -> str:
        """All of this in words, for reports."""
        return str(_DEFINITION.render(protocol=self))

    @property
    def digest(self) -> str:
        """Twelve hexadecimal digits of SHA-256 over what is computed, no prose; equal on any machine.

        A protocol that computes otherwise needs another value of some field, such as a new name of its ``align``.
        """
        computed = {_DIGESTED.get(name, name): value for name, value in asdict(self).items() if name not in _WORDS}
        return hashlib.sha256(json.dumps(computed, sort_keys=True).encode()).hexdigest()[:12]

    def fits(self, ground_truth: str, size: tuple[int, int]) -> bool:
        """Whether it is made for data of this ground truth (``raw`` or ``filled``) and (height, width)."""
        return self.ground_truth in ("any", ground_truth) and self.size in (None, tuple(size))

    def check(self, ground_truth: str, size: tuple[int, int]) -> None:
        """Refuse data that the protocol is not made for.

        Args:
            ground_truth: The data's ground truth, ``raw`` or ``filled``.
            size: The ground truth's (height, width) [pixels].

        Raises:
            InputError: If they are not what the protocol needs; the message names the protocols that fit.
        """
        if self.fits(ground_truth, size):
            return
        needs = [f"{self.ground_truth} ground truth"] if self.ground_truth != "any" else []
        needs += [f"{_pixels(self.size)} pixels"] if self.size is not None else []
        fitting = ", ".join(protocol.name for protocol in PROTOCOLS.values() if protocol.fits(ground_truth, size))
        raise InputError(
            f"protocol {self.name} needs {' of '.join(needs)}; this is {ground_truth} ground truth of {_pixels(size)} "
            f"pixels, for which there is {fitting}"
        )

    def within(self, depth_range: DepthRange) -> Protocol:
        """Return the protocol for data of this depth range; it may narrow the range, never widen it.

        Args:
            depth_range: The data's depths that count as valid [m].

        Returns:
            The same protocol with its own range, or the data's where it has none.

        Raises:
            InputError: If the protocol's range goes beyond the data's.
        """
        own = self.depth_range or depth_range
        if own.min < depth_range.min or own.max > depth_range.max:
            raise InputError(
                f"protocol {self.name} counts depths from {own.min} to {own.max} m, but data.depth_range is "
                f"{depth_range.min} to {depth_range.max}; widen that, or use uncropped"
            )
        return replace(self, depth_range=own)

    def __call__(self, pred: Tensor, depth: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Make a batch comparable: resize, then align, then clamp.

        Args:
            pred: Predicted depth [m], shape ``(B, 1, h, w)``; resized bilinearly (``align_corners=True``) to the
                ground truth's size if it has another. Then NaN becomes the minimum, an infinity the end on its side.
            depth: True depth [m], shape ``(B, 1, H, W)``; read only where ``mask`` is true.
            mask: Valid pixels, bool, shape of ``depth``.

        Returns:
            ``pred``, float32, shape ``(B, 1, H, W)``, inside the range; ``depth`` as it was, or scaled for ``min_max``;
            and ``mask``, narrowed to min < depth < max, before and after scaling, and to the crop.

        Raises:
            InputError: If the ground truth's size is not the protocol's.
            ValueError: If the range is still open.
        """
        if self.depth_range is None:
            raise ValueError(
                f"protocol {self.name} takes its depth range from the data; call within(depth_range) first"
            )
        size = (depth.shape[-2], depth.shape[-1])
        self.check(self.ground_truth, size)
        pred = resize_prediction(pred, size)
        low, high = self.depth_range.min, self.depth_range.max
        mask = mask & (depth > low) & (depth < high)
        if self.align == "min_max":
            pred, depth = _min_max(pred, pred.isfinite()), _min_max(depth, mask)
            mask &= depth > low
        if self.crop is not None:
            crop = self.crop.pixels(size)
            inside = torch.zeros_like(mask)
            inside[..., crop.top : crop.bottom, crop.left : crop.right] = True
            mask &= inside

        if self.align not in ("none", "min_max"):
            images = zip(pred, depth, mask, strict=True)
            pred = torch.stack([_aligned(*image, self.align, self.depth_range) for image in images])
        return pred.nan_to_num(nan=low, posinf=high, neginf=low).clamp(low, high), depth, mask


def resize_prediction(pred: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize predictions as every protocol does, bilinearly (``align_corners=True``).

    Args:
        pred: Shape ``(B, 1, h, w)``.
        size: The ground truth's (height, width) [pixels].

    Returns:
        float32, shape ``(B, 1, H, W)``; the same values where they have that size already.

    Example:
        >>> resize_prediction(torch.tensor([[[[1.0, 3.0]]]]), (1, 3)).flatten().tolist()
        [1.0, 2.0, 3.0]
    """
    pred = pred.float()
    return pred if pred.shape[-2:] == size else F.interpolate(pred, size, mode="bilinear", align_corners=True)


def _double(values: Tensor) -> Tensor:
    """In float64; on the processor where they are on an Apple GPU, which has none."""
    return (values.cpu() if values.device.type == "mps" else values).double()


def _min_max(values: Tensor, valid: Tensor) -> Tensor:
    """Each map's place between the ends of its own valid values, times 7.5, in float64; 0 where both ends are one."""
    scaled = []
    for image, inside in zip(values, valid, strict=True):
        chosen = _double(torch.masked_select(image, inside))
        low, high = (chosen.min(), chosen.max()) if chosen.numel() else (0.0, 0.0)
        place = (_double(image) - low) / (high - low) if low < high else torch.zeros(image.shape)
        scaled.append((_MIN_MAX * place).to(values))
    return torch.stack(scaled)


def _aligned(pred: Tensor, depth: Tensor, mask: Tensor, align: Align, limits: DepthRange) -> Tensor:
    """One image's prediction fitted to its ground truth over the pixels of ``mask``, in float64."""
    given, target = _double(pred), _double(depth)
    usable = given.isfinite()
    in_disparity = align == "disparity_scale_shift"
    if in_disparity:
        usable &= given > 0
        given, target = 1 / given, 1 / target  # a network that predicts disparity would need only the second
    counted = mask.to(usable.device) & usable
    scale, shift = _fit(torch.masked_select(given, counted), torch.masked_select(target, counted), align)
    fitted = given * scale + shift
    if in_disparity:
        fitted = 1 / fitted.clamp(1 / limits.max, 1 / limits.min)
    return torch.where(usable, fitted, _double(pred)).to(pred)


def _fit(p: Tensor, t: Tensor, align: Align) -> tuple[float, float]:
    """Factor, at least 0, and offset from p to t; where the best factor is negative, 0 and the mean are best."""
    if p.numel() == 0:
        return 1.0, 0.0
    if align == "median":
        median = _median(p)
        return _median(t) / median if median > 0 else 1.0, 0.0
    if p.min() == p.max():  # every factor fits a constant equally well
        return 1.0, float(t.mean() - p[0])
    deviation = p - p.mean()
    scale = max(0.0, float((deviation * t).mean() / deviation.square().mean()))
    return scale, float(t.mean()) - scale * float(p.mean())


def _median(values: Tensor) -> float:
    """The mean of the two middle values, as NumPy has it; torch's median is the lower of the two."""
    lower = values.median()
    above = values[values > lower]  # torch's kthvalue is refused on a GPU where trainer.deterministic=true
    return float(lower + (above.min() if 2 * above.numel() == values.numel() else lower)) / 2.0


def _pixels(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"


_NYU_SIZE = (480, 640)
_EIGEN_CROP = Crop(45, 471, 41, 601)
_nyu = partial(Protocol, size=_NYU_SIZE, depth_range=DepthRange(1e-3, 10.0))

_MIDAS = "Ranftl et al., 'Towards Robust Monocular Depth Estimation' (MiDaS), 2020"
_PROTOCOLS = (
    _nyu(
        "nyu_eigen",
        "Crop: Eigen et al., NeurIPS 2014. As BTS (2019) and AdaBins (CVPR 2021) evaluate; the latter "
        "also averages flips.",
        ground_truth="raw",
        crop=_EIGEN_CROP,
    ),
    _nyu(
        "nyu_eigen_filled",
        "nyu_eigen on in-painted ground truth, where AdaBins' own predictions have delta1 0.887 instead of 0.903.",
        ground_truth="filled",
        crop=_EIGEN_CROP,
    ),
    _nyu(
        "nyu_center",
        "Crop: Ma and Karaman, 'Sparse-to-Dense', ICRA 2018, who keep the center 228x304 of halved "
        "frames; this is the same part, compared at full size.",
        ground_truth="raw",
        crop=Crop(12, 468, 16, 624),
    ),
    _nyu(
        "nyu_densedepth",
        "Ground truth and crop of DenseDepth (Alhashim and Wonka, 2018), which also averages flips, "
        "pools the pixels of all images, divides AbsRel by the prediction and clamps to 0.1 m.",
        ground_truth="filled",
        crop=Crop(20, 460, 24, 616),
    ),
    Protocol("uncropped", "Your own pairs: all pixels that the data has as valid."),
    Protocol(
        "median_scaled",
        "Zhou et al., 'Unsupervised Learning of Depth and Ego-Motion from Video', CVPR 2017.",
        align="median",
    ),
    Protocol("scale_shift", f"{_MIDAS}, there in disparity.", align="scale_shift"),
    Protocol("disparity_scale_shift", f"{_MIDAS}, whose networks predict disparity.", align="disparity_scale_shift"),
    _nyu(
        "published_keras",
        "The evaluation of the published Keras project that this one re-implements.",
        crop=Crop(20, 461, 24, 617),
        align="min_max",
    ),
)

PROTOCOLS: dict[str, Protocol] = {protocol.name: protocol for protocol in _PROTOCOLS}
"""Every protocol by its name; with ``_flip`` after it, :func:`find_protocols` gives it with flip averaging."""


def find_protocols(names: Sequence[str] | str, ground_truth: str, size: tuple[int, int]) -> list[Protocol]:
    """Return the protocols of these names, each once, checked against the data.

    Args:
        names: A name, several, or ``all`` for every one of :data:`PROTOCOLS` that fits the data. With ``_flip`` after
            it, a name stands for the same protocol with flip averaging; ``all`` holds none of these.
        ground_truth: The data's ground truth, ``raw`` or ``filled``.
        size: The ground truth's (height, width) [pixels].

    Raises:
        InputError: If a name is unknown, one does not fit the data, or none is given.

    Example:
        >>> [protocol.name for protocol in find_protocols("all", "filled", (120, 160))]
        ['uncropped', 'median_scaled', 'scale_shift', 'disparity_scale_shift']
        >>> [protocol.flip_test for protocol in find_protocols(["uncropped", "uncropped_flip"], "raw", (9, 9))]
        [False, True]
    """
    wanted = [names] if isinstance(names, str) else list(names)
    if not wanted:
        raise InputError(f"protocols: none is named; give all, or some of {', '.join(PROTOCOLS)}")
    found: dict[str, Protocol] = {}
    for name in wanted:
        if name == "all":
            found |= {protocol.name: protocol for protocol in PROTOCOLS.values() if protocol.fits(ground_truth, size)}
            continue
        base = str(name).removesuffix(_FLIP)
        if base not in PROTOCOLS:
            near = difflib.get_close_matches(base, PROTOCOLS, n=1)
            hint = f"did you mean {near[0]}? There are" if near else "there are"
            raise InputError(f"protocols: {name} is unknown; {hint} {', '.join(PROTOCOLS)} and all (or NAME{_FLIP})")
        PROTOCOLS[base].check(ground_truth, size)
        found[name] = replace(PROTOCOLS[base], name=name, flip_test=name != base)
    return list(found.values())


def default_protocol(nyu: bool, ground_truth: str, size: tuple[int, int]) -> str:
    """Return the name of the protocol that follows from the data: Eigen's for NYU, else ``uncropped``.

    Example:
        >>> default_protocol(True, "filled", (480, 640)), default_protocol(False, "filled", (120, 160))
        ('nyu_eigen_filled', 'uncropped')
    """
    name = {"raw": "nyu_eigen", "filled": "nyu_eigen_filled"}.get(ground_truth, "uncropped")
    return name if nyu and tuple(size) == _NYU_SIZE else "uncropped"


def choose_protocols(names: str | Sequence[str], layout: Layout, split: str) -> list[Protocol]:
    """Return the protocols that a split is evaluated under, narrowed to the data's depth range.

    Args:
        names: A protocol's name, several, "all" for every one that fits the data, or "auto" for the data's own.
        layout: The data.
        split: Which split is evaluated.

    Raises:
        InputError: If the split is empty, a name is unknown, or one is not made for this ground truth or size.
    """
    count, limits = layout.count(split), layout.depth_range
    if not count:
        raise InputError(f"{layout.description}: it has no {split} frames")
    sizes = sorted({layout.size(split, frame) for frame in range(count)})
    if names == "auto":
        names = default_protocol(layout.nyu, layout.ground_truth, sizes[0])
    found = find_protocols(names, layout.ground_truth, sizes[0])
    for size in sizes[1:]:
        for protocol in found:
            protocol.check(layout.ground_truth, size)
    if names == "all":
        own = {protocol.name: protocol.depth_range or limits for protocol in found}
        found = [p for p in found if limits.min <= own[p.name].min and own[p.name].max <= limits.max]
    return [protocol.within(limits) for protocol in found]
