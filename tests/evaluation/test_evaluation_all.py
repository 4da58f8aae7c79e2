"""One pass for all protocols: the bits of each alone, on one process or two, with intervals and averaged flips."""

from __future__ import annotations

import io
import json
import math
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from forked import forks, gloo
from rich.console import Console

from depthnet.core.types import DepthRange
from depthnet.data.layouts.official import TEST_FRAMES
from depthnet.data.layouts.registry import open_root
from depthnet.evaluation.bootstrap import DRAWS, LEVEL, bootstrap
from depthnet.evaluation.evaluator import Evaluation, describe_frames, metrics_table
from depthnet.evaluation.metrics import METRIC_NAMES, DepthMetrics
from depthnet.evaluation.protocols import Protocol, find_protocols
from depthnet.models.depth_net import DepthNet

SIZE = (12, 16)


def protocols(*names: str, size: tuple[int, int] = SIZE) -> list[Protocol]:
    return [found.within(DepthRange(1e-3, 10.0)) for found in find_protocols(names or "all", "filled", size)]


def pairs(
    count: int, small: tuple[int, int] = (6, 8), size: tuple[int, int] = SIZE
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(count)
    depth = 0.5 + 8 * torch.rand(count, 1, *size, generator=generator)
    pred = 0.5 + 8 * torch.rand(count, 1, *small, generator=generator)
    mask = torch.rand(count, 1, *size, generator=generator) > 0.3
    return pred, depth, mask


def test_all_protocols_in_one_pass_have_the_bits_of_each_alone() -> None:
    pred, depth, mask = pairs(2, (24, 32), (480, 640))
    chosen = protocols("all", "nyu_eigen_filled_flip", size=(480, 640))
    assert len(chosen) == 8
    together = Evaluation(chosen)
    mirrored = pred.roll(1, -1)
    together.update(pred, depth, mask, torch.arange(2), mirrored)
    for protocol in chosen:
        alone = DepthMetrics()
        given = (pred + mirrored) / 2 if protocol.flip_test else pred
        alone.update(*protocol(given, depth, mask), torch.arange(2))
        assert together.rows(protocol.name)[1] == alone.rows()[1].tolist(), protocol.name


def test_flips_are_averaged_where_a_protocol_states_it_and_nowhere_else() -> None:
    pred, depth, mask = pairs(3)
    both = Evaluation(protocols("uncropped", "uncropped_flip"))
    assert both.flip_test
    with pytest.raises(ValueError, match="needs flipped="):
        both.update(pred, depth, mask, torch.arange(3))
    both.update(pred, depth, mask, torch.arange(3), 3 * pred)
    plain = Evaluation(protocols("uncropped"))
    assert not plain.flip_test
    plain.update(pred, depth, mask, torch.arange(3))
    assert both.figures()["uncropped"] == plain.figures()["uncropped"]
    doubled = Evaluation(protocols("uncropped"))
    doubled.update(2 * pred, depth, mask, torch.arange(3))
    assert both.figures()["uncropped_flip"] == doubled.figures()["uncropped"]


def test_intervals_are_of_the_images_with_a_valid_pixel(tmp_path: Path) -> None:
    pred, depth, mask = pairs(9)
    mask[4] = False
    found = Evaluation(protocols())
    found.update(pred, depth, mask, torch.arange(9))
    scenes = [f"room {frame // 3}" for frame in range(9)]
    intervals = found.intervals(scenes)
    assert intervals.keys() == found.figures().keys()
    kept = [0, 1, 2, 3, 5, 6, 7, 8]
    for name, row in intervals.items():
        table = np.array(found.rows(name)[1])[kept]
        assert list(row.values()) == bootstrap(table, [scenes[frame] for frame in kept])
        for metric in METRIC_NAMES:
            assert row[metric].low < found.figures()[name][metric] < row[metric].high
    content = written(found, tmp_path, scenes)
    assert (content["scene_count"], content["level"], content["draws"]) == (3, LEVEL, DRAWS)
    low, high = content["intervals"]["uncropped"]["rmse"]
    assert (low, high) == intervals["uncropped"]["rmse"], "JSON gives every bit back"
    content = written(found, tmp_path, ["one room"] * 9)
    assert content["scene_count"] == 1
    assert content["intervals"]["uncropped"]["rmse"] == [None, None]


def written(found: Evaluation, directory: Path, scenes: list[str]) -> dict:
    about = {"split": "val", "expected": 9, "seed": 0, "commit": None, "versions": {}, "data": {}}
    found.write(directory, labels=[str(frame) for frame in range(9)], scenes=scenes, **about)
    return json.loads((directory / "metrics.json").read_text())


@pytest.mark.parametrize("width", [80, 120])
def test_the_table_shows_intervals_below_whom_they_belong_to(width: int) -> None:
    found = Evaluation(protocols("uncropped", "median_scaled"))
    found.update(*pairs(4), torch.arange(4))
    figures, intervals = found.figures(), found.intervals(["a", "a", "b", "c"])
    text = io.StringIO()
    shown = {"this checkpoint": figures, "mean map": figures}
    table = metrics_table(shown, "nyu", {"this checkpoint": intervals})
    Console(file=text, width=width).print(table)
    lines = [line.split() for line in text.getvalue().splitlines() if line.strip()]
    assert max(map(len, text.getvalue().splitlines())) <= width
    assert "…" not in text.getvalue()
    start = lines.index(["median_scaled"])
    row = intervals["median_scaled"]
    lows, highs = ([f"{row[metric][end]:.3g}" for metric in METRIC_NAMES] for end in (0, 1))
    assert [words[0] for words in lines[start + 1 : start + 5]] == ["this", "95%", "to", "mean"]
    for words, values in ((lines[start + 2][2:], lows), (lines[start + 3][1:], highs)):
        assert [float(word) for word in words] == pytest.approx([float(value) for value in values], rel=0.02, abs=5e-4)
    assert text.getvalue().count("95% from") == 2, "the mean map has none"
    assert [row.style for row in table.sections[0]] == ["bold", "", "dim", "dim", ""]
    one_scene = metrics_table(shown, "nyu", {"this checkpoint": found.intervals(["a"] * 4)})
    assert one_scene.sections == metrics_table(shown, "nyu").sections


class Named:
    """A layout of names alone."""

    scene_rule = "folders"

    def __init__(self, labels: list[str], nyu: bool = True, numbered: tuple[str, ...] = ("test", "val")) -> None:
        self.labels, self.nyu, self.numbered = labels, nyu, numbered

    def label(self, split: str, frame: int) -> str:
        return self.labels[frame]

    def scene(self, split: str, frame: int) -> str:
        return self.labels[frame].rpartition("/")[0]


@pytest.mark.parametrize(
    ("labels", "split", "words"),
    [
        ([f"test/{n:05d}_colors" for n in sorted(TEST_FRAMES)], "test", "the 654 official test frames; one scene, so"),
        (["a/rgb_00000", "b/rgb_00001"], "test", "2 frames, a/rgb_00000 to b/rgb_00001, 2 of the official test frames"),
        (["a/rgb_00002", "a/rgb_00003"], "val", "a/rgb_00003, none of the official test frames; one scene"),
        (["a/1", "b/1"], "train", "a/1 to b/1, not numbered as the labelled set; 95% intervals by bootstrap over 2 "),
    ],
)
def test_which_frames_of_nyu_were_evaluated(labels: list[str], split: str, words: str) -> None:
    assert words in describe_frames(Named(labels), split, range(len(labels)))  # type: ignore[arg-type]
    elsewhere = describe_frames(Named(labels, nyu=False), split, [0])  # type: ignore[arg-type]
    assert elsewhere == f"1 frames, {labels[0]} to {labels[0]}; one scene, so no intervals (folders)"


def test_only_splits_numbered_as_the_labelled_set_hold_official_frames(
    make_kaggle: Callable[..., Path], make_lists: Callable[..., Path]
) -> None:
    kaggle = open_root(make_kaggle(scenes=2, frames=1, test=2))
    frames = {split: range(kaggle.count(split)) for split in ("train", "val", "test")}
    assert list(map(len, frames.values())) == [1, 1, 2]  # val is one scene's folder, whose frame 1 is its video's
    for split in ("train", "val"):
        words = describe_frames(kaggle, split, frames[split])
        assert re.search(r"living_room_000\d_out/1, not numbered as the labelled set; one scene", words)
    assert "2 of the official test frames" in describe_frames(kaggle, "test", frames["test"])

    root = make_lists(train=4, val=2, test=2)
    lists = open_root(root)
    assert "2 frames, train/rgb_00005 to train/rgb_00006, none of the official" in describe_frames(lists, "val", [0, 1])
    assert "1 of the official" in describe_frames(lists, "test", [0, 1])
    videos = root / "nyudepthv2_val_files_with_gt.txt"
    (root / "train").rename(root / "study_0008")  # the frames of one recording: their numbers are the video's
    for path in root.glob("*.txt"):
        path.write_text(path.read_text().replace("train/", "study_0008/"))
    assert videos.read_text().startswith("study_0008/")
    for split in ("train", "val", "test"):
        assert "study_0008/rgb_0000" in describe_frames(open_root(root), split, [0])
        assert "not numbered as the labelled set" in describe_frames(open_root(root), split, [0])


def evaluate(rank: int, processes: int, answers: Callable[[object], None]) -> None:
    """One process' share of 7, 8 and 9 images, one image or two at a time; then through a network."""
    for count in (7, 8, 9):
        pred, depth, mask = pairs(count)
        mask[3] = False
        found = Evaluation(protocols())
        own = list(range(rank, count, processes))
        for start in range(0, len(own), 1 + count % 2):
            some = own[start : start + 1 + count % 2]
            found.update(pred[some], depth[some], mask[some], torch.tensor(some))
        answers(results_of(found, count))
    torch.set_num_threads(1)
    torch.manual_seed(0)
    network = DepthNet("test_resnet", depth_range=(1e-3, 10.0), image_size=(48, 64)).eval()
    for count in (7, 8, 9):  # through a network: one image a forward
        images = torch.randint(0, 256, (count, 3, 48, 64), generator=torch.Generator().manual_seed(count)).byte()
        _, depth, mask = pairs(count)
        found = Evaluation(protocols())
        for i in range(rank, count, processes):
            with torch.inference_mode():
                found.update(network(images[i : i + 1]), depth[i : i + 1], mask[i : i + 1], torch.tensor([i]))
        answers(results_of(found, count))


def results_of(found: Evaluation, count: int) -> str:
    """All results of an evaluation, to the last bit."""
    rows = {name: found.rows(name) for name in found.protocols}
    return repr((found.figures(), rows, found.intervals([f"scene {i // 2}" for i in range(count)])))


@forks
def test_two_processes_have_the_bits_of_one_for_7_8_and_9_images(tmp_path: Path) -> None:
    def work(rank: int) -> list[object]:
        found: list[object] = []
        evaluate(rank, 2, found.append)
        return found

    alone: list[object] = []
    evaluate(0, 1, alone.append)
    assert gloo(work, tmp_path) == [alone, alone]
    assert all("nan" in str(text) for text in alone[:3]), "the image without a valid pixel stays one on both"
    assert len(set(alone)) == 6


def test_train_evaluates_under_all_protocols_in_one_pass(train: Callable, tmp_path: Path) -> None:
    rooms = ["data=rooms", "data.frames={train: 4, val: 3, test: 1}", "trainer=cpu", "logger=none"]
    rooms += ["data.num_workers=0"]
    small = ["model=tiny", "data.image_size=[48,64]", "data.batch_size=2", "trainer.max_epochs=1"]
    done = train(*rooms, *small, "hydra.run.dir=run")
    assert done.code == 0, done.err
    test = ["mode=test", "split=val", "ckpt=run", "hydra.run.dir=evaluated"]
    done = train(*rooms, *test, "protocols=[all,uncropped_flip]")
    assert done.code == 0, done.err
    content = json.loads((tmp_path / "evaluated/metrics.json").read_text())
    names = {"uncropped", "median_scaled", "scale_shift", "disparity_scale_shift", "uncropped_flip"}
    assert content["protocols"].keys() == content["intervals"].keys() == content["mean_map"].keys() == names
    assert content["protocols"]["uncropped_flip"] != content["protocols"]["uncropped"]
    assert content["mean_map"]["uncropped_flip"] != content["mean_map"]["uncropped"]
    for name, figures in content["protocols"].items():
        for metric, (low, high) in content["intervals"][name].items():
            assert low <= figures[metric] <= high or math.isclose(low, high)
    assert content["scene_count"] == 3
    assert done.out.count("95% from") == 5
    assert "evaluated: 3 frames" in done.out
    assert "bootstrap over 3 scenes" in done.out
