import json
import subprocess
import sys
from pathlib import Path

import pytest

import depthnet
from depthnet.core.types import InputError
from depthnet.run.files import update_record
from depthnet.run.provenance import TRAINING, check_changes, config_changes, refuse_changes

DATA = {"contents": "a" * 64, "frames": {"train": 4}}
VERSIONS = {"torch": "2.15.0", "wandb": None}


def test_a_run_is_compared_with_what_it_was_started_with(tmp_path):
    check_changes(tmp_path, DATA, VERSIONS, [])
    check_changes(tmp_path, DATA, VERSIONS, [])
    record = json.loads((tmp_path / "run.json").read_text())
    assert record["data"] == DATA
    assert len(record["code"]["depthnet/run/provenance.py"]) == 64
    assert [resumed["code"] for resumed in record["resumed"]] == [[]]


def test_other_data_is_named_and_let_through_when_it_is_allowed(tmp_path):
    check_changes(tmp_path, DATA, VERSIONS, [])
    other = {"contents": "b" * 64, "frames": {"train": 5}}
    with pytest.raises(InputError, match=r"its data has changed .*: contents, frames=.*5.*4.*resume_allow=\[data\]"):
        check_changes(tmp_path, other, VERSIONS, ["code"])
    check_changes(tmp_path, other, VERSIONS, ["data"])
    assert json.loads((tmp_path / "run.json").read_text())["resumed"][-1]["data"][0] == "contents"
    check_changes(tmp_path, other, VERSIONS, [])  # what it has gone on with is what it is compared with now


def test_other_code_is_named_by_file_and_version(tmp_path):
    check_changes(tmp_path, DATA, VERSIONS, [])
    path = tmp_path / "run.json"
    path.write_text(path.read_text().replace('"torch": "2.15.0"', '"torch": "2.14.1"'))
    with pytest.raises(InputError, match=r"its code has changed .*: torch=2\.15\.0 \(was 2\.14\.1\)"):
        check_changes(tmp_path, DATA, VERSIONS, [])
    record = json.loads(path.read_text())
    record["code"]["torch"] = "2.15.0"
    record["code"]["depthnet/training/losses.py"] = "0" * 64
    path.write_text(json.dumps(record))
    with pytest.raises(InputError, match=r"its code has changed .*: depthnet/training/losses\.py;"):
        check_changes(tmp_path, DATA, VERSIONS, ["data", "config"])


def test_code_that_does_not_train_may_change_and_is_logged(tmp_path, caplog):
    check_changes(tmp_path, DATA, VERSIONS, [])
    path = tmp_path / "run.json"
    record = json.loads(path.read_text())
    record["code"]["depthnet/evaluation/report/charts.py"] = "0" * 64
    del record["code"]["depthnet/evaluation/compare.py"]
    path.write_text(json.dumps(record))
    with caplog.at_level("INFO", "depthnet"):
        check_changes(tmp_path, DATA, VERSIONS, [])
    assert "code that does not train has changed" in caplog.text
    assert "depthnet/evaluation/compare.py, depthnet/evaluation/report/charts.py" in caplog.text
    resumed = json.loads(path.read_text())["resumed"]
    assert resumed[-1]["code"] == ["depthnet/evaluation/compare.py", "depthnet/evaluation/report/charts.py"]
    caplog.clear()
    check_changes(tmp_path, DATA, VERSIONS, [])
    assert not caplog.text


def test_what_training_imports_is_listed():
    roots = (
        "depthnet.data.datamodule",
        "depthnet.models.depth_net",
        "depthnet.training.losses",
        "depthnet.training.optimizers",
        "depthnet.training.schedules",
        "depthnet.training.module",
        "depthnet.training.callbacks.ema",
        "depthnet.training.callbacks.finite",
        "depthnet.training.checkpoint_io",
        "depthnet.training.sync_norm",
    )
    tools = ("depthnet/run/", "depthnet/evaluation/bootstrap.py")
    program = f"""import importlib, sys
for name in {roots}: importlib.import_module(name)
print(*(module.__file__ for name, module in sys.modules.items() if name.startswith("depthnet.")))"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    root = Path(depthnet.__file__).parents[1]
    imported = {Path(file).relative_to(root).as_posix() for file in done.stdout.split()}
    assert [
        file for file in imported if not file.endswith("__init__.py") and not file.startswith(TRAINING + tools)
    ] == []
    assert [name for name in TRAINING if not (root / name).exists()] == []


@pytest.mark.parametrize("text", ["", "[]", '{"data": 3, "code": {}, "resumed": []}'])
def test_a_torn_record_is_one_line(tmp_path, text):
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(InputError, match=r"run\.json: cannot be read"):
        check_changes(tmp_path, DATA, VERSIONS, [])


def test_a_config_may_differ_where_nothing_is_learned_otherwise():
    stored = {"seed": 1, "data": {"root": "/a", "num_workers": 2}, "model": {"pretrained": False}, "logger": {}}
    given = {
        "seed": 1,
        "data": {"root": "/b", "num_workers": 0},
        "model": {"pretrained": False},
        "logger": {"_target_": "x", "tags": ["a"]},
    }
    assert config_changes(stored, given) == []


def test_another_config_is_named_and_taken_when_it_is_allowed():
    differences = config_changes({"optimizer": {"lr": 0.1, "betas": [0.9]}}, {"optimizer": {"lr": 0.2}})
    assert differences == ["optimizer.betas=None (was [0.9])", "optimizer.lr=0.2 (was 0.1)"]
    with pytest.raises(
        InputError, match=r"its config has changed .*: .*, optimizer\.lr=0\.2 \(was 0\.1\); .*=\[config\]"
    ):
        refuse_changes("run", "config", differences, ["data", "code"])
    refuse_changes("run", "config", differences, ["config"])


def test_many_differences_are_cut_short():
    with pytest.raises(InputError, match="and 3 more;"):
        refuse_changes("run", "config", [str(number) for number in range(7)], [])


def test_what_else_is_recorded_stays_over_resumes(tmp_path):
    check_changes(tmp_path, DATA, VERSIONS, [])
    update_record(tmp_path, overrides=["model=basic"], seconds={"a GPU": 1.0})
    check_changes(tmp_path, DATA, VERSIONS, [])
    record = json.loads((tmp_path / "run.json").read_text())
    assert (record["overrides"], record["seconds"], len(record["resumed"])) == (["model=basic"], {"a GPU": 1.0}, 1)
    (tmp_path / "run.json").write_text("[")
    with pytest.raises(InputError, match=r"run\.json: cannot be read"):
        update_record(tmp_path, url="x")
