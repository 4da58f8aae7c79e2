import json
import re
import shlex
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from small_run import ROOMS, from_root, write_run

from depthnet.data.layouts.registry import open_root
from depthnet.evaluation.compare import main as compare
from depthnet.evaluation.corruptions import CORRUPTIONS
from depthnet.evaluation.frames import FrameEvaluator, open_data
from depthnet.evaluation.report.write import write_report
from depthnet.evaluation.robustness import evaluate, summarize
from depthnet.evaluation.robustness import main as robustness
from depthnet.evaluation.sharpness import edge_f1
from depthnet.models.checkpoint import RECORD_KEY, save_plain
from depthnet.models.checkpoint import make_record as describe
from depthnet.models.depth_net import load_network
from depthnet.run.files import read_run

sys.path.append(str(Path(__file__).resolve().parents[2] / "results"))
from record import MORE, command, main, make_record

SECONDS = {"2 CPU cores, torch on 1": 90.0}


def made(directory, *overrides, seconds=SECONDS, **options):
    """A finished run that knows its command and its time."""
    write_run(directory, ROOMS, open_data(ROOMS), **options)
    record = {"overrides": list(overrides), "seconds": seconds}
    (directory / "run.json").write_text(json.dumps(record))
    return directory


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    return [made(folder / str(seed), "data=rooms", f"seed={seed}", seed=seed) for seed in (0, 1)]


@pytest.fixture(scope="module")
def record(runs):
    return make_record(runs[:1], "tiny", "rooms")


def test_figures_are_the_runs_own_and_the_rest_is_measured(runs, record):
    stored = json.loads((runs[0] / "metrics.json").read_text())
    for metric, value in stored["protocols"]["uncropped"].items():
        assert record["figures"][metric]["mean"] == pytest.approx(value, rel=1e-12)
        assert record["figures"][metric]["interval"] == pytest.approx(stored["intervals"]["uncropped"][metric])
    assert record["runs"][0]["figures"].items() >= stored["protocols"]["uncropped"].items()
    evaluator = FrameEvaluator(read_run(runs[0]))
    found = [evaluator.evaluate(frame) for frame in evaluator.frames]
    sharp = np.mean([edge_f1(result.pred, result.depth, result.mask) for result in found])
    assert record["figures"]["edge_f1"]["mean"] == pytest.approx(sharp)
    corrupted = summarize(evaluator, evaluate(evaluator, list(CORRUPTIONS)))
    for name in CORRUPTIONS:
        found, expected = record["figures"][f"robustness_{name}"], corrupted[name]["delta1"]
        assert found["mean"] == pytest.approx(expected["difference"], abs=1e-12)
        assert found["interval"] == pytest.approx(expected["interval"], abs=1e-12)
    for key, names in (("robustness", list(CORRUPTIONS)), ("robustness_light", ["dark", "bright", "contrast"])):
        mean = np.mean([corrupted[name]["delta1"]["difference"] for name in names])
        assert record["figures"][key]["mean"] == pytest.approx(mean, abs=1e-12)
    assert any(record["figures"][f"robustness_{name}"]["mean"] for name in CORRUPTIONS)
    assert set(record["definitions"]) >= {"uncropped", "edge_f1", "robustness", "gmacs", "ms", "minutes"}


def test_the_mean_map_is_measured_too(tmp_path):
    data = ROOMS | {"frames": {"train": 4, "val": 3, "test": 0}}
    run = write_run(tmp_path / "run", data, open_data(data))
    (run / "run.json").write_text(json.dumps({"overrides": [], "seconds": SECONDS}))
    found = make_record([run], "tiny", "rooms")
    assert 0 < found["mean_map"]["edge_f1"] < 1
    assert found["mean_map"]["robustness"] == 0
    assert (
        found["mean_map"]["delta1"] == json.loads((run / "metrics.json").read_text())["mean_map"]["uncropped"]["delta1"]
    )
    assert found["commands"] == ["python train.py"]


