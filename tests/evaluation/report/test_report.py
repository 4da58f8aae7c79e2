import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from mat_file import MatFrame, random_frames, write_mat
from small_run import IMAGE_SIZE, ROOMS, from_root, write_run

from depthnet.core.types import InputError
from depthnet.data.layouts.labelled import LABELLED_FILE
from depthnet.data.layouts.registry import open_root
from depthnet.data.rooms.layout import RoomsLayout
from depthnet.evaluation.frames import FrameEvaluator
from depthnet.evaluation.metrics import METRIC_NAMES
from depthnet.evaluation.report.write import main, write_report
from depthnet.evaluation.sharpness import edge_f1
from depthnet.run.files import read_run


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    directory = tmp_path_factory.mktemp("runs") / "rooms <b>& more"
    return write_run(directory, ROOMS, RoomsLayout(ROOMS["frames"], IMAGE_SIZE, ROOMS["scene_seed"]))


@pytest.fixture(scope="module")
def report(run) -> Path:
    return write_report(run)


@pytest.fixture(scope="module")
def labelled_report(tmp_path_factory) -> str:
    """The report of a run on a labelled set of two images a scene, evaluated on test, with raw ground truth."""
    folder = tmp_path_factory.mktemp("labelled")
    names = ("book", "chair <i>", "cabinet", "wall")
    blocks = np.kron(np.arange(20, dtype=np.uint16).reshape(4, 5) % 5, np.ones((12, 13), np.uint16))[:, :64]
    frames = [MatFrame(*frame[:5], blocks) for frame in random_frames(24)]
    write_mat(folder / LABELLED_FILE, frames, names)
    data = from_root(folder) | {"ground_truth": "raw"}
    layout = open_root(folder, ground_truth="raw", depth_range=data["depth_range"])
    run = write_run(folder / "run", data, layout, split="test")
    (run / "history.csv").unlink()
    return write_report(run, folder / "elsewhere" / "page.html", limit=5).read_text()


def test_the_file_is_one_and_needs_no_other(report, run):
    text = report.read_text()
    assert report == run / "report.html"
    assert len(text) < 3_000_000
    assert all(link.startswith("data:") for link in re.findall(r'(?:src|href)="([^"]*)"', text))
    assert "http" not in re.sub(r'<meta http-equiv="Content-Security-Policy"', "", text)
    assert "@import" not in text
    assert "url(" not in text
    assert "default-src 'none'" in text
    assert "<b>& more" not in text
    assert "rooms &lt;b&gt;&amp; more" in text


def test_the_matrix_holds_the_figures_of_every_protocol(report, run):
    text = report.read_text()
    for protocol, figures in read_run(run).metrics["protocols"].items():
        line = re.search(rf'<tr><td class="text">{protocol}</td>(.*?)</tr>', text).group(1)
        found = [float(value) for value in re.findall(r'data-sort="([^"]*)"', line)]
        assert found == pytest.approx([figures[name] for name in METRIC_NAMES], rel=1e-5)
        assert line.count(" to&#160;") == len(METRIC_NAMES)  # an interval each: every room is another scene
        assert f"{protocol}: mean map" in text


def test_the_headline_is_the_edge_f1_of_the_results_table(report, run):
    evaluator = FrameEvaluator(read_run(run))
    found = [evaluator.evaluate(frame) for frame in evaluator.frames]
    mean = np.nanmean([edge_f1(result.pred, result.depth, result.mask) for result in found])
    heads = re.findall(r'<div class="card head"><span class="soft">(.*?)</span><b>(.*?)</b>', report.read_text())
    assert [name for name, _ in heads] == ["delta1", "abs_rel", "rmse [m]", "edge_f1"]
    assert heads[-1][1] == f"{mean:.3f}"
    rows = re.search(r'(?s)aria-label="Sharpness".*?</table>', report.read_text()).group()
    assert re.findall(r'<td class="text">(.*?)</td>', rows) == [
        "edge_f1",
        "boundary_f1",
        "dbe_accuracy [px]",
        "dbe_completeness [px]",
    ]


def test_every_section_names_its_protocol_split_and_images(report):
    sections = re.findall(r'<section><h2>(.*?)</h2><p class="under">(.*?)</p>', report.read_text())
    assert [title for title, under in sections if under == "uncropped · val · 5 images"] == [
        "Where the error is",
        "Sharpness of depth boundaries",
        "Predicted against true depth",
        "Images",
        "Scenes and images",
    ]
    assert dict(sections)["Metrics"] == "val · 5 images"
    assert dict(sections)["Training"] == "each epoch, as logged; val/ under uncropped"


def test_it_names_data_checkpoint_and_sources(report, run):
    text = report.read_text()
    for words in (
        "c0ffee",
        "d1935t",
        "built-in rooms, scene seed 3",
        "each frame is a different room",
        "best.ckpt, SHA-256",
    ):
        assert words in text
    for source in ("Eigen et al.", "Hu et al.", "Bochkovskii et al.", "Koch et al.", "Efron and Tibshirani"):
        assert source in text
    assert "By object class" not in text  # rooms have none
    assert "test split" not in text
    assert "Only some images" not in text
    assert "scene_seed: 3" in text


def test_kinds_classes_and_scenes_where_the_data_has_them(labelled_report):
    for words in ("By kind of scene", "By object class", ">kitchen<", ">chair &lt;i&gt;<", ">unlabelled<"):
        assert words in labelled_report
    assert re.search(r"<summary>[2-4] scenes, means over their images</summary>", labelled_report)
    assert "Training" not in labelled_report


