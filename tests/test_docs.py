"""README and docs/ are true: their Python runs, their commands parse, their options, files and anchors exist."""

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from hydra import compose, initialize_config_dir
from PIL import Image

import train as script  # noqa: F401  registers the resolvers that conf/ calls
from depthnet.cli import TOOLS

ROOT = Path(__file__).resolve().parent.parent
PAGES = {
    path: path.read_text() for path in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md"))
}
README = PAGES[ROOT / "README.md"]
COMMANDS = dict.fromkeys(
    re.split(r"\s{3,}|  #", line.strip())[0]
    for text in PAGES.values()
    for line in re.findall(r"^    (\S.*)$", re.sub(r"\\\n +", "", text), re.MULTILINE)
)
TRAIN = [
    command
    for command in COMMANDS
    if "train.py" in command and not re.search(r"--help|srun|benchmarks|hydra/launcher|hydra/sweeper", command)
]


@pytest.mark.filterwarnings("ignore")
def test_the_python_of_readme_runs(tmp_path, monkeypatch, capfd):
    use, own = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    Image.fromarray(np.full((70, 90, 3), 100, np.uint8)).save("photo.jpg")
    names: dict = {}
    exec(use, names)
    assert names["depth"].shape == (70, 90)
    assert names["depth"].dtype == np.float32
    assert {path.name for path in Path("out").iterdir()} == {
        "photo_depth.npy",
        "photo_depth.png",
        "photo_color.png",
        "photo.json",
    }
    exec(own, {"__name__": "own"})
    assert "delta1" in capfd.readouterr().out


@pytest.mark.parametrize("command", TRAIN)
def test_every_train_command_composes(command):
    words = shlex.split(command)
    overrides = words[[word.endswith("train.py") for word in words].index(True) + 1 :]
    jobs = [[]]
    for word in overrides:
        if word.startswith("hydra.") or word == "-m" or re.search("interval|choice", word):
            continue
        key, _, value = word.partition("=")
        value = value.replace("[data,code,config]", "[data]")
        several = value.split(",") if "-m" in overrides and "," in value and value[0] != "[" else [value]
        jobs = [[*job, f"{key}={one}"] for job in jobs for one in several]
    jobs = [[word for word in job if word != "experiment=mine"] for job in jobs]
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        for job in jobs:
            assert compose("train", job).mode in ("fit", "test")


def test_most_commands_are_seen():
    assert len(TRAIN) >= 30


def test_every_option_of_conf_is_documented_and_the_other_way_round():
    table = PAGES[ROOT / "docs/training.md"].split("## Config groups")[1].split("`model.pretrained`")[0]
    listed = {}
    for group, options in re.findall(r"^\| `(\w+)` \| (.*) \|$", table, re.MULTILINE):
        options = re.sub(r"\([^)]*\)|;.*", "", options)
        listed[group] = set(re.findall(r"`(\w+)`", options))
    real = {}
    for path in (ROOT / "conf").glob("*/*.yaml"):
        real.setdefault(path.parent.name, set()).add(path.stem)
    assert listed == real


def test_every_tool_that_is_named_exists():
    named = {word for text in PAGES.values() for word in re.findall(r"^    depthnet (\w+)", text, re.MULTILINE)}
    assert named <= set(TOOLS)
    assert named >= set(TOOLS) - {"train"}


def anchors(text):
    heads = re.findall(r"^#+ (.*)$", re.sub(r"(?s)```.*?```", "", text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_what_a_page_links_to_exists(page):
    for target, anchor in re.findall(r"\]\(([^)#h][^)#]*)?(#[^)]*)?\)", PAGES[page]):
        path = (page.parent / target) if target else page
        assert path.exists(), target
        if anchor:
            assert anchor[1:] in anchors(path.read_text()), anchor
    for name in re.findall(r"`((?:depthnet|conf|results|benchmarks|tests|docs)/[\w/.]+)`", PAGES[page]):
        assert (ROOT / name).exists() or "mine" in name or "NAME" in name, name
    for target in re.findall(r"^    make (\w[\w-]*)", PAGES[page], re.MULTILINE):
        assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE), target


def test_readme_is_short():
    assert 150 <= len(README.splitlines()) <= 200
