import numpy as np
import pytest
from mat_file import random_frames, write_mat
from PIL import Image

from depthnet.core.types import InputError
from depthnet.data.layouts.labelled import LABELLED_FILE, LabelledLayout
from depthnet.data.layouts.layout import Source
from depthnet.data.layouts.lists import ListsLayout
from depthnet.data.prepare import prepare

FRAMES = random_frames(9, (24, 32))
SPLITS = ("train", "val", "test")


@pytest.fixture(scope="module")
def mat(tmp_path_factory):
    path = tmp_path_factory.mktemp("nyu") / LABELLED_FILE
    write_mat(path, FRAMES)
    return path


def all_files(out):
    return {str(path.relative_to(out)): path.read_bytes() for path in out.rglob("*") if path.is_file()}


@pytest.mark.parametrize("ground_truth", ["raw", "filled"])
def test_the_files_hold_what_the_mat_holds(mat, tmp_path, ground_truth):
    calls = []
    prepare(mat, tmp_path / "out", ground_truth, lambda done, total: calls.append((done, total)))
    assert calls == [(done, 9) for done in range(1, 10)]
    source, files = LabelledLayout(Source(mat, ground_truth=ground_truth)), ListsLayout(Source(tmp_path / "out"))
    assert files.ground_truth == ground_truth
    assert files.findings == []
    for split in SPLITS:
        assert files.count(split) == source.count(split) > 0
        for frame in range(files.count(split)):
            image, depth = files.read(split, frame)
            expected_image, expected_depth = source.read(split, frame)
            np.testing.assert_array_equal(image, expected_image)
            np.testing.assert_array_equal(depth, expected_depth)
            assert files.scene(split, frame) == source.scene(split, frame)
            assert files.label(split, frame) == f"{source.recording(split, frame)}/{source.label(split, frame)}"


def test_a_row_names_image_depth_and_focal_length(mat, tmp_path):
    prepare(mat.parent, tmp_path)
    rows = (tmp_path / "nyudepthv2_test_files_with_gt.txt").read_text().splitlines()
    scene = FRAMES[8].scene
    assert rows[2] == f"{scene}/rgb_00008.png {scene}/sync_depth_00008.png 518.8579"
    with Image.open(tmp_path / rows[2].split()[1]) as depth:
        assert depth.mode.startswith("I;16")
        np.testing.assert_array_equal(np.asarray(depth), np.rint(FRAMES[8].depth * 1000))


def test_depth_moves_by_at_most_half_a_millimeter(tmp_path):
    rng = np.random.default_rng(0)
    frames = [
        frame._replace(depth=rng.uniform(0.5, 10, frame.depth.shape).astype(np.float32)) for frame in random_frames(8)
    ]
    frames[2].depth[0, :2] = np.nan, -1
    write_mat(tmp_path / LABELLED_FILE, frames)
    prepare(tmp_path, tmp_path / "out")
    source, files = LabelledLayout(Source(tmp_path)), ListsLayout(Source(tmp_path / "out"))
    for split in SPLITS:
        for frame in range(files.count(split)):
            depth, expected = files.read(split, frame)[1], source.read(split, frame)[1]
            good = expected > 0
            assert np.abs(depth - expected)[good].max() <= 0.5e-3 + 1e-6
            assert (depth[~good] == 0).all()


def test_it_resumes_after_an_interruption(mat, tmp_path):
    out = tmp_path / "out"

    def stop(done, total):
        if done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare(mat, out, advance=stop)
    assert not list(out.glob("*.txt"))
    kept = {path: path.stat().st_mtime_ns for path in out.glob("*/*.png")}
    assert len(kept) == 10
    image, depth = sorted(out.glob("*/rgb_*"))[0], sorted(out.glob("*/sync_*"))[1]
    image.unlink()
    depth.unlink()
    (image.parent / ".rgb_00000.png.0123abcd.part").write_bytes(b"left by a kill")
    prepare(mat, out)
    prepare(mat, tmp_path / "at once")
    assert all_files(out) == all_files(tmp_path / "at once")
    assert sum(path.stat().st_mtime_ns == time for path, time in kept.items()) == 6  # of the pairs that were whole
    before = all_files(out)
    prepare(mat, out)
    assert all_files(out) == before


def test_the_list_of_train_comes_last(mat, tmp_path, monkeypatch):
    written = []
    monkeypatch.setattr("depthnet.data.prepare.write_text", lambda path, text: written.append(path.name))
    prepare(mat, tmp_path / "out")
    assert written[-1] == "nyudepthv2_train_files_with_gt.txt"
    assert len(written) == 4


def test_without_all_frames_there_is_no_list(mat, tmp_path, monkeypatch):
    read = LabelledLayout.read

    def torn(self, split, frame):
        if split == "train":
            raise InputError(f"{self.where(split, frame)}: torn")
        return read(self, split, frame)

    monkeypatch.setattr(LabelledLayout, "read", torn)
    with pytest.raises(InputError, match=r"frame 2 .*torn"):
        prepare(mat, tmp_path / "out")
    assert not list((tmp_path / "out").glob("*.txt"))


def test_other_files_are_not_mixed_in(mat, tmp_path):
    out = tmp_path / "out"
    prepare(mat, out, "raw")
    before = all_files(out)
    with pytest.raises(InputError, match="another ground truth"):
        prepare(mat, out, "filled")
    write_mat(tmp_path / LABELLED_FILE, FRAMES[:7])
    with pytest.raises(InputError, match="or source"):
        prepare(tmp_path / LABELLED_FILE, out, "raw")
    (out / "prepare.json").write_text("{")
    with pytest.raises(InputError, match="holds other files"):
        prepare(mat, out, "raw")
    before["prepare.json"] = b"{"
    assert all_files(out) == before
    with pytest.raises(InputError, match="cannot write in"):
        prepare(mat, mat)


@pytest.mark.parametrize("scene", ["../../outside", "a b", ".hidden", "", "a/b"])
def test_a_scene_that_is_no_folder_is_refused(tmp_path, scene):
    frames = [*random_frames(9)[:-1], random_frames(1)[0]._replace(scene=scene)]
    write_mat(tmp_path / LABELLED_FILE, frames)
    with pytest.raises(InputError, match=r"frame 8 \(counted from 0\).* no name for a folder|scenes"):
        prepare(tmp_path, tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == [LABELLED_FILE, "out"]
