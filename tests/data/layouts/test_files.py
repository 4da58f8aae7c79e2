import numpy as np
import pytest

from depthnet.core.types import InputError
from depthnet.data.layouts.files import split_rows
from depthnet.data.layouts.registry import open_root


def test_a_list_that_is_no_text_is_named(tmp_path):
    (tmp_path / "list.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match=r"list\.txt: not a UTF-8 text file of rows"):
        split_rows(tmp_path / "list.txt")


@pytest.mark.parametrize("content", [b"", b"\n \n"])
def test_lists_without_rows_are_refused(tmp_path, content):
    (tmp_path / "nyu_train.txt").write_bytes(content)
    with pytest.raises(InputError, match=r"no pairs there$"):
        open_root(tmp_path)
    (tmp_path / "nyu_train.txt").write_bytes(content + b"only.jpg\n")
    with pytest.raises(InputError, match=r"no pairs there \(nyu_train\.txt:\d: 'only\.jpg' is no image, depth"):
        open_root(tmp_path)


def test_rows_keep_their_line_numbers_over_blank_lines_and_a_byte_order_mark(tmp_path):
    (tmp_path / "list.txt").write_bytes(b"\xef\xbb\xbfa b 1\r\n\r\nc d 2\r\n")
    assert split_rows(tmp_path / "list.txt") == [
        ("list.txt:1", ["a", "b", "1"]),
        ("list.txt:3", ["c", "d", "2"]),
    ]


def test_depth_and_image_of_different_sizes_are_refused_by_row(make_lists):
    from PIL import Image

    root = make_lists()
    Image.fromarray(np.full((10, 10), 1000, np.uint16)).save(root / "train/sync_depth_00002.png")
    layout = open_root(root)
    with pytest.raises(InputError, match=r"train_files_with_gt.txt:3: .*64x48.*10x10"):
        layout.read("train", 2)


def test_the_identity_follows_files_rows_and_unit(make_kaggle):
    root = make_kaggle()
    first = open_root(root).identity()
    assert first == open_root(root).identity()
    (root / "data/nyu2_train.csv").write_text("\n".join((root / "data/nyu2_train.csv").read_text().split()[1:]))
    second = open_root(root).identity()
    image = next((root / "data/nyu2_train").rglob("2.jpg"))
    image.write_bytes(image.read_bytes() + b" ")
    assert len({first, second, open_root(root).identity()}) == 3
