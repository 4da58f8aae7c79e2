from __future__ import annotations

import csv
import dataclasses
import io
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console

from depthnet.core.types import Crop, DepthRange, InputError
from depthnet.evaluation.evaluator import Evaluation, mean_map, metrics_table
from depthnet.evaluation.metrics import METRIC_NAMES
from depthnet.evaluation.protocols import PROTOCOLS, Protocol

RANGE = DepthRange(1e-3, 10.0)


def protocols() -> list[Protocol]:
    """One with a crop, one that scales, and the plain one."""
    plain = PROTOCOLS["uncropped"].within(RANGE)
    cropped = dataclasses.replace(plain, name="cropped", crop=Crop(2, 9, 3, 14))
    return [plain, cropped, PROTOCOLS["median_scaled"].within(RANGE)]


def pairs(count: int = 7, size: tuple[int, int] = (12, 16)) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    depth = 0.5 + 8 * torch.rand(count, 1, *size, generator=generator)
    pred = depth * (0.6 + 0.9 * torch.rand(count, 1, *size, generator=generator))
    mask = torch.rand(count, 1, *size, generator=generator) > 0.3
    return pred, depth, mask


def by_hand(pred: np.ndarray, depth: np.ndarray, mask: np.ndarray) -> list[float]:
    p, t = pred[mask].astype(np.float64), depth[mask].astype(np.float64)
    ratio, e = np.maximum(p / t, t / p), np.log(p) - np.log(t)
    return [
        *(float((ratio < 1.25**k).mean()) for k in (1, 2, 3)),
        float((np.abs(p - t) / t).mean()),
        float(((p - t) ** 2 / t).mean()),
        float(np.sqrt(((p - t) ** 2).mean())),
        float(np.sqrt((e**2).mean())),
        float(np.abs(np.log10(p) - np.log10(t)).mean()),
        float(100 * np.sqrt((e**2).mean() - e.mean() ** 2)),
    ]


def evaluated(
    pred: torch.Tensor, depth: torch.Tensor, mask: torch.Tensor, sizes: list[int] | None = None
) -> Evaluation:
    found = Evaluation(protocols())
    frame = 0
    for size in sizes or [len(pred)]:
        part = slice(frame, frame + size)
        found.update(pred[part], depth[part], mask[part], torch.arange(frame, frame + size))
        frame += size
    return found


def written(found: Evaluation, directory: Path, count: int = 7, **extra: object) -> tuple[dict, list[dict[str, str]]]:
    found.write(
        directory,
        split="val",
        labels=[f"a/{i:03d}" for i in range(count)],
        scenes=[f"scene {i // 3}" for i in range(count)],
        expected=count,
        seed=3,
        commit="abc",
        versions={"python": "3.11"},
        data={"name": "nyu"},
        **extra,
    )
    rows = list(csv.DictReader(io.StringIO((directory / "per_image.csv").read_text(encoding="utf-8"))))
    return json.loads((directory / "metrics.json").read_text()), rows


def test_figures_are_means_of_rows_by_an_independent_reference() -> None:
    pred, depth, mask = pairs()
    figures = evaluated(pred, depth, mask).figures()
    assert list(figures) == ["uncropped", "cropped", "median_scaled"]
    inside = torch.zeros_like(mask)
    inside[..., 2:9, 3:14] = True
    clamped = pred.clamp(1e-3, 10).numpy()
    for name, valid in (("uncropped", mask), ("cropped", mask & inside)):
        rows = [by_hand(clamped[i], depth[i].numpy(), valid[i].numpy()) for i in range(7)]
        assert list(figures[name]) == list(METRIC_NAMES)
        assert list(figures[name].values()) == pytest.approx(np.mean(rows, axis=0), rel=1e-9)
    assert figures["median_scaled"]["delta1"] != figures["uncropped"]["delta1"]


