import csv
import json
import math
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from depthnet.evaluation.bootstrap import bootstrap
from depthnet.evaluation.compare import compare, main
from depthnet.run.files import read_run, store_measured

METRICS = ("delta1", "delta2", "delta3", "abs_rel", "sq_rel", "rmse", "rmse_log", "log10", "silog")
DATA = {
    "description": "NYU, lists layout, /data/nyu",
    "ground_truth": "filled",
    "frames": {"train": 9, "val": 24, "test": 0},
    "digest": None,
    "image_size": [120, 160],
}
SCENES = [f"scene {i // 3}" for i in range(24)]
LABELS = [f"train/rgb_{i:05d}" for i in range(24)]


def table(seed: int, shift: float = 0.0, noise: float = 0.0) -> np.ndarray:
    """Images that are hard or easy for every run, plus what sets this run apart."""
    shared, own = np.random.default_rng(0), np.random.default_rng(seed)
    return 0.2 + 0.6 * shared.random((24, 9)) + shift + noise * own.standard_normal((24, 9))


def write(
    directory: Path,
    tables,
    split="val",
    labels=LABELS,
    scenes=SCENES,
    digests=None,
    data=None,
    config="data: {_target_: x, image_size: [120, 160]}",
    expected=24,
):
    """Write what an evaluation writes; one table is of the protocol "uncropped"."""
    tables = tables if isinstance(tables, dict) else {"uncropped": tables}
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / "per_image.csv").open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("protocol", "frame", "label", "scene", *METRICS))
        for name, rows in tables.items():
            for frame, row in enumerate(rows.tolist()):
                writer.writerow((name, frame, labels[frame], scenes[frame], *map(repr, row)))
    means = {}
    for name, rows in tables.items():
        valid = rows[~np.isnan(rows).any(1)].T.tolist()
        means[name] = {m: math.fsum(c) / len(c) if c else None for m, c in zip(METRICS, valid, strict=True)}
    content = {"split": split, "expected": expected, "data": DATA | (data or {}), "protocols": means}
    content["digests"] = dict.fromkeys(tables, "0b32ad8a6d43") | (digests or {})
    (directory / "metrics.json").write_text(json.dumps(content))
    (directory / "config.yaml").write_text(config)
    return directory


@pytest.fixture
def pair(tmp_path):
    return write(tmp_path / "a", table(1)), write(tmp_path / "b", table(2, shift=0.05, noise=0.01))


def rows_of(capsys, *arguments):
    assert main([*map(str, arguments), "--format", "csv"]) == 0
    return list(csv.DictReader(capsys.readouterr().out.splitlines()))


