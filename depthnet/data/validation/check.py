"""Data validation: everything that is wrong with a data set, before a network is trained on it.

The cheap part reads lists and names only; the examination decodes every pair once and is kept until a file changes.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from pydantic import TypeAdapter

from depthnet.core.atomic_io import write_json
from depthnet.core.images import depth_bits
from depthnet.core.types import InputError
from depthnet.data.layouts.layout import FINDINGS, SPLITS, UNREADABLE, Finding, Layout
from depthnet.data.layouts.official import LABELLED_FRAMES, TEST_FRAMES
from depthnet.data.layouts.scenes import RUNS, consecutive_runs, frame_number
from depthnet.data.validation.manifest import Examination, PairFacts
from depthnet.data.validation.similarity import (
    Fingerprint,
    fingerprint,
    inverse_share,
    near_duplicates,
    shifted_segments,
)

_RULES = 3  # another number whenever the examination would find something else in the same files
_ROOMS = (0.1, 20.0)  # no room has its median depth outside [m]; a wider range that the user states widens this
_NYU = (0.9, 6.0)  # [m] medians of the frames of NYU are 0.96 to 6.13, so theirs is inside
_BEYOND = 0.5  # share of the measured pixels that may lie beyond the depth range
_FAR = (6.0, 0.35)  # [m], share of the range's end: indoor sets of 4000 levels a meter, read as mm, have 6.6 and 0.39
_SHALLOW = 5.0  # ... and far is 1.2 to 4 times near in them; streets, whose median is as far, have 6.7
_SATURATED = 0.3  # of the valid pixels at the greatest depth; 795 frames in steps of 4 cm have 0.011 at most
_SAMPLED = 75_000  # pixels that percentiles are taken of, evenly spaced
_LABELLED_AT_LEAST = 100  # fewer frames with numbers below 1449 need not be numbered as the labelled set is
_WRITE_0 = "write 0 for missing depth"

_Measured = tuple[PairFacts, Fingerprint]


class _Name(NamedTuple):
    """What lists and names show of a frame; ``number`` is the last one in its label."""

    split: str
    label: str
    where: str
    scene: str
    number: int | None


def cheap_findings(layout: Layout) -> list[Finding]:
    """Find everything that lists and names show, without decoding: a second for 50,000 pairs."""
    train, val, test = ([_name(layout, split, frame) for frame in range(layout.count(split))] for split in SPLITS)
    found = [*layout.findings, *(no_frames(layout, split) for split in ("train", "val") if not layout.count(split))]
    found += _shared_scenes([*train, *val, *test], layout.val)
    if layout.scene_rule == RUNS and layout.val == "scenes":
        found += _broken_runs([*train, *val])
    if layout.nyu and test:
        found += _official_test(test)
        if len(train) + len(val) >= _LABELLED_AT_LEAST:
            found += _official_frames_elsewhere(name for name in (*train, *val) if name.split in layout.numbered)
    return found


def no_frames(layout: Layout, split: str) -> Finding:
    """Return the finding that a layout has no frames in a split, with what the layout notes about it."""
    return Finding("no_frames", layout.description, "; ".join([f"it has no {split} frames", *layout.notes]), (split,))


def require_sound(findings: Sequence[Finding], allow: Sequence[str], splits: Sequence[str]) -> None:
    """Refuse data whose findings invalidate a result.

    Args:
        findings: What is wrong.
        allow: Names of findings that are accepted.
        splits: The splits that the result comes from; what is wrong with others does not matter.

    Raises:
        InputError: If a finding that is not accepted touches one of the splits, or a name is unknown.
    """
    for name in allow:
        if name not in FINDINGS:
            raise InputError(f"data.allow={name}: no such finding; known are {', '.join(FINDINGS)}")
        if name in UNREADABLE:
            raise InputError(f"data.allow={name}: {FINDINGS[name]}; it cannot be allowed, fix it or take it out")
    wrong = [finding for finding in findings if finding.name not in allow and {*splits} & {*finding.splits}]
    if not wrong:
        return
    counts = Counter(finding.name for finding in wrong)
    wrong.sort(key=lambda finding: -counts[finding.name])  # a wrong unit is behind many a single pair
    names = dict.fromkeys(finding.name for finding in wrong)
    others = Counter(finding.name for finding in wrong[1:])
    more = f"; and {len(wrong) - 1} more ({', '.join(f'{n} {name}' for name, n in others.items())})" if others else ""
    if UNREADABLE.isdisjoint(names):
        more += f"; to accept: data.allow=[{','.join(names)}], or --allow {' '.join(names)} of depthnet evaluate"
    message = f"{wrong[0].where}: {wrong[0].message}{more}; depthnet data check ROOT lists all that is wrong"
    raise InputError(message, wrong[0].name)


def examine(
    layout: Layout, folder: Path | None, workers: int = 0, advance: Callable[[int, int], None] | None = None
) -> Examination:
    """Decode every pair once and find everything that is wrong; or return what is known of the same files.

    Args:
        layout: The data.
        folder: Where examinations are kept; None to keep none.
        workers: Threads that decode.
        advance: Called with the number of pairs done and of all.

    Raises:
        InputError: If the examination cannot be written.
    """
    frames = [(split, frame) for split in SPLITS for frame in range(layout.count(split))]
    names = [(layout.where(*at), layout.label(*at), layout.scene(*at)) for at in frames]
    about = [_RULES, layout.identity(), layout.depth_range.min, layout.depth_range.max, layout.val, names]
    key = hashlib.sha256(json.dumps(about).encode()).hexdigest()
    path = folder / f"check-{key[:16]}.json" if folder and layout.identity() else None
    known = None
    with suppress(OSError, ValueError):  # there is none, or it is torn
        known = path and TypeAdapter(Examination).validate_json(path.read_bytes())
    if not known:
        known = _decode_all(layout, frames, workers, advance)
        if path:
            write_json(path, asdict(known))
    return Examination(known.pairs, (*cheap_findings(layout), *known.findings))


def _name(layout: Layout, split: str, frame: int) -> _Name:
    label = layout.label(split, frame)
    return _Name(split, label, layout.where(split, frame), layout.scene(split, frame), frame_number(label))


def _shared_scenes(names: Sequence[_Name], val: str) -> Iterator[Finding]:
    first: dict[str, _Name] = {}
    reported = set()
    for name in names:
        other = first.setdefault(name.scene, name)
        wanted = other.split == name.split or (name.split == "val" and val == "random_frames")
        of_one_split = re.fullmatch(r"run \d{5,}", name.scene)  # each split numbers its frames for itself
        if not (wanted or of_one_split or (name.scene, name.split) in reported):
            reported.add((name.scene, name.split))
            message = f"scene {name.scene} is in {other.split} too ({other.where}); keep it in one split"
            yield Finding("scene_leak", name.where, message, (other.split, name.split))


def _broken_runs(names: Sequence[_Name]) -> Iterator[Finding]:
    """Find runs of consecutive frame numbers of which some frames are in train, which come first, and some in val."""
    groups: dict[str, list[_Name]] = defaultdict(list)
    for name in names:  # equal numbers behind other words mean other frames
        groups[re.sub(r"\d+[^\d/]*$", "", name.label)].append(name)
    for some in groups.values():
        trained: dict[int, _Name] = {}
        for run, name in zip(consecutive_runs([name.number for name in some]), some, strict=True):
            if name.split == "train":
                trained[run] = name
            elif other := trained.pop(run, None):
                run_of = f"{name.label} is in one run of frame numbers with {other.label} of train ({other.where})"
                yield Finding("scene_leak", name.where, f"{run_of}; keep a run in one split", ("train", "val"))


def _official_test(names: Sequence[_Name]) -> Iterator[Finding]:
    numbers = {name.number for name in names}
    right, trained = len(TEST_FRAMES & numbers), len((set(range(LABELLED_FRAMES)) - TEST_FRAMES) & numbers)
    if not len(names) == right == len(TEST_FRAMES):
        first = next((name for name in names if name.number not in TEST_FRAMES), names[0])
        message = (
            f"{first.label}: the test list has {right} of the {len(TEST_FRAMES)} official frames, and {trained} "
            f"official training frames among its {len(names)}; its figures are not comparable"
        )
        yield Finding("test_list", first.where, message, ("test",))


def _official_frames_elsewhere(names: Iterable[_Name]) -> Iterator[Finding]:
    """Find official test frames in train or val, where all frames are numbered as the labelled set is."""
    for name in names:
        if name.number in TEST_FRAMES:
            message = f"{name.label} is one of the official test frames; take it out of {name.split}"
            yield Finding("scene_leak", name.where, message, (name.split, "test"))


def _decode_all(
    layout: Layout, frames: list[tuple[str, int]], workers: int, advance: Callable[[int, int], None] | None
) -> Examination:
    findings: list[Finding] = []
    read: dict[str, list[_Measured]] = {split: [] for split in SPLITS}
    pool = ThreadPoolExecutor(max(1, workers))  # decoding and digests release Python's lock
    try:
        for done, (measured, wrong) in enumerate(pool.map(lambda at: _measure(layout, *at), frames), start=1):
            findings += wrong
            if measured:
                read[measured[0].split].append(measured)
            if advance:
                advance(done, len(frames))
    finally:
        pool.shutdown(cancel_futures=True)
    for split, some in read.items():
        for start, length, step in shifted_segments([small for _, small in some]):
            facts, way = some[start][0], "up" if step == 1 else "down"
            message = (
                f"{facts.label}: from here on, {length} images fit the depth one row {way} better than their own; "
                "look for a file that is missing or doubled before them"
            )
            findings.append(Finding("shifted", facts.where, message, (split,)))
    for first, second in (("train", "val"), ("train", "test"), ("val", "test")):
        if (first, second, layout.val) != ("train", "val", "random_frames"):
            findings += _near_duplicates(read[first], read[second])
    every = [measured for some in read.values() for measured in some]
    pairs = [facts for facts, _ in every]
    splits = tuple(dict.fromkeys(pair.split for pair in pairs))
    if sum(finding.name == "unit" for finding in findings) <= len(pairs) / 2:  # else most pairs show it alone
        findings += [Finding("unit", pairs[0].where, message, splits) for message in _wrong_unit(layout, pairs)]
    if share := inverse_share([small for _, small in every]):
        first_inverse = next(facts for facts, small in every if small.uphill > 0)
        message = (
            f"{first_inverse.label}: in {share:.0%} of the pairs the lower part is farther, and planes are flat "
            "if the values are 1 / depth; is it disparity? Store depth: focal length x baseline / disparity"
        )
        findings.append(Finding("inverse", first_inverse.where, message, splits))
    return Examination(tuple(pairs), tuple(findings))


def _wrong_unit(layout: Layout, pairs: list[PairFacts]) -> Iterator[str]:
    """Find a unit that is wrong for the whole set."""
    some = [(p.median, p.p95 / p.p5) for p in pairs if p.median is not None and p.p5 and p.p95]
    if not some:
        return
    limits = layout.depth_range
    median, contrast = np.median(some, axis=0).tolist()
    beyond = sum(pair.beyond for pair in pairs)
    share = beyond / (beyond + sum(pair.valid * pair.pixels for pair in pairs))
    far = median > max(_FAR[0], _FAR[1] * limits.max) and contrast < _SHALLOW
    if share > _BEYOND or far or (layout.nyu and not _NYU[0] <= median <= _NYU[1]):
        yield (
            f"{pairs[0].label}: here and in the other pairs the median depth is {median:.3g} m, far is {contrast:.2g} "
            f"times near, and {share:.1%} of the depth is beyond {limits.min:g} to {limits.max:g} m; is the unit of "
            "depth right (5000, 4000 or 256 levels a meter are no millimeters)?"
        )


def _near_duplicates(first: list[_Measured], second: list[_Measured]) -> Iterator[Finding]:
    alike = near_duplicates([small for _, small in first], [small for _, small in second])
    digests = {facts.digest: place for place, (facts, _) in enumerate(first)}
    alike |= {place: digests[facts.digest] for place, (facts, _) in enumerate(second) if facts.digest in digests}
    for place, other in sorted(alike.items()):
        one, two = second[place][0], first[other][0]
        what = "is the same pair as" if one.digest == two.digest else "shows nearly the same as"
        message = f"{one.label} {what} {two.label} of {two.split} ({two.where}); take one of them out"
        yield Finding("near_duplicate", one.where, message, (two.split, one.split))


def _measure(layout: Layout, split: str, frame: int) -> tuple[_Measured | None, list[Finding]]:
    """Decode one pair: its facts and fingerprint, if it can be read, and what is wrong with it alone."""
    where, label, files = layout.where(split, frame), layout.label(split, frame), layout.files(split, frame)
    try:
        image, depth = layout.read(split, frame)
        contents = [file.read_bytes() for file in files] or [image.tobytes(), depth.tobytes()]
        bits = depth_bits(files[1]) if files else 32
    except (InputError, OSError) as error:
        name = error.finding if isinstance(error, InputError) else "missing"
        return None, [Finding(name, where, str(error).removeprefix(f"{where}: "), (split,))]
    stats, wrong = _depth_stats(layout, depth)
    place = "/".join(files[1].parts[-2:]) if files else label
    findings = [Finding(name, where, f"{place}: {message}", (split,)) for name, message in wrong]
    small = fingerprint(image, depth)
    digest = hashlib.sha256(b"".join(contents)).hexdigest()
    names = (split, label, where, layout.scene(split, frame))
    return (PairFacts._make((*names, digest, *depth.shape, bits, *stats, small.bits.tobytes().hex())), small), findings


def _depth_stats(layout: Layout, depth: npt.NDArray[np.float32]) -> tuple[tuple[Any, ...], list[tuple[str, str]]]:
    """Return the facts from ``min`` to ``not_finite``, and what is wrong with the depth: names and messages."""
    limits = layout.depth_range
    least, most = _ROOMS if layout.nyu else (min(_ROOMS[0], limits.min), max(_ROOMS[1], limits.max))
    holes = 1 - np.count_nonzero(depth) / depth.size
    finite = np.isfinite(depth)
    not_finite = depth.size - int(np.count_nonzero(finite))
    depth = np.where(finite, depth, np.float32(0))
    valid, measured = limits.contains(depth), depth > 0
    counted, beyond = int(np.count_nonzero(valid)), int(np.count_nonzero(measured & ~valid))
    inside = depth[valid] if counted else np.full(1, np.nan, np.float32)
    percentiles = np.percentile(_sample(depth, valid) if counted else inside, (5, 50, 95))
    values = (inside.min(), *percentiles, inside.max())
    greatest = np.count_nonzero(inside == values[-1]) / inside.size
    positive = _sample(depth, measured)
    median = float(np.median(positive)) if positive.size else least
    unit = not least <= median <= most
    several = counted > 1 and not unit  # a wrong unit makes one level of many depths
    negative, level = (depth < 0).mean(), f"{values[-1]:.4g} m"
    nothing = f"no pixel is between {limits.min:g} and {limits.max:g} m; take the pair out"
    cut_off = f"{greatest:.1%} of its valid depth is {level}, its greatest; write 0 where the sensor saw no end"
    rules = (
        ("not_finite", not_finite > 0, f"{not_finite / depth.size:.2%} of its depth is NaN or infinite; {_WRITE_0}"),
        ("negative", negative > 0, f"{negative:.2%} of its depth is negative; {_WRITE_0}"),
        ("unit", unit, f"its median depth is {median:.3g} m; is the unit of depth right?"),
        ("no_depth", not counted and not unit, nothing),
        ("constant", several and greatest == 1.0, f"all its valid depth is {level}; take the pair out"),
        ("saturated", several and _SATURATED < greatest < 1.0, cut_off),
    )
    depths = [round(float(value), 4) if counted else None for value in values]
    stats = (*depths, round(counted / depth.size, 4), round(holes, 4), beyond, not_finite)
    return stats, [(name, message) for name, is_wrong, message in rules if is_wrong]


def _sample(depth: npt.NDArray[np.float32], chosen: npt.NDArray[np.bool_]) -> npt.NDArray[np.float32]:
    """Return the chosen pixels of every few rows and columns; all the chosen ones where those hold none."""
    step = max(1, round((depth.size / _SAMPLED) ** 0.5))
    some = depth[::step, ::step][chosen[::step, ::step]]
    return some if some.size else depth[chosen]
