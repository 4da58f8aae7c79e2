"""One geometry: a run's evaluation, and predict.py with score, see every image alike and give the same figures."""

import csv
import json
import math

import numpy as np
import pytest
import torch
from PIL import Image

from depthnet.core.camera import Intrinsics
from depthnet.core.types import DepthRange
from depthnet.data.layouts.official import NYU_INTRINSICS
from depthnet.evaluation.metrics import METRIC_NAMES
from depthnet.evaluation.predictions import score_predictions
from depthnet.inference.predict import predict_files
from depthnet.models.checkpoint import RECORD_KEY, make_record, save_plain
from depthnet.models.depth_net import DepthNet, load_network

SIZES = {"landscape": (48, 64), "portrait": (64, 48), "square": (56, 56), "panorama": (40, 120)}
CAMERA = {"focal": 52.0, "size": [48, 64]}


@pytest.fixture
def checkpoint(tmp_path):
    torch.manual_seed(0)
    network = DepthNet("test_resnet", depth_range=DepthRange(1e-3, 10.0), image_size=(48, 64), camera=CAMERA).eval()
    with torch.no_grad():
        network.head.projection.weight.mul_(20)  # or its depth would be nearly constant
    state = {f"network.{name}": value for name, value in network.state_dict().items()}
    save_plain(tmp_path / "a.ckpt", {"state_dict": state, RECORD_KEY: make_record(network)})
    return tmp_path / "a.ckpt"


def images_of_every_aspect(root, known):
    rng = np.random.default_rng(1)
    rows = ["image,depth,split,scene\n"]
    for scene, (height, width) in SIZES.items():
        for kind in ("images", "depths"):
            (root / kind / scene).mkdir(parents=True)
        if known:
            (root / "images" / scene / "K.txt").write_text(f"70 0 {width / 2}\n0 70 {height / 2}\n0 0 1\n")
        for number in range(2):
            small = rng.integers(0, 255, (6, 8, 3), dtype=np.uint8)
            Image.fromarray(small).resize((width, height), 2).save(root / "images" / scene / f"{number}.png")
            depth = rng.uniform(1000, 4000, (height, width)).astype(np.uint16)
            Image.fromarray(depth).save(root / "depths" / scene / f"{number}.png")
            rows.append(f"images/{scene}/{number}.png,depths/{scene}/{number}.png,val,{scene}\n")
    (root / "pairs.csv").write_text("".join(rows))
    return root


@pytest.mark.parametrize("known", [True, False])
def test_a_run_and_predict_with_score_agree_for_every_aspect(train, tmp_path, checkpoint, known):
    root = images_of_every_aspect(tmp_path / "own", known)
    limits = {"min": 0.1, "max": 9.0}
    done = train(
        "mode=test", f"ckpt={checkpoint}", "data=folder", f"data.root={root}", "data.unit=mm", "trainer=cpu",
        f"data.depth_range={{min: {limits['min']}, max: {limits['max']}}}", "logger=none", "data.num_workers=0",
        "hydra.run.dir=run",
    )  # fmt: skip
    assert done.code == 0, done.err
    report = predict_files(root / "images", checkpoint, tmp_path / "out")
    assert report.written == 8
    assert report.cameras == (
        {"K.txt": 8} if known else {"not known, the training camera's field of view is assumed": 8}
    )
    scored = score_predictions(tmp_path / "out", root, layout="folder", unit="mm", depth_range=limits)
    rows = [row for row in csv.DictReader((tmp_path / "run/per_image.csv").open()) if row["protocol"] == "uncropped"]
    assert len(rows) == 8
    for name in METRIC_NAMES:
        mean = np.mean([float(row[name]) for row in rows])
        assert mean == pytest.approx(scored["metrics"][name], abs=1e-6), name
    panel = next((tmp_path / "run/panels").glob("*portrait_0*.png"))
    with Image.open(panel) as picture:
        assert picture.height / (picture.width / 4) > 1, "four upright pictures side by side"