def refusal(capsys, *arguments) -> str:
    assert main([*map(str, arguments)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("depthnet compare: ")
    assert err.count("\n") == 1
    return err


def test_csv_holds_figures_differences_and_intervals_to_full_precision(pair, capsys):
    rows = rows_of(capsys, *pair, "--metrics", "delta1,rmse")
    a, b = (np.genfromtxt(run / "per_image.csv", delimiter=",", names=True, encoding=None, dtype=None) for run in pair)
    assert [(row["metric"], row["run"]) for row in rows] == [
        ("delta1", "a"),
        ("delta1", "b"),
        ("rmse", "a"),
        ("rmse", "b"),
    ]
    for row in rows:
        values = {"a": a, "b": b}[row["run"]][row["metric"]]
        difference = values - a[row["metric"]]
        assert float(row["mean"]) == math.fsum(values) / 24
        assert float(row["difference"]) == math.fsum(difference) / 24
        intervals = bootstrap(np.stack([values, difference], axis=1), SCENES)
        found = [float(row[name]) for name in ("low", "high", "difference_low", "difference_high")]
        assert found == pytest.approx([*intervals[0], *intervals[1]], abs=1e-12)
        assert (row["protocol"], row["split"], row["images"], row["scenes"]) == ("uncropped", "val", "24", "8")
        assert row["digest"] == "0b32ad8a6d43"


def test_a_second_call_gives_the_same_bytes(pair, capsys):
    assert rows_of(capsys, *pair) == rows_of(capsys, *pair)


def test_images_are_joined_by_label_whatever_their_order(pair, tmp_path, capsys):
    turned = write(
        tmp_path / "turned" / "b", table(2, shift=0.05, noise=0.01)[::-1], labels=LABELS[::-1], scenes=SCENES[::-1]
    )
    assert rows_of(capsys, write(tmp_path / "turned" / "a", table(1)), turned) == rows_of(capsys, *pair)


def test_a_real_difference_is_marked_though_the_runs_own_intervals_overlap(pair, capsys):
    rows = rows_of(capsys, *pair, "--metrics", "delta1,rmse")
    own = {(row["metric"], row["run"]): row for row in rows}
    for metric, verdict in (("delta1", "better"), ("rmse", "worse")):  # 0.05 more is better for one alone
        a, b = own[metric, "a"], own[metric, "b"]
        assert float(b["low"]) < float(a["high"])
        assert (a["verdict"], b["verdict"]) == ("", verdict)
    turned = rows_of(capsys, *reversed(pair), "--metrics", "delta1")
    assert [(row["run"], row["verdict"]) for row in turned] == [("b", ""), ("a", "worse")]
    assert float(turned[1]["difference"]) == -float(own["delta1", "b"]["difference"])


def test_noise_is_not_marked(tmp_path, capsys):
    noise = 0.1 * np.random.default_rng(3).standard_normal((24, 9))
    noise -= noise.mean(axis=0)
    runs = write(tmp_path / "a", table(1)), write(tmp_path / "b", table(1) + noise)
    rows = rows_of(capsys, *runs, write(tmp_path / "same", table(1)))
    assert {row["verdict"] for row in rows} == {""}
    same = [float(row["difference_high"]) for row in rows if row["run"] == "same"]
    assert same == [0.0] * 6


def test_an_image_without_a_valid_pixel_is_left_out_for_all_and_counted(tmp_path, capsys):
    holed = table(2)
    holed[5] = np.nan
    runs = write(tmp_path / "a", table(1)), write(tmp_path / "b", holed)
    row = rows_of(capsys, *runs, "--metrics", "delta1")[0]
    rest = np.delete(table(1), 5, axis=0)
    assert (row["images"], row["scenes"], row["empty"]) == ("23", "8", "1")
    assert float(row["mean"]) == math.fsum(rest[:, 0]) / 23
    assert main([*map(str, runs)]) == 0
    assert "1 images without a value in some run are left out: delta1, delta2" in capsys.readouterr().out


def test_nothing_but_invalid_images_gives_no_figure(tmp_path, capsys):
    runs = [write(tmp_path / name, np.full((24, 9), np.nan)) for name in "ab"]
    rows = rows_of(capsys, *runs)
    assert {(row["mean"], row["low"], row["images"], row["verdict"]) for row in rows} == {("nan", "nan", "0", "")}


def test_one_scene_has_no_interval_and_a_warning(tmp_path, capsys):
    runs = [write(tmp_path / name, table(1, shift), scenes=["s"] * 24) for name, shift in (("a", 0.0), ("b", 0.1))]
    assert {(row["low"], row["verdict"]) for row in rows_of(capsys, *runs)} == {("nan", "")}
    assert main([*map(str, runs)]) == 0
    out = capsys.readouterr().out
    assert "fewer than 10 scenes: intervals are too narrow, and one scene gives none" in out
    assert "nan" not in out


def test_protocols_that_all_share_are_compared(tmp_path, capsys):
    runs = (
        write(tmp_path / "a", {"nyu_eigen": table(1), "uncropped": table(2), "median_scaled": table(3)}),
        write(tmp_path / "b", {"uncropped": table(2), "nyu_eigen": table(1)}),
    )
    assert list(dict.fromkeys(row["protocol"] for row in rows_of(capsys, *runs))) == ["nyu_eigen", "uncropped"]
    assert {row["protocol"] for row in rows_of(capsys, *runs, "--protocol", "uncropped")} == {"uncropped"}
    line = refusal(capsys, *runs, "--protocol", "median_scaled")
    assert "a has nyu_eigen, uncropped, median_scaled; b has uncropped, nyu_eigen" in line


def test_what_was_measured_under_the_first_protocol_alone_is_compared_there(tmp_path, capsys):
    runs = [write(tmp_path / name, {"uncropped": table(1), "median_scaled": table(2)}) for name in "ab"]
    for directory in runs:
        run = read_run(directory)
        images = run.rows["uncropped"].items()
        store_measured(run, "edges", {f: {"delta1": image.figures["delta1"], "edge_f1": f / 24} for f, image in images})
    rows = rows_of(capsys, *runs, "--metrics", "delta1,edge_f1")
    found = [(row["protocol"], row["metric"]) for row in rows if row["run"] == "a"]
    assert found == [("uncropped", "delta1"), ("uncropped", "edge_f1"), ("median_scaled", "delta1")]
    assert "not all runs have 'robustness'" in refusal(capsys, *runs, "--metrics", "robustness")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"split": "test"}, "b and a were evaluated on different splits: test and val"),
        (
            {"data": {"description": "NYU, lists layout, /other"}},
            "different data: NYU, lists layout, /other and",
        ),
        ({"data": {"ground_truth": "raw"}}, "ground truth: raw and filled"),
        (
            {"digests": {"uncropped": "aaaaaaaaaaaa"}},
            "protocols named uncropped: aaaaaaaaaaaa and 0b32ad8a6d43",
        ),
        ({"labels": [*LABELS[:-1], "train/rgb_99999"]}, "train/rgb_99999"),
        (
            {"scenes": [*SCENES[:-1], "attic"]},
            "images, for example: [('train/rgb_00023', 'attic')] and [",
        ),
    ],
)
def test_runs_of_different_things_are_refused(tmp_path, capsys, change, words):
    assert words in refusal(capsys, write(tmp_path / "a", table(1)), write(tmp_path / "b", table(1), **change))


