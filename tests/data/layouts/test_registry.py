import argparse

import pytest
from drawing import millimetres, picture
from PIL import Image

from depthnet.core.atomic_io import cache_folder
from depthnet.core.types import InputError
from depthnet.data.layouts.registry import LAYOUTS, add_source_options, open_root, source_options


def make_folder(root):
    for folder, what in (("images", picture), ("depths", millimetres)):
        for scene in ("attic", "cellar"):
            (root / folder / scene).mkdir(parents=True)
            Image.fromarray(what(1, (48, 64))).save(root / folder / scene / "1.png")
    return root


def test_each_layout_is_known_by_its_files(make_lists, make_kaggle, tmp_path):
    assert open_root(make_lists()).name == "lists"
    assert open_root(make_kaggle()).name == "kaggle"
    assert open_root(make_folder(tmp_path / "own"), unit="mm", depth_range=[0.1, 20]).name == "folder"


def test_a_missing_or_foreign_root_says_what_was_looked_for_and_how_to_get_data(tmp_path):
    for root in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(InputError) as caught:
            open_root(root)
        for word in (str(root), *(kind.known_by for kind in LAYOUTS.values()), "download", "data=rooms", "NYU_ROOT"):
            assert word in str(caught.value)


def test_a_root_that_is_a_file_or_empty_is_one_line_without_misleading_advice(make_lists, tmp_path):
    root = make_lists()
    with pytest.raises(InputError, match=r"train_files_with_gt\.txt: no data there \(looked for nyu_depth"):
        open_root(root / "nyudepthv2_train_files_with_gt.txt")
    with pytest.raises(
        InputError, match=r"no folder layout there \(looked for pairs\.csv or images/ and depths/ \(folder\)\)$"
    ):
        open_root(root, layout="folder", unit="mm", depth_range=[0.1, 20])
    for name in ("images", "depths"):
        (tmp_path / "own" / name).mkdir(parents=True)
    with pytest.raises(InputError, match=r"own: no pairs there$"):
        open_root(tmp_path / "own", unit="mm", depth_range=[0.1, 20])


def test_a_root_of_two_layouts_needs_a_word(make_lists):
    root = make_folder(make_lists())
    with pytest.raises(InputError, match=r"holds lists and folder; choose with data\.layout=lists"):
        open_root(root)
    assert open_root(root, layout="lists").name == "lists"


def test_a_layout_named_but_not_there_is_refused(make_lists):
    root = make_lists()
    with pytest.raises(InputError, match="no kaggle layout"):
        open_root(root, layout="kaggle")
    with pytest.raises(InputError, match="auto or one of labelled, lists, kaggle, h5, folder"):
        open_root(root, layout="tfrecord")


@pytest.mark.parametrize("option", [{"unit": "mm"}, {"lists": "there"}, {"test_root": "there"}])
def test_an_option_that_means_nothing_to_a_layout_is_refused(make_kaggle, option):
    with pytest.raises(InputError, match=rf"data\.{next(iter(option))}=.*means nothing to the kaggle layout"):
        open_root(make_kaggle(), layout="kaggle", **option)


def test_a_command_line_says_what_a_config_says(tmp_path):
    root = make_folder(tmp_path / "own")
    parser = argparse.ArgumentParser()
    add_source_options(parser)
    options = source_options(parser.parse_args(["--unit", "10/255", "--depth-range", "0.1", "20"]))
    layout = open_root(root, **options)
    assert (layout.depth_range.min, layout.depth_range.max) == (0.1, 20)
    assert layout.meters_per_level("train", 0) == 10 / 255


def test_the_cache_lies_where_it_is_stated(monkeypatch, tmp_path):
    assert cache_folder(tmp_path / "here") == tmp_path / "here"
    monkeypatch.setenv("DEPTHNET_CACHE", str(tmp_path / "there"))
    assert cache_folder() == tmp_path / "there"
    monkeypatch.delenv("DEPTHNET_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "depthnet"
