import json
import math

import pytest
from small_run import ROOMS, write_run

from depthnet.core.types import InputError
from depthnet.evaluation.frames import open_data
from depthnet.run.files import CONFIG, IMAGES, METRICS, exact_mean, read_config, read_metrics, read_run, store_measured


@pytest.fixture
def run(tmp_path):
    return write_run(tmp_path / "run", ROOMS, open_data(ROOMS))


@pytest.mark.parametrize("name", [CONFIG, METRICS, IMAGES])
def test_a_file_that_is_missing_or_torn_is_named(run, name):
    content = (run / name).read_text()
    (run / name).unlink()
    with pytest.raises(InputError, match=rf"run: no run that was evaluated there \(looked for {name}\)"):
        read_run(run)
    for torn in (content[: len(content) // 3], "", "[1]", "\x00"):
        (run / name).write_text(torn)
        with pytest.raises(InputError, match=rf"^.*run/{name}: cannot be read, torn or not a run's \(.*\)$"):
            read_run(run)


def test_files_of_two_evaluations_are_refused(run):
    content = json.loads((run / METRICS).read_text())
    content["protocols"]["scale_shift"]["rmse"] += 1e-9
    (run / METRICS).write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"it and metrics\.json disagree on scale_shift; evaluate the run again"):
        read_run(run)


def test_a_config_is_plain_data(tmp_path):
    text = "data: {_target_: x, image_size: [1, 2]}\nlr: 1e-3\nckpt: ${directory}/a\nmade: ${oc.env:HOME}\n"
    (tmp_path / CONFIG).write_text(text)
    found = read_config(tmp_path)
    assert (found["lr"], found["ckpt"], found["made"]) == (1e-3, "${directory}/a", "${oc.env:HOME}")
    for hostile in ("a: &a [1]\nb: *a\n", "# " + "x" * 1_000_000):
        (tmp_path / CONFIG).write_text(text + hostile)
        with pytest.raises(InputError, match="cannot be read"):
            read_config(tmp_path)


def test_null_is_read_as_nan(tmp_path):
    content = {"split": "val", "expected": 4, "data": {}, "protocols": {"uncropped": {"delta1": None}}}
    (tmp_path / METRICS).write_text(json.dumps(content))
    found = read_metrics(tmp_path)
    assert math.isnan(found["protocols"]["uncropped"]["delta1"])
    assert found["digests"] == {}


def measured(run, shift=0.0, count=5):
    images = list(run.rows["uncropped"].items())[:count]
    return {f: {"delta1": image.figures["delta1"] + shift, "edge_f1": f / 10 if f else math.nan} for f, image in images}


def test_what_was_measured_later_stands_beside_what_the_evaluation_did(run):
    before = read_run(run)
    assert store_measured(before, "edges", measured(before, shift=1e-4)) == ""
    after = read_run(run, measured=True)
    assert [image.figures["edge_f1"] for image in after.rows["uncropped"].values()][1:] == [0.1, 0.2, 0.3, 0.4]
    for frame, image in after.rows["uncropped"].items():
        assert image.figures["delta1"] == before.rows["uncropped"][frame].figures["delta1"]
    assert "edge_f1" not in after.rows["scale_shift"][0].figures
    assert read_run(run) == before


def test_figures_of_another_checkpoint_or_other_images_are_refused(run):
    found = read_run(run)
    for figures, reason in (
        (measured(found, 0.1), "evaluate the run again"),
        (measured(found, count=3), "only 3 of 5"),
    ):
        assert reason in store_measured(found, "edges", figures)
        assert not list(run.glob("per_image_*"))
    store_measured(found, "edges", measured(found))
    text = (run / "per_image_edges.csv").read_text()
    for torn in ("\n".join(text.splitlines()[:4]), text.replace("uncropped", "nyu_eigen"), text.replace(",0.", ",0.9")):
        (run / "per_image_edges.csv").write_text(torn)
        with pytest.raises(InputError, match=r"per_image_edges\.csv: cannot be read"):
            read_run(run, measured=True)


def test_a_mean_is_exact_and_leaves_out_what_is_none():
    assert exact_mean([0.1] * 10 + [math.nan]) == 0.1
    assert math.isnan(exact_mean([]))