def test_runs_that_trained_on_more_and_evaluated_the_same_are_compared(tmp_path, capsys):
    more = {"frames": {"train": 8, "val": 24, "test": 0}, "digest": "2" * 64}
    a = write(tmp_path / "a", table(1), data={"digest": "1" * 64})
    assert main([str(a), str(write(tmp_path / "b", table(2), data=more))]) == 0
    assert "delta1" in capsys.readouterr().out


def test_a_subset_of_the_images_is_refused(tmp_path, capsys):
    runs = write(tmp_path / "a", table(1)), write(tmp_path / "b", table(1)[:20])
    assert "b and a were evaluated on different images" in refusal(capsys, *runs)


def test_a_digest_outweighs_where_the_data_lies(tmp_path, capsys):
    a = write(tmp_path / "a", table(1), data={"digest": "1" * 64})
    moved = write(tmp_path / "b", table(1), data={"digest": "1" * 64, "description": "NYU, lists layout, /mnt"})
    other = write(tmp_path / "c", table(1), data={"digest": "2" * 64})
    assert rows_of(capsys, a, moved)
    assert "different data: 222" in refusal(capsys, a, other)
    assert rows_of(capsys, a, write(tmp_path / "d", table(1)))  # one of an older version has none


def test_what_is_no_run_is_refused(pair, tmp_path, capsys):
    a, b = pair
    (tmp_path / "score.json").write_text("{}")
    (tmp_path / "empty").mkdir()
    for wrong in (tmp_path / "score.json", tmp_path / "missing"):
        assert f"{wrong}: no run that was evaluated there" in refusal(capsys, a, wrong)
    assert "no run that was evaluated there (looked for config.yaml)" in refusal(capsys, a, tmp_path / "empty")
    assert "name two runs or more, each once" in refusal(capsys, a)
    assert "name two runs or more, each once" in refusal(capsys, a, b, a)
    assert "not all runs have 'a1'; they have delta1, delta2" in refusal(capsys, a, b, "--metrics", "delta1,a1")
    assert "cannot write" in refusal(capsys, a, b, "--output", a / "metrics.json" / "x.csv")


