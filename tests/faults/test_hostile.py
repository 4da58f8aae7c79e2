"""Nothing that a checkpoint, a list, an image or what a config builds holds may act; bad files end in one line."""

import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import pytest
from bad_files import ARRAYS, LABELLED, LISTS, PHOTOGRAPHS, photograph
from hostile import KINDS, REPOSITORY, Outcome, checkpoint, run_shared

from depthnet.core.images import image_size, read_depth, read_image
from depthnet.core.types import InputError
from depthnet.data.layouts.registry import open_root

MEMORY = 500 << 10  # KiB more than this process has
PATIENCE = 10.0  # seconds
HARMLESS = {  # they hold what nobody reads
    "_instantiator in a checkpoint's hyper_parameters",
    "a target in a checkpoint's run config",
}
LONG = {"a pickle in a run that is resumed"}  # starts a training


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Outcome]:
    """Every attack but the long ones, run in one process."""
    folder = tmp_path_factory.mktemp("hostile") / "copy"
    return {outcome.kind: outcome for outcome in run_shared([kind for kind in KINDS if kind not in LONG], folder)}


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in LONG])
def test_an_attack_does_nothing_and_is_told_in_a_line(outcomes, kind):
    outcome = outcomes[kind]
    assert not outcome.acted, outcome.output
    assert "Traceback" not in outcome.output
    if kind in HARMLESS:
        assert outcome.code == 0, outcome.output
        return
    assert outcome.code == 2, outcome.output
    first = ("device:", "encoder:", "weights:", "data:", "      ", "run:", "fit:", "ckpt=")
    told = [line for line in outcome.output.splitlines() if line.strip() and not line.startswith(first)]
    assert len(told) == 1, outcome.output
    assert told[0].startswith(("error: ", "depthnet predict: "))


def bounded(work) -> str:
    """Do something in a process of its own that has a bound on memory and time; returns its InputError."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        line = ""
        try:
            room = pages * resource.getpagesize() + (MEMORY << 10)
            resource.setrlimit(resource.RLIMIT_AS, (room, room))  # a mapped file counts too
            work()
        except InputError as error:
            line = str(error)
        except BaseException as error:
            line = f"Traceback: {error!r}"
        finally:
            os.write(write, line.encode(errors="replace")[:4000])
            os._exit(0)
    os.close(write)
    end = time.monotonic() + PATIENCE
    while os.waitpid(child, os.WNOHANG) == (0, 0):
        if time.monotonic() > end:
            os.kill(child, 9)
            os.waitpid(child, 0)
            pytest.fail("it takes for ever")
        time.sleep(0.01)
    with os.fdopen(read, "rb") as lines:
        return lines.read().decode()


def refused(work, path: Path) -> None:
    line = bounded(work)
    assert line, "it was read"
    assert "Traceback" not in line
    assert "\n" not in line
    assert str(path) in line


@pytest.fixture(scope="module")
def bad_photographs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Every bad photograph in one folder."""
    folder = tmp_path_factory.mktemp("bad")
    paths = {kind: folder / f"bad{number}.png" for number, kind in enumerate(PHOTOGRAPHS)}
    for kind, path in paths.items():
        PHOTOGRAPHS[kind](path)
    return paths


@pytest.mark.parametrize("kind", PHOTOGRAPHS)
def test_a_bad_photograph_is_refused_in_bounded_memory_and_time(bad_photographs, kind):
    path = bad_photographs[kind]
    refused(lambda: read_image(path), path)
    refused(lambda: read_depth(path, 1e-3, 16), path)


@pytest.mark.parametrize("kind", ARRAYS)
def test_a_bad_array_is_refused_in_bounded_memory_and_time(tmp_path, kind):
    path = tmp_path / "x.npy"
    ARRAYS[kind](path)
    refused(lambda: read_depth(path, 1.0, 32), path)
    refused(lambda: image_size(path), path)


@pytest.mark.parametrize("name", ["pairs.csv", "nyu2_train.csv", "nyudepthv2_train_files_with_gt.txt"])
@pytest.mark.parametrize("kind", LISTS)
def test_a_bad_list_is_refused_in_bounded_memory_and_time(tmp_path, kind, name):
    LISTS[kind](tmp_path / name)
    options = {"unit": "m", "layout": "folder", "depth_range": (0.1, 9)} if name == "pairs.csv" else {}
    refused(lambda: open_root(tmp_path, **options), tmp_path)


