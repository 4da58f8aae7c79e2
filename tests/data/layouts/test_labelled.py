import os
import pickle
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
from mat_file import NAMES, USER_BLOCK, random_frames, write_mat

from depthnet.core.types import InputError
from depthnet.data.layouts.labelled import LABELLED_FILE, LabelledLayout
from depthnet.data.layouts.layout import Source
from depthnet.data.layouts.official import TEST_FRAMES

FRAMES = random_frames(24, (24, 32))


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("nyu") / LABELLED_FILE
    write_mat(path, FRAMES)
    return path


@pytest.fixture
def damaged(whole, tmp_path) -> Path:
    path = tmp_path / LABELLED_FILE
    path.write_bytes(whole.read_bytes())
    return path


def numbers(layout, split):
    return [int(layout.label(split, frame).removeprefix("rgb_")) for frame in range(layout.count(split))]


def frames_of(layout):
    return [(split, frame) for split in ("train", "val", "test") for frame in range(layout.count(split))]


def test_the_fixture_is_a_matlab_file_with_reversed_axes(whole):
    assert whole.read_bytes()[:19] == b"MATLAB 7.3 MAT-file"
    with h5py.File(whole) as file:
        assert file.userblock_size == USER_BLOCK
        assert file["images"].shape == (24, 3, 32, 24)


@pytest.mark.parametrize("ground_truth", ["filled", "raw", "auto"])
def test_pairs_are_bit_equal_and_the_right_way_round(whole, ground_truth):
    layout = LabelledLayout(Source(whole, ground_truth=ground_truth))
    assert layout.ground_truth == ("raw" if ground_truth == "raw" else "filled")
    for split, frame in frames_of(layout):
        expected = FRAMES[int(layout.label(split, frame)[-5:])]
        image, depth = layout.read(split, frame)
        assert (image.dtype, image.shape, depth.dtype) == (np.uint8, (24, 32, 3), np.float32)
        assert image.flags.c_contiguous
        assert depth.flags.c_contiguous
        np.testing.assert_array_equal(image, expected.image)
        np.testing.assert_array_equal(depth, expected.raw if ground_truth == "raw" else expected.depth)
        np.testing.assert_array_equal(layout.objects(split, frame), expected.labels)
        assert layout.size(split, frame) == (24, 32)
        assert layout.scene_type(split, frame) == expected.scene_type
        assert layout.recording(split, frame) == expected.scene == layout.scene(split, frame) + expected.scene[-1]
    assert layout.objects("train", 0).dtype == np.uint16
    assert layout.object_names == ("unlabelled", *NAMES)


def test_the_splits_are_the_official_ones_with_scenes_held_out(whole):
    layout = LabelledLayout(Source(whole))
    assert numbers(layout, "test") == [0, 1, 8, 13, 14, 15, 16, 17, 20]
    assert sorted(numbers(layout, "train") + numbers(layout, "val")) == [n for n in range(24) if n not in TEST_FRAMES]
    scenes = {split: {layout.scene(split, i) for i in range(layout.count(split))} for split in ("train", "val")}
    assert scenes["val"]
    assert not scenes["train"] & scenes["val"]
    assert layout.count("other") == 0
    single = LabelledLayout(Source(whole, val="random_frames"))
    assert single.count("val") == 1


def test_a_frame_says_where_it_lies(whole):
    layout = LabelledLayout(Source(whole.parent))
    assert layout.label("test", 2) == "rgb_00008"
    assert layout.where("test", 2) == f"{LABELLED_FILE}: frame 8 (counted from 0)"
    assert layout.files("test", 2) == ()
    assert layout.meters_per_level("test", 2) is None
    assert layout.intrinsics("test", 2).fx == 518.8579 * (32 / 640), "NYU's at 640x480"
    assert layout.notes == [f"{LABELLED_FILE}: 24 of 1449 frames"]
    assert (layout.depth_range.min, layout.depth_range.max) == (1e-3, 10.0)


def test_it_is_known_by_its_name_or_suffix(whole, tmp_path):
    assert LabelledLayout.holds(Source(whole))
    assert LabelledLayout.holds(Source(whole.parent))
    assert not LabelledLayout.holds(Source(tmp_path))
    (tmp_path / "other.txt").write_text("")
    assert not LabelledLayout.holds(Source(tmp_path / "other.txt"))


def test_the_identity_follows_the_file_the_truth_and_the_split(whole, damaged):
    sources = [Source(whole), Source(whole, ground_truth="raw"), Source(whole, val="random_frames")]
    digests = [LabelledLayout(source).identity() for source in sources]
    assert len(set(digests)) == 3
    assert LabelledLayout(Source(whole)).identity() == digests[0]
    os.utime(damaged, ns=(1, 1))
    assert LabelledLayout(Source(damaged)).identity() not in digests


def read_all(layout):
    return [array.tobytes() for split, frame in frames_of(layout) for array in layout.read(split, frame)]


