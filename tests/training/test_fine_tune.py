"""What a checkpoint's weights mean comes with them: network, range, size, geometry, camera."""

import json
import re
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image

from depthnet.core.types import DepthRange, InputError
from depthnet.models.basic import BasicNet
from depthnet.models.checkpoint import RECORD_KEY, make_record, read_checkpoint, save_plain
from depthnet.models.depth_net import DepthNet, load_network
from depthnet.training.fine_tune import start_config, start_network

RANGE = DepthRange(1e-3, 10.0)
SIZE = (48, 64)
WIDTHS = (16, 16, 16, 16, 16)
CAMERA = {"focal": 51.9, "size": [48, 64]}


def tiny(**changes):
    return DepthNet("test_resnet", **({"depth_range": RANGE, "image_size": SIZE, "decoder_widths": WIDTHS} | changes))


def save(path, network):
    state = {f"network.{name}": value for name, value in network.state_dict().items()}
    save_plain(path, {"state_dict": state, RECORD_KEY: make_record(network)})
    return read_checkpoint(path)


def config(ckpt, **model):
    base = {"_target_": "depthnet.models.depth_net.DepthNet", "encoder": "inception_resnet_v2", "pretrained": "auto"}
    base |= {"encoder_pad": "default", "mean": None, "std": None, "head": "sigmoid", "attention": True}
    base |= {"depth_range": {"min": 0.1, "max": 20.0}, "image_size": [240, 320], "camera": "auto"}
    data = {"image_size": [240, 320], "depth_range": {"min": 0.1, "max": 20.0}}
    return OmegaConf.create({"ckpt": str(ckpt), "model": base | {"geometry": "keep_aspect"} | model, "data": data})


def start(cfg, words, caplog):
    """Return what is logged of a start from a checkpoint."""
    caplog.clear()
    with caplog.at_level("INFO", "depthnet"):
        start_config(cfg, words)
    return caplog.text


def test_the_record_supplies_network_range_size_geometry_and_camera(tmp_path, caplog):
    network = tiny(geometry="stretch", camera=CAMERA, mean=(0.5, 0.5, 0.25), attention=False)
    save(tmp_path / "a.ckpt", network)
    cfg = config(tmp_path / "a.ckpt")
    lines = start(cfg, ["experiment=own", "data.depth_range={min:0.1,max:20}"], caplog)
    assert OmegaConf.to_container(cfg.model) == {"_target_": "depthnet.models.depth_net.DepthNet", **network.config()}
    assert cfg.data.image_size == [48, 64]
    assert cfg.data.depth_range == {"min": 0.1, "max": 20.0}, "the data's own range masks and clamps"
    for words in (
        "model.encoder=test_resnet (the config has inception_resnet_v2)",
        "model.depth_range={'min': 0.001, 'max': 10.0} (the config has {'min': 0.1, 'max': 20.0})",
        "data.image_size=[48, 64] (the config has [240, 320])",
        "model.geometry=stretch (the config has keep_aspect)",
    ):
        assert words in lines


def test_words_of_the_command_line_win_over_the_record(tmp_path, caplog):
    save(tmp_path / "a.ckpt", tiny(camera=CAMERA))
    cfg = config(tmp_path / "a.ckpt", attention=False)
    lines = start(cfg, ["model.attention=false", "data.image_size=[240,320]"], caplog)
    assert cfg.model.attention is False
    assert cfg.model.encoder == "test_resnet"
    assert list(cfg.data.image_size) == list(cfg.model.image_size) == [240, 320]
    assert "model.encoder=test_resnet (the config has inception_resnet_v2)" in lines
    assert "attention" not in lines
    assert "image_size=" not in lines


def test_another_model_on_the_command_line_keeps_what_the_output_means(tmp_path, caplog):
    save(tmp_path / "a.ckpt", tiny(camera=CAMERA, mean=(0.5, 0.5, 0.25), encoder_pad="same"))
    cfg = config(tmp_path / "a.ckpt")
    start(cfg, ["model=irv2_attn"], caplog)
    assert cfg.model.encoder == "inception_resnet_v2"
    assert (cfg.model.mean, cfg.model.encoder_pad) == (None, "default"), "of another encoder"
    assert cfg.model.depth_range == {"min": 0.001, "max": 10.0}
    assert cfg.model.camera == CAMERA
    cfg = config(tmp_path / "a.ckpt", encoder="test_resnet")
    start(cfg, ["model=unet_attn", "model.encoder=test_resnet"], caplog)
    assert (list(cfg.model.mean), cfg.model.encoder_pad) == ([0.5, 0.5, 0.25], "same")


def test_data_without_a_range_of_their_own_have_the_checkpoints(tmp_path, caplog):
    save(tmp_path / "a.ckpt", tiny())
    cfg = config(tmp_path / "a.ckpt")
    cfg.data.depth_range = None
    assert "data.depth_range={'min': 0.001, 'max': 10.0} (the config states none)" in start(cfg, [], caplog)
    assert cfg.data.depth_range == {"min": 0.001, "max": 10.0}


def test_fine_tuning_takes_what_fits_and_refuses_another_network(tmp_path, caplog):
    network = tiny()
    save(tmp_path / "tiny.ckpt", network)
    other = tiny(decoder_widths=(16, 16, 16, 16, 8))
    with caplog.at_level("INFO", "depthnet"):
        start_network(other, reach(0.0)[1], tmp_path / "tiny.ckpt")
    assert torch.equal(next(other.encoder.parameters()), next(network.encoder.parameters()))
    assert any("in the checkpoint" in message for message in caplog.messages)
    with pytest.raises(InputError, match="tensors fit this network"):
        start_network(BasicNet(RANGE, (32, 48)), reach(0.0)[1], tmp_path / "tiny.ckpt")


