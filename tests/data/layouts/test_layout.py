import pytest

from depthnet.core.types import InputError
from depthnet.data.layouts.layout import read_unit
from depthnet.data.layouts.registry import open_root


def test_truth_is_raw_when_a_frame_has_a_hole(make_lists):
    assert open_root(make_lists(holes=True)).ground_truth == "raw"


def test_truth_is_filled_without_holes_unless_stated(make_lists):
    root = make_lists()
    assert open_root(root).ground_truth == "filled"
    assert open_root(root, ground_truth="raw").ground_truth == "raw"
    with pytest.raises(InputError, match=r"data\.ground_truth=dense"):
        open_root(root, ground_truth="dense")


@pytest.mark.parametrize(("unit", "meters"), [("mm", 1e-3), ("cm", 0.01), ("m", 1.0), ("10/255", 10 / 255), (0.5, 0.5)])
def test_a_unit_is_meters_per_level(unit, meters):
    assert read_unit("data.unit", unit) == pytest.approx(meters)


@pytest.mark.parametrize("unit", ["inch", "0", "-1", "1/0", "", "nan", "1e999"])
def test_what_is_no_unit_is_refused(unit):
    with pytest.raises(InputError, match=r"data\.unit=.*meters per level"):
        read_unit("data.unit", unit)
