"""depthnet.load: any form of a photograph gives the same depth, with its camera, and files that predict would write."""

import io
import json

import numpy as np
import pytest
from PIL import Image

import depthnet
from depthnet.core.camera import from_fov
from depthnet.core.types import InputError
from depthnet.inference.predict import predict_files


@pytest.fixture(scope="module")
def model():
    return depthnet.load("nyu_small", device="cpu")


@pytest.fixture
def photo(tmp_path):
    path = tmp_path / "room.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 90, 3), np.uint8)).save(path)
    return path


def test_every_form_of_a_photograph_gives_the_same_depth(model, photo):
    array = np.asarray(Image.open(photo))
    depth = model.infer(photo)
    assert (depth.shape, depth.dtype) == ((60, 90), np.float32)
    for form in (str(photo), Image.open(photo), array):
        np.testing.assert_array_equal(model.infer(form), depth)


def test_a_focal_length_scales_depth(model, photo):
    far, near = model.infer(photo, focal=160), model.infer(photo, focal=80)
    np.testing.assert_allclose(far, 2 * near, rtol=1e-5)
    seen = model.predict(np.asarray(Image.open(photo)), fov_x=60)
    assert (seen.intrinsics, seen.source) == (from_fov(60, (60, 90)), "stated")
    (photo.parent / "K.txt").write_text("80 80 44.5 29.5")
    assert model.predict(photo).source == "K.txt"
    np.testing.assert_array_equal(model.infer(photo), near)


def test_it_saves_what_the_command_writes(model, photo, tmp_path):
    paths = model.predict(photo, focal=80).save(tmp_path / "own")
    predict_files([photo], "nyu_small", tmp_path / "command", focal=80, device="cpu")
    assert [path.name for path in paths] == ["room_depth.npy", "room_depth.png", "room_color.png", "room.json"]
    for path in paths[:3]:
        assert path.read_bytes() == (tmp_path / "command" / path.name).read_bytes()
    own, command = (json.loads((tmp_path / folder / "room.json").read_text()) for folder in ("own", "command"))
    assert {key: own[key] for key in own if key not in ("source", "camera")}.items() <= command.items()


def test_a_prediction_is_a_picture_in_a_notebook(model, photo):
    picture = Image.open(io.BytesIO(model.predict(photo)._repr_png_()))
    assert picture.height == 96  # the least for a scale bar
    assert picture.width > 90


def test_what_cannot_be_is_one_line(model, photo):
    with pytest.raises(InputError, match="focal and fov_x both state the camera"):
        model.infer(photo, focal=80, fov_x=60)
    with pytest.raises(InputError, match="image: float64 of shape"):
        model.infer(np.zeros((4, 4, 3)))
    with pytest.raises(InputError, match="no such checkpoint"):
        depthnet.load("nyu_large")
    with pytest.raises(AttributeError, match="module 'depthnet' has no attribute 'lod'"):
        depthnet.lod  # noqa: B018
