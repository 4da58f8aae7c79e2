import math

import pytest
from small_run import ROOMS, write_run

from depthnet.core.types import InputError
from depthnet.evaluation.frames import open_data
from depthnet.evaluation.per_image import exact_mean, read_run, write_more


@pytest.fixture
def run(tmp_path):
    return write_run(tmp_path / "run", ROOMS, open_data(ROOMS))


def more_of(run, shift=0.0, count=5):
    images = list(read_run(run).images["uncropped"].items())[:count]
    return {
        frame: (label, image.scene, [image.figures["delta1"] + shift, frame / 10 if frame else math.nan])
        for frame, (label, image) in enumerate(images)
    }


def test_what_a_record_measured_stands_beside_what_the_judgement_did(run):
    before = read_run(run)
    write_more(run, "edges", "uncropped", ("delta1", "edge_f1"), more_of(run, shift=1e-4))
    after = read_run(run)
    assert [image.figures["edge_f1"] for image in after.images["uncropped"].values()][1:] == [0.1, 0.2, 0.3, 0.4]
    for label, image in after.images["uncropped"].items():
        assert image.figures["delta1"] == before.images["uncropped"][label].figures["delta1"]
    assert "edge_f1" not in next(iter(after.images["scale_shift"].values())).figures


def test_figures_of_another_checkpoint_or_other_images_are_refused(run):
    rows = more_of(run)
    for protocol, more, reason in (
        ("uncropped", {frame: (a, b, [c[0] + 0.1, c[1]]) for frame, (a, b, c) in rows.items()}, "another checkpoint"),
        ("uncropped", {frame: rows[frame] for frame in range(3)}, "other images"),
        ("nyu_eigen", rows, "nyu_eigen"),
    ):
        write_more(run, "edges", protocol, ("delta1", "edge_f1"), more)
        with pytest.raises(InputError, match=reason):
            read_run(run)


def test_a_mean_is_exact():
    assert exact_mean([0.1] * 10) == 0.1
    assert math.isnan(exact_mean([]))