def test_the_row_knows_command_time_data_and_cost(record):
    assert record["commands"] == ["python train.py data=rooms seed=0"]
    assert (record["minutes"], record["hardware"]) == (1.5, list(SECONDS))
    assert (record["images"], record["scenes"], record["split"]) == (5, 5, "val")
    assert (record["digest"], record["data"]["digest"], record["image_size"]) == ("0b32ad8a6d43", "d1935t", [48, 64])
    assert record["cost"]["parameters"] > 1e5
    assert record["cost"]["ms"] > 0 < record["cost"]["encoder_ms"]
    assert len(record["runs"][0]["checkpoint"]) == 64


@pytest.fixture(scope="module")
def both(runs):
    steps = []
    found = make_record(runs, "tiny", "rooms", advance=lambda *step: steps.append(step))
    assert steps == [(number, 80) for number in range(1, 81)]
    return found


def test_runs_of_several_seeds_make_one_row(record, both):
    assert both["commands"] == ["python train.py -m data=rooms seed=0,1"]
    assert [run["seed"] for run in both["runs"]] == [0, 1]
    assert both["minutes"] == 1.5
    assert both["runs"][0]["figures"] == record["runs"][0]["figures"]
    for metric in ("delta1", "rmse", *MORE):
        values = [run["figures"][metric] for run in both["runs"]]
        assert both["figures"][metric]["mean"] == pytest.approx(np.mean(values), abs=1e-12)
    assert both["runs"][0]["figures"]["rmse"] != both["runs"][1]["figures"]["rmse"]


def test_compare_takes_what_a_record_measured(runs, record, both, capsys, tmp_path):
    words = [*map(str, runs), "--protocol", "uncropped", "--format", "csv"]
    assert compare([*words, "--metrics", "delta1,edge_f1,robustness,robustness_light"]) == 0
    rows = [line.split(",") for line in capsys.readouterr().out.splitlines()]
    place = rows[0].index("mean")
    found = {row[rows[0].index("metric")]: float(row[place]) for row in rows[1:] if row[place - 1] == "0"}
    for metric, value in found.items():
        assert value == pytest.approx(record["figures"][metric]["mean"], abs=1e-12)
    assert len(found) == 4


def test_the_tools_store_the_same_for_compare(runs, record, tmp_path, capsys):
    other = made(tmp_path / "other", "data=rooms")
    for metric, tool in (("edge_f1", "report"), ("robustness_light", "robustness")):
        assert compare([str(other), str(runs[0]), "--metrics", metric]) == 2
        assert f"depthnet {tool} measures " in capsys.readouterr().err
    write_report(other)
    assert robustness([str(other)]) == 0
    for tool in ("edges", "robustness"):
        assert (other / f"per_image_{tool}.csv").read_text() == (runs[0] / f"per_image_{tool}.csv").read_text()
    words = [str(other), str(runs[0]), "--metrics", ",".join(MORE), "--protocol", "uncropped"]
    assert compare(words) == 0
    capsys.readouterr()
    before = {path.name: path.read_bytes() for path in other.glob("per_image_*.csv")}
    assert robustness([str(other), "--limit", "2", "--output", str(tmp_path / "few.json")]) == 0
    assert "nothing is stored for depthnet compare: only 2 of 5 images" in capsys.readouterr().out
    write_report(other, limit=2)
    assert {path.name: path.read_bytes() for path in other.glob("per_image_*.csv")} == before


def test_a_checkpoint_that_was_evaluated_elsewhere_brings_its_own_command(tmp_path, make_lists):
    first = made(tmp_path / "first", "data=rooms")
    root = make_lists(val=3)
    evaluated = write_run(tmp_path / "evaluated", from_root(root), open_root(root))
    words = ["mode=test", "data=nyu", f"data.root={root}", f"ckpt={first}/checkpoints/best.ckpt"]
    (evaluated / "run.json").write_text(json.dumps({"overrides": words}))
    record = make_record([evaluated], "rooms alone", "NYU")
    assert record["commands"] == [
        "python train.py data=rooms",
        "python train.py mode=test data=nyu data.root=PATH ckpt=BEST",
    ]
    assert record["minutes"] == 1.5
    assert record["data"]["description"] == "NYU, lists layout, PATH"
    assert str(tmp_path) not in json.dumps(record)
    shutil.rmtree(first)
    alone = make_record([evaluated], "rooms alone", "NYU")
    assert alone["commands"] == ["python train.py mode=test data=nyu data.root=PATH ckpt=FILE"]
    assert alone["minutes"] is None


