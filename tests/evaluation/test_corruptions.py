import numpy as np
import pytest
from drawing import picture

from depthnet.evaluation.corruptions import CORRUPTIONS, STRENGTHS

TEXTURE = np.random.default_rng(0).integers(-20, 21, (240, 320, 3))
IMAGE = np.clip(picture(3, (240, 320)) + TEXTURE, 0, 255).astype(np.uint8)


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_a_corruption_gives_another_picture_of_the_same_form_every_time(name):
    before = IMAGE.copy()
    corrupted = CORRUPTIONS[name](IMAGE, 1)
    assert (corrupted.shape, corrupted.dtype) == (IMAGE.shape, np.uint8)
    assert (corrupted == CORRUPTIONS[name](IMAGE, 1)).all()
    assert (before == IMAGE).all()
    assert 1 < np.abs(corrupted.astype(int) - IMAGE).mean() < 120
    assert name in STRENGTHS


def test_light_is_a_factor_in_linear_light():
    gray = np.full((2, 2, 3), 188, np.uint8)  # half of white's light
    assert CORRUPTIONS["dark"](gray, 0)[0, 0, 0] == 99  # an eighth
    assert CORRUPTIONS["bright"](gray, 0)[0, 0, 0] == 255
    assert CORRUPTIONS["bright"](np.zeros((2, 2, 3), np.uint8), 0).max() == 0


def test_contrast_keeps_the_mean_and_blur_takes_detail():
    assert abs(CORRUPTIONS["contrast"](IMAGE, 0).mean() - IMAGE.mean()) < 1
    assert CORRUPTIONS["contrast"](IMAGE, 0).std() == pytest.approx(0.4 * IMAGE.std(), rel=0.05)
    fine = np.random.default_rng(0).integers(0, 256, (480, 640, 3), dtype=np.uint8)
    assert CORRUPTIONS["blur"](fine, 0).std() < 0.3 * fine.std()


def test_noise_follows_its_seed_and_strength():
    flat = np.full((200, 200, 3), 128, np.uint8)
    assert CORRUPTIONS["noise"](flat, 1).std() == pytest.approx(0.08 * 255, rel=0.02)
    assert (CORRUPTIONS["noise"](flat, 1) != CORRUPTIONS["noise"](flat, 2)).any()