def test_a_test_split_a_limit_and_another_checkpoint_are_named(labelled_report, run, tmp_path):
    assert '<li class="tag warn">test split</li>' in labelled_report
    assert "Evaluated on the test split" in labelled_report
    assert re.search(r"Only some images: edge_f1 and all below Metrics are of 5 of the \d+ images", labelled_report)
    assert "per_image.csv on the same images: this checkpoint is not" not in labelled_report
    directory = shutil.copytree(run, tmp_path / "run")
    rows = (directory / "per_image.csv").read_text().splitlines()
    moved = [rows[0], *(",".join([*(row := line.split(","))[:7], "9.0", *row[8:]]) for line in rows[1:])]
    (directory / "per_image.csv").write_text("\n".join(moved))
    metrics = json.loads((directory / "metrics.json").read_text()) | {"expected": 96}
    metrics["protocols"] = {name: row | {"abs_rel": 9.0} for name, row in metrics["protocols"].items()}
    (directory / "metrics.json").write_text(json.dumps(metrics))
    text = write_report(directory).read_text()
    assert "on the same images: this checkpoint is not the one" in text
    assert '<p class="under">val · 5 of 96 images</p>' in text
    assert '<li class="tag">uncropped · val · 5 of 96 images</li>' in text
    assert "Only some images" not in text  # the run itself evaluated no more


def test_the_same_run_gives_the_same_bytes(report, run, tmp_path):
    assert write_report(run, tmp_path / "again.html").read_bytes() == report.read_bytes()


def test_the_command_line(run, tmp_path, capsys):
    assert main([str(run), "--limit", "2", "--output", str(tmp_path / "a.html")]) == 0
    out, err = capsys.readouterr()
    assert re.fullmatch(rf"{tmp_path}/a\.html: 0\.\d MB\n", out)
    assert err == ""
    for arguments in ([str(tmp_path)], [str(run), "--ckpt", "no.ckpt"], [str(run), "--limit", "0"]):
        assert main([*arguments, "--output", str(tmp_path / "b.html")]) == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert re.fullmatch(r"depthnet report: [^\n]+\n", err)
    assert not (tmp_path / "b.html").exists()
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot write in"):
        write_report(run, tmp_path / "file" / "c.html")


@pytest.fixture(scope="module")
def browser():
    """A headless Chromium: the machine's own, or Playwright's; none: its tests are skipped."""
    api = pytest.importorskip("playwright.sync_api")
    own = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
    with api.sync_playwright() as playwright:
        try:
            chromium = playwright.chromium.launch(executable_path=own, args=flags)
        except api.Error as error:
            pytest.skip(f"no browser: {str(error).splitlines()[0]}")
        yield chromium
        chromium.close()


@pytest.mark.parametrize("width", [360, 1440])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_browser_shows_it(browser, report, width, scheme):
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    messages, asked = [], []
    page.on("console", lambda message: messages.append(message.text))
    page.on("pageerror", lambda error: messages.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(report.as_uri())
    for fold in page.query_selector_all("summary"):
        fold.click()
    assert messages == []
    assert [url for url in asked if not url.startswith("data:")] == [report.as_uri()]
    assert page.evaluate("document.documentElement.scrollWidth") == width
    assert page.evaluate("[...document.images].length") == 1 + 4 * 3
    assert page.evaluate("[...document.images].every(image => image.naturalWidth > 0 && image.alt)")
    assert page.evaluate("[...document.querySelectorAll('section')].every(part => part.offsetHeight > 60)")
    page.close()


@pytest.mark.parametrize(("width", "whole"), [(1100, True), (800, True), (400, False)])
def test_tables_wrap_and_what_is_still_too_wide_scrolls_in_its_box(browser, report, width, whole):
    page = browser.new_page(viewport={"width": width, "height": 900})
    page.goto(report.as_uri())
    assert page.evaluate("document.documentElement.scrollWidth") == width
    boxes = page.locator(".scroll:visible").evaluate_all(
        "boxes => boxes.map(box => [box.getBoundingClientRect().right, box.clientWidth, box.scrollWidth])"
    )
    assert len(boxes) > 4
    assert all(right <= width for right, _, _ in boxes)
    assert all(inner <= outer for _, outer, inner in boxes) == whole
    page.close()


def test_a_click_on_a_header_sorts_its_table(browser, report):
    page = browser.new_page()
    page.goto(report.as_uri())
    table = page.get_by_role("region", name="By true depth", exact=True)

    def column(number):
        cells = table.locator(f"tbody td:nth-child({number})")
        return cells.evaluate_all("cells => cells.map(cell => cell.dataset.sort ?? cell.textContent)")

    names = column(1)
    assert len(names) > 3
    table.locator("th:nth-child(2) button").click()
    values = [float(value) for value in column(2)]
    assert values == sorted(values)
    assert table.locator("th:nth-child(2)").get_attribute("aria-sort") == "ascending"
    table.locator("th:nth-child(2) button").click()
    assert [float(value) for value in column(2)] == sorted(values, reverse=True)
    table.locator("th:nth-child(1) button").click()  # text, its numbers by their size
    assert column(1) == names
    assert table.locator("[aria-sort]").count() == 1
    page.close()
