import contextlib
import io
import os
import struct
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image

from depthnet.core.images import (
    depth_bits,
    image_size,
    read_depth,
    read_film_focal,
    read_image,
    resize_image,
    resize_nearest,
    write_depth_png,
    write_image_png,
)
from depthnet.core.types import InputError


@pytest.fixture
def colors():
    return np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)


def test_a_png_comes_back_as_it_was(tmp_path, colors):
    write_image_png(tmp_path / "a.png", colors)
    assert (read_image(tmp_path / "a.png") == colors).all()
    assert image_size(tmp_path / "a.png") == (5, 7)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_honored(tmp_path, orientation):
    upright = np.zeros((16, 24, 3), np.uint8)
    upright[:8, :8] = 255  # a bright top-left corner
    undo = {
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.transpose(1, 0, 2),
        6: lambda a: np.rot90(a, 1),
        7: lambda a: np.rot90(a.transpose(1, 0, 2), 2),
        8: lambda a: np.rot90(a, -1),
    }[orientation]
    stored = Image.fromarray(np.ascontiguousarray(undo(upright)))
    exif = stored.getexif()
    exif[0x0112] = orientation
    stored.save(tmp_path / "a.jpg", exif=exif, quality=100)
    image = read_image(tmp_path / "a.jpg")
    assert image.shape == (16, 24, 3)
    assert image_size(tmp_path / "a.jpg") == (16, 24)
    assert image[:7, :7].min() > 200
    assert image[9:].max() < 60


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA", "P", "CMYK", "1"])
def test_every_mode_becomes_rgb(tmp_path, mode):
    suffix = "jpg" if mode == "CMYK" else "png"
    Image.new(mode, (4, 3), "white" if mode != "P" else 0).save(tmp_path / f"a.{suffix}")
    image = read_image(tmp_path / f"a.{suffix}")
    assert (image.shape, image.dtype) == ((3, 4, 3), np.uint8)


def test_a_16_bit_photograph_is_scaled_not_clipped(tmp_path):
    Image.fromarray(np.array([[0, 0x8000, 0xFFFF]], np.uint16)).save(tmp_path / "a.png")
    assert read_image(tmp_path / "a.png")[0, :, 0].tolist() == [0, 128, 255]


def test_a_transparent_image_lies_on_white(tmp_path):
    Image.new("RGBA", (2, 2), (0, 0, 0, 0)).save(tmp_path / "a.png")
    assert (read_image(tmp_path / "a.png") == 255).all()


def test_every_truncation_is_an_error_that_names_the_file(tmp_path, colors):
    big = np.tile(colors, (12, 12, 1))
    for suffix in ("png", "jpg"):
        Image.fromarray(big).save(tmp_path / f"whole.{suffix}")
        content = (tmp_path / f"whole.{suffix}").read_bytes()
        for length in range(0, len(content) - 20, max(1, len(content) // 60)):
            (tmp_path / f"torn.{suffix}").write_bytes(content[:length])
            with pytest.raises(InputError, match=f"torn.{suffix}") as caught:
                read_image(tmp_path / f"torn.{suffix}")
            assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"text", b"GIF89a" + bytes(20), b"\x89PNG\r\n\x1a\n" + bytes(30)])
def test_other_files_are_refused(tmp_path, content):
    (tmp_path / "a.png").write_bytes(content)
    for read in (read_image, image_size):
        with pytest.raises(InputError, match=r"a\.png"):
            read(tmp_path / "a.png")


def test_missing_files_folders_and_pipes_are_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    for name in ("missing.png", ".", "pipe.png"):
        with pytest.raises(InputError, match=r"cannot be read|not a regular file"):
            read_image(tmp_path / name)


