from __future__ import annotations

import errno
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from fake_network import Fake
from PIL import Image

import depthnet
from depthnet.core.atomic_io import file_digest
from depthnet.core.types import InputError
from depthnet.core.visualize import colorize
from depthnet.inference import outputs
from depthnet.inference.predict import PredictionReport, predict_files

ENDINGS = ("_depth.npy", "_depth.png", "_color.png", ".json")


@pytest.fixture
def ckpt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkpoint whose text is the factor; ``loads`` counts how often one was loaded."""
    path = tmp_path / "best.ckpt"
    path.write_text("1.0")
    networks: list[Fake] = []

    def load(name: str, device: str, size: object = None) -> Fake:
        networks.append(Fake(float(Path(name).read_text())))
        return networks[-1]

    monkeypatch.setitem(sys.modules, "depthnet.models.depth_net", SimpleNamespace(load_network=load, networks=networks))
    monkeypatch.chdir(tmp_path)
    return path


def loads() -> int:
    return len(sys.modules["depthnet.models.depth_net"].networks)  # type: ignore[attr-defined]


def photo(path: Path, seed: int = 0, size: tuple[int, int] = (20, 30), **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    kind = "PNG" if path.suffix.lower() == ".png" else "JPEG"
    Image.fromarray(pixels).save(path, format=kind, **options)
    return path


def run(paths: Any, ckpt: Path, output: Path | str = "out", **options: Any) -> tuple[PredictionReport, list[str]]:
    lines: list[str] = []
    report = predict_files(paths, ckpt, output, device="cpu", log=lines.append, **options)
    return report, lines


def counts(report: PredictionReport) -> tuple[int, int, int]:
    return report.written, report.kept, report.failed


def names(output: Path | str = "out") -> set[str]:
    """Output names without their endings; every one has all four files, and nothing else lies there."""
    files = {str(path.relative_to(output)) for path in Path(output).rglob("*") if path.is_file()}
    found = {name.removesuffix(".json") for name in files if name.endswith(".json")}
    assert files == {name + ending for name in found for ending in ENDINGS}
    return found


def test_what_a_photograph_gives(ckpt: Path) -> None:
    source = photo(Path("in/room.jpg"), size=(41, 67))
    report, lines = run(source, ckpt)
    assert counts(report) == (1, 0, 0)
    assert lines == []
    assert str(report) == "1 written, 0 kept, 0 failed → out"
    depth = np.load("out/room_depth.npy", allow_pickle=False)
    assert depth.dtype == np.float32
    assert (depth == Fake().infer(np.asarray(Image.open(source)))).all()
    with Image.open("out/room_depth.png") as png:
        levels = np.asarray(png)
    assert levels.dtype == np.uint16
    assert np.abs(levels / 1000 - depth).max() <= 0.0005 + 1e-6
    sidecar = json.loads(Path("out/room.json").read_text())
    assert sidecar["unit"] == "meter"
    assert (sidecar["scale"], sidecar["size"], sidecar["source"]) == (1000, [41, 67], "room.jpg")
    assert sidecar["source_sha256"] == file_digest(source)
    assert sidecar["checkpoint_sha256"] == file_digest(ckpt)
    assert sidecar["model"] == {"network": "Fake", "encoder": "fake"}
    assert sidecar["depth_range"] == {"min": 1e-3, "max": 10.0}
    assert sidecar["settings"] == {"color_range": None}
    picture = np.asarray(Image.open("out/room_color.png"))
    assert (picture[:41, :67] == colorize(depth, *sidecar["color_range"])).all()
    assert picture.shape[1] > 67, "a scale bar"


def test_the_sidecar_is_written_first_and_last(ckpt: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    replace = Path.replace

    def spy(self: Path, target: Any) -> Path:
        order.append(Path(target).name)
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", spy)
    run(photo(Path("a.jpg")), ckpt)
    assert sorted(order[1:4]) == ["a_color.png", "a_depth.npy", "a_depth.png"]
    assert [order[0], *order[4:]] == ["a.json"] * 2


HOSTILE = [
    "IMG (1).jpg",
    "photo[1].jpg",
    "a,b.jpg",
    "É#=.jpg",
    "-x.jpg",
    "--ckpt.png",
    "日本 語.JPEG",
    "*.jpg",
    "?.png",
    "%s{}.jpg",
    "a\nb.jpg",
    "'\";$(x).jpg",
    "two.dots.jpg",
    "ckpt=epoch=0.jpg",
    "no suffix",
    "x.jpg.jpg",
    os.fsdecode(b"\xff\xfe.jpg"),
    "[bold]x.jpg",
]


@pytest.mark.parametrize("name", HOSTILE)
def test_any_name_works_as_a_file_and_in_a_folder(ckpt: Path, name: str) -> None:
    photo(Path("in", name))
    photo(Path("in/p1.jpg"), seed=1)  # what photo[1].jpg, *.jpg and ?.png would match as globs
    stem = os.path.splitext(name)[0]  # noqa: PTH122
    report, lines = run([f"in/{name}"], ckpt)
    assert (counts(report), lines) == ((1, 0, 0), [])
    assert names() == {stem}
    os.chdir("in")
    run([name], ckpt, "../out2")
    os.chdir("..")
    assert names("out2") == {stem}
    if name != "no suffix":
        run(["in"], ckpt, "out3")
        assert names("out3") == {stem, "p1"}


def test_globs(ckpt: Path) -> None:
    for name in ("a1.jpg", "a2.jpg", "b1.png", ".hidden.jpg", "sub/c1.jpg", "sub/deep/d1.jpg", "[x]/e1.jpg", "n.txt"):
        photo(Path("in", name))
    expected = {
        "in/a*.jpg": {"a1", "a2"},
        "in/?1.*": {"a1", "b1"},
        "in/[ab]1.???": {"a1", "b1"},
        "in/[!b]1.jpg": {"a1"},
        "*/sub/*.jpg": {"c1"},
        "in/**/*.jpg": {"a1", "a2", "c1", "d1", "e1"},
        "in/s*": {"c1", "deep/d1"},
        "in/.h*": {".hidden"},
        f"{Path.cwd()}/in/a?.jpg": {"a1", "a2"},
    }
    for number, (pattern, found) in enumerate(expected.items()):
        _, lines = run([pattern], ckpt, f"out{number}")
        assert names(f"out{number}") == found, pattern
        assert lines == []
    run(["in/a*.jpg", "in/*1.jpg", "in/a1.jpg"], ckpt, "both")
    assert names("both") == {"a1", "a2"}


def test_a_glob_that_matches_nothing_fails_alone_or_stops_the_run(ckpt: Path) -> None:
    photo(Path("a.jpg"))
    report, lines = run(["a.jpg", "x*.jpg", "missing.jpg", ""], ckpt)
    assert counts(report) == (1, 0, 3)
    assert all("no such file" in line for line in lines)
    for wrong in (["x*.jpg"], ["missing.jpg", "y/z.png"], [""]):
        with pytest.raises(InputError, match="no such file"):
            run(wrong, ckpt, "never")
    assert not Path("never").exists()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(ckpt: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    photo(Path("a.jpg"), size=(20, 30), exif=exif.tobytes())
    run("a.jpg", ckpt)
    upright = (30, 20) if orientation >= 5 else (20, 30)
    assert np.load("out/a_depth.npy").shape == upright
    assert Image.open("out/a_depth.png").size == upright[::-1]
    assert json.loads(Path("out/a.json").read_text())["size"] == list(upright)


@pytest.mark.parametrize("size", [(1, 1), (1, 700), (900, 1), (241, 323)])
def test_any_size(ckpt: Path, size: tuple[int, int]) -> None:
    photo(Path("a.png"), size=size)
    run("a.png", ckpt)
    assert np.load("out/a_depth.npy").shape == size
    assert names() == {"a"}


def test_folders_are_mirrored(ckpt: Path) -> None:
    for name in ("a.jpg", "B.JPG", "c.Png", "d.jpeg", "x/a.jpg", "x/y/a.jpg", ".git/a.jpg", "x/.b.jpg", "e.gif"):
        photo(Path("in", name))
    Path("in/notes.txt").write_text("x")
    Path("in/dir.jpg").mkdir()
    photo(Path("in/dir.jpg/z.jpg"))
    report, lines = run(["in/"], ckpt)
    assert (counts(report), lines) == ((7, 0, 0), [])
    assert names() == {"a", "B", "c", "d", "x/a", "x/y/a", "dir.jpg/z"}


def test_a_shared_stem_gives_two_outputs_whatever_the_order(ckpt: Path) -> None:
    for number, name in enumerate(("a.jpg", "a.png", "b.jpg")):
        photo(Path("in", name), seed=number)
    for number, paths in enumerate((["in"], ["in/a.png", "in/b.jpg", "in/a.jpg"], ["in/*.*"])):
        run(paths, ckpt, f"out{number}")
        assert names(f"out{number}") == {"a.jpg", "a.png", "b"}
        assert json.loads(Path(f"out{number}/a.png.json").read_text())["source"] == "a.png"
    first, second = (np.load(f"out0/a.{kind}_depth.npy") for kind in ("jpg", "png"))
    assert (first != second).any()
    photo(Path("in/a.jpg.png"), seed=5)
    photo(Path("in/a.jpg.png.jpg"), seed=6)
    run(["in"], ckpt, "more")
    assert names("more") == {"a.jpg", "a.png", "a.jpg.png", "a.jpg.png.jpg", "b"}


def test_the_names_do_not_depend_on_former_runs(ckpt: Path) -> None:
    photo(Path("in/a.jpg"))
    run(["in"], ckpt)
    photo(Path("in/a.png"), seed=1)
    run(["in"], ckpt)
    photo(Path("in2/a.jpg"))
    photo(Path("in2/a.png"), seed=1)
    run(["in2"], ckpt, "fresh")
    assert names("fresh") == {"a.jpg", "a.png"}
    assert names("out") == {"a", "a.jpg", "a.png"}


def test_a_second_run_keeps_everything_and_loads_no_network(ckpt: Path) -> None:
    for number in range(3):
        photo(Path(f"in/{number}.jpg"), seed=number)
    assert counts(run(["in"], ckpt)[0]) == (3, 0, 0)
    before = {path: path.stat().st_mtime_ns for path in Path("out").iterdir()}
    assert counts(run(["in"], ckpt)[0]) == (0, 3, 0)
    assert before == {path: path.stat().st_mtime_ns for path in Path("out").iterdir()}
    assert loads() == 1
    assert counts(run(["in"], ckpt, overwrite=True)[0]) == (3, 0, 0)


def _remove(ending: str) -> None:
    Path(f"out/1{ending}").unlink()


def _truncate(ending: str) -> None:
    os.truncate(f"out/1{ending}", 40)


@pytest.mark.parametrize("damage", [_remove, _truncate])
@pytest.mark.parametrize("ending", ENDINGS)
def test_what_is_missing_or_torn_is_made_again_and_only_that(ckpt: Path, damage: Any, ending: str) -> None:
    for number in range(3):
        photo(Path(f"in/{number}.jpg"), seed=number)
    run(["in"], ckpt)
    before = {path.name: path.read_bytes() for path in Path("out").iterdir()}
    damage(ending)
    assert counts(run(["in"], ckpt)[0]) == (1, 2, 0)
    assert before == {path.name: path.read_bytes() for path in Path("out").iterdir()}


def test_another_photograph_checkpoint_or_setting_is_predicted_anew(ckpt: Path) -> None:
    for number in range(3):
        photo(Path(f"in/{number}.jpg"), seed=number)
    run(["in"], ckpt)
    photo(Path("in/1.jpg"), seed=9)
    assert counts(run(["in"], ckpt)[0]) == (1, 2, 0)
    os.utime("in/1.jpg")
    shutil.copy(ckpt, "copy.ckpt")
    assert counts(run(["in"], Path("copy.ckpt"))[0]) == (0, 3, 0), "the same bytes elsewhere are the same checkpoint"
    ckpt.write_text("1.5")
    assert counts(run(["in"], ckpt)[0]) == (3, 0, 0)
    assert np.load("out/0_depth.npy").max() > 3
    assert counts(run(["in"], ckpt, color_range=(0.5, 6))[0]) == (3, 0, 0)
    assert json.loads(Path("out/0.json").read_text())["color_range"] == [0.5, 6]
    assert counts(run(["in"], ckpt, color_range=(0.5, 6.0))[0]) == (0, 3, 0)


def test_an_interrupted_change_of_checkpoint_leaves_no_sidecar_that_vouches(
    ckpt: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photo(Path("a.jpg"))
    run("a.jpg", ckpt)
    expected = {path.name: path.read_bytes() for path in Path("out").iterdir()}
    ckpt.write_text("2.0")

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(outputs, "write_image_png", interrupt)
        with pytest.raises(KeyboardInterrupt):
            run("a.jpg", ckpt)
    assert "files" not in json.loads(Path("out/a.json").read_text())
    ckpt.write_text("1.0")
    assert counts(run("a.jpg", ckpt)[0]) == (1, 0, 0)
    assert expected == {path.name: path.read_bytes() for path in Path("out").iterdir()}


def test_a_bad_file_is_reported_in_one_line_and_the_rest_continue(ckpt: Path) -> None:
    for number in (0, 9):
        photo(Path(f"in/{number}.jpg"))
    whole = photo(Path("in/torn.jpg"), size=(200, 300)).read_bytes()
    Path("in/torn.jpg").write_bytes(whole[: len(whole) // 2])
    png = photo(Path("in/torn.png.png"), size=(200, 300)).read_bytes()
    Path("in/torn.png.png").write_bytes(png[: len(png) // 2])
    Path("in/text.jpg").write_text("no picture")
    Path("in/empty.jpg").write_bytes(b"")
    Path("in/li\nne.png").write_bytes(b"GIF89a")
    os.mkfifo("in/pipe.jpg")
    Path("in/broken.jpg").symlink_to("nowhere.jpg")
    Path("in/loop.jpg").symlink_to("loop.jpg")
    Path("in/one.jpg").symlink_to("two.jpg")
    Path("in/two.jpg").symlink_to("one.jpg")
    server = socket.socket(socket.AF_UNIX)
    server.bind("in/socket.jpg")
    bad = {"torn.jpg", "torn.png.png", "text.jpg", "empty.jpg", "pipe.jpg", "broken.jpg", "loop.jpg", "one.jpg"}
    bad |= {"two.jpg", "socket.jpg", "li\\nne.png"}
    for number, paths in enumerate((["in"], sorted(str(path) for path in Path("in").iterdir()))):
        report, lines = run(paths, ckpt, f"out{number}")
        assert counts(report) == (2, 0, len(bad))
        assert len(lines) == len(bad)
        assert all("\n" not in line for line in lines)
        for name in bad:
            assert sum(line.startswith(f"in/{name}: ") for line in lines) == 1, name
        assert names(f"out{number}") == {"0", "9"}
    server.close()


def test_links_to_files_are_followed_and_those_to_folders_are_not(ckpt: Path) -> None:
    photo(Path("elsewhere/x.jpg"), seed=1)
    photo(Path("in/a.jpg"))
    Path("in/b.jpg").symlink_to("a.jpg")
    Path("in/c.png").symlink_to(Path("elsewhere/x.jpg").resolve())
    Path("in/folder").symlink_to(Path("elsewhere").resolve(), target_is_directory=True)
    Path("in/back").symlink_to("..", target_is_directory=True)
    Path("linked").symlink_to("in", target_is_directory=True)
    for paths in (["in"], ["linked"]):  # a folder that is named may be a link
        report, lines = run(paths, ckpt, f"out_{paths[0]}")
        assert (counts(report), lines) == ((3, 0, 0), [])
        assert names(f"out_{paths[0]}") == {"a", "b", "c"}


@pytest.mark.parametrize("output", ["in", "in/out", "in/sub", ".", "in/sub/deep/out"])
@pytest.mark.parametrize("paths", [["in"], ["in/*.*", "in/sub"]])
def test_outputs_are_never_inputs(ckpt: Path, output: str, paths: list[str]) -> None:
    photo(Path("in/a.jpg"))
    photo(Path("in/a.png"), seed=1)
    photo(Path("in/b.c.JPG"), seed=2)
    if output != "in/sub":
        photo(Path("in/sub/d.png"), seed=3)
    Path("in/sub").mkdir(exist_ok=True)
    total = 3 + (output != "in/sub")
    assert counts(run(paths, ckpt, output)[0]) == (total, 0, 0)
    assert counts(run(paths, ckpt, output)[0]) == (0, total, 0)
    ckpt.write_text("0.5")
    assert counts(run(paths, ckpt, output)[0]) == (total, 0, 0)


def test_an_interrupted_run_beside_the_photographs_resumes(ckpt: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(3):
        photo(Path(f"in/{number}.jpg"), seed=number)
    calls = []

    def interrupt(*arguments: Any) -> None:
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        write(*arguments)

    write = outputs.write_image_png
    with monkeypatch.context() as patch:
        patch.setattr(outputs, "write_image_png", interrupt)
        with pytest.raises(KeyboardInterrupt):
            run(["in"], ckpt, "in")
    assert counts(run(["in"], ckpt, "in")[0]) == (2, 1, 0)
    assert counts(run(["in"], ckpt, "in")[0]) == (0, 3, 0)
    assert not [path for path in Path("in").iterdir() if path.name.startswith(".")]


def test_files_of_others_are_not_overwritten(ckpt: Path) -> None:
    photo(Path("in/a.jpg"))
    photo(Path("in/b.jpg"), seed=1)
    photo(Path("in/c.jpg"), seed=2)
    Path("in/a.json").write_text('{"annotations": []}')
    ground_truth = photo(Path("in/b_depth.png"), seed=3).read_bytes()
    report, lines = run(["in/?.jpg"], ckpt, "in")
    assert counts(report) == (1, 0, 2)
    assert "in/a.json" in lines[0]
    assert "in/b_depth.png" in lines[1]
    assert Path("in/a.json").read_text() == '{"annotations": []}'
    assert Path("in/b_depth.png").read_bytes() == ground_truth
    assert counts(run(["in/?.jpg"], ckpt, "in", overwrite=True)[0]) == (3, 0, 0)


def test_two_photographs_of_one_output_name_are_refused_before_any_work(ckpt: Path) -> None:
    for folder in ("one", "two"):
        photo(Path(folder, "x.jpg"), seed=len(folder))
        photo(Path(folder, "sub/y.jpg"))
    photo(Path("one/first.jpg"))
    for paths in (
        ["one/x.jpg", "two/x.jpg"],
        ["*/x.jpg"],
        ["one", "two"],
        ["two/x.jpg", "one"],
        ["one", "two/x.jpg"],
        ["one/x.jpg", "two"],
        ["one/first.jpg", "one/sub", "two/sub"],
    ):
        with pytest.raises(InputError, match="would both be written as") as caught:
            run(paths, ckpt)
        assert "\n" not in str(caught.value)
        assert names() == set(), paths
    assert loads() == 0
    run(["."], ckpt, "../mirrored")
    assert names("../mirrored") == {"one/x", "two/x", "one/first", "one/sub/y", "two/sub/y"}
    shutil.rmtree("../mirrored")


def test_one_photograph_named_twice_counts_once(ckpt: Path) -> None:
    photo(Path("in/a.jpg"))
    photo(Path("in/sub/b.jpg"))
    here = Path.cwd()
    several = [["in/a.jpg", "./in/a.jpg", here / "in/a.jpg"], ["in", "in/a.jpg"], ["in/a.jpg", "in"]]
    for number, paths in enumerate([*several, ["in", "in/", here / "in"]]):
        report, _ = run(paths, ckpt, f"out{number}")
        assert counts(report) == (1 if number == 0 else 2, 0, 0), paths


def test_an_output_that_cannot_be_written_stops_before_any_work(ckpt: Path) -> None:
    photo(Path("a.jpg"))
    Path("file").write_text("x")
    for output in ("file", "file/below", "/proc/none"):
        with pytest.raises(InputError, match="cannot write"):
            run("a.jpg", ckpt, output)
    assert loads() == 0


def test_a_folder_without_photographs_says_so(ckpt: Path) -> None:
    Path("in/sub").mkdir(parents=True)
    Path("in/x.txt").write_text("x")
    with pytest.raises(InputError, match="no photograph"):
        run(["in"], ckpt)


@pytest.mark.parametrize("wrong", [(2.0, 1.0), (-1.0, 2.0), (0.0, float("nan")), (0.0, float("inf"))])
def test_an_impossible_color_range(ckpt: Path, wrong: tuple[float, float]) -> None:
    photo(Path("a.jpg"))
    with pytest.raises(InputError, match="low < high"):
        run("a.jpg", ckpt, color_range=wrong)


def test_a_checkpoint_that_is_missing_or_bad_stops_the_run(ckpt: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    photo(Path("a.jpg"))
    for missing in ("none.ckpt", "."):
        with pytest.raises(InputError, match="checkpoint"):
            run("a.jpg", Path(missing))
    assert not Path("out").exists()

    def refuse(*_: Any) -> None:
        raise InputError("best.ckpt: not ours")

    monkeypatch.setattr(sys.modules["depthnet.models.depth_net"], "load_network", refuse)
    with pytest.raises(InputError, match="not ours"):
        run("a.jpg", ckpt)
    assert names() == set()


def test_a_device_that_is_not_there(ckpt: Path) -> None:
    photo(Path("a.jpg"))
    for device in ("nonsense", "xpu:7"):
        with pytest.raises(InputError, match=f"device {device}"):
            predict_files("a.jpg", ckpt, "out", device=device)


def test_a_full_disk_stops_the_run_and_leaves_what_was_there(ckpt: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(4):
        photo(Path(f"in/{number}.jpg"), seed=number)
    fsync, calls = os.fsync, []

    def full(descriptor: int) -> None:
        calls.append(descriptor)
        if len(calls) > 12:
            raise OSError(errno.ENOSPC, "No space left on device")
        fsync(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(InputError, match="No space left"):
            run(["in"], ckpt)
    for path in Path("out").iterdir():
        assert path.suffix != ".part"
        if path.suffix == ".png":
            Image.open(path).load()
    assert counts(run(["in"], ckpt)[0]) == (3, 1, 0)


def test_a_name_too_long_for_its_outputs_fails_alone(ckpt: Path) -> None:
    photo(Path("in", "n" * 250 + ".jpg"))
    photo(Path("in/a.jpg"))
    report, lines = run(["in"], ckpt)
    assert counts(report) == (1, 0, 1)
    assert "File name too long" in lines[0]
    assert counts(run(["in", "x" * 300 + ".jpg"], ckpt)[0]) == (0, 1, 2)


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("CUDA out of memory.\nTried to"), RuntimeError()])
def test_a_photograph_too_large_for_the_machine_fails_alone(ckpt: Path, error: Exception) -> None:
    photo(Path("in/a.png"), size=(50, 50))
    photo(Path("in/b.png"), size=(20, 30))

    class Small(Fake):
        def infer(self, image: np.ndarray, intrinsics: object = None) -> np.ndarray:
            if image.shape[0] == 50:
                raise error
            return super().infer(image, intrinsics)

    lines: list[str] = []
    assert counts(predict_files(["in"], Small(), "out", log=lines.append)) == (1, 0, 1)
    assert len(lines) == 1
    assert lines[0].startswith("in/a.png: ")
    assert "\n" not in lines[0]


def test_a_network_in_hand_predicts_always(ckpt: Path) -> None:
    photo(Path("a.jpg"))
    network = Fake()
    for _ in range(2):
        assert counts(predict_files(Path("a.jpg"), network, "out")) == (1, 0, 0)  # type: ignore[arg-type]
    assert json.loads(Path("out/a.json").read_text())["checkpoint_sha256"] is None
    assert counts(run("a.jpg", ckpt)[0]) == (1, 0, 0)


def test_depth_beyond_65_meters_takes_a_coarser_level(ckpt: Path) -> None:
    photo(Path("a.jpg"))
    predict_files("a.jpg", Fake(factor=20, far=80.0), "out")  # type: ignore[arg-type]
    assert json.loads(Path("out/a.json").read_text())["scale"] == 100
    depth = np.load("out/a_depth.npy")
    assert depth.max() > 66
    assert np.abs(np.asarray(Image.open("out/a_depth.png")) / 100 - depth).max() <= 0.005 + 1e-5


def test_progress_is_reported(ckpt: Path) -> None:
    for number in range(3):
        photo(Path(f"in/{number}.jpg"))
    Path("in/1.jpg").write_text("bad")
    seen: list[tuple[int, int]] = []
    run(["in"], ckpt, advance=lambda done, total: seen.append((done, total)))
    assert seen == [(1, 3), (2, 3), (3, 3)]


SCRIPT = """
import resource, sys
from fake_network import install
from depthnet.inference.predict import predict_files
install(pause=float(sys.argv[3]))
print(predict_files([sys.argv[1]], "best.ckpt", sys.argv[2]))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
assert not {"torch", "lightning", "hydra", "albumentations", "wandb", "rich"} & sys.modules.keys()
"""
ROOT = Path(depthnet.__file__).parents[1]
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "tests/support")))}


def command(source: str, output: str, pause: float) -> list[str]:
    return [sys.executable, "-c", SCRIPT, source, output, str(pause)]


def test_killed_at_any_time_every_output_is_whole_and_the_next_run_does_the_rest(ckpt: Path) -> None:
    for number in range(40):
        photo(Path(f"in/{number % 3}/{number:02d}.jpg"), seed=number)
    here = {"cwd": Path.cwd(), "env": ENVIRONMENT}
    dice = random.Random(0)
    done: dict[Path, int] = {}
    for _ in range(4):
        process = subprocess.Popen(command("in", "out", 0.01), stdout=subprocess.PIPE, **here)  # type: ignore[call-overload]
        target = len(done) + dice.randint(1, 8)
        while process.poll() is None and len(list(Path("out").rglob("*.json"))) < target:
            time.sleep(0.001)
        time.sleep(dice.random() * 0.03)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        for path in Path("out").rglob("*"):
            if path.suffix == ".npy":
                np.load(path, allow_pickle=False)
            elif path.suffix == ".png":
                Image.open(path).load()
            elif path.suffix == ".json":
                sidecar = {"files": {}} | json.loads(path.read_text())
                sizes = {name: (path.parent / name).stat().st_size for name in sidecar["files"]}
                assert sizes == sidecar["files"]
                assert len(sizes) in (0, 3)
        assert all(path.stat().st_mtime_ns == changed for path, changed in done.items()), "what is whole is left alone"
        whole = [path for path in Path("out").rglob("*.json") if "files" in json.loads(path.read_text())]
        done = {path: path.stat().st_mtime_ns for path in whole}
    assert 4 <= len(done) < 40
    last = subprocess.run(command("in", "out", 0), capture_output=True, text=True, check=True, **here)  # type: ignore[call-overload]
    assert last.stdout.startswith(f"{40 - len(done)} written, {len(done)} kept, 0 failed")
    run(["in"], ckpt, "clean")
    for path in Path("clean").rglob("*"):
        if path.is_file() and path.suffix != ".json":
            assert path.read_bytes() == Path("out", path.relative_to("clean")).read_bytes()


def test_memory_does_not_grow_with_the_number_of_files(ckpt: Path) -> None:
    here = {"cwd": Path.cwd(), "env": ENVIRONMENT}
    peak = []
    for count in (8, 80):
        for number in range(count):
            photo(Path(f"in{count}/{number}.jpg"), seed=number, size=(300, 400))
        text = subprocess.run(
            command(f"in{count}", f"out{count}", 0), capture_output=True, text=True, check=True, **here
        ).stdout  # type: ignore[call-overload]
        peak.append(int(text.split()[-1]) * (1 if sys.platform == "darwin" else 1024))
    assert peak[1] - peak[0] < 8e6, "one photograph more is 0.5 MB of depth"