def test_a_command_holds_no_path_and_nothing_that_a_shell_would_change():
    words = [
        "data.depth_range={min: 0.1, max: 10}",
        "model.pretrained=/w/a.safetensors",
        "+data.lists={train: /a/b.txt}",
        "data.cache_dir=/tmp/cache",
        "model.encoder=hf_hub:timm/resnet18",
    ]
    line = command(words)
    assert shlex.split(line) == [
        "python",
        "train.py",
        "data.depth_range={min: 0.1, max: 10}",
        "model.pretrained=FILE",
        "+data.lists={train: PATH/b.txt}",
        "model.encoder=hf_hub:timm/resnet18",
    ]
    assert command(["model.pretrained=true", "ckpt=null"]) == "python train.py model.pretrained=true ckpt=null"


def test_a_shipped_model_keeps_its_name(monkeypatch):
    monkeypatch.setattr("record.shipped_models", lambda: ["rooms_small"])
    assert command(["ckpt=rooms_small"]) == "python train.py ckpt=rooms_small"


def test_a_mistake_is_one_line(runs, tmp_path, capsys):
    def refused(*words):
        output = tmp_path / "record.json"
        assert main([*map(str, words), "--name", "a", "--set", "b", "--output", str(output)]) == 2
        said = capsys.readouterr()
        assert said.err.count("\n") == 1
        assert said.err.startswith("results/record.py: ")
        assert not said.out
        assert not output.exists()
        return said.err

    assert "no run that was evaluated there" in refused(tmp_path / "nowhere")
    assert "are of [0, 0]" in refused(runs[0], runs[0])
    old = made(tmp_path / "old", "data=rooms", seed=3)
    config = (old / "config.yaml").read_text()
    (old / "config.yaml").write_text(config + "optimizer: {lr: 1}\n")
    assert "differ in the seed alone; here in optimizer.lr" in refused(runs[0], old)
    (old / "config.yaml").write_text(config)
    (old / "config.previous.yaml").write_text("")
    assert "no command makes it again" in refused(old)
    (old / "run.json").write_text('{"overrides": ["ckpt=a/checkpoints/best.ckpt"], "seconds": {}}')
    (old / "config.previous.yaml").unlink()
    assert "began with ckpt=a/checkpoints/best.ckpt, which is not here" in refused(old)
    (old / "run.json").write_text("{}")
    assert "does not say by what command" in refused(old)
    other = made(tmp_path / "other", "data=rooms")
    network = load_network(other / "checkpoints/best.ckpt")
    torch.nn.init.constant_(network.head.projection.bias, 3.0)  # far away, everywhere
    state = {f"network.{name}": value for name, value in network.state_dict().items()}
    save_plain(other / "checkpoints/best.ckpt", {"state_dict": state, RECORD_KEY: describe(network)})
    assert re.search(r"best\.ckpt: the checkpoint gives delta1 0\.\d+, but was evaluated as", refused(other))
    assert not [run for run in (old, other) if list(run.glob("per_image_*.csv"))]


def test_each_row_can_be_made_again_by_its_command(train, tmp_path):
    small = [
        "data.image_size=[48,64]",
        "data.batch_size=2",
        "data.num_workers=0",
        "trainer=cpu",
        "trainer.max_epochs=1",
    ]
    words = ["data=rooms", "model=tiny", "data.frames={train: 4, val: 3}", "logger=none", *small, "seed=5"]
    assert train(*words, "hydra.run.dir=run", "resume=auto").code == 0
    output = tmp_path / "out/record.json"
    assert main([str(tmp_path / "run"), "--name", "tiny", "--set", "rooms", "--output", str(output)]) == 0
    record = json.loads(output.read_text())
    assert 0 < record["minutes"] < 1
    (line,) = record["commands"]
    assert train(*shlex.split(line)[2:], "hydra.run.dir=again").code == 0
    again = json.loads((tmp_path / "again/metrics.json").read_text())
    assert again["protocols"]["uncropped"].items() <= record["runs"][0]["figures"].items()