def test_a_bomb_is_refused_from_its_header(tmp_path):
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0))
    (tmp_path / "bomb.png").write_bytes(b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", b"") + chunk(b"IEND", b""))
    with pytest.raises(InputError, match="cannot be read"):
        read_image(tmp_path / "bomb.png")


def test_16_bit_millimeters_are_read_to_the_millimeter(tmp_path):
    Image.fromarray(np.array([[0, 2500, 65535]], np.uint16)).save(tmp_path / "d.png")
    assert np.allclose(read_depth(tmp_path / "d.png", 1e-3, 16), [[0, 2.5, 65.535]], atol=1e-6)


def test_8_bit_depth_takes_one_channel_or_three_equal_ones(tmp_path):
    levels = np.array([[0, 51, 255]], np.uint8)
    Image.fromarray(levels).save(tmp_path / "one.png")
    Image.fromarray(np.repeat(levels[:, :, None], 3, axis=2)).save(tmp_path / "three.png")
    for name in ("one.png", "three.png"):
        assert np.allclose(read_depth(tmp_path / name, 10 / 255, 8), [[0, 2, 10]], atol=1e-5)


def test_the_wrong_bit_depth_and_a_colored_picture_are_refused(tmp_path, colors):
    Image.fromarray(np.zeros((2, 2), np.uint8)).save(tmp_path / "eight.png")
    Image.fromarray(np.zeros((2, 2), np.uint16)).save(tmp_path / "sixteen.png")
    Image.fromarray(colors).save(tmp_path / "color.png")
    Image.new("P", (2, 2)).save(tmp_path / "palette.png")
    for name, bits, words in (
        ("eight.png", 16, "8-bit depth where 16-bit"),
        ("sixteen.png", 8, "16-bit depth where 8-bit"),
        ("color.png", 8, "a picture in color"),
        ("palette.png", 8, "a picture in color or two levels"),
    ):
        with pytest.raises(InputError, match=words):
            read_depth(tmp_path / name, 1e-3, bits)


def test_resizing_down_averages_all_that_is_covered():
    stripes = np.zeros((8, 64, 3), np.uint8)
    stripes[:, ::2] = 200
    small = resize_image(stripes, (4, 8))
    assert small[:, 1:-1].min() > 85
    assert small[:, 1:-1].max() < 115


def test_an_image_of_the_right_size_is_untouched(colors):
    assert resize_image(colors, (5, 7)) is colors


def test_depth_is_only_ever_picked():
    depth = np.random.default_rng(1).uniform(1, 9, (37, 53)).astype(np.float32)
    for size in ((10, 11), (74, 106), (1, 1), (53, 37)):
        assert np.isin(resize_nearest(depth, size), depth).all()


def test_resize_nearest_takes_pixel_centres():
    ramp = np.arange(12, dtype=np.float32)[None]
    assert resize_nearest(ramp, (1, 4)).tolist() == [[1, 4, 7, 10]]
    assert resize_nearest(ramp, (1, 24)).tolist()[0] == [float(i // 2) for i in range(24)]


def test_depth_png_holds_millimeters_and_0_for_what_is_missing(tmp_path):
    depth = np.array([[0.0004, 2.5004, np.nan, np.inf, 70.0, -1.0]], np.float32)
    write_depth_png(tmp_path / "d.png", depth)
    assert np.asarray(Image.open(tmp_path / "d.png")).tolist() == [[0, 2500, 0, 0, 65535, 0]]


def _png_header(path, width, height, filling=0):
    """Write a PNG file of which only the header is true, with so many bytes in the place of pixels."""

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", bytes(filling)) + chunk(b"IEND", b""))


def test_what_the_largest_phones_take_is_no_bomb(tmp_path):
    path = tmp_path / "x.png"
    _png_header(path, 16_320, 12_240, filling=2_000_000)  # 199.8 megapixels, above Pillow's own bound
    image_size(path)
    _png_header(path, 16_320, 12_260)
    with pytest.raises(InputError, match="at most 200000000 are read"), pytest.warns(Image.DecompressionBombWarning):
        image_size(path)
    _png_header(path, 4_000, 4_000)  # one color, such as a mask
    image_size(path)


def test_an_orientation_that_is_no_number_is_none(tmp_path):
    path = tmp_path / "x.png"
    Image.new("RGB", (8, 6)).save(path, exif=b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x02\0\x04\0\0\0abc\0\0\0\0\0")
    assert image_size(path) == (6, 8)
    assert read_image(path).shape == (6, 8, 3)


def test_false_metadata_is_refused_and_never_escapes(tmp_path):
    """Whatever a few changed bytes do to a file with EXIF, it is read or refused with one line."""
    picture = np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112], exif[0x010E], exif[0x8769] = 6, "text", {0x9003: "2020"}
    rng = np.random.default_rng(0)
    path = tmp_path / "x"
    for kind in ("JPEG", "PNG"):
        buffer = io.BytesIO()
        Image.fromarray(picture).save(buffer, kind, exif=exif)
        for _ in range(600):
            data = bytearray(buffer.getvalue())
            start = data.index(b"eXIf" if kind == "PNG" else b"Exif")
            for place in rng.integers(start, start + 100, 3):
                data[place] = rng.choice([0, 1, 2, 127, 255])
            if kind == "PNG":
                length = int.from_bytes(data[start - 4 : start], "big")
                if start + 4 + length < len(data):
                    data[start + 4 + length : start + 8 + length] = struct.pack(
                        ">I", zlib.crc32(data[start : start + 4 + length])
                    )
            path.write_bytes(data)
            for read in (read_image, image_size):
                with contextlib.suppress(InputError), warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    read(path)


def test_the_size_of_a_png_is_read_without_its_pixels_and_exif_behind_them_counts_for_neither(tmp_path, monkeypatch):
    exif = Image.Exif()
    exif[0x0112] = 6
    path = tmp_path / "a.png"
    Image.new("RGB", (8, 6)).save(path, exif=exif)
    content = path.read_bytes()
    start = content.index(b"eXIf") - 4
    end = start + 12 + int.from_bytes(content[start : start + 4], "big")
    path.write_bytes(content[:start] + content[end:-12] + content[start:end] + content[-12:])
    assert image_size(path) == read_image(path).shape[:2] == (6, 8)
    monkeypatch.setattr("PIL.PngImagePlugin.PngImageFile.load", None)
    assert image_size(path) == (6, 8)


def test_damaged_exif_states_no_lens(tmp_path, monkeypatch):
    path = tmp_path / "a.jpg"
    Image.new("RGB", (8, 6)).save(path)

    def damaged(*_):
        raise SyntaxError

    monkeypatch.setattr("PIL.Image.Exif.get_ifd", damaged)
    assert read_film_focal(path) == 0


@pytest.mark.parametrize("head", [b"RIFF\x24\x00\x00\x00WEBPVP8 ", b"II*\x00\x08\x00\x00\x00", b"404 "])
def test_files_of_other_kinds_are_named_with_what_to_do(tmp_path, head):
    path = tmp_path / "photo.jpg"
    path.write_bytes(head * 10)
    for read in (read_image, image_size, depth_bits, lambda path: read_depth(path, 1e-3, 16)):
        with pytest.raises(InputError, match=r"photo\.jpg: not a PNG or JPEG image; .* convert it") as error:
            read(path)
        assert error.value.finding == "unreadable"
