import json
import math
import shutil

import numpy as np
import pytest
from conftest import DATA
from PIL import Image

from depthnet.core.camera import (
    Intrinsics,
    from_35mm,
    from_focal,
    from_fov,
    intrinsics_of_file,
    photo_intrinsics,
    read_intrinsics,
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
    assert CAMERA.cropped(10, 20) == (500, 501, 302, 228)
    assert CAMERA.flipped(640).flipped(640) == CAMERA
    assert Intrinsics(481.2, -480.0, 319.5, 239.5).focal == math.sqrt(481.2 * 480)


def test_words_become_a_camera_with_its_center_in_the_middle():
    assert from_focal(500, SIZE) == (500, 500, 319.5, 239.5)
    assert from_fov(2 * math.degrees(math.atan(320 / 500)), SIZE) == pytest.approx((500, 500, 319.5, 239.5))
    assert from_35mm(math.hypot(36, 24), (300, 400)).fx == pytest.approx(500)
    assert from_35mm(36, (2400, 3600)).fx == pytest.approx(3600), "the film's own aspect: its width is the image's"


@pytest.mark.parametrize(
    "make",
    [
        *(lambda value=value: from_focal(value, SIZE) for value in (0, -500, math.nan, 26, 1e6, "500", True)),
        *(lambda value=value: from_fov(value, SIZE) for value in (0, 180, -60, math.inf, None)),
        *(lambda value=value: from_35mm(value, SIZE) for value in (0, -26, math.nan)),
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
        ("intrinsics.txt", lines([*([*row, 0] for row in MATRIX), [0, 0, 0, 1]], "\t")),
        ("intrinsics.json", json.dumps(CAMERA._asdict())),
        ("camera.json", json.dumps({"K": MATRIX})),
        ("camera.json", json.dumps({"camera_matrix": MATRIX, "width": 640, "height": 480})),
        ("camera.json", json.dumps({"camera_matrix": {"rows": 3, "cols": 3, "data": np.ravel(MATRIX).tolist()}})),
        ("camera.json", json.dumps({"fx": 250, "fy": 250.5, "cx": 160.75, "cy": 118.75, "width": 320, "height": 240})),
    ],
)
def test_files_of_intrinsics_are_read(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    assert intrinsics_of_file(tmp_path / name, SIZE) == CAMERA
    Image.new("RGB", (640, 480)).save(tmp_path / "photo.png")
    assert photo_intrinsics(tmp_path / "photo.png", SIZE) == (CAMERA, name)


@pytest.mark.parametrize(
    "text",
    [
        "",
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
        read_intrinsics(path)
    assert "\n" not in str(caught.value)


def test_a_file_that_cannot_be_read_is_one_line(tmp_path):
    (tmp_path / "K.txt").write_bytes(b"\xff\xfe\x00")
    for path in (tmp_path / "K.txt", tmp_path / "none.txt", tmp_path):
        with pytest.raises(InputError, match="cannot be read"):
            read_intrinsics(path)


@pytest.mark.parametrize("size", [(240, 320), (960, 1280), (640, 480), (480, 480), (4800, 6400)])
def test_a_matrix_of_another_image_size_is_refused(tmp_path, size):
    (tmp_path / "K.txt").write_text(lines(MATRIX))
    with pytest.raises(InputError, match=r"K\.txt: fx 500, .* of another image size than"):
        intrinsics_of_file(tmp_path / "K.txt", size)
    (tmp_path / "camera.json").write_text(json.dumps({"K": MATRIX, "width": 640, "height": 480}))
    if size[0] * 4 == size[1] * 3:
        found = intrinsics_of_file(tmp_path / "camera.json", size)
        assert found == CAMERA.resized(SIZE, size)
    else:
        with pytest.raises(InputError, match=r"camera\.json: .*of another aspect"):
            intrinsics_of_file(tmp_path / "camera.json", size)


def photo(path, size=(48, 64), orientation=1, **focal):
    exif = Image.Exif()
    exif[0x0112] = orientation
    exif.get_ifd(0x8769).update({int(tag[1:], 16): value for tag, value in focal.items()})
    Image.new("RGB", size[::-1]).save(path, exif=exif)
    return path


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_a_photographs_exif_gives_its_camera(tmp_path, orientation):
    upright = (64, 48) if orientation in (6, 8) else (48, 64)
    path = photo(tmp_path / "a.jpg", orientation=orientation, xA405=26, x920A=4.2)
    assert photo_intrinsics(path, upright) == (from_35mm(26, upright), "EXIF 35-mm focal length 26 mm")
    # 4 mm on 20 pixels a mm is 80 px, and the file is a half of what the camera wrote
    path = photo(
        tmp_path / "b.jpg",
        orientation=orientation,
        **{"xA405": 0, "x920A": 4.0, "xA20E": 20.0, "xA20F": 22.0, "xA210": 4, "xA002": 128, "xA003": 96},
    )
    camera, source = photo_intrinsics(path, upright)
    expected = (44.0, 40.0) if orientation in (6, 8) else (40.0, 44.0)
    assert camera[:2] == pytest.approx(expected)
    assert camera[2:] == ((upright[1] - 1) / 2, (upright[0] - 1) / 2)
    assert source == "EXIF focal length 4 mm and sensor resolution"


@pytest.mark.parametrize(
    "stated",
    [
        {},
        {"xA405": 0},
        {"x920A": 4.0},
        {"x920A": 4.0, "xA20E": 0.0},
        {"x920A": 4.0, "xA20E": 1e9, "xA210": 4},
        {"xA405": 26, "xA002": 64, "xA003": 64},
    ],
    ids=["nothing", "unknown", "no resolution", "no number", "nonsense", "cropped since"],
)
def test_a_photograph_without_a_camera_has_none(tmp_path, stated):
    assert photo_intrinsics(photo(tmp_path / "a.jpg", **stated), (48, 64)) == (None, "")


def test_a_file_nearby_counts_before_exif_and_the_nearest_first(tmp_path):
    folder = tmp_path / "scene/images/left"
    folder.mkdir(parents=True)
    path = photo(folder / "a.jpg", SIZE, xA405=26)
    (tmp_path / "K.txt").write_text("450 450 320 240")
    assert photo_intrinsics(path, SIZE)[1].startswith("EXIF"), "three folders above"
    (tmp_path / "scene/K.txt").write_text(lines(MATRIX))
    assert photo_intrinsics(path, SIZE) == (CAMERA, "K.txt")
    shutil.copy(tmp_path / "K.txt", folder / "intrinsics.txt")
    assert photo_intrinsics(path, SIZE) == ((450, 450, 320, 240), "intrinsics.txt")


def test_a_json_file_of_another_program_is_no_camera(tmp_path):
    path = photo(tmp_path / "a.jpg", SIZE, xA405=26)
    (tmp_path / "camera.json").write_text(json.dumps({"camera_angle_x": 0.7, "frames": []}))
    assert photo_intrinsics(path, SIZE)[1].startswith("EXIF")
    (tmp_path / "camera.json").write_text(json.dumps({"K": "none"}))
    with pytest.raises(InputError, match=r"camera\.json"):
        photo_intrinsics(path, SIZE)


def test_a_real_matrix_is_read():
    if not (DATA / "samples/hololens").is_dir():
        pytest.skip("no real samples here")
    path = next((DATA / "samples/hololens/images").iterdir())
    camera, source = photo_intrinsics(path, (360, 540))
    assert camera == pytest.approx((495.57, 495.48, 269.50, 169.19), abs=0.01)
    assert source == "K.txt"
