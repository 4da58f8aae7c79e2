import csv
import hashlib
import io
import json
import re

import numpy as np
import pytest
from drawing import millimetres, picture
from PIL import Image

from depthnet.core.types import DepthRange, InputError
from depthnet.data.layouts.layout import FINDINGS, SPLITS, Finding, Layout
from depthnet.data.layouts.official import TEST_FRAMES
from depthnet.data.layouts.registry import open_root
from depthnet.data.layouts.scenes import has_labelled_numbers
from depthnet.data.validation.check import cheap_findings, examine, require_sound
from depthnet.data.validation.manifest import page, write_manifest
from depthnet.data.validation.similarity import fingerprint, near_duplicates, shifted_segments


def room(seed, size=(48, 64)):
    """Return an image and depth [mm] of boxes before a slanted wall: both have the same edges, as photographs have."""
    rng = np.random.default_rng(seed)
    image = np.full((*size, 3), rng.integers(60, 200, 3), np.uint8)
    depth = np.tile(np.linspace(4000, 3600, size[0])[:, None], size[1]).astype(np.uint16)
    for distance in sorted(rng.integers(900, 3500, 7), reverse=True):
        top, left = (int(rng.integers(0, side - 8)) for side in size)
        bottom, right = top + int(rng.integers(6, size[0] // 2)), left + int(rng.integers(6, size[1] // 2))
        image[top:bottom, left:right] = rng.integers(0, 256, 3)
        depth[top:bottom, left:right] = distance
    return image, depth


def save(path, array, **options):
    Image.fromarray(array).save(path, **options)


def cut(path, share):
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])


def places(findings):
    return sorted((finding.name, finding.where) for finding in findings)


class FaultyLists:
    """A clean set of list files, in which faults are planted row by row."""

    def __init__(self, root):
        self.root = root
        for number in range(60):
            image, depth = room(number)
            save(self.image(number), image, quality=95)
            save(self.depth(number), depth)

    def image(self, number):
        return self.root / f"train/rgb_{number:05d}.jpg"

    def depth(self, number):
        return self.root / f"train/sync_depth_{number:05d}.png"

    def edit(self, split, change):
        path = self.root / f"nyudepthv2_{split}_files_with_gt.txt"
        rows = path.read_text().splitlines()
        change(rows)
        path.write_text("\n".join(rows) + "\n")

    def replace(self, number, row):
        self.edit("train", lambda rows: rows.__setitem__(number, row))

    def levels(self, number, change):
        save(self.depth(number), change(np.asarray(Image.open(self.depth(number)))))


def missing_image(lists, n):
    lists.image(n).unlink()


def missing_depth(lists, n):
    lists.depth(n).unlink()


def torn_jpeg(lists, n):
    cut(lists.image(n), np.random.default_rng(n).uniform(0.4, 0.95))


def torn_jpeg_header(lists, n):
    cut(lists.image(n), 0.05)


def torn_png(lists, n):
    cut(lists.depth(n), np.random.default_rng(n).uniform(0.4, 0.95))


def zero_byte_image(lists, n):
    lists.image(n).write_bytes(b"")


def zero_byte_depth(lists, n):
    lists.depth(n).write_bytes(b"")


def text_for_image(lists, n):
    lists.image(n).write_text("404 not found")


def eight_bit(lists, n):
    lists.levels(n, lambda depth: (depth / 40).astype(np.uint8))


def meters_as_levels(lists, n):
    lists.levels(n, lambda depth: (depth / 1000).round().astype(np.uint16))


def thousandfold(lists, n):
    lists.levels(n, lambda depth: np.minimum(depth.astype(int) * 1000, 65535).astype(np.uint16))


def other_size(lists, n):
    lists.levels(n, lambda depth: depth[:-2].copy())


def no_depth(lists, n):
    lists.levels(n, np.zeros_like)


def one_value(lists, n):
    lists.levels(n, lambda depth: np.full_like(depth, 2000))


def cut_off(lists, n):
    lists.levels(n, lambda depth: np.minimum(depth, np.percentile(depth, 65).astype(np.uint16)))


