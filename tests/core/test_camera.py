import json
import math
import shutil

import numpy as np
import pytest
from conftest import DATA
from PIL import Image

from depthnet.core.camera import (
    Intrinsics,
    find_camera,
    from_35mm,
    from_focal,
    from_fov,
    intrinsics_of_file,
)
from depthnet.core.types import InputError
from depthnet.data.layouts.official import NYU_INTRINSICS
from depthnet.data.rooms.raycast import intrinsics as rooms_intrinsics

CAMERA = Intrinsics(500.0, 501.0, 322.0, 238.0)
MATRIX = [[500.0, 0.0, 322.0], [0.0, 501.0, 238.0], [0.0, 0.0, 1.0]]
SIZE = (480, 640)


@pytest.mark.parametrize("size", [(192, 256), (240, 320), (120, 160)])
def test_nyus_camera_resized_is_the_rooms_to_the_bit(size):
    camera, rooms = Intrinsics(*NYU_INTRINSICS).resized(SIZE, size), Intrinsics(*rooms_intrinsics(size))
    assert np.array_equal(np.float32(camera), np.float32(rooms))
    assert camera.focal == rooms.focal


def test_a_resize_back_and_forth_keeps_the_camera():
    back = CAMERA.resized(SIZE, (123, 77)).resized((123, 77), SIZE)
    assert back == pytest.approx(CAMERA)
    assert CAMERA.resized(SIZE, SIZE) is CAMERA
    assert Intrinsics(481.2, -480.0, 319.5, 239.5).focal == math.sqrt(481.2 * 480)


def test_words_become_a_camera_with_its_center_in_the_middle():
    assert from_focal(500, SIZE) == (500, 500, 319.5, 239.5)
    assert from_fov(2 * math.degrees(math.atan(320 / 500)), SIZE) == pytest.approx((500, 500, 319.5, 239.5))
    assert from_35mm(math.hypot(36, 24), (300, 400)).fx == pytest.approx(500)
    assert from_35mm(36, (2400, 3600)).fx == pytest.approx(3600), "the film's own aspect: its width is the image's"


@pytest.mark.parametrize(
    "make",
    [
        *(lambda value=value: from_focal(value, SIZE) for value in (0, -500, math.nan, 26, 1e6)),
        *(lambda value=value: from_fov(value, SIZE) for value in (0, 180, -60, math.inf)),
    ],
)
def test_what_no_camera_has_is_refused(make):
    with pytest.raises(InputError, match=r"focal|fov_x") as caught:
        make()
    assert "\n" not in str(caught.value)


def lines(rows, separator=" "):
    return "\n".join(separator.join(map(str, row)) for row in rows)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("K.txt", lines(MATRIX)),
        ("K.txt", "# px\n" + lines(MATRIX, ", ") + "\n\n"),
        ("K.txt", "500 501 322 238"),
        ("K.txt", "500 0 322 0 501 238 0 0 1"),
        ("K.txt", str(MATRIX).replace("], ", "],\n")),
        ("K.txt", lines([[*row, 0] for row in MATRIX])),
        ("K.txt", lines([*([*row, 0] for row in MATRIX), [0, 0, 0, 1]], "\t")),
        ("intrinsics.json", json.dumps(CAMERA._asdict())),
        ("intrinsics.json", json.dumps({"K": MATRIX})),
        ("intrinsics.json", json.dumps({"K": MATRIX, "width": 640, "height": 480})),
        (
            "intrinsics.json",
            json.dumps({"fx": 250, "fy": 250.5, "cx": 160.75, "cy": 118.75, "width": 320, "height": 240}),
        ),
    ],
)
def test_files_of_intrinsics_are_read(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    assert intrinsics_of_file(tmp_path / name, SIZE) == CAMERA
    Image.new("RGB", (640, 480)).save(tmp_path / "photo.png")
    assert find_camera(tmp_path / "photo.png", SIZE) == (CAMERA, name)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\0",
        "a camera",
        "500",
        "500 501 322",
        lines(np.array(MATRIX).T.tolist()),
        lines(MATRIX[:2]),
        "nan 501 322 238",
        "0 501 322 238",
        lines([[500, 0], [322, 0, 501, 238], [0, 0, 1]]),
        "{",
        "{}",
        '{"fx": 500, "fy": 501, "cx": 322}',
        '{"fx": "wide", "fy": 501, "cx": 322, "cy": 238}',
        '{"K": 5}',
        '{"K": [[[500]]]}',
        '{"fx": 500, "fy": 501, "cx": 322, "cy": 238, "width": 640}',
        '{"fx": 500, "fy": 501, "cx": 322, "cy": 238, "width": 0, "height": 480}',
    ],
)
def test_a_file_of_anything_else_is_one_line(tmp_path, text):
    path = tmp_path / "K.txt"
    path.write_text(text)
    with pytest.raises(InputError, match=r"K\.txt: no intrinsics of a camera.*it holds a 3x3 matrix") as caught:
        intrinsics_of_file(path, SIZE)
    assert "\n" not in str(caught.value)