@pytest.mark.parametrize("damage", ["stale", "torn", "json", "list", "header", "config", "other"])
def test_damaged_files_are_refused(pair, capsys, damage):
    a, b = pair
    rows, content = (b / "per_image.csv").read_text(), (b / "metrics.json").read_text()
    if damage == "stale":  # the run was evaluated again, and killed between the two files
        (b / "per_image.csv").write_text((a / "per_image.csv").read_text())
    elif damage == "torn":
        (b / "per_image.csv").write_text(rows[: len(rows) // 2])
    elif damage == "header":
        (b / "per_image.csv").write_text(rows.replace("label", "name", 1))
    elif damage == "config":
        (b / "config.yaml").write_text("a: [1")
    else:
        wrong = {"json": content[:-1], "list": "[]", "other": json.dumps({"split": "val"})}[damage]
        (b / "metrics.json").write_text(wrong)
    assert "cannot be read, torn or not a run's" in refusal(capsys, a, b)


def config(encoder="resnet50", lr=1e-3, size="[120, 160]", seed=0, extra=""):
    return f"""
data: {{_target_: x, image_size: {size}, seed: {seed}, augment: {{transforms: [{{p: {lr}}}]}}}}
augment: {{transforms: [{{p: {lr}}}]}}
model: {{encoder: {encoder}, decoder_widths: [64, 32]}}
optimizer: {{lr: {lr}}}
seed: {seed}
directory: ${{directory}}
{extra}"""


def test_what_the_configs_differ_in_is_printed(tmp_path, capsys):
    a = write(tmp_path / "a", table(1), config=config())
    b = write(
        tmp_path / "b",
        table(1),
        config=config(encoder="convnext_tiny", lr=5e-4, size="[240, 320]", seed=7, extra="compile: true"),
    )
    assert main([str(a), str(b)]) == 0
    out = capsys.readouterr().out
    lines = [re.split(r"  +", line) for line in out[out.index("config  ") :].splitlines()]
    assert lines[0] == ["config", "a", "b"]
    assert lines[2:] == [
        ["data.image_size", "[120,160]", "[240,320]"],
        ["augment.transforms.0.p", "0.001", "0.0005"],
        ["model.encoder", "resnet50", "convnext_tiny"],
        ["optimizer.lr", "0.001", "0.0005"],
        ["compile", "-", "true"],
    ]


def test_equal_and_many_configs_are_printed(tmp_path, capsys):
    plain, seeded = (write(tmp_path / f"s{seed}", table(1), config=config(seed=seed)) for seed in (0, 1))
    many = "\n".join(f"key{i:02d}: {i}" for i in range(15))
    full = write(tmp_path / "full", table(1), config=config(extra=many))
    outputs = {}
    for other in (seeded, full):
        assert main([str(plain), str(other)]) == 0
        outputs[other] = capsys.readouterr().out
    assert "the configs differ only in the seed" in outputs[seeded]
    assert all(f"key{i:02d}" in outputs[full] for i in range(15))


def test_the_terminal_form_is_aligned_and_fits_100_columns(tmp_path, capsys):
    stamp = "2026-11-22_17-34-27"
    runs = [write(tmp_path / f"nyu_{name}" / stamp, table(i, i / 20)) for i, name in enumerate(("irv2_attn", "basic"))]
    assert main([*map(str, runs)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 100
    figures = [line for line in lines if "[0." in line]
    assert len(figures) == 12
    header = next(line for line in lines if line.startswith("metric"))
    block = lines[lines.index(header) + 2 : lines.index("", lines.index(header))]
    cells = [line[header.index("run") : header.index("figure")].strip() for line in block]
    assert "".join(cells) == "".join(f"nyu_{name}/{stamp}" for name in ("irv2_attn", "basic"))
    assert figures[0].endswith("baseline")
    assert {line.index("[") for line in figures} == {figures[0].index("[")}
    assert re.search(r"\+0\.0500  \[\+0\.0500, \+0\.0500\]  better$", figures[1])


def test_a_part_of_the_split_is_called_one(tmp_path, capsys):
    runs = [write(tmp_path / name, table(1), expected=96) for name in "ab"]
    assert main([*map(str, runs), "--metrics", "delta1"]) == 0
    assert "val: 24 of 96 images of 8 scenes, filled ground truth" in capsys.readouterr().out


def test_markdown_is_a_table_and_a_file_is_written(pair, tmp_path, capsys):
    output = tmp_path / "new" / "comparison.md"
    assert main([*map(str, pair), "--format", "markdown", "--output", str(output), "--metrics", "delta1"]) == 0
    assert capsys.readouterr().out == ""
    text = output.read_text()
    assert text.startswith(
        "### uncropped (digest 0b32ad8a6d43)\n\nval: 24 images of 8 scenes, filled ground truth; NYU"
    )
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert [line.count("|") for line in lines] == [8, 8, 8, 8]
    assert lines[1] == "| --- | --- | ---: | ---: | ---: | ---: | --- |"
    assert re.fullmatch(r"\|  \| b \| 0\.\d{4} \| \[0.*\] \| \+0\.0\d+ \| \[\+0.*\] \| better \|", lines[3])


def test_what_an_evaluation_writes_is_read(tmp_path):
    import torch

    from depthnet.core.types import DepthRange
    from depthnet.evaluation.evaluator import Evaluation
    from depthnet.evaluation.protocols import PROTOCOLS

    runs = {}
    for name, factor in (("a", 1.1), ("b", 1.3)):
        found = Evaluation([PROTOCOLS["uncropped"].within(DepthRange(1e-3, 10.0))])
        depth = torch.linspace(1, 5, 4 * 48).view(4, 1, 6, 8)
        mask = torch.arange(4).view(4, 1, 1, 1).expand_as(depth) > 0  # the first image is empty
        found.update(depth * factor, depth, mask, torch.arange(4))
        found.write(
            tmp_path / name,
            split="val",
            labels=LABELS[:4],
            scenes=["s", "s", "t", "t"],
            expected=4,
            seed=0,
            commit=None,
            versions={},
            data=DATA,
        )
        (tmp_path / name / "config.yaml").write_text(config())
        runs[name] = read_run(tmp_path / name)
    rows = compare(runs, METRICS)
    assert {(row.images, row.scenes, row.empty) for row in rows} == {(3, 2, 1)}
    row = next(row for row in rows if (row.metric, row.run) == ("abs_rel", "b"))
    assert (row.mean, row.difference, row.verdict) == (pytest.approx(0.3), pytest.approx(0.2), "worse")


def test_it_starts_without_the_heavy_libraries(pair):
    program = (
        f"import sys; from depthnet.evaluation.compare import main; main({[*map(str, pair)]!r}); "
        "print(*sorted({'torch', 'lightning', 'hydra', 'timm', 'PIL'} & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stderr.split() == []


def test_a_run_of_before_the_digests_changed_is_compared_with_one_of_today(tmp_path):
    today = write(tmp_path / "a", table(1))
    before = write(tmp_path / "b", table(2), digests={"uncropped": "d5c5bac4ba6e"})
    assert main([str(today), str(before)]) == 0
