import csv
import json

import pytest

from depthnet.core.types import InputError
from depthnet.evaluation.runs import main, print_runs, read_runs
from depthnet.run.naming import job_name


def write_metrics(directory, figure, metric="delta1", interval=(0.1, 0.9), seed=0, description="rooms"):
    directory.mkdir(parents=True, exist_ok=True)
    content = {"split": "val", "expected": 2, "seed": seed, "data": {"description": description}}
    content |= {"protocols": {"uncropped": {metric: figure}}, "intervals": {"uncropped": {metric: interval}}}
    (directory / "metrics.json").write_text(json.dumps(content))


def make_job(sweep, overrides, figure=None, error=None, watch="val/delta1", interval=(0.1, 0.9)):
    """Write what a job leaves: its note, and its figures where it has any."""
    directory = sweep / job_name(overrides)
    directory.mkdir(parents=True)
    (directory / "job.json").write_text(json.dumps({"overrides": overrides, "watch": watch, "error": error}))
    if figure is not None:
        seed = next(word[5:] for word in [*overrides, "seed=0"] if word.startswith("seed="))
        write_metrics(directory, figure, watch.partition("/")[2], interval, int(seed))
    return directory.name


def make_run(directory, words, figure=None, **options):
    """Write what a run outside a sweep leaves."""
    directory.mkdir(parents=True)
    (directory / "run.json").write_text(json.dumps({"overrides": words}))
    (directory / "config.yaml").write_text("data: {_target_: x, image_size: [1, 1]}\nwatch: val/delta1\n")
    if figure is not None:
        write_metrics(directory, figure, **options)


def table_of(text):
    return [line.split() for line in text.splitlines()]


def test_a_sweep_is_ranked_by_the_mean_over_seeds_and_names_what_failed(tmp_path, capsys):
    good = [make_job(tmp_path, ["loss=l1", f"seed={seed}"], 0.5 + 0.1 * seed) for seed in (10, 2)]
    better = make_job(tmp_path, ["loss=silog", "seed=2"], 1.2)
    failed = make_job(tmp_path, ["loss=berhu", "seed=2"], error="out of memory")
    killed = make_job(tmp_path, ["loss=berhu", "seed=10"])
    assert print_runs(tmp_path) == 1
    out, err = capsys.readouterr()
    rows = table_of(out)
    first = rows.index(["1", "1.2000", "[0.1000,", "0.9000]", "silog", "2", better])
    assert rows[first + 1] == ["2", "1.1000", "±", "0.5657", "l1", "10", good[0]]
    assert rows[first + 2] == ["2", good[1]]
    assert "by val/delta1, uncropped: rooms" in out
    assert f"failed: {failed}: out of memory" in out
    assert "3 finished, 1 failed, 1 unfinished" in out
    assert f"hydra.sweep.dir={tmp_path} resumes" in out
    assert not err
    assert len({len(row) for row in csv.reader((tmp_path / "sweep.csv").open())}) == 1
    table = {row["job"]: row for row in csv.DictReader((tmp_path / "sweep.csv").open())}
    assert {name: row["status"] for name, row in table.items()} == {
        **dict.fromkeys([*good, better], "finished"),
        failed: "failed",
        killed: "unfinished",
    }
    assert (table[better]["loss"], table[better]["protocol"]) == ("silog", "uncropped")
    assert [float(table[better][key]) for key in ("delta1", "delta1_low", "delta1_high")] == [1.2, 0.1, 0.9]
    assert table[failed]["error"] == "out of memory"


def test_less_of_an_error_is_better(tmp_path, capsys):
    make_job(tmp_path, ["optimizer.lr=0.00123456", "x=1"], 2.5, watch="val/rmse", interval=(None, None))
    make_job(tmp_path, ["optimizer.lr=1e-3", "x=1"], 1.5, watch="val/rmse")
    assert main([str(tmp_path)]) == 0
    rows = table_of(capsys.readouterr().out)
    assert [row[:2] for row in rows if row[:1] in (["1"], ["2"])] == [["1", "1.5000"], ["2", "2.5000"]]
    assert ["2", "2.5000", "0.00123"] in [row[:3] for row in rows]
    assert rows[1][:5] == ["rmse", "95", "%", "interval", "lr"]


def test_jobs_that_watch_different_figures_have_a_table_each(tmp_path, capsys):
    make_job(tmp_path, ["seed=1"], 0.5)
    make_job(tmp_path, ["seed=1", "watch=val/rmse"], 1.5, watch="val/rmse", interval=(1.0, 2.0))
    assert main([str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert sorted(row[1] for row in table_of(out) if row[:1] == ["1"]) == ["0.5000", "1.5000"]
    assert "2 finished" in out
    rows = {row["watch"]: row for row in csv.DictReader((tmp_path / "sweep.csv").open())}
    assert (rows["val/rmse"]["rmse_low"], rows["val/rmse"]["delta1_low"]) == ("1.0", "")


def test_any_folder_of_runs_is_ranked_with_a_table_for_each_data_set(tmp_path, capsys):
    make_run(tmp_path / "rooms_tiny/a", ["data=rooms", "model=tiny"], 0.4)
    make_run(tmp_path / "rooms_basic/b", ["data=rooms", "model=basic"], 0.6)
    make_run(tmp_path / "nyu_basic/c", ["data=nyu", "model=basic"], 0.7, description="nyu")
    make_run(tmp_path / "nyu_basic/d", ["data=nyu"])
    assert main([str(tmp_path)]) == 0
    out = capsys.readouterr().out
    rooms = table_of(out[out.index("uncropped: rooms") :])
    assert [row[-1] for row in rooms if row[:1] in (["1"], ["2"])] == ["rooms_basic/b", "rooms_tiny/a"]
    assert "uncropped: nyu" in out
    assert "3 finished, 1 unfinished" in out
    assert not (tmp_path / "sweep.csv").exists()
    assert main([str(tmp_path / "rooms_tiny/a")]) == 0
    assert "0.4000" in capsys.readouterr().out


def test_where_all_failed_there_is_an_error(tmp_path, capsys):
    for seed in (1, 2):
        make_job(tmp_path, [f"seed={seed}"], error="data.root=nowhere: no such folder")
    assert main([str(tmp_path)]) == 1
    assert capsys.readouterr().err == "error: every job of the sweep has failed: data.root=nowhere: no such folder\n"


def test_a_folder_without_runs_and_a_torn_run_are_a_line(tmp_path, capsys):
    assert main([str(tmp_path)]) == 2
    assert "no runs there" in capsys.readouterr().err
    with pytest.raises(InputError, match="no runs there"):
        read_runs(tmp_path / "missing")
    name, sound = make_job(tmp_path, ["seed=1"], 0.5), make_job(tmp_path, ["seed=2"], 0.6)
    whole = json.loads((tmp_path / name / "metrics.json").read_text())
    other = json.dumps(whole | {"protocols": {"uncropped": {"rmse": 1}}, "intervals": {"uncropped": {}}})
    text = json.dumps(whole | {"intervals": {"uncropped": {"delta1": ["low", "high"]}}})
    for content in ("{}", other, text, "[" * 100_000):
        (tmp_path / name / "metrics.json").write_text(content)
        assert main([str(tmp_path)]) == 1
        out = capsys.readouterr().out
        assert f"failed: {name}: {tmp_path / name / 'metrics.json'}: cannot be read" in " ".join(out.split("\n"))
        assert sound in out