def test_depth_scales_with_the_focal_length_and_an_unknown_camera_has_the_training_cameras_view(checkpoint):
    network = load_network(checkpoint)
    image = np.random.default_rng(2).integers(0, 255, (48, 64, 3), dtype=np.uint8)
    plain = network.infer(image)
    assert np.array_equal(plain, network.infer(image, Intrinsics(52.0, 52.0, 31.5, 23.5)))
    assert np.array_equal(plain, network.infer(image, Intrinsics(52.0 * (1 + 1e-6), 52.0, 31.5, 23.5)))
    assert np.allclose(network.infer(image, Intrinsics(104.0, 104.0, 31.5, 23.5)), 2 * plain)
    twice = image.repeat(2, axis=0).repeat(2, axis=1)
    assert np.allclose(network.infer(twice, Intrinsics(104.0, 104.0, 63.5, 47.5)).mean(), network.infer(twice).mean())
    turned = np.ascontiguousarray(np.rot90(image))
    known = network.infer(turned, Intrinsics(52.0, 52.0, 23.5, 31.5))
    assert np.allclose(network.infer(turned), known, rtol=1e-6), "a camera that was turned has the same diagonal"
    assert network.focal_ratio((48, 64), Intrinsics(104.0, 104.0, 31.5, 23.5)) == 2
    network.camera = None
    assert network.focal_ratio((48, 64), Intrinsics(104.0, 104.0, 31.5, 23.5)) == 1
    assert np.array_equal(plain, network.infer(image, Intrinsics(104.0, 104.0, 31.5, 23.5)))


def test_each_image_of_a_batch_has_its_own_camera(checkpoint):
    network = load_network(checkpoint)
    image = torch.randint(0, 255, (1, 3, 48, 64), dtype=torch.uint8).expand(3, -1, -1, -1)
    with torch.inference_mode():
        depth = network(image, torch.tensor([52.0, 26.0, math.nan]))
        assert torch.equal(network(image), network(image, torch.full((3,), 52.0)))
    assert torch.allclose(depth[1], depth[0] / 2)
    assert torch.equal(depth[2], depth[0])


@pytest.mark.parametrize("method", ["run", "predict"])
def test_upright_crops_of_nyu_with_their_camera_are_as_good_as_whole_frames(tmp_path, real_nyu, train, method):
    lines = (real_nyu / "nyudepthv2_val_files_with_gt.txt").read_text().splitlines()[::12]
    fx, fy, cx, cy = NYU_INTRINSICS
    rows = ["image,depth,split,fx,fy,cx,cy\n"]
    for number, line in enumerate(lines):
        image, depth = (Image.open(real_nyu / name.lstrip("/")) for name in line.split()[:2])
        box = (140, 0, 500, 480)
        image.crop(box).save(tmp_path / f"{number}.png")
        depth.crop(box).save(tmp_path / f"{number}_depth.png")
        rows.append(f"{number}.png,{number}_depth.png,val,{fx},{fy},{cx - 140},{cy}\n")
    (tmp_path / "pairs.csv").write_text("".join(rows))
    limits = {"min": 1e-3, "max": 10.0}
    if method == "run":
        done = train(
            "mode=test", "ckpt=nyu_small", "data=folder", f"data.root={tmp_path}", "data.unit=mm", "trainer=cpu",
            "logger=none", "data.num_workers=0", "hydra.run.dir=run", "data.cache=none",
        )  # fmt: skip
        assert done.code == 0, done.err
        table = list(csv.DictReader((tmp_path / "run/per_image.csv").open()))
        found = np.mean([float(row["delta1"]) for row in table])
    else:
        photographs = [tmp_path / f"{number}.png" for number in range(len(lines))]
        predict_files(photographs, "nyu_small", tmp_path / "out", focal=fx)
        scored = score_predictions(tmp_path / "out", tmp_path, layout="folder", unit="mm", depth_range=limits)
        found = scored["metrics"]["delta1"]
    assert found >= 0.75


def test_a_long_lens_takes_a_coarser_png_and_states_its_range(tmp_path, checkpoint):
    image = np.random.default_rng(2).integers(0, 255, (48, 64, 3), dtype=np.uint8)
    Image.fromarray(image).save(tmp_path / "a.png")
    predict_files(tmp_path / "a.png", checkpoint, tmp_path / "out", focal=52.0 * 12)
    sidecar = json.loads((tmp_path / "out/a.json").read_text())
    assert (sidecar["focal_ratio"], sidecar["scale"]) == (12, 100)
    assert sidecar["depth_range"]["max"] == 120
    with Image.open(tmp_path / "out/a_depth.png") as png:
        assert np.allclose(np.asarray(png) / 100, np.load(tmp_path / "out/a_depth.npy"), atol=0.006)
    small = predict_files(tmp_path / "a.png", checkpoint, tmp_path / "small", size=(32, 48))
    assert small.written == 1
    assert json.loads((tmp_path / "small/a.json").read_text())["image_size"] == [32, 48]
