import re
import shutil
from pathlib import Path

import pytest
import yaml
from omegaconf import OmegaConf
from small_run import ROOMS, from_root, write_run

from depthnet.core.atomic_io import file_digest
from depthnet.core.types import DepthRange
from depthnet.data.layouts.registry import open_root
from depthnet.data.rooms.layout import RoomsLayout
from depthnet.export import weights as export
from depthnet.export.terms import NYU_LICENSE
from depthnet.export.weights import depth_changes, main
from depthnet.models.checkpoint import RECORD_KEY, load_plain, read_checkpoint
from depthnet.models.depth_net import load_network

RANGE = DepthRange(1e-3, 10.0)


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory):
    layout = RoomsLayout(ROOMS["frames"], (48, 64), 3, RANGE)
    return write_run(tmp_path_factory.mktemp("evaluated") / "run", ROOMS, layout, protocols="uncropped")


@pytest.fixture
def command(evaluated, tmp_path, monkeypatch):
    """A command line that exports ``run``, a run on rooms, to ``out``; both in the working directory."""
    shutil.copytree(evaluated, tmp_path / "run")
    monkeypatch.chdir(tmp_path)
    return ["run", "--name", "small", "--output", "out", "--command", "python train.py data.root=/work/nyu"]


def test_the_file_is_read_wherever_a_checkpoint_is_and_two_exports_are_equal(command, capsys):
    assert main(command) == 0
    said = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"out/small\.safetensors: 3\.70 MB, [\d,]+ parameters", said[0])
    assert said[1].endswith("at most, on rooms")
    first = {path.name: path.read_bytes() for path in Path("out").iterdir()}
    assert first.keys() == {"small.safetensors", "small.md"}
    assert main(command) == 0
    assert first == {path.name: path.read_bytes() for path in Path("out").iterdir()}
    best, small = load_network("run/checkpoints/best.ckpt"), load_network("out/small.safetensors")
    mean, largest = depth_changes(best, small)
    assert 0 < mean < largest < 1e-3
    assert depth_changes(best, best) == (0, 0)
    assert read_checkpoint("out/small.safetensors").record == load_plain("run/checkpoints/best.ckpt")[RECORD_KEY]


def test_the_card_is_of_this_file(command):
    assert main([*command, "--note", "It saw no street.", "--note", "And no lake.", "--license", "Research only"]) == 0
    card, file = Path("out/small.md").read_text(), Path("out/small.safetensors")
    assert f"{file.stat().st_size:,} bytes" in card
    assert file_digest(file) in card
    assert "- Command: `python train.py data.root=PATH`\n" in card
    assert "- It saw no street.\n- And no lake.\n" in card
    assert "- Weights: Research only\n" in card
    assert " at most, on built-in rooms.\n" in card


def test_data_that_is_elsewhere_is_no_hindrance(command, make_lists):
    root = make_lists(train=2, val=2)
    write_run(Path("nyu_run"), from_root(root), open_root(root, depth_range=RANGE), protocols="uncropped")
    assert main(["nyu_run", *command[1:]]) == 0
    head = yaml.safe_load(Path("out/small.md").read_text().split("---\n")[1])
    assert (head["license_name"], head["datasets"]) == (NYU_LICENSE, ["nyu_depth_v2"])
    root.rename("elsewhere")
    assert main(["nyu_run", *command[1:]]) == 0


def test_what_float16_would_ruin_is_not_exported(command, capsys, monkeypatch):
    monkeypatch.setattr(export, "_MOST", 1e-9)
    assert main(command) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert "float16 changes depth by" in err
    assert not list(Path("out").iterdir())


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["nothing"], "nothing: no run that was evaluated there"),
        (["run", "--name", "a/b"], "--name a/b"),
        (["run", "--name", ".."], "--name .."),
        (["run", "--output", "run/config.yaml"], "cannot write in run/config.yaml"),
    ],
)
def test_a_mistake_is_one_line(command, capsys, arguments, says):
    assert main([arguments[0], *command[1:], *arguments[1:]]) == 2
    err = capsys.readouterr().err
    assert err.startswith("depthnet export: ")
    assert says in err
    assert err.count("\n") == 1


def test_a_run_that_only_evaluated_exports_what_it_evaluated(command, capsys):
    assert main(command) == 0
    whole = Path("out/small.safetensors").read_bytes()
    Path("run/checkpoints/best.ckpt").rename("soup.ckpt")
    Path("run/checkpoints/best.ckpt.sha256").unlink()
    config = OmegaConf.load("run/config.yaml")
    OmegaConf.save(OmegaConf.merge(config, {"mode": "test", "ckpt": "soup.ckpt"}), "run/config.yaml")
    capsys.readouterr()
    assert main(command) == 2  # what it was evaluated on says nothing of what it was trained on
    assert "the training data of these weights are not known" in capsys.readouterr().err
    assert main([*command, "--license", "cc0-1.0"]) == 0
    assert Path("out/small.safetensors").read_bytes() == whole
    card = Path("out/small.md").read_text()
    assert "- First weights: as the command says\n" in card
    assert "- Evaluated on: built-in rooms" in card
    assert "- Weights: cc0-1.0\n" in card


def test_a_run_without_weights_or_figures_is_no_model(command, capsys):
    Path("run/checkpoints/best.ckpt").unlink()
    assert main(command) == 2
    assert "best.ckpt: no such checkpoint" in capsys.readouterr().err
    Path("run/metrics.json").unlink()
    assert main(command) == 2
    assert "no run that was evaluated there" in capsys.readouterr().err