def colored(lists, n):
    lists.levels(n, lambda depth: np.stack([depth // 20, 255 - depth // 20, depth // 40], 2).astype(np.uint8))


def palette(lists, n):
    Image.open(lists.image(n)).convert("P", palette=Image.Palette.ADAPTIVE).save(lists.depth(n))


def other_frames_depth(lists, n):
    lists.depth(n).rename(lists.depth(9000 + n))
    lists.replace(n, f"train/rgb_{n:05d}.jpg train/sync_depth_{9000 + n:05d}.png 518.8579")


def leaves_root(lists, n):
    lists.replace(n, f"train/rgb_{n:05d}.jpg ../sync_depth_{n:05d}.png 518.8579")


def torn_row(lists, n):
    lists.replace(n, f"train/rgb_{n:05d}.jpg")


FAULTS = {
    missing_image: "missing",
    missing_depth: "missing",
    torn_jpeg: "torn",
    torn_jpeg_header: "torn",
    torn_png: "torn",
    zero_byte_image: "empty",
    zero_byte_depth: "empty",
    text_for_image: "unreadable",
    eight_bit: "bit_depth",
    meters_as_levels: "unit",
    thousandfold: "unit",
    other_size: "sizes_differ",
    no_depth: "no_depth",
    one_value: "constant",
    cut_off: "saturated",
    colored: "colored",
    palette: "colored",
    other_frames_depth: "shifted",
    leaves_root: "leaves_root",
    torn_row: "row",
}


@pytest.fixture
def lists(make_lists):
    return FaultyLists(make_lists(train=60, val=4, test=3))


def test_every_fault_is_named_with_its_row_in_one_go(lists):
    train, val, test = (f"nyudepthv2_{split}_files_with_gt.txt" for split in SPLITS)
    expected = [("test_list", f"{test}:1")]  # the fixture's test frames are official training frames
    for n, (plant, name) in enumerate(FAULTS.items(), start=1):
        plant(lists, n)
        expected.append((name, f"{train}:{n + 1}"))

    for n in range(30, 50):  # depth n is lost, and those behind it moved up
        lists.depth(n + 1).rename(lists.depth(n))
    save(lists.depth(50), room(50)[1])

    lists.edit("train", lambda rows: rows.append(rows[25]))
    expected.append(("duplicate_row", f"{train}:61"))

    save(lists.image(60), picture(60, (48, 64)))  # frame 60 joins frames 59 of train and 61 of val
    save(lists.depth(60), millimetres(60, (48, 64)))
    lists.edit("val", lambda rows: rows.insert(0, "train/rgb_00060.jpg train/sync_depth_00060.png 518.8579"))
    expected.append(("scene_leak", f"{val}:1"))

    save(lists.image(62), np.asarray(Image.open(lists.image(27)).resize((58, 44)).resize((64, 48))), quality=50)
    expected.append(("near_duplicate", f"{val}:3"))

    found = examine(open_root(lists.root), None).findings
    shifted = [f for f in found if (f.name == "shifted" and "20 images" in f.message) or "19 images" in f.message]
    assert len(shifted) == 1
    assert abs(int(shifted[0].where.split(":")[1]) - 31) <= 1
    assert places(f for f in found if f not in shifted) == sorted(expected)
    assert len(expected) + 1 >= 20
    for finding in found:
        assert finding.name in FINDINGS
        assert "\n" not in finding.message
        assert finding.message.count(finding.where) == 0
        if finding.name not in ("row", "leaves_root"):
            number = int(finding.where.split(":")[1]) - 1
            assert any(f"{number + before:05d}" in finding.message for before in (0, 25 - number, 60, 61, 62, 66))


@pytest.mark.parametrize("plant", FAULTS)
def test_each_fault_alone_is_the_only_finding(lists, plant):
    lists.edit("train", lambda rows: rows.__delitem__(slice(12, None)))
    (lists.root / "nyudepthv2_test_files_with_gt.txt").unlink()
    plant(lists, 7)
    where = "nyudepthv2_train_files_with_gt.txt:8"
    assert places(examine(open_root(lists.root), None).findings) == [(FAULTS[plant], where)]


@pytest.mark.parametrize("size", [(48, 64), (60, 45), (96, 128)])
def test_clean_lists_have_no_finding(make_lists, size):
    root = make_lists(train=12, val=6, size=size, holes=True)
    assert examine(open_root(root), None).findings == ()


def test_clean_csv_has_no_finding_but_its_test_list(make_kaggle):
    layout = open_root(make_kaggle(test=2))
    assert places(examine(layout, None).findings) == [("test_list", "nyu2_test.csv:1")]
    require_sound(cheap_findings(layout), (), ("train", "val"))


def own_pairs(tmp_path, change=lambda n, depth: depth):
    """Write pairs with depth as arrays of floats, two scenes, and open them."""
    for n in range(6):
        for kind in ("images", "depths"):
            (tmp_path / f"own/{kind}/{n % 2}").mkdir(parents=True, exist_ok=True)
        image, depth = room(n)
        save(tmp_path / f"own/images/{n % 2}/{n}.png", image)
        np.save(tmp_path / f"own/depths/{n % 2}/{n}.npy", change(n, (depth / 1000).astype(np.float32)))
    return open_root(tmp_path / "own", unit="m", depth_range={"min": 0.1, "max": 10})


@pytest.mark.filterwarnings("error")
def test_faults_of_floats(tmp_path):
    def change(n, depth):
        depth[5, 5] = {1: np.nan, 2: -0.5, 3: np.inf, 4: -np.inf}.get(n, depth[5, 5])
        return depth

    found = examine(own_pairs(tmp_path, change), None).findings
    expected = [("negative", "images/0/2.png"), *(("not_finite", f"images/{n % 2}/{n}.png") for n in (1, 3, 4))]
    assert places(found) == sorted(expected)
    assert all(f.message.startswith(f"{f.where[7]}/{f.where[9]}.npy: 0.03% of its depth") for f in found)


def test_clean_floats_and_their_facts(tmp_path):
    examination = examine(own_pairs(tmp_path), None)
    assert examination.findings == ()
    facts = next(pair for pair in examination.pairs if pair.label == "images/1/3")
    depth = room(3)[1] / 1000
    assert (facts.scene, facts.height, facts.width, facts.bits, facts.holes) == ("1", 48, 64, 32, 0.0)
    assert (facts.min, facts.max) == (pytest.approx(depth.min()), pytest.approx(depth.max()))
    assert facts.median == pytest.approx(np.median(depth))
    assert facts.valid == 1.0


def test_facts_count_holes_and_what_is_out_of_range(make_lists):
    root = make_lists(train=2, val=1, holes=True)
    layout = open_root(root, depth_range={"min": 2.5, "max": 4})
    facts = examine(layout, None).pairs[1]
    depth = millimetres(1, (48, 64), holes=True) / 1000
    inside = depth[(depth > 2.5) & (depth < 4)]
    assert facts.valid == pytest.approx(inside.size / depth.size, abs=1e-4)
    assert facts.holes == 0.125
    assert (facts.min, facts.max) == (pytest.approx(inside.min()), pytest.approx(inside.max()))
    assert [facts.p5, facts.median, facts.p95] == pytest.approx(np.percentile(inside, [5, 50, 95]), abs=1e-3)


class Names(Layout):
    """A layout of names alone."""

    name = "names"
    description = "names"
    depth_range = DepthRange(1e-3, 10.0)
    ground_truth = "filled"
    nyu = True

    def __init__(self, scene_rule="runs of consecutive frame numbers", **labels):
        self.labels = labels
        self.scene_rule = scene_rule
        known = has_labelled_numbers([*labels.get("train", ()), *labels.get("val", ())])
        self.numbered = ("train", "val", "test") if known else ("test",)

    def count(self, split):
        return len(self.labels.get(split, ()))

    def label(self, split, frame):
        return self.labels[split][frame]

    def where(self, split, frame):
        return f"{split}:{frame + 1}"

    def scene(self, split, frame):
        folder, name = self.labels[split][frame].split("/")
        return folder if self.scene_rule == "folders" else f"run {name[-5:]}"

    def read(self, split, frame): ...

    def size(self, split, frame): ...

    def identity(self): ...


def rgb(numbers, folder="all"):
    return [f"{folder}/rgb_{number:05d}" for number in numbers]


def test_one_run_of_frame_numbers_in_two_splits():
    found = cheap_findings(Names(train=rgb([19, 21, 40]), val=rgb([60, 20, 41, 42])))
    assert places(found) == [("scene_leak", "val:2"), ("scene_leak", "val:3")]
    assert found[0].splits == ("train", "val")
    assert "all/rgb_00021 of train (train:2)" in found[0].message


def test_whole_runs_and_other_numberings_are_no_leak():
    assert cheap_findings(Names(train=rgb([18, 19, 30]), val=rgb([21, 22]))) == []
    assert cheap_findings(Names(train=rgb([1, 2], "mine"), val=rgb([1, 3], "yours"))) == []
    assert cheap_findings(Names(train=["a/photo", "a/tree"], val=["a/house"])) == []
    test = Names(train=rgb([2, 3]), val=rgb([5]), test=rgb(sorted(TEST_FRAMES)))  # 0, 1 and 8 are official test frames
    assert cheap_findings(test) == []


def test_one_scene_name_in_two_splits():
    names = {"train": rgb([1, 2], "den"), "val": [*rgb([9], "hall"), *rgb([7, 8], "den")], "test": rgb([9], "hall")}
    layout = Names("folders", **names)
    layout.nyu = False
    assert places(cheap_findings(layout)) == [("scene_leak", "test:1"), ("scene_leak", "val:2")]
    layout.val = "random_frames"
    assert places(cheap_findings(layout)) == [("scene_leak", "test:1")]
    layout.labels["test"] = layout.labels["val"] = ["run 00003/rgb_00003"]  # numbered by each split for itself
    assert cheap_findings(layout) == []


def test_random_frames_may_part_runs():
    layout = Names(train=rgb([19, 21]), val=rgb([20]))
    assert len(cheap_findings(layout)) == 1
    layout.val = "random_frames"
    assert cheap_findings(layout) == []


def test_the_official_test_list():
    official = sorted(TEST_FRAMES)
    fitted = {"train": rgb([2]), "val": rgb([5])}
    assert cheap_findings(Names(**fitted, test=[f"nyu2_test/{number:05d}_colors" for number in official])) == []
    assert cheap_findings(Names(**fitted, test=[f"room_{n % 3}/rgb_{n:05d}" for n in reversed(official)])) == []
    (short,) = cheap_findings(Names(**fitted, test=rgb(official[:-1])))
    assert short[:2] == ("test_list", "test:1")
    assert "653 of the 654 official frames, and 0 official training frames" in short.message
    (first,) = cheap_findings(Names(**fitted, test=rgb(range(654))))
    assert (first.where, first.splits) == ("test:3", ("test",))
    assert "268 of the 654 official frames, and 386 official training frames" in first.message
    assert cheap_findings(Names(**fitted, test=[*rgb(official), *rgb(official[:1])])) != []


def test_official_test_frames_to_train_on():
    training = [number for number in range(1449) if number not in TEST_FRAMES]
    splits = {"train": rgb([*training[:600], 8]), "val": rgb(training[601:602]), "test": rgb(sorted(TEST_FRAMES))}
    (leak,) = cheap_findings(Names(**splits))
    assert (leak.name, leak.where, leak.splits) == ("scene_leak", "train:601", ("train", "test"))
    splits["train"][0] = "all/rgb_01449"  # no number of the labelled set
    assert cheap_findings(Names(**splits)) == []


def test_a_videos_own_numbers_are_no_official_frames():
    splits = {"train": rgb(range(2, 200), "living_room_0000"), "test": rgb(sorted(TEST_FRAMES))}
    assert [finding.name for finding in cheap_findings(Names(**splits))] == ["no_frames"]


def test_fifty_thousand_rows_take_a_second():
    import time

    rows = [f"room_{n // 50:04d}/rgb_{n:05d}" for n in range(50_000)]
    layout = Names("folders", train=rows, val=rgb(range(500), "val"), test=rgb(sorted(TEST_FRAMES), "test"))
    start = time.process_time()
    assert cheap_findings(layout) == []
    assert time.process_time() - start < 2  # 0.2 s; a quadratic search takes minutes


FOUND = [
    Finding("torn", "a.txt:3", "x.jpg ends too early", ("train",)),
    Finding("missing", "a.txt:9", "y.jpg is missing", ("train",)),
    Finding("torn", "a.txt:11", "z.jpg ends too early", ("train",)),
    Finding("test_list", "t.txt:1", "not the official ones", ("test",)),
]


def test_unsound_data_is_refused_in_one_line():
    with pytest.raises(InputError) as error:
        require_sound(FOUND, (), ("train", "val"))
    assert str(error.value) == (
        "a.txt:3: x.jpg ends too early; and 2 more (1 torn, 1 missing); depthnet data check ROOT lists all "
        "that is wrong"
    )
    assert error.value.finding == "torn"


def test_what_is_allowed_or_of_other_splits_passes():
    found = [finding._replace(name="no_depth") if finding.name == "torn" else finding for finding in FOUND]
    require_sound(found, ("no_depth", "missing"), ("train", "val"))
    require_sound(found, (), ("val",))
    with pytest.raises(InputError, match=r"a.txt:9: y.jpg is missing; to accept: data.allow=\[missing\], or --allow"):
        require_sound(found, ["no_depth"], ("train", "val"))
    with pytest.raises(InputError, match=r"t.txt:1"):
        require_sound(found, ["no_depth", "missing"], SPLITS)
    with pytest.raises(InputError, match=r"data.allow=typo: no such finding; known are row, leaves_root"):
        require_sound([], ["typo"], SPLITS)
    for name in ("torn", "empty", "sizes_differ", "no_frames"):
        with pytest.raises(InputError, match=f"data.allow={name}: {FINDINGS[name]}; it cannot be allowed, fix it"):
            require_sound([], [name], SPLITS)


def test_an_examination_is_kept_until_a_file_changes(make_lists, tmp_path, monkeypatch):
    root, folder = make_lists(train=4, val=2), tmp_path / "cache"
    save(root / "train/sync_depth_00001.png", np.zeros((48, 64), np.uint16))
    first = examine(open_root(root), folder)
    assert places(first.findings) == [("no_depth", "nyudepthv2_train_files_with_gt.txt:2")]
    layout = open_root(root)
    with monkeypatch.context() as patch:
        patch.setattr(type(layout), "read", None)
        assert examine(layout, folder) == first
        layout.findings = [FOUND[0]]  # what the lists show is always new
        assert examine(layout, folder).findings == (FOUND[0], *first.findings)
    (kept,) = folder.iterdir()
    assert re.fullmatch(r"check-[0-9a-f]{16}\.json", kept.name)

    save(root / "train/sync_depth_00001.png", millimetres(1, (48, 64)))
    assert examine(open_root(root), folder).findings == ()
    assert examine(open_root(root, depth_range={"min": 9, "max": 10}), folder).findings[0].name == "no_depth"


@pytest.mark.parametrize("content", [b"", b"{}", b'{"pairs": 1', b"[]", b"\xff"])
def test_a_torn_examination_is_made_anew(make_lists, tmp_path, content):
    layout = open_root(make_lists(train=2, val=1))
    first = examine(layout, tmp_path / "cache")
    (kept,) = (tmp_path / "cache").iterdir()
    whole = json.loads(kept.read_bytes())
    kept.write_bytes(content)
    assert examine(layout, tmp_path / "cache") == first
    assert json.loads(kept.read_bytes()) == whole


def test_rows_that_moved_are_named_where_they_are_now(make_lists, tmp_path):
    root = make_lists(train=2, val=1)
    save(root / "train/sync_depth_00001.png", np.zeros((48, 64), np.uint16))
    examine(open_root(root), tmp_path)
    path = root / "nyudepthv2_train_files_with_gt.txt"
    path.write_text("\n" + path.read_text())
    assert examine(open_root(root), tmp_path).findings[0].where == f"{path.name}:3"


def test_threads_find_the_same(lists):
    torn_png(lists, 3)
    layout = open_root(lists.root)
    steps = []
    examination = examine(layout, None, workers=2, advance=lambda done, total: steps.append((done, total)))
    assert examination == examine(layout, None)
    assert steps == [(n, 67) for n in range(1, 68)]


def test_the_manifest_has_a_row_for_each_pair(make_lists, tmp_path):
    root = make_lists(train=3, val=1)
    save(root / "train/sync_depth_00001.png", np.zeros((48, 64), np.uint16))
    examination = examine(open_root(root), None)
    write_manifest(examination, tmp_path / "manifest.csv")
    rows = list(csv.DictReader((tmp_path / "manifest.csv").open()))
    assert [row["label"] for row in rows] == [f"train/rgb_{n:05d}" for n in (0, 1, 2, 4)]
    content = (root / "train/rgb_00000.jpg").read_bytes() + (root / "train/sync_depth_00000.png").read_bytes()
    assert rows[0]["digest"] == hashlib.sha256(content).hexdigest()
    assert (rows[0]["scene"], rows[0]["split"], rows[3]["split"]) == ("run 00000", "train", "val")
    depth = millimetres(0, (48, 64)) / 1000
    assert (float(rows[0]["min"]), float(rows[0]["max"])) == (pytest.approx(depth.min()), pytest.approx(depth.max()))
    assert (rows[1]["median"], rows[1]["valid"], rows[1]["holes"]) == ("", "0.0", "1.0")


def test_the_page(make_lists):
    root = make_lists(train=5, val=2, holes=True)
    layout = open_root(root)
    layout.notes = ["a note [in brackets]"]
    text = page(layout, examine(layout, None))
    assert max(map(len, text.splitlines())) <= 100
    for part in (
        f"NYU, lists layout, {root}"[:60],
        "raw, 12.5% holes; 0.001 m a level; valid: 0.001 to 10 m",
        "recognized by runs of consecutive frame numbers",
        "a note [in brackets]",
        "64x48 16-bit",
        "Nothing wrong was found.",
    ):
        assert part in text
    assert [line.split()[:3] for line in text.splitlines() if line.split()[:1] in (["train"], ["val"])] == [
        ["train", "5", "1"],
        ["val", "2", "1"],
    ]


def test_the_page_lists_findings_by_kind_and_all_when_asked(make_lists):
    root = make_lists(train=30, val=1)
    for n in range(25):
        (root / f"train/rgb_{n:05d}.jpg").unlink()
    cut(root / "train/sync_depth_00027.png", 0.5)
    layout = open_root(root)
    examination = examine(layout, None)
    some, everything = page(layout, examination), page(layout, examination, limit=None)
    for text in (some, everything):
        assert "26 things are wrong" in text
        assert "missing: a file that is not there (25)" in text
        assert "torn: a file that ends too early or is damaged (1)" in text
        assert "4 of 5" in text
    assert some.count("restore the file") == 20
    assert "... and 5 more: --all lists them" in some
    assert everything.count("restore the file") == 25


def copies(image):
    height, width = image.shape[:2]
    small = Image.fromarray(image[height // 100 : -(height // 100), width // 100 : -(width // 100)])
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=50)
    return {
        "JPEG of quality 50": np.asarray(Image.open(buffer)),
        "a fifth brighter": np.clip(image * 1.2, 0, 255).astype(np.uint8),
        "2 % cropped": np.asarray(small.resize((width, height))),
        "half the size": np.asarray(Image.fromarray(image).resize((width // 2, height // 2))),
        "a camera 3 % to the side": np.roll(image, width // 33, axis=1),
    }


def test_copies_are_near_duplicates_and_other_pictures_are_not():
    depth = np.ones((240, 320), np.float32)
    first = [fingerprint(room(n, (240, 320))[0], depth) for n in range(40)]
    second = [fingerprint(room(100 + n, (240, 320))[0], depth) for n in range(40)]
    assert near_duplicates(first, second) == {}
    names = list(copies(room(7, (240, 320))[0]))
    changed = [fingerprint(copy, depth) for copy in copies(room(7, (240, 320))[0]).values()]
    assert near_duplicates(first, [*second, *changed]) == {40 + n: 7 for n in range(len(names))}, names
    assert near_duplicates([], second) == near_duplicates(first, []) == {}


def test_blank_walls_are_no_near_duplicates():
    def wall(seed):
        rng = np.random.default_rng(seed)
        shade = np.linspace(120, 160, 320)[None, :, None] + rng.normal(0, 3, (240, 320, 3))
        return fingerprint(shade.astype(np.uint8), np.ones((240, 320), np.float32))

    assert near_duplicates([wall(n) for n in range(5)], [wall(100 + n) for n in range(5)]) == {}


def test_a_copied_pair_is_a_near_duplicate_even_of_a_wall(make_lists):
    root = make_lists(train=2, val=1)
    for n in (1, 3):
        save(root / f"train/rgb_{n:05d}.jpg", np.full((48, 64, 3), 200, np.uint8))
        save(root / f"train/sync_depth_{n:05d}.png", np.tile(np.arange(2000, 2064, dtype=np.uint16), (48, 1)))
    (found,) = examine(open_root(root), None).findings
    assert (found.name, found.where) == ("near_duplicate", "nyudepthv2_val_files_with_gt.txt:1")
    assert "is the same pair as train/rgb_00001 of train (nyudepthv2_train_files_with_gt.txt:2)" in found.message


def test_near_duplicates_of_random_val_frames_are_wanted(make_lists):
    root = make_lists(train=30, val=3)
    for n in range(30):
        save(root / f"train/rgb_{n:05d}.jpg", picture(0, (48, 64)))
    assert examine(open_root(root, val="random_frames"), None).findings == ()


@pytest.mark.parametrize("step", [1, -1])
def test_shifted_depth_is_found_where_it_begins(step):
    pairs = [room(n) for n in range(60)]
    fingerprints = [fingerprint(image, depth / np.float32(1000)) for image, depth in pairs]
    assert shifted_segments(fingerprints) == []
    for n in range(20, 40):
        fingerprints[n] = fingerprints[n]._replace(depth_edges=fingerprint(*pairs[n - step]).depth_edges)
    ((start, length, found),) = shifted_segments(fingerprints)
    assert (abs(start - 20) <= 1, abs(length - 20) <= 2, found) == (True, True, -step)
    assert shifted_segments(fingerprints[:1]) == shifted_segments([]) == []


def test_depth_that_has_nothing_to_do_with_its_image_is_not_called_shifted():
    depth = [millimetres(n, (48, 64)) / np.float32(1000) for n in range(400)]
    assert shifted_segments([fingerprint(picture(1000 + n, (48, 64)), depth[n]) for n in range(400)]) == []


def test_real_depth_one_frame_late_is_found(real_nyu):
    layout = open_root(real_nyu)
    fingerprints = [fingerprint(*layout.read("val", frame)) for frame in range(layout.count("val"))]
    assert shifted_segments(fingerprints) == []
    late = [
        one._replace(depth_edges=fingerprints[max(n - (n >= 80), 0)].depth_edges) for n, one in enumerate(fingerprints)
    ]
    ((start, length, step),) = shifted_segments(late)
    assert (abs(start - 80) <= 2, length >= 12, step) == (True, True, -1)


@pytest.mark.slow
def test_real_pairs_are_clean(real_nyu):
    examination = examine(open_root(real_nyu), None)
    assert examination.findings == ()
    assert len(examination.pairs) == 795
