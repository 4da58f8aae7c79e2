import pytest

from depthnet.data.roots import find_layout, open_root
from depthnet.types import InputError


def test_each_layout_is_known_by_its_files(make_lists, make_kaggle):
    assert find_layout(make_lists()) == "lists"
    assert find_layout(make_kaggle()) == "kaggle"


def test_a_missing_or_foreign_root_says_what_was_looked_for_and_how_to_get_data(tmp_path):
    for root in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(InputError) as caught:
            open_root(root)
        for word in (str(root), "nyudepthv2_train_files_with_gt.txt", "nyu2_train.csv", "data=rooms", "NYU_ROOT"):
            assert word in str(caught.value)


def test_a_layout_named_but_not_there_is_refused(make_lists):
    root = make_lists()
    with pytest.raises(InputError, match="no kaggle layout"):
        open_root(root, layout="kaggle")
    with pytest.raises(InputError, match="auto or one of lists, kaggle"):
        open_root(root, layout="tfrecord")