def test_a_file_that_cannot_be_read_is_one_line(tmp_path):
    for path in (tmp_path / "none.txt", tmp_path):
        with pytest.raises(InputError, match="cannot be read"):
            intrinsics_of_file(path, SIZE)


@pytest.mark.parametrize("size", [(240, 320), (960, 1280), (640, 480), (480, 480), (4800, 6400)])
def test_a_matrix_of_another_image_size_is_refused(tmp_path, size):
    (tmp_path / "K.txt").write_text(lines(MATRIX))
    with pytest.raises(InputError, match=r"K\.txt: fx 500, .* of another image size than"):
        intrinsics_of_file(tmp_path / "K.txt", size)
    (tmp_path / "intrinsics.json").write_text(json.dumps({"K": MATRIX, "width": 640, "height": 480}))
    if size[0] * 4 == size[1] * 3:
        found = intrinsics_of_file(tmp_path / "intrinsics.json", size)
        assert found == CAMERA.resized(SIZE, size)
    else:
        with pytest.raises(InputError, match=r"intrinsics\.json: .*of another aspect"):
            intrinsics_of_file(tmp_path / "intrinsics.json", size)


def photo(path, size=(48, 64), orientation=1, **focal):
    exif = Image.Exif()
    exif[0x0112] = orientation
    exif.get_ifd(0x8769).update({int(tag[1:], 16): value for tag, value in focal.items()})
    Image.new("RGB", size[::-1]).save(path, exif=exif)
    return path


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_a_photographs_exif_gives_its_camera(tmp_path, orientation):
    upright = (64, 48) if orientation in (6, 8) else (48, 64)
    path = photo(tmp_path / "a.jpg", orientation=orientation, xA405=26, x920A=4)
    assert find_camera(path, upright) == (from_35mm(26, upright), "EXIF 35-mm focal length 26 mm")


@pytest.mark.parametrize(
    "stated",
    [
        {},
        {"xA405": 0},
        {"xA405": 26, "xA002": 64, "xA003": 64},
    ],
    ids=["nothing", "unknown", "cropped since"],
)
def test_a_photograph_without_a_camera_has_none(tmp_path, stated):
    assert find_camera(photo(tmp_path / "a.jpg", **stated), (48, 64)) == (None, "")


def test_a_file_nearby_counts_before_exif_and_the_nearest_first(tmp_path):
    folder = tmp_path / "scene/images/left"
    folder.mkdir(parents=True)
    path = photo(folder / "a.jpg", SIZE, xA405=26)
    (tmp_path / "K.txt").write_text("450 450 320 240")
    assert find_camera(path, SIZE)[1].startswith("EXIF"), "three folders above"
    (tmp_path / "scene/K.txt").write_text(lines(MATRIX))
    assert find_camera(path, SIZE) == (CAMERA, "K.txt")
    shutil.copy(tmp_path / "K.txt", folder / "K.txt")
    assert find_camera(path, SIZE) == ((450, 450, 320, 240), "K.txt")
    assert find_camera(path, SIZE, top=folder) == ((450, 450, 320, 240), "K.txt")
    assert find_camera(path, SIZE, focal=400)[0].fx == 400, "what is stated counts first"


def test_a_real_matrix_is_read():
    if not (DATA / "samples/hololens").is_dir():
        pytest.skip("no real samples here")
    path = next((DATA / "samples/hololens/images").iterdir())
    camera, source = find_camera(path, (360, 540))
    assert camera == pytest.approx((495.57, 495.48, 269.50, 169.19), abs=0.01)
    assert source == "K.txt"
