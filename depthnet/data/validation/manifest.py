"""What an examination of a data set leaves: facts about every pair, a file of them, and one page to read."""

from __future__ import annotations

import hashlib
import textwrap
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from depthnet.core.atomic_io import write_text
from depthnet.core.tables import WIDTH, Table, to_csv
from depthnet.data.layouts.layout import FINDINGS, SPLITS, Finding, Layout, describe_camera

_COLUMNS = ("split", "pairs", "scenes", "size", "depth", "min", "p5", "median", "p95", "max", "valid")


class PairFacts(NamedTuple):
    """What one pair is.

    Attributes:
        split: Its split.
        label: Its name in the split.
        where: The place to look.
        scene: Its scene.
        digest: SHA-256 of its files' bytes, image first; of the arrays where it has no files of its own.
        height: Of image and depth [pixels].
        width: Of image and depth [pixels].
        bits: Of a level of the depth file; 32 for floats.
        min: Least valid depth [m]; None without a valid pixel, as the next four.
        p5: Fifth percentile of valid depth [m]; this and the next two of some 75,000 evenly spaced pixels.
        median: Median of valid depth [m].
        p95: Ninety-fifth percentile of valid depth [m].
        max: Greatest valid depth [m].
        valid: Share of the pixels whose depth is inside the layout's range.
        holes: Share of the pixels whose depth is 0.
        beyond: Number of pixels whose depth is above 0 and finite, but outside the layout's range.
        not_finite: Number of pixels whose depth is NaN or infinite.
        image_hash: Perceptual hash of the image, 256 bits in hexadecimal.
    """

    split: str
    label: str
    where: str
    scene: str
    digest: str
    height: int
    width: int
    bits: int
    min: float | None
    p5: float | None
    median: float | None
    p95: float | None
    max: float | None
    valid: float
    holes: float
    beyond: int
    not_finite: int
    image_hash: str

    @property
    def pixels(self) -> int:
        """The number of pixels of the depth."""
        return self.height * self.width


@dataclass(frozen=True)
class Examination:
    """What was learned from every pair of a layout.

    Attributes:
        pairs: One for each pair that could be read, in the order of splits and rows.
        findings: Everything that is wrong.
    """

    pairs: tuple[PairFacts, ...]
    findings: tuple[Finding, ...]

    @property
    def digest(self) -> str:
        """A digest of the contents of all pairs, wherever they lie."""
        facts = "".join(f"{pair.split} {pair.label} {pair.digest}\n" for pair in self.pairs)
        return hashlib.sha256(facts.encode(errors="surrogateescape")).hexdigest()


def write_manifest(examination: Examination, path: str | PathLike[str]) -> None:
    """Write a CSV file with a row for each pair, whole. Raises as the durable writer."""
    write_text(path, to_csv(pair._asdict() for pair in examination.pairs))


def page(layout: Layout, examination: Examination, limit: int | None = 20) -> str:
    """Return one page on a data set: what it is, and what is wrong with it, grouped by kind.

    Args:
        layout: The data.
        examination: What was learned from it.
        limit: Findings shown of each kind; None for all.
    """
    levels = {layout.meters_per_level(split, frame) for split in SPLITS for frame in range(layout.count(split))}
    splits = {split: [pair for pair in examination.pairs if pair.split == split] for split in SPLITS}
    table = Table(_COLUMNS, "l" + "r" * 10, form="{:.3g}".format)
    for split in filter(layout.count, SPLITS):
        table.add(split, *_summarize(layout, split, splits[split]))
    folder = FileSystemLoader(Path(__file__).parent)
    environment = Environment(loader=folder, trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined)
    environment.filters["wrapped"] = _wrapped
    return environment.get_template("page.txt.j2").render(
        layout=layout,
        holes=np.mean([pair.holes for pair in examination.pairs] or [0.0]),
        units=", ".join(
            f"{level:.4g} m a level" if level else "floats" for level in sorted(levels, key=lambda m: m or 0)
        ),
        limits=f"{layout.depth_range.min:g} to {layout.depth_range.max:g} m",
        random="; val frames are random ones" if layout.val == "random_frames" else "",
        camera=describe_camera(layout),
        table=table.text(),
        splits=splits,
        found=examination.findings,
        kinds=FINDINGS,
        limit=limit,
    )


def _wrapped(value: str, head: str) -> str:
    """Return lines that break no path: it is to be copied."""
    indent = " " * (len(head) + 2 * head.isspace())
    return textwrap.fill(
        value, WIDTH, initial_indent=head, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )


def _summarize(layout: Layout, split: str, pairs: Sequence[PairFacts]) -> list[str | float | None]:
    """Return the row of a split, in the order of its columns."""
    count = layout.count(split)
    sizes = Counter(f"{pair.width}x{pair.height}" for pair in pairs).most_common()
    more = f" and {len(sizes) - 1} more" if len(sizes) > 1 else ""
    depths = np.array([(p.min, p.p5, p.median, p.p95, p.max) for p in pairs if p.median is not None])
    figures = np.full(5, np.nan)
    if len(depths):
        figures = np.array([depths[:, 0].min(), *np.median(depths[:, 1:4], axis=0), depths[:, 4].max()])
    return [
        f"{count}" if len(pairs) == count else f"{len(pairs)} of {count}",
        f"{len({layout.scene(split, frame) for frame in range(count)})}",
        f"{sizes[0][0]}{more}" if sizes else "",
        "+".join(f"{bits}-bit" for bits in sorted({pair.bits for pair in pairs})),
        *figures.tolist(),
        f"{np.mean([pair.valid for pair in pairs]):.1%}" if pairs else "",
    ]
