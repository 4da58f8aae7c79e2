"""What the check finds in a data set as a whole, on rooms and, where there are any, on real pairs of other cameras."""

from types import SimpleNamespace

import numpy as np
import pytest
from conftest import DATA
from PIL import Image

from depthnet.core.types import DepthRange, InputError
from depthnet.data.cli import main
from depthnet.data.datamodule import DepthDataModule
from depthnet.data.layouts.layout import Layout
from depthnet.data.rooms.layout import RoomsLayout
from depthnet.data.validation.check import examine

INDOORS = DepthRange(0.1, 20.0)
SAMPLES = {  # meters per level, and the depth range that a user would state
    "kinect": ("kinect/depth/*.pgm", 1e-3, INDOORS),
    "icl": ("icl/depth/*.png", 1 / 5000, INDOORS),
    "kitti": ("kitti/depth/*.png", 1 / 256, DepthRange(0.1, 80.0)),
    "hololens": ("hololens/depth/*.png", 1e-3, INDOORS),
    "nyu": ("../nyu/train/sync_depth_0[05]*.png", 1e-3, INDOORS),
}
CHANGES = {  # of depth [m], to depth [m] as it would be read
    "inverse": lambda depth: np.where(depth > 0, 4 / np.maximum(depth, 1e-3), 0),
    "8-bit disparity": lambda depth: np.ceil(CHANGES["inverse"](depth) / 4 * depth[depth > 0].min() * 255) / 25.5,
    "4000 levels a meter": lambda depth: 4 * depth,
    "5000 levels a meter": lambda depth: 5 * depth,
    "cut off": lambda depth: np.minimum(depth, np.percentile(depth[depth > 0], 60)),
    "one value": lambda depth: np.where(depth > 0, 2.0, 0.0),
}  # fmt: skip
FOUND = ["inverse", "inverse", "unit", "unit", "saturated", "constant"]


class Maps(Layout):
    """Depth maps beside pictures of nothing."""

    name = description = scene_rule = "maps"
    ground_truth = "raw"

    def __init__(self, depths, depth_range):
        self.depths, self.depth_range = depths, depth_range

    def count(self, split):
        return {"train": len(self.depths), "val": 1}.get(split, 0)  # one more is val

    def read(self, split, frame):
        depth = self.depths[frame]
        return np.full((*depth.shape, 3), 127, np.uint8), depth.astype(np.float32)

    def size(self, split, frame):
        return self.depths[frame].shape

    def scene(self, split, frame):
        return f"{split} {frame}"

    def label(self, split, frame):
        return f"{split}/{frame}"

    def where(self, split, frame):
        return f"{split}:{frame + 1}"

    def findings_of(self):
        # val is a frame of train here
        return [finding for finding in examine(self, None).findings if finding.name != "near_duplicate"]


@pytest.fixture(scope="module")
def rooms():
    layout = RoomsLayout({"train": 16}, (120, 160))
    return [layout.read("train", frame)[1] for frame in range(16)]


@pytest.mark.parametrize(("change", "name"), [*zip(CHANGES, FOUND, strict=True)])
def test_rooms_that_were_stored_wrongly(rooms, change, name):
    found = Maps([CHANGES[change](depth) for depth in rooms], INDOORS).findings_of()
    assert {finding.name for finding in found} == {name}
    if name in ("inverse", "unit"):
        assert len(found) == 1
        assert found[0].splits == ("train", "val")
    else:
        assert [finding.where for finding in found if finding.splits == ("train",)] == [
            f"train:{n}" for n in range(1, 17)
        ]


def test_rooms_that_were_stored_rightly(rooms):
    assert Maps(rooms, INDOORS).findings_of() == []
    flipped = [depth[::-1] for depth in rooms]  # upside down is a camera's matter, the planes are planes
    assert Maps(flipped, INDOORS).findings_of() == []


def test_what_is_said_of_the_whole_set(rooms):
    (inverse,) = Maps([CHANGES["inverse"](depth) for depth in rooms], INDOORS).findings_of()
    assert inverse.message.startswith("train/")
    assert "% of the pairs the lower part is farther" in inverse.message
    (unit,) = Maps([4 * depth for depth in rooms], INDOORS).findings_of()
    assert unit.where == "train:1"
    assert "train/0: here and in the other pairs the median depth is 11 m, far is 2.8 times near, and 6" in unit.message


