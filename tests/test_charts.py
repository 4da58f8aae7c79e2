import base64
import io
import math
import re
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
from PIL import Image

from depthnet.report.charts import bar, color_scale, curves, details, number, picture, scatter, table
from depthnet.visualize import DEPTH_COLORS


def decoded(markup):
    (data,) = re.findall(r'(?:src|href)="data:image/(?:png|jpeg);base64,([^"]+)"', markup)
    return np.array(Image.open(io.BytesIO(base64.b64decode(data))))


def test_numbers_have_as_many_places_as_matter():
    assert [number(value)[0] for value in (0.12345, 9.9994, 28.303, 1234.5)] == ["0.123", "9.999", "28.30", "1234"]
    assert [number(value, signed=True)[0] for value in (0.1, -0.1, -0.0001)] == ["+0.100", "−0.100", "+0.000"]
    assert number(math.nan) == number(None) == ("–", math.inf)
    assert 'data-sort="Infinity">–<' in table(["a"], [[number(math.nan)]], "")


def test_a_table_escapes_what_is_given_and_says_what_to_sort_by():
    markup = table(["<name>", "value"], [["<b>&", number(0.5)], ["b", number(-1.5)]], 'what "it" holds')
    root = ElementTree.fromstring(markup)
    assert [head.text for head in root.iter("button")] == ["<name>", "value"]
    assert [cell.text for cell in root.iter("td")] == ["<b>&", "0.500", "b", "−1.500"]
    assert [cell.get("data-sort") for cell in root.iter("td")] == [None, "0.5", None, "-1.5"]
    assert root.find(".//caption").text == 'what "it" holds'


def test_a_bar_is_as_long_as_its_value_and_its_line_as_its_interval():
    markup, value = bar(0.2, 0.1, 0.3, 0.4)
    assert value == 0.2
    assert 'rect width="50.0"' in markup
    assert "M25.0 7H75.0" in markup
    assert "path" not in bar(0.2, math.nan, math.nan, 0.4)[0]
    assert 'rect width="100.0"' in bar(9.0, 8.0, 10.0, 0.4)[0]
    assert 'rect width="0.0"' in bar(0.0, 0.0, 0.0, 0.0)[0]


def test_curves_span_their_frame_and_leave_out_what_is_not_finite():
    markup = curves("a < b", {"train": [(1, 0.5), (2, math.nan), (3, 0.1)], "val": [(1, 0.3), (3, 0.2)]})
    root = ElementTree.fromstring(markup)
    first, second = (line.get("points") for line in root.iter("polyline"))
    assert first == "54.0,14.0 290.0,118.0"
    assert second.startswith("54.0,66.0 ")
    assert "val 0.2 at the end" in root.find("svg").get("aria-label")
    assert "circle" in curves("one epoch", {"loss": [(1, 0.5)]})
    assert curves("nothing", {}) == curves("nothing", {"a": [(1, math.nan)]}) == ""


def test_the_histogram_has_true_depth_to_the_right_and_predicted_upwards():
    histogram = np.zeros((10, 10), int)
    histogram[8, 1] = 100  # far, and predicted near: lower right
    histogram[2, 2] = 1
    markup = scatter(histogram, 10.0)
    ElementTree.fromstring(markup)
    pixels = decoded(markup)
    assert [tuple(place) for place in np.argwhere(pixels[..., 3] > 0)] == [(7, 2), (8, 8)]
    assert pixels[8, 8, :3].tolist() == [253, 231, 37]
    scatter(np.zeros((10, 10), int), 80.0)


@pytest.mark.parametrize("exact", [True, False])
def test_a_picture_is_whole_and_described(exact):
    pixels = np.kron(np.arange(4, dtype=np.uint8).reshape(2, 2, 1) * 60, np.ones((16, 16, 3), np.uint8))
    markup = picture(pixels, 'a "wall" & more', "below", exact)
    found = decoded(markup)
    assert np.abs(found.astype(int) - pixels).max() <= (0 if exact else 6)
    assert 'alt="a &quot;wall&quot; &amp; more"' in markup
    assert 'width="32" height="32"' in markup
    assert "<figcaption>below</figcaption>" in markup


def test_scales_and_folds():
    assert "rgb(252 253 191)" in color_scale(DEPTH_COLORS, "1", "5 m")
    assert "rgb(0 0 4)" in color_scale(DEPTH_COLORS, "1", "5 m")
    assert details("a & b", "<p>c</p>") == "<details><summary>a &amp; b</summary><p>c</p></details>"
