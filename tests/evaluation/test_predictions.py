from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from depthnet.core.types import InputError
from depthnet.data.layouts.registry import open_root
from depthnet.evaluation.frames import FramePredictor
from depthnet.evaluation.metrics import METRIC_NAMES
from depthnet.evaluation.predictions import find_predictions, main, read_prediction, score_predictions
from depthnet.evaluation.protocols import choose_protocols
from depthnet.evaluation.sharpness import edge_f1
from depthnet.models.checkpoint import find_checkpoint

LABELS = ["train/rgb_00007", "train/rgb_00008", "train/rgb_00009"]
Roots = Callable[..., Path]


def bilinear(values: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Bilinear resize with aligned corners, from the definition."""
    grids = []
    for new, old in zip(size, values.shape, strict=True):
        place = np.arange(new) * ((old - 1) / (new - 1))
        first = np.minimum(place.astype(int), old - 2)
        grids.append((first, place - first))
    (r, fr), (c, fc) = grids
    fr, fc = fr[:, None], fc[None, :]
    top = values[r][:, c] * (1 - fc) + values[r][:, c + 1] * fc
    bottom = values[r + 1][:, c] * (1 - fc) + values[r + 1][:, c + 1] * fc
    return top * (1 - fr) + bottom * fr


def smooth(rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    """What a network might predict; between values far apart torch's own float32 interpolation is off by 1e-4 m."""
    return bilinear(rng.uniform(0.5, 9, (5, 6)), size).astype(np.float32)


def reference(pred: np.ndarray, depth: np.ndarray, crop: tuple[slice, slice] | None = None) -> list[float]:
    """One image's nine metrics, in plain NumPy."""
    p = bilinear(pred.astype(np.float64), depth.shape) if pred.shape != depth.shape else pred.astype(np.float64)
    p = np.clip(np.nan_to_num(p, nan=1e-3, posinf=10, neginf=1e-3), 1e-3, 10)
    t = depth.astype(np.float64)
    if crop is not None:
        p, t = p[crop], t[crop]
    valid = (t > 1e-3) & (t < 10)
    p, t = p[valid], t[valid]
    ratio, e = np.maximum(p / t, t / p), np.log(p / t)
    return [
        *(float(np.mean(ratio < 1.25**k)) for k in (1, 2, 3)),
        float(np.mean(np.abs(p - t) / t)),
        float(np.mean((p - t) ** 2 / t)),
        float(np.sqrt(np.mean((p - t) ** 2))),
        float(np.sqrt(np.mean(e**2))),
        float(np.mean(np.abs(np.log10(p / t)))),
        float(100 * np.sqrt(np.mean(e**2) - np.mean(e) ** 2)),
    ]


def depths(root: Path, split: str = "val") -> list[np.ndarray]:
    data = open_root(root)
    return [data.read(split, frame)[1] for frame in range(data.count(split))]


def perfect(root: Path, folder: Path, pattern: str = "{name}.npy", split: str = "val") -> Path:
    data = open_root(root)
    for frame in range(data.count(split)):
        label = data.label(split, frame)
        save(folder / pattern.format(label=label, name=label.rsplit("/")[-1]), data.read(split, frame)[1])
    return folder


def save(path: Path, depth: np.ndarray, scale: float = 1000) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".npy":
        np.save(path, depth)
    else:
        Image.fromarray(np.rint(depth * scale).astype(np.uint16)).save(path)
    return path


@pytest.mark.parametrize("holes", [False, True])
@pytest.mark.parametrize("size", [(48, 64), (24, 32), (97, 131), (480, 640)])
def test_figures_equal_an_independent_numpy_script(
    make_lists: Roots, tmp_path: Path, size: tuple[int, int], holes: bool
) -> None:
    root = make_lists(holes=holes)
    rng = np.random.default_rng(0)
    preds = []
    for label in LABELS:
        preds.append(smooth(rng, size))
        if size == (48, 64):
            preds[-1][0, :4] = np.nan, np.inf, -np.inf, -1
        save(tmp_path / "p" / f"{label}.npy", preds[-1][None])
    result = score_predictions(tmp_path / "p", root)
    expected = np.mean([reference(pred, depth) for pred, depth in zip(preds, depths(root), strict=True)], axis=0)
    assert result["protocol"] == "uncropped"
    assert result["ground_truth"] == ("raw" if holes else "filled")
    assert (result["found"], result["expected"], result["split"]) == (3, 3, "val")
    assert list(result["metrics"]) == list(METRIC_NAMES)
    assert list(result["metrics"].values()) == pytest.approx(expected, abs=1e-6, rel=1e-6)


@pytest.mark.parametrize(("holes", "protocol"), [(False, "nyu_eigen_filled"), (True, "nyu_eigen")])
def test_the_protocol_follows_from_the_data(make_lists: Roots, tmp_path: Path, holes: bool, protocol: str) -> None:
    root = make_lists(train=2, val=2, size=(480, 640), holes=holes)
    preds = [smooth(np.random.default_rng(seed), (60, 80)).astype(np.float64) for seed in range(2)]
    for pred, number in zip(preds, (3, 4), strict=True):
        save(tmp_path / "p" / f"rgb_{number:05d}_depth.npy", pred)
    crop = (slice(45, 471), slice(41, 601))
    rows = [reference(pred.astype(np.float32), depth, crop) for pred, depth in zip(preds, depths(root), strict=True)]
    result = score_predictions(tmp_path / "p", root)
    assert result["protocol"] == protocol
    assert list(result["metrics"].values()) == pytest.approx(np.mean(rows, axis=0), abs=1e-6, rel=1e-6)
    every = score_predictions(tmp_path / "p", root, protocol="all")
    assert every["metrics"] == every["protocols"][protocol] == result["metrics"]
    assert {"uncropped", "median_scaled", protocol} <= every["protocols"].keys()
    wrong = "nyu_eigen" if protocol == "nyu_eigen_filled" else "nyu_eigen_filled"
    with pytest.raises(InputError, match=wrong):
        score_predictions(tmp_path / "p", root, protocol=wrong)


@pytest.mark.parametrize("pattern", ["{name}.npy", "{name}_depth.npy", "{label}.npy", "{label}_depth.png"])
@pytest.mark.parametrize("above", ["", "model 1/"])
def test_perfect_predictions_under_any_name(make_lists: Roots, tmp_path: Path, pattern: str, above: str) -> None:
    root = make_lists()
    if above and "label" not in pattern:
        pattern = pattern.replace("{name}", "train/{name}")
    folder = perfect(root, tmp_path / "p", above + pattern)
    result = score_predictions(folder, root)
    assert result["metrics"]["delta1"] == 1.0
    assert result["metrics"]["rmse"] < 1e-6
    assert (result["found"], result["unmatched"], result["missing"]) == (3, 0, [])


def test_the_kaggle_layout(make_kaggle: Roots, tmp_path: Path) -> None:
    root = make_kaggle(size=(96, 128))
    folder = perfect(root, tmp_path / "test", "data/{label}_depth.npy", "test")
    assert score_predictions(folder, root, split="test", allow=["test_list"])["metrics"]["delta1"] == 1.0
    # there 1.jpg and its depth 1.png share a stem, so predict.py gives both their whole names
    folder = perfect(root, tmp_path / "val", "data/{label}.jpg_depth.npy")
    for path in list(folder.rglob("*.npy")):
        save(path.with_name(path.name.replace(".jpg_", ".png_")), np.ones((96, 128), np.float32))
    assert score_predictions(folder, root)["metrics"]["delta1"] == 1.0


def files(folder: Path, *names: str) -> Path:
    for name in names:
        save(folder / name, np.ones((2, 2), np.float32))
    return folder


@pytest.mark.parametrize(
    ("names", "labels", "found", "spare"),
    [
        (["a.npy", "a.png", "b.png"], ["x/a", "x/b"], ["a.npy", "b.png"], 0),
        (["a_depth.npy", "a_depth.png", "a_color.png", ".a.npy"], ["a"], ["a_depth.npy"], 0),
        (["x/a.npy", "y/a.npy"], ["x/a", "y/a"], ["x/a.npy", "y/a.npy"], 0),
        (["x/a.npy"], ["x/a", "y/a"], ["x/a.npy", None], 0),
        (["run/x/a.npy", "other.npy"], ["x/a"], ["run/x/a.npy"], 1),
        (["x/a.npy"], ["data/x/a"], ["x/a.npy"], 0),
        (["a.npy", "x/a.npy"], ["a", "x/a"], ["a.npy", "x/a.npy"], 0),
        (["z/a.npy", "b.npy"], ["x/a", "x/b"], [None, "b.npy"], 1),
        (["é #[1].npy"], ["é #[1]"], ["é #[1].npy"], 0),
    ],
)
def test_how_a_frames_file_is_found(
    tmp_path: Path, names: list[str], labels: list[str], found: list[str | None], spare: int
) -> None:
    chosen, unmatched = find_predictions(files(tmp_path, *names), labels)
    assert [path and str(path.relative_to(tmp_path)) for path in chosen] == found
    assert unmatched == spare


@pytest.mark.parametrize(
    ("names", "labels"),
    [
        (["a.npy"], ["x/a", "y/a"]),
        (["a_depth_depth.npy", "a_depth.npy"], ["a", "a_depth"]),
        (["a.npy", "a_depth.npy"], ["a"]),
        (["a.png", "a_depth.png"], ["a"]),
        (["a.npy", "x/a.npy"], ["x/a"]),
        (["x/a.npy", "x/a.png", "a.png"], ["x/a"]),
        (["one/x/a.npy", "two/x/a.npy"], ["x/a"]),
        (["a.jpg_depth.npy", "a_depth.npy", "sub/a.npy"], ["sub/a"]),
    ],
)
def test_an_ambiguous_match_is_refused(tmp_path: Path, names: list[str], labels: list[str]) -> None:
    with pytest.raises(InputError, match="fit") as caught:
        find_predictions(files(tmp_path, *names), labels)
    assert "\n" not in str(caught.value)


def test_nothing_found_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such folder"):
        find_predictions(tmp_path / "none", ["a"])
    with pytest.raises(InputError, match=r"looked for x/a\.npy or a_depth\.npy"):
        find_predictions(files(tmp_path, "b.npy"), ["x/a"])


def pickled(path: Path) -> None:
    np.save(path, np.array([{"a": 1}], dtype=object), allow_pickle=True)


def torn(path: Path) -> None:
    np.save(path, np.ones((48, 64), np.float32))
    os.truncate(path, 2000)


def huge(path: Path) -> None:
    header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (10000000, 10000000), }"
    path.write_bytes(b"\x93NUMPY\x01\x00" + (len(header) + 1).to_bytes(2, "little") + header + b"\n" + bytes(64))