def test_a_range_that_leaves_most_out_is_a_wrong_unit_too(rooms):
    (unit,) = Maps(rooms, DepthRange(0.1, 2.0)).findings_of()
    assert unit.name == "unit"
    assert "% of the depth is beyond 0.1 to 2 m" in unit.message
    assert Maps(rooms, DepthRange(0.1, 5.0)).findings_of() == []


@pytest.fixture(scope="module")
def samples():
    """Every fifth real depth map of each camera; two of each at least."""
    found = {}
    for name, (files, unit, _) in SAMPLES.items():
        paths = sorted((DATA / "samples").glob(files))
        if len(paths) < 2:
            pytest.skip("no samples of other cameras here")
        found[name] = [np.asarray(Image.open(path)) * unit for path in paths[:: max(1, len(paths) // 9)]]
    return found


@pytest.mark.parametrize("name", SAMPLES)
def test_real_depth_is_clean_and_found_when_stored_wrongly(samples, name):
    limits = SAMPLES[name][2]
    assert Maps(samples[name], limits).findings_of() == []
    for change, wrong in zip(CHANGES, FOUND, strict=True):
        found = {finding.name for finding in Maps([CHANGES[change](d) for d in samples[name]], limits).findings_of()}
        assert wrong in found, change


def write(root, count, change=lambda depth: depth, scenes=1):
    layout = RoomsLayout({"train": count}, (48, 64))
    for frame in range(count):
        image, depth = layout.read("train", frame)
        for kind in ("images", "depths"):
            (root / kind / f"scene{frame % scenes}").mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(root / f"images/scene{frame % scenes}/{frame}.png")
        np.save(root / f"depths/scene{frame % scenes}/{frame}.npy", change(depth).astype(np.float32))
    return root


def test_the_page_counts_what_is_beyond_the_range_and_nan(tmp_path, capsys):
    def change(depth):
        depth = np.clip(depth, 0.5, 9.0)
        depth[0, :32], depth[1, :16], depth[2, :8] = 30.0, np.nan, 0.0
        return depth

    root = write(tmp_path / "own", 6, change, scenes=3)
    command = ["check", str(root), "--unit", "m", "--depth-range", "0.1", "20", "--cache-dir", str(tmp_path / "cache")]
    for _ in range(2):  # the second time from what was kept
        assert main([*command, "--manifest", str(tmp_path / "pairs.csv")]) == 1  # NaN is a finding
        out = capsys.readouterr().out
        pixels = 48 * 64
        for split, count in (("train", 4), ("val", 2)):
            line = (
                f"  {split}: {32 * count} of {pixels * count} pixels ({32 / pixels:.2%}) beyond 0.1 to 20 m, "
                f"{16 * count} of {pixels * count} pixels ({16 / pixels:.2%}) NaN or infinite"
            )
            assert line in out.splitlines()
        assert "not_finite" in out
    header, first, *_ = (tmp_path / "pairs.csv").read_text().splitlines()
    row = dict(zip(header.split(","), first.split(","), strict=True))
    assert (row["beyond"], row["not_finite"]) == ("32", "16")


def test_check_refuses_what_training_refuses(tmp_path, capsys):
    root = write(tmp_path / "own", 4)
    assert main(["check", str(root), "--unit", "m", "--depth-range", "0.1", "20"]) == 1
    out = capsys.readouterr().out
    assert "no_frames: no train or no val frames" in out
    assert "it has no val frames; no val frames: " in " ".join(out.split())
    data = DepthDataModule.from_root(root, unit="m", depth_range=INDOORS, num_workers=0)
    data.prepare_data()  # whoever validates nothing needs none
    data.trainer = SimpleNamespace(state=SimpleNamespace(fn="fit"), enable_validation=True)
    data.layout.read = None  # refused before anything is decoded
    with pytest.raises(InputError, match=r"own: it has no val frames; no val frames: .*data\.val=random_frames"):
        data.prepare_data()
    with pytest.raises(InputError, match=r"own: it has no val frames; no val frames: .*data\.val=random_frames"):
        data.val_dataloader()
