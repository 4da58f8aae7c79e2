import pytest
from small_run import ROOMS

from depthnet.core.types import InputError
from depthnet.export.terms import NYU_LICENSE, find_origin, license_of
from depthnet.models.checkpoint import RECORD_KEY, make_record, save_plain
from depthnet.models.depth_net import DepthNet

NYU = {"_target_": "depthnet.data.datamodule.DepthDataModule.from_root", "layout": "auto"}
FOLDER = NYU | {"layout": "folder", "unit": "mm"}


def run(data, ckpt=None, pretrained=False):
    return {"data": data, "ckpt": ckpt, "model": {"encoder": "mobilenetv2_100", "pretrained": pretrained}}


@pytest.mark.parametrize(
    ("config", "layout", "expected"),
    [
        (run(ROOMS), "rooms", "mit"),
        (run(ROOMS, pretrained=True), None, "MIT, but the encoder began with pretrained weights, whose terms hold too"),
        (run(ROOMS, pretrained="a.safetensors"), None, "MIT, but the encoder began with pretrained weights"),
        (run(NYU), None, NYU_LICENSE),
        (run(NYU), "kaggle", NYU_LICENSE),
        (run(ROOMS, ckpt="nyu_small"), "rooms", NYU_LICENSE),  # began with what has seen NYU
        (run(ROOMS, ckpt="rooms_small"), "rooms", "MIT, but the encoder"),
        ({"averaged": ["a", "b"], "runs": [run(ROOMS), run(ROOMS | {"scene_seed": 1})]}, None, "mit"),
        ({"averaged": ["a", "b"], "runs": [run(ROOMS), run(NYU)]}, None, NYU_LICENSE),
    ],
)
def test_the_license_follows_from_what_was_trained_on(config, layout, expected):
    assert license_of(find_origin(config, layout)).startswith(expected)


@pytest.mark.parametrize(
    ("config", "layout", "message"),
    [
        (
            run(FOLDER),
            None,
            "the owner's own pairs; state the owner's choice, such as --license mit",
        ),
        (run(NYU), "folder", "the owner's choice"),
        (run(FOLDER | {"layout": "auto"}), None, "the owner's choice"),
        (run(FOLDER, ckpt="nyu_small"), None, "the owner's choice"),
        (run(ROOMS, ckpt="gone.ckpt"), None, "the training data of these weights are not known; state"),
        ({"averaged": ["a", "b"], "runs": [run(ROOMS), None]}, None, "are not known"),
        ({"averaged": ["a", "b"]}, None, "are not known"),
        (None, None, "are not known"),
    ],
)
def test_what_does_not_follow_has_to_be_stated(config, layout, message):
    with pytest.raises(InputError, match=message):
        license_of(find_origin(config, layout))


def test_starts_are_followed_through_runs_and_averages(tmp_path):
    net = DepthNet("test_resnet", depth_range=(1e-3, 10.0), image_size=(48, 64))
    state = {f"network.{name}": value for name, value in net.state_dict().items()}

    def save(name, config):
        save_plain(tmp_path / name, {"state_dict": state, RECORD_KEY: make_record(net, config)})
        return str(tmp_path / name)

    first = save("first/checkpoints/best.ckpt", run(NYU, pretrained=True))
    second = save("b.ckpt", {"averaged": ["a"], "runs": [run(ROOMS, str(tmp_path / "first")), run(ROOMS, first)]})
    origin = find_origin(run(ROOMS, second), "rooms")
    assert origin.data == {"nyu", "rooms"}
    assert origin.pretrained == {"mobilenetv2_100"}
    ring = str(tmp_path / "ring.ckpt")
    save("ring.ckpt", run(ROOMS, ring))  # no run can have it; it must not turn forever
    assert "unknown" in find_origin(run(ROOMS, ring)).data


def test_the_shipped_models_are_not_said_to_be_free():
    nyu, rooms = (find_origin(run(ROOMS, name)) for name in ("nyu_small", "rooms_small"))
    assert nyu.data == {"nyu", "rooms"}
    assert rooms.data == {"rooms"}
    assert all("mobilenetv2_100" in next(iter(origin.pretrained)) for origin in (nyu, rooms))