@pytest.mark.parametrize("sizes", [[1] * 7, [3, 4], [6, 1]])
def test_grouping_changes_no_bit(sizes: list[int]) -> None:
    whole, parts = evaluated(*pairs()), evaluated(*pairs(), sizes)
    assert whole.figures() == parts.figures()
    assert whole.rows("cropped") == parts.rows("cropped")


def test_order_and_repeats_change_no_bit() -> None:
    pred, depth, mask = pairs()
    other = Evaluation(protocols())
    for frame in (5, 2, 0, 6, 1, 3, 4, 0, 5):
        other.update(pred[frame : frame + 1], depth[frame : frame + 1], mask[frame : frame + 1], frame)
    assert other.figures() == evaluated(pred, depth, mask).figures()
    assert other.rows("uncropped")[0] == list(range(7))


def test_a_prediction_of_another_size_is_resized_by_the_protocol() -> None:
    pred, depth, mask = pairs()
    small = torch.nn.functional.interpolate(pred, (6, 8), mode="bilinear", align_corners=True)
    big = torch.nn.functional.interpolate(small, (12, 16), mode="bilinear", align_corners=True)
    assert evaluated(small, depth, mask).figures() == evaluated(big, depth, mask).figures()


def test_an_empty_image_is_named_and_counts_in_no_mean(tmp_path: Path) -> None:
    pred, depth, mask = pairs()
    mask[4] = False
    mask[2, :, 2:9, 3:14] = False
    found = evaluated(pred, depth, mask)
    assert found.empty() == {"uncropped": [4], "cropped": [2, 4], "median_scaled": [4]}
    kept = [0, 1, 2, 3, 5, 6]
    without = evaluated(pred[kept], depth[kept], mask[kept])
    assert found.figures()["uncropped"] == without.figures()["uncropped"]
    content, rows = written(found, tmp_path)
    assert content["images"] == 7
    assert content["empty"] == {"uncropped": ["a/004"], "cropped": ["a/002", "a/004"], "median_scaled": ["a/004"]}
    assert [row["frame"] for row in rows if row["protocol"] == "cropped" and row["delta1"] == "nan"] == ["2", "4"]


def test_nothing_valid_at_all_is_null_and_not_a_number_in_disguise(tmp_path: Path) -> None:
    pred, depth, mask = pairs()
    found = evaluated(pred, depth, torch.zeros_like(mask))
    assert all(math.isnan(value) for value in found.figures()["uncropped"].values())
    content, _ = written(found, tmp_path)
    assert set(content["protocols"]["uncropped"].values()) == {None}
    Console(file=io.StringIO()).print(metrics_table({"ours": found.figures()}, "t"))


def test_the_files_hold_everything_to_full_precision(tmp_path: Path) -> None:
    found = evaluated(*pairs())
    content, rows = written(found, tmp_path / "new/run", ground_truth="filled", mean_map={"uncropped": {"delta1": 0.5}})
    needed = {"split", "images", "expected", "seed", "commit", "versions", "data", "protocols"}
    assert needed <= content.keys()
    assert content["split"], content["images"] == ("val", 7)
    assert (content["expected"], content["seed"], content["ground_truth"]) == (7, 3, "filled")
    assert content["protocols"] == found.figures(), "JSON gives every bit back"
    assert content["mean_map"] == {"uncropped": {"delta1": 0.5}}
    assert content["definitions"].keys() == content["digests"].keys() == content["protocols"].keys()
    assert list(rows[0]) == ["protocol", "frame", "label", "scene", *METRIC_NAMES]
    assert len(rows) == 3 * 7
    for name in found.protocols:
        own = [row for row in rows if row["protocol"] == name]
        assert [row["label"] for row in own] == [f"a/{i:03d}" for i in range(7)]
        assert own[6]["scene"] == "scene 2"
        assert [[float(row[metric]) for metric in METRIC_NAMES] for row in own] == found.rows(name)[1]
        for metric in METRIC_NAMES:
            assert math.fsum(float(row[metric]) for row in own) / 7 == content["protocols"][name][metric]


