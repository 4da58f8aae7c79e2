"""Scores under all protocols at once: their intervals, their frames, and protocols that files cannot serve."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from depthnet.data.layouts.registry import open_root
from depthnet.evaluation.bootstrap import bootstrap
from depthnet.evaluation.metrics import METRIC_NAMES
from depthnet.evaluation.predictions import main, score_predictions

Roots = Callable[..., Path]


def noisy(root: Path, folder: Path, split: str = "val") -> Path:
    """Scores under all protocols at once: their intervals, their frames, and protocols that files cannot serve."""
    data = open_root(root)
    folder.mkdir()
    for frame in range(data.count(split)):
        depth = data.read(split, frame)[1] * np.float32(0.8 + 0.07 * frame)
        np.save(folder / f"{data.label(split, frame).rpartition('/')[2]}.npy", depth)
    return folder


def test_intervals_are_over_the_scenes_of_the_layout(make_kaggle: Roots, tmp_path: Path) -> None:
    root = make_kaggle(scenes=30, frames=2)
    data = open_root(root)
    scenes = [data.scene("val", frame) for frame in range(data.count("val"))]
    assert len(set(scenes)) > 1
    folder = tmp_path / "p"
    for frame in range(data.count("val")):
        path = folder / f"{data.label('val', frame)}.npy"
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, data.read("val", frame)[1] * np.float32(0.8 + 0.07 * frame))
    result = score_predictions(folder, root, protocol="all")
    assert result["intervals"].keys() == result["protocols"].keys() >= {"uncropped", "median_scaled"}
    assert result["scene_count"] == len(set(scenes))
    ratio = np.array([0.8 + 0.07 * frame for frame in range(len(scenes))])
    (expected,) = bootstrap(np.abs(ratio - 1)[:, None], scenes)
    assert result["intervals"]["uncropped"]["abs_rel"] == pytest.approx(list(expected), rel=1e-4)
    assert list(result["intervals"]["uncropped"]) == list(METRIC_NAMES)


def test_the_matrix_of_all_protocols_is_printed_and_written(
    make_lists: Roots, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = make_lists(train=4, val=3, size=(480, 640))
    folder = noisy(root, tmp_path / "mine")
    output = tmp_path / "score.json"
    assert main([str(folder), str(root), "--protocol", "all", "--output", str(output)]) == 0
    out = capsys.readouterr().out
    plain = ["uncropped", "median_scaled", "scale_shift", "disparity_scale_shift"]
    names = ["nyu_eigen_filled", "nyu_densedepth", *plain, "published_keras"]
    assert [line.strip() for line in out.splitlines() if line.strip() in names] == names
    assert "evaluated: 3 frames, train/rgb_00005 to train/rgb_00007, none of the official test frames; one scene" in out
    assert "95% from" not in out, "one scene gives no interval"
    result = json.loads(output.read_text())
    assert result["intervals"]["published_keras"]["delta1"] == [None, None]
    assert result["definitions"]["published_keras"].startswith("Not a result on the NYU test set")
    # it scales each map by itself, so a wrong factor costs it nothing
    assert result["protocols"]["published_keras"]["delta1"] > 0.999 > result["protocols"]["uncropped"]["delta1"]


def test_what_follows_from_the_data_is_never_published_keras(make_lists: Roots, tmp_path: Path) -> None:
    root = make_lists(train=2, val=1, size=(480, 640))
    assert score_predictions(noisy(root, tmp_path / "p"), root)["protocols"].keys() == {"nyu_eigen_filled"}


def test_files_cannot_be_averaged_with_flips(
    make_lists: Roots, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = make_lists()
    folder = noisy(root, tmp_path / "p")
    assert main([str(folder), str(root), "--protocol", "uncropped_flip"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert "uncropped_flip" in err
    assert "give uncropped, and average before" in err
