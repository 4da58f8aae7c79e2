import base64
import io
import math
import re
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
from PIL import Image

from depthnet.core.visualize import DEPTH_COLORS
from depthnet.evaluation.atlas import Figure
from depthnet.evaluation.bootstrap import Interval
from depthnet.evaluation.report.page import gradient, scatter, templates

PAGE = templates()
MACROS = PAGE.get_template("charts.html.j2").module


def table(header, rows, caption=""):
    """A table whose cells are macros' names, each with its arguments."""
    source = """{% import "charts.html.j2" as charts %}{% call charts.table(header, caption) %}{% for row in rows %}
<tr>{% for cell in row %}{{ charts[cell[0]](*cell[1:]) }}{% endfor %}</tr>{% endfor %}{% endcall %}"""
    return PAGE.from_string(source).render(header=header, rows=rows, caption=caption)


def decoded(markup):
    (data,) = re.findall(r'(?:src|href)="data:image/(?:png|jpeg);base64,([^"]+)"', markup)
    return np.array(Image.open(io.BytesIO(base64.b64decode(data))))


def test_numbers_have_as_many_places_as_matter():
    assert [MACROS.number(value) for value in (0.12345, 9.9994, 28.303, 1234.5)] == ["0.123", "9.999", "28.30", "1234"]
    signed = [MACROS.number(value, signed=True) for value in (0.1, -0.1, -0.0001)]
    assert signed == ["+0.100", "−0.100", "+0.000"]
    for missing in (math.nan, None):
        assert 'data-sort="Infinity">–<' in MACROS.cell(missing)
    assert 'data-sort="Infinity"' in MACROS.cell(math.inf)
    assert 'data-sort="0.25">25 %<' in MACROS.cell(0.25, "25 %")
    assert 'data-sort="3">3<' in MACROS.cell(3)


def test_a_table_escapes_its_text_and_has_keys_to_sort_by():
    figure = Figure(-1.5, Interval(-2.0, -1.0))
    rows = [[("text", "<b>&"), ("cell", 0.5)], [("text", "b"), ("figure", figure)], [("text", "c"), ("figure", None)]]
    root = ElementTree.fromstring(table(["<name>", "value"], rows, 'what "it" holds'))
    assert [head.text for head in root.iter("button")] == ["<name>", "value"]
    assert [head.get("class") for head in root.iter("th")] == ["text", "number"]
    assert [data.text for data in root.iter("td")] == ["<b>&", "0.500", "b", "−1.500", "c", "–"]
    assert [data.get("data-sort") for data in root.iter("td")] == [None, "0.5", None, "-1.5", None, "Infinity"]
    assert root.find(".//small").text == "−2.000 to\N{NO-BREAK SPACE}−1.000"
    assert root.find(".//caption").text == 'what "it" holds'
    assert [head.get("class") for head in ElementTree.fromstring(table(["a"], [])).iter("th")] == ["text"]


def test_a_bar_is_as_long_as_its_value_and_its_line_as_its_interval():
    def drawn(mean, low, high, top):
        return MACROS.bar(Figure(mean, Interval(low, high)), top)

    assert 'data-sort="0.2"' in drawn(0.2, 0.1, 0.3, 0.4)
    assert 'rect width="50.0"' in drawn(0.2, 0.1, 0.3, 0.4)
    assert "M25.0 7H75.0" in drawn(0.2, 0.1, 0.3, 0.4)
    assert "path" not in drawn(0.2, math.nan, math.nan, 0.4)
    assert 'rect width="100.0"' in drawn(9.0, 8.0, 10.0, 0.4)
    assert 'rect width="0.0"' in drawn(0.0, 0.0, 0.0, 0.4)


def test_curves_span_their_frame():
    series = [("train", [(1, 0.5), (3, 0.1)]), ("val", [(1, 0.3), (3, 0.2)])]
    root = ElementTree.fromstring(MACROS.curves("a < b", series))
    first, second = (line.get("points") for line in root.iter("polyline"))
    assert first == "54.0,14.0 290.0,118.0"
    assert second.startswith("54.0,66.0 ")
    assert [line.get("class") for line in root.iter("polyline")] == ["other", "accent"]
    assert root.find("svg").get("aria-label") == "a < b by epoch: train 0.1 at the end, val 0.2 at the end"
    assert "circle" in MACROS.curves("one epoch", [("loss", [(1, 0.5)])])


def test_the_histogram_has_true_depth_to_the_right_and_predicted_upwards():
    histogram = np.zeros((10, 10), int)
    histogram[8, 1] = 100  # far, and predicted near: lower right
    histogram[2, 2] = 1
    markup = MACROS.scatter(scatter(histogram), 10.0)
    ElementTree.fromstring(markup)
    pixels = decoded(markup)
    assert [tuple(place) for place in np.argwhere(pixels[..., 3] > 0)] == [(7, 2), (8, 8)]
    assert pixels[8, 8, :3].tolist() == [253, 231, 37]
    scatter(np.zeros((10, 10), int))


@pytest.mark.parametrize("exact", [True, False])
def test_a_picture_is_whole_and_described(exact):
    pixels = np.kron(np.arange(4, dtype=np.uint8).reshape(2, 2, 1) * 60, np.ones((16, 16, 3), np.uint8))
    markup = MACROS.picture(pixels, 'a "wall" & more', "below", exact)
    found = decoded(markup)
    assert np.abs(found.astype(int) - pixels).max() <= (0 if exact else 6)
    assert 'alt="a &#34;wall&#34; &amp; more"' in markup
    assert 'width="32" height="32"' in markup
    assert "<figcaption>below</figcaption>" in markup
    assert ('class="exact"' in markup) == exact


def test_scales_hold_the_whole_map_of_colors():
    markup = MACROS.scale(gradient(DEPTH_COLORS), "1 <", "5 m")
    assert "rgb(252 253 191)" in markup
    assert "rgb(0 0 4)" in markup
    assert "1 &lt;" in markup