@pytest.mark.parametrize("change", [{"depth_range": (0.1, 20.0)}, {"head": "log"}])
def test_a_head_of_another_range_or_kind_is_new_and_says_so(tmp_path, caplog, change):
    network = tiny()
    torch.nn.init.constant_(network.head.projection.weight, 3.0)
    save(tmp_path / "a.ckpt", network)
    same, other = tiny(), tiny(**change)
    start_network(same, reach(0.0)[1], tmp_path / "a.ckpt")
    start_network(other, reach(0.0)[1], tmp_path / "a.ckpt")
    assert torch.equal(same.head.projection.weight, network.head.projection.weight)
    assert other.head.projection.weight.abs().max() < 1
    assert any("new head" in message for message in caplog.messages)


def reach(share, focal=None, limits=(0.1, 20.0)):
    asked = []
    layout = SimpleNamespace(depth_range=DepthRange(*limits), count=lambda split: 1, intrinsics=lambda *_: None)
    return asked, SimpleNamespace(
        training_focal=lambda: focal, layout=layout, beyond_range=lambda *ends: asked.append(ends) or share
    )


def test_pixels_out_of_the_networks_range_are_reported_and_above_one_percent_refused(caplog):
    network = tiny(camera=CAMERA)
    line = "predicts 0.001 to 10 m and the data has 0.1 to 20 m: 0.90% of its valid pixels can never be predicted"
    start_network(network, reach(0.009)[1], None)
    assert line in caplog.text
    with pytest.raises(InputError, match=r"2\.00% of .*model\.depth_range='{min: 0\.1, max: 20}' for a new head"):
        start_network(network, reach(0.02)[1], None)
    start_network(network, reach(0.02)[1], None, any_range=True)
    asked, data = reach(0.0, focal=2 * CAMERA["focal"])
    start_network(network, data, None)
    assert asked == [(0.002, 20.0)], "twice the focal length reaches twice as far"


def test_the_training_camera_is_the_datas_once(tmp_path):
    for stated, camera, focal, found in (
        ("auto", None, 50.0, {"focal": 50.0, "size": [48, 64]}),
        ("auto", None, None, None),
        (CAMERA, CAMERA, 50.0, CAMERA),
        (None, None, 50.0, None),
    ):
        network = tiny(camera=camera)
        start_network(network, reach(0.0, focal=focal)[1], None, auto_camera=stated == "auto")
        assert network.camera == found
    network = tiny(camera=CAMERA)
    save(tmp_path / "a.ckpt", network)
    assert load_network(tmp_path / "a.ckpt").camera == CAMERA
    assert load_network(tmp_path / "a.ckpt", size=(96, 128)).camera == CAMERA, "its field of view stays"
    with pytest.raises(InputError, match=r"model\.camera=.*it is \{focal: PIXELS, size: \[height,width\]\}"):
        tiny(camera={"focal": -1, "size": [48, 64]})


def own_pairs(root, count=8, size=(48, 64), reach=0.0):
    """Pairs of a folder: depth of 1 to 4 m in millimeters, a share of it at 15 m."""
    rng = np.random.default_rng(0)
    for scene in ("attic", "hall"):
        (root / "images" / scene).mkdir(parents=True)
        (root / "depths" / scene).mkdir(parents=True)
        for number in range(count // 2):
            depth = np.linspace(4000, 1000, size[0])[:, None] + rng.integers(0, 200, size)
            depth.ravel()[: int(reach * depth.size)] = 15000
            image = rng.integers(0, 255, (*size, 3), dtype=np.uint8)
            Image.fromarray(image).save(root / "images" / scene / f"{number}.png")
            Image.fromarray(depth.astype(np.uint16)).save(root / "depths" / scene / f"{number}.png")
    return root


def test_the_own_pairs_example_keeps_the_shipped_network(train, tmp_path):
    root = own_pairs(tmp_path / "own")
    words = ["experiment=own", "ckpt=nyu_small", f"data.root={root}", "data.unit=mm", "trainer=cpu", "logger=none"]
    small = ["trainer.max_epochs=1", "trainer.limit_train_batches=1", "data.num_workers=0", "data.cache=none"]
    done = train(*words, *small, "data.batch_size=2", "hydra.run.dir=run")
    assert done.code == 0, done.err
    stored = OmegaConf.load("run/config.yaml")
    assert (stored.model.encoder, list(stored.data.image_size)) == ("mobilenetv2_100", [192, 256])
    assert "all weights loaded" in done.err
    again = read_checkpoint("run/checkpoints/best.ckpt").config
    assert {**again, "frozen_norm": False, "context": False} == {
        **read_checkpoint("nyu_small").config,
        "frozen_norm": False,
        "context": False,
    }
    wide = "data.depth_range={min: 0.1, max: 20}"
    far = own_pairs(tmp_path / "far", reach=0.05)
    done = train(*words[:2], f"data.root={far}", *words[3:], *small, wide, "data.batch_size=2", "hydra.run.dir=far_run")
    assert done.code == 2
    assert re.search(r"the network predicts 0.001 to 10 m and the data has 0.1 to 20 m: [45]\.\d\d% of", done.err)
    done = train(
        "mode=test", "ckpt=run", "data=folder", f"data.root={root}", "data.unit=mm", "data.image_size=[96,128]",
        "trainer=cpu", "logger=none", "data.num_workers=0", "hydra.run.dir=at_another_size",
    )  # fmt: skip
    assert done.code == 0, done.err
    record = json.loads((tmp_path / "at_another_size/metrics.json").read_text())
    assert record["data"]["image_size"] == [96, 128]
    assert OmegaConf.load("at_another_size/config.yaml").model.encoder == "mobilenetv2_100"