def test_a_copy_and_a_forked_process_read_for_themselves(whole):
    layout = LabelledLayout(Source(whole))
    expected = read_all(layout)
    child = os.fork()
    if not child:
        os._exit(0 if read_all(layout) == expected else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert read_all(pickle.loads(pickle.dumps(layout))) == expected


def refused(path, match=None):
    with pytest.raises(InputError, match=match) as caught:
        read_all(LabelledLayout(Source(path)))
    assert "\n" not in str(caught.value)
    assert "depthnet data download" in str(caught.value)
    assert LABELLED_FILE in str(caught.value)
    return caught.value


def test_a_file_that_ends_anywhere_is_refused_when_opened(damaged):
    data = damaged.read_bytes()
    cuts = {0, 1, 100, 511, 512, 513, 520, 600, 700, 1000, 1500, 2048, len(data) - 1, *range(0, len(data), 30_001)}
    for cut in sorted(cuts):
        damaged.write_bytes(data[:cut])
        assert refused(damaged).finding in ("torn", "empty"), cut


def test_a_torn_frame_is_told_with_its_number_and_the_others_are_read(damaged):
    with h5py.File(damaged) as file:
        piece = file["depths"].id.get_chunk_info(5)
    with damaged.open("r+b") as file:
        file.seek(piece.byte_offset)
        old = file.read(piece.size)
        file.seek(piece.byte_offset)
        file.write(bytes(byte ^ 0xFF for byte in old))
    layout = LabelledLayout(Source(damaged))
    outcomes = {}
    for split, frame in frames_of(layout):
        try:
            layout.read(split, frame)
        except InputError as error:
            outcomes[int(layout.label(split, frame)[-5:])] = error
    first = piece.chunk_offset[0]
    assert sorted(outcomes) == list(range(first, first + 4))
    assert outcomes[first].finding == "torn"
    assert f"{LABELLED_FILE}: frame {first} (counted from 0): cannot be read" in str(outcomes[first])


def test_what_is_no_such_file_is_told(damaged):
    damaged.write_bytes(b"MATLAB 5.0 MAT-file, Platform: GLNX86".ljust(124) + b"\x00\x01IM" + bytes(2000))
    refused(damaged, r"no MATLAB file of version 7\.3")
    damaged.unlink()
    assert refused(damaged, "no such file").finding == "missing"


def edit(path):
    """Open another file of the same name and content for writing: HDF5 would not write what a layout holds open."""
    shutil.copy(path, path.with_suffix(".new"))
    path.with_suffix(".new").replace(path)
    return h5py.File(path, "r+")


def replace(path, name, data=None, **options):
    with edit(path) as file:
        del file[name]
        if data is not None:
            file.create_dataset(name, data=data, **options)


@pytest.mark.parametrize("name", ["images", "depths", "labels", "scenes", "sceneTypes", "names"])
def test_a_missing_or_misformed_array_is_told(damaged, name):
    replace(damaged, name, np.zeros((3, 3), np.int16))
    refused(damaged, f"{name} holds int16")
    replace(damaged, name)
    refused(damaged, f"has no {name};")


@pytest.mark.parametrize(
    ("name", "data", "match"),
    [
        ("depths", np.ones((24, 32, 24)), "depths holds float64, not float32"),
        ("depths", np.ones((24, 32, 24), ">f4"), "depths holds >f4, not float32"),
        ("depths", np.ones((24, 32), np.float32), "depths has the shape"),
        ("depths", np.ones((0, 32, 24), np.float32), "depths has the shape"),
        ("depths", np.ones((1450, 1, 1), np.float32), "depths has the shape"),
        ("images", np.ones((24, 3, 24, 32), np.uint8), r"images has the shape .* not \(24, 3, 32, 24\)"),
        ("images", np.ones((24, 3, 32, 24), np.uint16), "images holds uint16, not uint8"),
        ("labels", np.ones((23, 32, 24), np.uint16), "labels has the shape"),
    ],
)
def test_another_type_or_shape_is_refused(damaged, name, data, match):
    replace(damaged, name, data)
    refused(damaged, match)


def test_an_absurd_size_is_refused_from_its_shape(damaged):
    with edit(damaged) as file:
        del file["depths"]
        file.create_dataset("depths", (24, 10**6, 10**6), np.float32, chunks=(1, 64, 64))
    refused(damaged, "depths has the shape")


def test_nothing_outside_the_file_is_ever_read(damaged, whole):
    virtual = h5py.VirtualLayout((24, 32, 24), np.float32)
    virtual[:] = h5py.VirtualSource(str(whole), "depths", (24, 32, 24))
    elsewhere = [(os.devnull, 0, h5py.h5f.UNLIMITED)]
    for leads in (
        lambda file: file.__setitem__("depths", h5py.ExternalLink(str(whole), "/depths")),
        lambda file: file.__setitem__("depths", h5py.SoftLink("/rawDepths")),
        lambda file: file.create_virtual_dataset("depths", virtual),
        lambda file: file.create_dataset("depths", (24, 32, 24), np.float32, external=elsewhere),
        lambda file: file.create_group("depths"),
    ):
        with edit(damaged) as file:
            del file["depths"]
            leads(file)
        refused(damaged, "depths is no array in the file itself")


def test_a_cell_that_holds_no_text_is_refused(damaged):
    with edit(damaged) as file:
        references = [h5py.Reference(), file["#refs#"].ref]
        kept = file["scenes"][0, 3]
    for reference in references:
        with edit(damaged) as file:
            file["scenes"][0, 3] = reference
        refused(damaged)
    with edit(damaged) as file:
        file["scenes"][0, 3] = kept
    LabelledLayout(Source(damaged))


def test_a_scene_for_each_frame(damaged):
    with edit(damaged) as file:
        few = file["scenes"][:, :7]
        del file["scenes"]
        file.create_dataset("scenes", data=few, dtype=h5py.ref_dtype)
    refused(damaged, r"scenes has the shape \(1, 7\)")
