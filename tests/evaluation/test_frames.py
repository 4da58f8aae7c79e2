import shutil

import numpy as np
import pytest
from omegaconf import OmegaConf
from small_run import IMAGE_SIZE, ROOMS, from_root, write_run

from depthnet.core.types import InputError
from depthnet.data.layouts.registry import open_root
from depthnet.data.rooms.layout import RoomsLayout
from depthnet.evaluation.frames import FrameEvaluator, choose_frames, evaluate_frames, open_data
from depthnet.evaluation.metrics import METRIC_NAMES
from depthnet.run.files import read_run


@pytest.fixture
def rooms(tmp_path):
    layout = RoomsLayout(ROOMS["frames"], IMAGE_SIZE, ROOMS["scene_seed"])
    return write_run(tmp_path / "run", ROOMS, layout)


def evaluate(run, **options):
    """The metrics of each frame."""
    return evaluate_frames(FrameEvaluator(run, **options)).metrics


def test_a_run_is_evaluated_as_it_was(rooms):
    run = read_run(rooms)
    assert run.protocol == "uncropped"
    assert list(run.rows) == ["uncropped", "median_scaled", "scale_shift", "disparity_scale_shift"]
    assert [row["val/delta1"] for row in run.history] == [0.2, 0.3]
    seen = []
    evaluator = FrameEvaluator(run)
    results = evaluate_frames(evaluator, lambda done, total: seen.append((done, total)))
    assert seen == [(place, 5) for place in range(1, 6)]
    for frame, row in results.metrics.items():
        np.testing.assert_allclose(row, list(run.rows["uncropped"][frame].figures.values()), rtol=1e-5, atol=1e-7)
    assert results.atlas.histogram.sum() == 5 * 48 * 64
    assert evaluator.checkpoint == rooms / "checkpoints/best.ckpt"


@pytest.mark.parametrize("protocols", [["median_scaled", "uncropped"], ["uncropped_flip"]])
def test_the_first_protocol_evaluates(tmp_path, make_lists, protocols):
    root = make_lists(val=3, holes=True)
    run = read_run(write_run(tmp_path / "run", from_root(root), open_root(root), protocols=protocols))
    assert run.protocol == protocols[0]
    for frame, row in evaluate(run).items():
        np.testing.assert_allclose(row, list(run.rows[run.protocol][frame].figures.values()), rtol=1e-5, atol=1e-7)


def test_data_that_moved_is_named_and_other_data_is_refused(tmp_path, make_lists):
    root = make_lists(val=3)
    directory = write_run(tmp_path / "run", from_root(root), open_root(root))
    root.rename(tmp_path / "moved")
    with pytest.raises(InputError, match=r"nyu: no such folder"):
        evaluate(read_run(directory))
    assert len(evaluate(read_run(directory), root=tmp_path / "moved")) == 3
    rows = tmp_path / "moved/nyudepthv2_val_files_with_gt.txt"
    rows.write_text("".join(reversed(rows.read_text().splitlines(keepends=True))))
    with pytest.raises(InputError, match=r"val frame 0 is not train/rgb_\d+, which the run was evaluated on; .*--root"):
        evaluate(read_run(directory), root=tmp_path / "moved")


def test_data_is_opened_as_its_config_says(tmp_path, make_lists):
    rooms = open_data(ROOMS)
    expected = RoomsLayout(ROOMS["frames"], IMAGE_SIZE, ROOMS["scene_seed"])
    np.testing.assert_array_equal(rooms.read("val", 1)[1], expected.read("val", 1)[1])
    assert open_data(ROOMS | {"holes": True}).ground_truth == "raw"
    narrow = open_data(from_root(make_lists()) | {"ground_truth": "raw", "depth_range": {"min": 0.5, "max": 4.0}})
    assert (narrow.ground_truth, narrow.depth_range.max) == ("raw", 4.0)
    with pytest.raises(InputError, match="built-in rooms"):
        open_data(ROOMS, root=tmp_path)
    with pytest.raises(InputError, match=r"made by own\.Data; a report knows"):
        open_data({"_target_": "own.Data"})


def test_some_frames_evenly_spaced(rooms):
    run = read_run(rooms)
    assert list(evaluate(run, limit=2)) == [0, 2]
    assert list(evaluate(run, limit=9)) == [0, 1, 2, 3, 4]
    with pytest.raises(InputError, match="--limit 0"):
        evaluate(run, limit=0)


def test_which_checkpoint_is_evaluated(rooms, tmp_path):
    moved = shutil.move(rooms / "checkpoints/best.ckpt", tmp_path / "other.ckpt")
    with pytest.raises(InputError, match=r"best\.ckpt: no such checkpoint; .*--ckpt"):
        evaluate(read_run(rooms))
    assert FrameEvaluator(read_run(rooms), checkpoint=moved).checkpoint == moved
    config = OmegaConf.load(rooms / "config.yaml")
    config.ckpt = str(moved)  # a run that only evaluated
    OmegaConf.save(config, rooms / "config.yaml")
    assert FrameEvaluator(read_run(rooms)).checkpoint == moved
    with pytest.raises(InputError, match=r"nothing\.ckpt: no such checkpoint file"):
        evaluate(read_run(rooms), checkpoint="nothing.ckpt")


def test_frames_without_a_valid_pixel_are_not_chosen():
    figures = {frame: [float("nan")] * 9 for frame in range(4)} | {4: [0.5] * 9, 5: [0.1] * 9}
    assert choose_frames(figures) == {"Best": [5], "Worst": [4]}
    assert choose_frames({0: [0.5] * 9}) == {"Best": [0]}
    assert choose_frames({}) == {}
    many = {frame: [float(frame)] * len(METRIC_NAMES) for frame in range(20)}
    assert choose_frames(many) == {"Best": [0, 1, 2], "Median": [9, 10, 11], "Worst": [19, 18, 17]}