@pytest.mark.parametrize("kind", LABELLED)
def test_a_bad_labelled_file_is_refused_in_bounded_memory_and_time(tmp_path, kind):
    LABELLED[kind](tmp_path / "nyu_depth_v2_labeled.mat")
    refused(lambda: open_root(tmp_path), tmp_path)


@pytest.mark.parametrize("name", ["../outside/{}", "x/../../outside/{}", "{root}/../outside/{}"])
@pytest.mark.parametrize("layout", ["folder", "kaggle", "lists"])
def test_a_list_names_nothing_outside_its_root(tmp_path, monkeypatch, layout, name):
    root, outside = tmp_path / "root", tmp_path / "outside"
    for folder in (root / "x", outside):
        folder.mkdir(parents=True)
        for file in ("rgb.png", "depth.png"):
            photograph(folder / file)
    inside, leads_out = ("x/rgb.png", "x/depth.png"), [name.format(f, root=root) for f in ("rgb.png", "depth.png")]
    separator = " " if layout == "lists" else ","
    rows = [separator.join(pair) for pair in (inside, leads_out)]
    head = ["image,depth"] if layout == "folder" else []
    file = {"folder": "pairs.csv", "kaggle": "nyu2_train.csv", "lists": "nyudepthv2_train_files_with_gt.txt"}[layout]
    (root / file).write_text("\n".join(head + rows))
    opened = []
    openat = Path.open
    monkeypatch.setattr(Path, "open", lambda self, *a, **k: (opened.append(self), openat(self, *a, **k))[1])
    data = open_root(root, layout, **({"unit": "m", "depth_range": (0.1, 9)} if layout == "folder" else {}))
    absolute_in_bts = layout == "lists" and name.startswith("{root}")  # there a leading slash means the root
    found = [finding for finding in data.findings if finding.name in ("leaves_root", "missing")]
    assert [finding.where for finding in found] == [f"{file}:{len(head) + 2}"]
    assert found[0].name == "leaves_root" or absolute_in_bts
    assert all(outside not in Path(os.path.realpath(path)).parents for path in opened)
    assert sum(data.count(split) for split in ("train", "val", "test")) <= 1


def test_predict_continues_among_hostile_photographs(tmp_path, bad_photographs):
    folder = tmp_path / "photographs"
    folder.mkdir()
    for path in bad_photographs.values():
        os.link(path, folder / path.name, follow_symlinks=False)
    (folder / "folder.png").mkdir()
    (folder / "loop").symlink_to(".")
    (folder / "dangling.jpg").symlink_to("nowhere")
    os.mkfifo(folder / "zzz.json")  # where the last one's record would lie
    photograph(folder / "aaa.png")
    photograph(folder / "zzz.jpg")
    level = folder / "links"
    for _ in range(20):  # each level is reached by two names: 2^20 ways to the last
        (level / "a").mkdir(parents=True)
        (level / "b").symlink_to("a")
        level = level / "a"
    photograph(folder / "links/a/deep.png")
    ckpt = checkpoint(tmp_path / "good.ckpt")
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    for output, more in ((tmp_path / "out", []), (folder, ["--overwrite"])):
        command = [sys.executable, "predict.py", str(folder), "--ckpt", str(ckpt), "--output", str(output), *more]
        start = time.monotonic()
        done = subprocess.run(
            command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=120, check=False
        )
        assert time.monotonic() - start < 60
        assert done.returncode == 1, done.stderr
        lines = done.stderr.splitlines()
        for path in bad_photographs.values():
            assert sum(line.startswith(f"{folder}/{path.name}: ") for line in lines) == 1, done.stderr
        assert "Traceback" not in done.stderr
        assert all(line.startswith(str(folder)) for line in lines), done.stderr
        assert (output / "aaa_depth.npy").is_file()
        assert (output / "zzz_depth.npy").is_file()
        assert (output / "links/a/deep_depth.npy").is_file()
        assert len(lines) < 1000


@pytest.mark.parametrize("make", [lambda path: os.mkfifo(path), lambda path: path.symlink_to("/dev/zero")])
def test_a_checkpoint_that_is_no_file_is_refused(tmp_path, make):
    photograph(tmp_path / "photo.png")
    make(tmp_path / "evil.ckpt")
    command = [sys.executable, "predict.py", str(tmp_path / "photo.png"), "--ckpt", str(tmp_path / "evil.ckpt")]
    done = subprocess.run(
        [*command, "--output", str(tmp_path / "out")],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr == f"depthnet predict: checkpoint {tmp_path}/evil.ckpt: not a regular file\n"