def test_extra_entries_do_not_displace_figures(tmp_path: Path) -> None:
    content, _ = written(evaluated(*pairs()), tmp_path, images=99, protocols={})
    assert content["images"] == 7
    assert content["protocols"]


def test_labels_with_commas_quotes_and_line_breaks_survive(tmp_path: Path) -> None:
    found = evaluated(*pairs())
    labels = ['a,b "c"', "é\nf", "'", "", "=1+1", "\t", "日本"]
    found.write(
        tmp_path,
        split="val",
        labels=labels,
        scenes=labels,
        expected=7,
        seed=None,
        commit=None,
        versions={},
        data={},
    )
    with (tmp_path / "per_image.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["label"] for row in rows[:7]] == labels


def test_the_rows_are_gathered_once_so_one_process_may_write_alone(tmp_path: Path) -> None:
    found = evaluated(*pairs())
    first = found.figures()
    for metrics in found._metrics.values():
        metrics.rows = None  # type: ignore[assignment,method-assign]  # a second gathering would wait for the others
    written(found, tmp_path)
    assert found.figures() == first


def test_an_update_after_the_figures_is_seen() -> None:
    pred, depth, mask = pairs()
    found = evaluated(pred[:3], depth[:3], mask[:3])
    before = found.figures()
    found.update(pred[3:], depth[3:], mask[3:], torch.arange(3, 7))
    assert found.figures() != before
    assert found.figures() == evaluated(pred, depth, mask).figures()


def test_the_table_fits_80_columns() -> None:
    pred, depth, mask = pairs()
    ours, worse = evaluated(pred, depth, mask).figures(), evaluated(pred * 1.5, depth, mask).figures()
    worse["cropped"]["silog"] = 123456.0
    shown = {"ours": ours, "mean map": worse}
    text = io.StringIO()
    Console(file=text, width=80).print(metrics_table(shown, "nyu val, 96 images [filled] ground truth"))
    assert "nyu val, 96 images [filled] ground truth" in text.getvalue()
    assert "…" not in text.getvalue()
    for figures in shown.values():
        for protocol, row in figures.items():
            for metric, value in row.items():
                if value < 10:
                    assert f"{value:.3f}" in text.getvalue(), (protocol, metric)
    assert text.getvalue().count("nyu val") == 1
    lines = [line.strip() for line in text.getvalue().splitlines()]
    assert {"uncropped", "cropped", "median_scaled"} <= set(lines), "a protocol's name is never broken"


def test_mean_map_against_numpy() -> None:
    rng = np.random.default_rng(0)
    depths = rng.uniform(1, 9, (5, 8, 10)).astype(np.float32)
    depths[rng.random(depths.shape) < 0.4] = 0
    depths[:, 0, 0] = 0
    depths[1, 0, 1] = np.nan
    depths[2, 0, 1] = np.inf
    found = mean_map(iter(depths), (8, 10))
    valid = np.isfinite(depths) & (depths > 0)
    total = np.where(valid, depths, 0).astype(np.float64).sum(axis=0)
    expected = total / np.maximum(valid.sum(axis=0), 1)
    expected[0, 0] = total.sum() / valid.sum()
    expected[~valid.any(axis=0)] = total.sum() / valid.sum()
    assert found.dtype == np.float32
    assert np.allclose(found, expected, rtol=1e-6)


def test_mean_map_takes_the_nearest_pixel_of_other_sizes() -> None:
    depth = np.zeros((6, 8), np.float32)
    depth[3, 5] = 2.0
    found = mean_map([depth, np.full((12, 16), 4.0, np.float32)], (3, 4))
    assert found[1, 2] == 3.0
    assert (found == 4.0).sum() == 11
    with pytest.raises(InputError, match="no valid pixel"):
        mean_map([np.zeros((3, 3), np.float32)], (2, 2))
    with pytest.raises(InputError, match="no valid pixel"):
        mean_map([], (2, 2))
