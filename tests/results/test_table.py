import importlib.util
import json
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
spec = importlib.util.spec_from_file_location("results_table", ROOT / "results/table.py")
table = importlib.util.module_from_spec(spec)
spec.loader.exec_module(table)


def record(name, delta1=0.7, seeds=(0,), **changes):
    figures = dict.fromkeys(("delta2", "delta3", "abs_rel", "rmse", "log10", "edge_f1", "robustness"), 0.25)
    return {
        "name": name,
        "set": "NYU",
        "commands": [f"python train.py model={name}"],
        "minutes": 21.4,
        "hardware": ["2 CPU cores"],
        "split": "val",
        "images": 96,
        "scenes": 18,
        "data": {"ground_truth": "filled", "frames": {"train": 699}},
        "protocol": "nyu_eigen_filled",
        "image_size": [120, 160],
        "figures": {
            "delta1": {"mean": delta1, "interval": [0.6, 0.8]},
            **{k: {"mean": v, "interval": None} for k, v in figures.items()},
        },
        "cost": {"parameters": 2254653, "gmacs": 0.7285, "ms": 48.4, "encoder_ms": 25.5},
        "runs": [{"seed": seed, "figures": {"delta1": delta1 + (seed - 1) / 100}} for seed in seeds],
        "mean_map": {"delta1": 0.424, "rmse": 1.092},
    } | changes


def test_what_all_rows_share_stands_once_above():
    text = table.tables([record("a"), record("b")])
    above, _, header, _, mean, a, *_ = text.splitlines()
    assert above == (
        "**NYU**, train split of 699 images; val, 96 images of 18 scenes; `nyu_eigen_filled`, filled ground truth; "
        "120x160; seed 0; 2 CPU cores"
    )
    assert header.count("|") == 14
    assert "size" not in header
    assert mean.startswith("| mean map | 0.424 | – | – | – | 1.092 |")
    assert a == (f"| a | 0.700 (0.600 to 0.800) | {' | '.join(['0.250'] * 7)} | 2.3 | 0.73 | 48 (26) | 21 |")
    assert text.endswith("1. a: `python train.py model=a`\n2. b: `python train.py model=b`")


def test_a_part_of_the_split_is_called_one():
    assert "; val, 16 of 96 images of 18 scenes; " in table.tables([record("a", images=16, expected=96)])


def test_what_rows_do_not_share_stands_in_them():
    seeds = record("a", seeds=(0, 1, 2))
    text = table.tables([seeds, record("b", image_size=[192, 256], hardware=["a GPU"], commands=["x", "y"])])
    assert "| a | 120x160 | 0.700 (" in text
    assert "| b | 192x256 | 0.700 (" in text
    assert "1. a: `python train.py model=a`; seeds 0, 1, 2; 2 CPU cores; delta1 of the seeds 0.690 to 0.710" in text
    assert "2. b: `x`, then `y`; seed 0; a GPU" in text
    assert "seed 0" not in text.splitlines()[0]


def test_other_data_and_other_protocols_make_other_tables():
    text = table.tables([record("a"), record("b", set="rooms"), record("c"), record("d", protocol="nyu_eigen")])
    assert text.count("| mean map |") == 3
    assert text.index("model=c") < text.index("**rooms**") < text.index("model=d")


@pytest.mark.parametrize("cost", [None, {"parameters": 10, "gmacs": 1.0, "ms": 2.0, "encoder_ms": None}])
def test_what_was_not_measured_is_a_dash(cost):
    bare = record("a", minutes=None, cost=cost)
    rows = table.tables([bare, record("b")]).splitlines()
    end = "| 0.250 | – | – | – | – |" if cost is None else "| 0.250 | 0.0 | 1.00 | 2 | – |"
    assert rows[5].endswith(end)


def test_a_figure_of_nothing_is_a_dash():
    rows = [record("a"), record("b")]
    rows[0]["figures"]["edge_f1"] = {"mean": None, "interval": None}
    assert f"| a | 0.700 (0.600 to 0.800) | {' | '.join(['0.250'] * 5)} | – | 0.250 |" in table.tables(rows)


def test_readme_holds_what_the_records_give(capsys, tmp_path):
    assert table.main(["--check", str(ROOT / "docs/results.md")]) == 0, capsys.readouterr().err
    text = (ROOT / "docs/results.md").read_text()
    copy = tmp_path / "README.md"
    copy.write_text(text.replace("| mean map | 0.4", "| mean map | 0.9"))
    assert table.main(["--check", str(copy)]) == 1
    assert f"{copy}:" in capsys.readouterr().err
    assert table.main(["--write", str(copy)]) == 0
    assert copy.read_text() == text
    copy.write_text("nothing")
    assert table.main(["--write", str(copy)]) == 1
    assert copy.read_text() == "nothing"


def test_no_record_holds_a_path_of_a_machine():
    for path in (ROOT / "results").glob("*.json"):
        text = path.read_text()
        json.loads(text)
        assert not any(place in text for place in ("/work", "/home", "/tmp", "/root")), path
