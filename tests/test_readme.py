"""README is true: its Python runs, its commands compose, its files and options exist."""

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from hydra import compose, initialize_config_dir
from PIL import Image

import train as script  # noqa: F401  registers the resolvers that conf/ calls

ROOT = Path(__file__).resolve().parent.parent
TEXT = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
COMMANDS = [re.split(r"\s{3,}|  #", line.strip())[0] for line in re.findall(r"^    (\S.*)$", TEXT, re.MULTILINE)]
TRAIN = [command for command in COMMANDS if "train.py" in command and "--help" not in command]


@pytest.mark.filterwarnings("ignore")
def test_the_python_runs(tmp_path, train, capfd):
    predict, own = BLOCKS
    small = ["data=rooms", "data.frames={train: 2, val: 1}", "data.image_size=[48,64]", "data.num_workers=0"]
    done = train(*small, "model=tiny", "trainer=cpu", "trainer.max_epochs=1", "logger=none", "hydra.run.dir=run")
    assert done.code == 0, done.err
    (tmp_path / "run/checkpoints/best.ckpt").rename(tmp_path / "best.ckpt")
    Image.fromarray(np.full((70, 90, 3), 100, np.uint8)).save(tmp_path / "photo.jpg")
    names: dict = {}
    exec(predict, names)
    assert names["depth"].shape == (70, 90)
    assert names["depth"].dtype == np.float32
    exec(own, {"__name__": "own"})
    assert "delta1" in capfd.readouterr().out


@pytest.mark.parametrize("command", TRAIN)
def test_every_train_command_composes(command):
    words = shlex.split(command)
    overrides = words[[word.endswith("train.py") for word in words].index(True) + 1 :]
    jobs = [[]]
    for word in overrides:
        if word.startswith("hydra.") or word == "-m":
            continue
        key, _, value = word.partition("=")
        several = value.split(",") if "-m" in overrides and "," in value else [value]
        jobs = [[*job, f"{key}={one}"] for job in jobs for one in several]
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        for job in jobs:
            cfg = compose("train", job)
            assert cfg.mode in ("fit", "test")
    assert len(TRAIN) >= 8


def test_every_option_of_conf_is_in_readme_and_the_other_way_round():
    table = TEXT.split("### Groups of `conf/`")[1].split("`model.pretrained`")[0]
    listed = {}
    for group, options in re.findall(r"^\| `(\w+)` \| (.*) \|$", table, re.MULTILINE):
        options = re.sub(r"\([^)]*\)|;.*", "", options)
        listed[group] = set(re.findall(r"`(\w+)`", options))
    real = {}
    for path in (ROOT / "conf").glob("*/*.yaml"):
        real.setdefault(path.parent.name, set()).add(path.stem)
    assert listed == real


def test_what_readme_names_is_there():
    for target in re.findall(r"\]\(([^)h][^)]*)\)", TEXT):
        assert (ROOT / target).exists(), target
    for target in re.findall(r"make (\w+)", TEXT):
        assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE) or target == "are", target