BAD: dict[str, Callable[[Path], Any]] = {
    "pickled": pickled,
    "torn": torn,
    "huge": huge,
    "empty": lambda path: path.write_bytes(b""),
    "text": lambda path: path.write_text("1.0 2.0"),
    "archive": lambda path: np.savez(path.open("wb"), a=np.ones(3)),
    "integers": lambda path: np.save(path, np.ones((48, 64), np.int32)),
    "complex": lambda path: np.save(path, np.ones((48, 64), np.complex64)),
    "scalar": lambda path: np.save(path, np.float32(1)),
    "two of them": lambda path: np.save(path, np.ones((2, 48, 64), np.float32)),
    "no pixels": lambda path: np.save(path, np.ones((0, 64), np.float32)),
    "all nan": lambda path: np.save(path, np.full((48, 64), np.nan, np.float32)),
    "turned": lambda path: np.save(path, np.ones((64, 48), np.float32)),
    "square": lambda path: np.save(path, np.ones((48, 48), np.float32)),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_file_is_one_line_that_names_it(
    make_lists: Roots, tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    root = make_lists()
    folder = perfect(root, tmp_path / "p")
    BAD[kind](folder / "rgb_00008.npy")
    output = tmp_path / "score.json"
    assert main([str(folder), str(root), "--output", str(output)]) == 2
    out, err = capsys.readouterr()
    assert "rgb_00008.npy" in err
    assert err.count("\n") == 1
    assert out == ""
    assert not output.exists()


def test_an_8_bit_png_is_refused(make_lists: Roots, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = make_lists()
    folder = perfect(root, tmp_path / "p", "{name}.png")
    Image.fromarray(np.full((48, 64), 9, np.uint8)).save(folder / "rgb_00007.png")
    assert main([str(folder), str(root)]) == 2
    err = capsys.readouterr().err
    assert "rgb_00007.png" in err
    assert err.count("\n") == 1


@pytest.mark.parametrize("size", [(48, 64), (15, 20), (8, 10), (7, 10), (480, 640), (241, 323), (3, 4)])
def test_sizes_of_the_same_aspect_are_taken(make_lists: Roots, tmp_path: Path, size: tuple[int, int]) -> None:
    root = make_lists(val=1)
    save(tmp_path / "p/rgb_00007.npy", np.full(size, 3, np.float16))
    assert score_predictions(tmp_path / "p", root)["found"] == 1


def test_read_prediction(tmp_path: Path) -> None:
    depth = np.random.default_rng(0).uniform(0.5, 9, (6, 8))
    for kind in (np.float16, np.float32, np.float64):
        read = read_prediction(save(tmp_path / "a.npy", depth.astype(kind)))
        assert read.dtype == np.float32
        assert np.array_equal(read, depth.astype(kind).astype(np.float32))
    assert np.abs(read_prediction(save(tmp_path / "a.png", depth)) - depth).max() <= 0.0005 + 1e-6
    assert np.abs(read_prediction(save(tmp_path / "b.png", depth, 256), 256) - depth).max() <= 1 / 512 + 1e-6


def test_scale(make_lists: Roots, tmp_path: Path) -> None:
    root = make_lists()
    data = open_root(root)
    for frame in range(3):
        save(tmp_path / "p" / f"{data.label('val', frame)}.png", data.read("val", frame)[1], scale=5000)
    assert score_predictions(tmp_path / "p", root, scale=5000)["metrics"]["delta1"] == 1.0
    assert score_predictions(tmp_path / "p", root)["metrics"]["delta1"] < 0.1
    for wrong in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(InputError, match="--scale"):
            score_predictions(tmp_path / "p", root, scale=wrong)


def test_an_empty_frame_is_named_and_averaged_nowhere(make_lists: Roots, tmp_path: Path) -> None:
    root = make_lists(holes=True)
    depth = depths(root)
    Image.fromarray(np.zeros((48, 64), np.uint16)).save(root / "train/sync_depth_00008.png")
    for label in LABELS:
        save(tmp_path / "p" / f"{label}.npy", np.full((48, 64), 3.0, np.float32))
    result = score_predictions(tmp_path / "p", root)
    assert result["empty"] == {"uncropped": ["train/rgb_00008"]}
    expected = np.mean([reference(np.full((48, 64), 3.0), depth[i]) for i in (0, 2)], axis=0)
    assert list(result["metrics"].values()) == pytest.approx(expected, abs=1e-6)


def test_the_command_line(make_lists: Roots, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = make_lists(test=2)
    folder = perfect(root, tmp_path / "my preds")
    files(folder, "stranger.npy")
    output = tmp_path / "deep/score.json"
    assert main([str(folder), str(root), "--output", str(output)]) == 0
    out, err = capsys.readouterr()
    assert "found predictions of 3 of 3 val frames; 1 other files ignored" in out
    assert "uncropped" in out
    assert "filled ground truth" in out
    assert err == ""
    result = json.loads(output.read_text())
    assert {"protocol", "ground_truth", "found", "expected", "metrics", "split"} <= result.keys()
    assert result["metrics"]["delta1"] == 1.0
    assert result == score_predictions(folder, root), "JSON holds every bit"
    perfect(root, tmp_path / "t", split="test")
    test = [str(tmp_path / "t"), str(root), "--split", "test", "--protocol", "all"]
    assert main(test) == 2  # the fixture's test frames are not the official ones
    assert "--allow test_list" in capsys.readouterr().err
    assert main([*test, "--allow", "test_list"]) == 0
    assert "scale_shift" in capsys.readouterr().out


def test_missing_frames_are_named_and_change_the_exit_code(
    make_lists: Roots, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = make_lists()
    folder = perfect(root, tmp_path / "p")
    (folder / "rgb_00007.npy").unlink()
    output = tmp_path / "score.json"
    assert main([str(folder), str(root), "--output", str(output)]) == 1
    out, err = capsys.readouterr()
    assert "found predictions of 2 of 3 val frames" in out
    assert "1 frames have no prediction (train/rgb_00007" in err
    result = json.loads(output.read_text())
    assert (result["found"], result["expected"], result["missing"]) == (2, 3, ["train/rgb_00007"])


def test_a_wrong_unit_is_warned_about(make_lists: Roots, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = make_lists()
    for label, depth in zip(LABELS, depths(root), strict=True):
        save(tmp_path / "p" / f"{label}.npy", depth * 1000)
    assert main([str(tmp_path / "p"), str(root)]) == 0
    assert "median is" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{p}", "{tmp}/nowhere"], "nowhere"),
        (["{p}", "{p}"], "no data there"),
        (["{tmp}/nowhere", "{root}"], "no such folder of predictions"),
        (["{p}", "{root}", "--split", "test"], "no test frames"),
        (["{p}", "{root}", "--protocol", "nyu_eigne"], "nyu_eigne"),
        (["{p}", "{root}", "--protocol", "nyu_eigen"], "nyu_eigen"),
        (["{p}", "{root}", "--layout", "kaggle"], "kaggle"),
        (["{p}", "{root}", "--output", "{p}/rgb_00007.npy/score.json"], "cannot write"),
        (["{p}", "{root}", "--scale", "0"], "--scale"),
    ],
)
def test_a_users_error_is_one_line_and_exit_code_2(
    make_lists: Roots, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    root = make_lists()
    folder = perfect(root, tmp_path / "p")
    assert main([text.format(tmp=tmp_path, p=folder, root=root) for text in arguments]) == 2
    out, err = capsys.readouterr()
    assert message in err
    assert err.count("\n") == 1
    assert out == ""


def test_help_is_quick_and_imports_no_torch() -> None:
    check = (
        "import sys\nfrom depthnet.evaluation.predictions import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit:\n    pass\n"
        "assert 'torch' not in sys.modules\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    subprocess.run([sys.executable, "-c", check], check=True, capture_output=True, env=environment)


def test_real_pairs_by_an_independent_script(real_nyu: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rows = []
    crop = (slice(45, 471), slice(41, 601))
    lines = (real_nyu / "nyudepthv2_val_files_with_gt.txt").read_text().split("\n")
    for line in lines[:96:12]:
        image, file, _ = line.split()
        depth = np.asarray(Image.open(real_nyu / file)).astype(np.float64) / 1000
        pred = depth[::4, ::4] * rng.uniform(0.7, 1.4)
        rows.append(reference(pred.astype(np.float32), depth, crop))
        save(tmp_path / Path(image).with_suffix(".npy"), pred.astype(np.float32))
    result = score_predictions(tmp_path, real_nyu)
    assert (result["protocol"], result["found"], result["expected"]) == ("nyu_eigen_filled", 8, 96)
    assert list(result["metrics"].values()) == pytest.approx(np.mean(rows, axis=0), abs=1e-6, rel=1e-6)


def test_a_checkpoint_is_evaluated_as_a_run_does(make_lists, train):
    root = make_lists()
    common = [
        "data=nyu",
        f"data.root={root}",
        "data.check=cheap",
        "data.cache=none",
        "data.num_workers=0",
        "logger=none",
    ]
    done = train(
        *common,
        "mode=test",
        "ckpt=rooms_small",
        "trainer=cpu",
        "protocols=[uncropped,uncropped_flip]",
        "hydra.run.dir=run",
    )
    assert done.code == 0, done.err
    expected = json.loads(Path("run/metrics.json").read_text())["protocols"]
    for name in ("uncropped", "uncropped_flip"):
        found = score_predictions("rooms_small", root, protocol=name, edges=True)
        assert found["metrics"]["delta1"] == pytest.approx(expected[name]["delta1"], abs=1e-6)
        assert 0 <= found["edge_f1"] <= 1
    dark = score_predictions("rooms_small", root, protocol="uncropped", corrupt="dark")
    assert dark["metrics"] != found["metrics"]


@pytest.mark.parametrize(
    ("given", "options", "line"),
    [
        ("nothing", [], "nothing: no such folder of predictions, checkpoint or run, nor a shipped model"),
        ("rooms_small", ["--corrupt", "fog"], "--corrupt fog: it is one of dark, bright"),
        ("files", ["--corrupt", "dark"], "--corrupt dark: files hold no prediction of corrupted images"),
    ],
)
def test_what_cannot_be_evaluated_is_one_line(make_lists, tmp_path, monkeypatch, capsys, given, options, line):
    root = make_lists()
    monkeypatch.chdir(tmp_path)
    Path("files").mkdir()
    assert main([given, str(root), *options]) == 2
    assert capsys.readouterr().err.startswith(f"depthnet evaluate: {line}")


def test_protocols_are_listed(capsys):
    assert main(["--list-protocols"]) == 0
    assert "nyu_eigen_filled (digest " in capsys.readouterr().out


def test_the_edges_of_a_flip_protocol_are_those_of_the_averaged_prediction(make_lists):
    root = make_lists()
    data, checkpoint = open_root(root), find_checkpoint("rooms_small")
    (protocol,) = choose_protocols("uncropped_flip", data, "val")
    predictor, expected = FramePredictor(checkpoint, data, "val", "cpu"), []
    for frame in range(data.count("val")):
        sample, pred, flipped = predictor.predict(frame, flip=True)
        assert flipped is not None
        seen = protocol((pred + flipped) / 2, sample.depth, sample.mask)
        expected.append(edge_f1(*(part[0, 0].numpy() for part in seen)))
    found = score_predictions("rooms_small", root, protocol="uncropped_flip", edges=True)
    assert found["edge_f1"] == pytest.approx(np.nanmean(expected), abs=1e-9)
