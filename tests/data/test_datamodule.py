import pickle
import shutil

import albumentations as A
import numpy as np
import pytest
import torch
from lightning import LightningModule, Trainer
from PIL import Image

from depthnet.core.types import InputError
from depthnet.data.datamodule import DepthDataModule
from depthnet.data.transforms import Augment
from depthnet.run.arguments import check_arguments


def epochs(root, workers, count=2):
    augment = Augment([A.HorizontalFlip(p=0.5), A.ColorJitter(p=1.0)])
    data = DepthDataModule.from_root(
        root, image_size=[24, 32], batch_size=2, augment=augment, num_workers=workers, seed=3
    )
    loader = data.train_dataloader()
    batches = []
    for epoch in range(count):
        loader.batch_sampler.set_epoch(epoch)
        batches.append([(batch.frame.tolist(), batch.image, batch.depth) for batch in loader])
    return batches


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_change_nothing(make_lists, workers):
    root = make_lists(train=7)
    alone, together = epochs(root, 0), epochs(root, workers)
    for one, other in zip(alone, together, strict=True):
        assert [frames for frames, *_ in one] == [frames for frames, *_ in other]
        for (_, image, depth), (_, image2, depth2) in zip(one, other, strict=True):
            assert torch.equal(image, image2)
            assert torch.equal(depth, depth2)


def test_epochs_differ(make_lists):
    first, second = epochs(make_lists(train=6), 0)
    images = {int(frame): image for frames, batch, _ in first for frame, image in zip(frames, batch, strict=True)}
    again = {int(frame): image for frames, batch, _ in second for frame, image in zip(frames, batch, strict=True)}
    assert any(not torch.equal(images[frame], again[frame]) for frame in images)
    assert [frames for frames, *_ in first] != [frames for frames, *_ in second]


def test_evaluation_gives_every_frame_once_in_order(make_lists):
    data = DepthDataModule.from_root(make_lists(val=5), image_size=[24, 32], eval_batch_size=2, num_workers=0)
    batches = list(data.val_dataloader())
    assert [batch.frame.tolist() for batch in batches] == [[0, 1], [2, 3], [4]]
    assert batches[0].image.shape == (2, 3, 24, 32)
    assert batches[0].depth.shape == (2, 1, 48, 64)


def test_truth_of_several_sizes_comes_one_by_one(make_lists):
    root = make_lists(train=6, val=3)  # val is the frames 7 to 9
    for name in ("rgb_00008.jpg", "sync_depth_00008.png"):
        with Image.open(root / "train" / name) as old:
            other = old.resize((32, 40), Image.Resampling.NEAREST)
        other.save(root / "train" / name)
    data = DepthDataModule.from_root(root, image_size=[24, 32], num_workers=0)
    shapes = [tuple(batch.depth.shape) for batch in data.val_dataloader()]
    assert shapes == [(1, 1, 48, 64), (1, 1, 40, 32), (1, 1, 48, 64)]


def test_rooms_serve_all_three_splits():
    data = DepthDataModule.rooms({"train": 4, "val": 2, "test": 1}, image_size=[24, 32], batch_size=2, num_workers=0)
    assert len(list(data.train_dataloader())) == 2
    assert [len(list(data.eval_dataloader(split))) for split in ("val", "test")] == [1, 1]
    assert "rooms" in data.describe()
    assert data.record()["frames"] == {"train": 4, "val": 2, "test": 1}


def test_rooms_are_trained_on_beside_the_pairs(make_lists, tmp_path):
    root, options = make_lists(train=6, val=3), {"image_size": [24, 32], "batch_size": 3, "seed": 1}

    def served(rooms, **more):
        data = DepthDataModule.from_root(root, extra_rooms=rooms, num_workers=0, **options, **more)
        return data, list(data.train_dataloader())

    alone, pairs = served(0)
    mixed, batches = served(6)
    frames = torch.cat([batch.frame for batch in batches])
    assert sorted(frames.tolist()) == list(range(12))
    names = [mixed.train_label(int(frame)) for frame in frames]
    assert sum(name.startswith("train_00000") for name in names) == 6
    assert {name for name in names if "rgb" in name} == {alone.train_label(frame) for frame in range(6)}

    def sample(batches, frame):
        return next(b.image[i] for b in batches for i, f in enumerate(b.frame.tolist()) if f == frame)

    room = DepthDataModule.rooms({"train": 6}, image_size=[24, 32], batch_size=3, seed=1, num_workers=0)
    for frame in range(6):
        assert torch.equal(sample(batches, frame), sample(pairs, frame))
        assert torch.equal(sample(batches, 6 + frame), sample(list(room.train_dataloader()), frame))
    assert mixed.record()["extra_rooms"] == 6
    assert mixed.facts() != alone.facts() != served(5)[0].facts() != mixed.facts()
    assert "6 of 6 built-in rooms in each epoch" in mixed.describe()
    assert len(list(mixed.val_dataloader())) == len(list(alone.val_dataloader()))
    cached = served(6, cache="disk", cache_dir=tmp_path / "cache")[1]
    for frame in range(12):
        assert torch.equal(sample(cached, frame), sample(batches, frame))


def test_rooms_take_turns(make_lists):
    data = DepthDataModule.from_root(
        make_lists(train=6, val=3), image_size=[24, 32], extra_rooms=5, extra_rooms_share=2, num_workers=0, batch_size=4
    )
    loader, seen = data.train_dataloader(), []
    for epoch in range(3):
        loader.batch_sampler.set_epoch(epoch)
        frames = sorted(int(frame) for batch in loader for frame in batch.frame)
        assert frames[:6] == list(range(6))
        seen.append([data.train_label(frame) for frame in frames[6:]])
    assert seen == [[f"train_{a:06d}", f"train_{b:06d}"] for a, b in ((0, 1), (2, 3), (0, 4))]


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ({"image_size": [240]}, r"data\.image_size"),
        ({"image_size": "240"}, r"data\.image_size"),
        ({"image_size": [0, 4]}, r"data\.image_size"),
        ({"depth_range": {"min": 2, "max": 1}}, "depth_range"),
        ({"extra_rooms": 4, "extra_rooms_share": 5}, r"data\.extra_rooms_share=5: .* 1 to data\.extra_rooms=4"),
        ({"extra_rooms": 4, "extra_rooms_share": 0}, r"data\.extra_rooms_share=0"),
        ({"extra_rooms_share": 3}, r"data\.extra_rooms_share=3"),
    ],
)
def test_impossible_options_are_refused(make_lists, option, words):
    with pytest.raises(InputError, match=words):
        DepthDataModule.from_root(make_lists(), **option)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("batch_size", 0),
        ("eval_batch_size", 1.5),
        ("num_workers", -1),
        ("num_workers", "many"),
        ("extra_rooms", -1),
        ("cache", "ram"),
        ("check", "some"),
    ],
)
def test_impossible_numbers_are_refused_in_a_config(name, value):
    config = {"_target_": "depthnet.data.datamodule.DepthDataModule.from_root", "root": "data", name: value}
    with pytest.raises(InputError, match=rf"^data\.{name}={value}: it is .*(whole number|greater|disk|full)"):
        check_arguments(config, "data")


def test_a_split_that_is_not_there_is_named(make_lists):
    data = DepthDataModule.from_root(make_lists(test=0), image_size=[24, 32])
    with pytest.raises(InputError, match="it has no test frames"):
        data.test_dataloader()


def test_what_lists_show_is_refused_when_a_fit_begins_and_passes_by_name(make_lists):
    root = make_lists(train=6, val=3)
    (root / "train/rgb_00002.jpg").unlink()
    data = DepthDataModule.from_root(root, num_workers=0)
    for begin in (data.prepare_data, data.train_dataloader):
        with pytest.raises(
            InputError, match=r"files_with_gt\.txt:3: train/rgb_00002.jpg is missing.*allow=\[missing\]"
        ):
            begin()
    assert data.val_dataloader()
    data = DepthDataModule.from_root(root, allow=["missing"], image_size=[24, 32], batch_size=5, num_workers=0)
    assert [batch.frame.shape[0] for batch in data.train_dataloader()] == [5]
    with pytest.raises(InputError, match=r"data\.allow=absent: no such finding; known are row"):
        DepthDataModule.from_root(root, allow="absent")


def test_what_decoding_shows_is_refused_before_the_first_batch(make_lists, tmp_path):
    root = make_lists(train=6, val=3)
    path = root / "train/rgb_00004.jpg"
    path.write_bytes(path.read_bytes()[:-200])
    options = {"image_size": [24, 32], "num_workers": 0, "cache_dir": tmp_path / "cache"}
    data = DepthDataModule.from_root(root, **options)
    for begin in (data.prepare_data, data.train_dataloader):
        with pytest.raises(InputError, match=r"files_with_gt\.txt:5: .*rgb_00004.jpg.*check ROOT lists all"):
            begin()
    assert len(list(data.val_dataloader())) == 1  # val is sound
    with pytest.raises(InputError, match=r"data\.allow=torn: .*; it cannot be allowed"):
        DepthDataModule.from_root(root, allow=["torn"])
    with pytest.raises(InputError, match=r"rgb_00004.jpg"):  # without the examination, when the frame is read
        list(DepthDataModule.from_root(root, check="cheap", batch_size=1, **options).train_dataloader())


@pytest.mark.parametrize("name", ["no_depth", "unit", "shifted", "duplicate_row", "row", "missing", "near_duplicate"])
def test_what_is_allowed_is_trained_on(make_lists, name):
    root = make_lists(train=6, val=3)
    rows = root / "nyudepthv2_train_files_with_gt.txt"
    lines = rows.read_text().splitlines()
    if name in ("no_depth", "unit"):
        Image.fromarray(np.full((48, 64), 0 if name == "no_depth" else 60_000, np.uint16)).save(
            root / "train/sync_depth_00002.png"
        )
    elif name == "near_duplicate":
        shutil.copy(root / "train/rgb_00007.jpg", root / "train/rgb_00002.jpg")
    elif name == "missing":
        (root / "train/rgb_00002.jpg").unlink()
    else:
        extra = {"row": "alone", "duplicate_row": lines[2], "shifted": lines[2].replace("depth_00002", "depth_00003")}
        rows.write_text("\n".join([*lines[:2], *lines[4:], extra[name]] + ([lines[2]] * (name == "duplicate_row"))))
    options = {"image_size": [24, 32], "batch_size": 1, "num_workers": 0}
    with pytest.raises(InputError, match=rf"data\.allow=\[{name}\]"):
        DepthDataModule.from_root(root, **options).train_dataloader()
    data = DepthDataModule.from_root(root, allow=name, **options)
    assert len(list(data.train_dataloader())) == data.layout.count("train") >= 4


def test_a_list_of_other_test_frames_stops_only_who_judges_on_it(make_lists):
    data = DepthDataModule.from_root(make_lists(test=2), image_size=[24, 32], batch_size=2, num_workers=0)
    assert list(data.train_dataloader())
    with pytest.raises(InputError, match=r"0 of the 654 official frames.*data\.allow=\[test_list\]"):
        data.test_dataloader()


def test_the_cache_changes_nothing_and_is_read_instead_of_the_files(make_lists, tmp_path, monkeypatch):
    root = make_lists(train=6, val=3, holes=True)
    options = {"image_size": [24, 32], "batch_size": 2, "num_workers": 0, "seed": 1, "cache_dir": tmp_path}
    plain = DepthDataModule.from_root(root, **options)
    cached = DepthDataModule.from_root(root, cache="disk", **options)
    expected = [list(plain.train_dataloader()), list(plain.val_dataloader())]
    cached.train_dataloader(), cached.val_dataloader()

    def never(*_):
        raise AssertionError("a file was decoded")

    monkeypatch.setattr("depthnet.data.layouts.files.FileLayout.read", never)
    for batches, others in zip(expected, (cached.train_dataloader(), cached.val_dataloader()), strict=True):
        for one, other in zip(batches, others, strict=True):
            assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_the_record_holds_a_digest_of_the_contents_wherever_they_lie(make_lists, tmp_path):
    def digest(root):
        data = DepthDataModule.from_root(root, image_size=[24, 32], num_workers=0)
        data.prepare_data()
        return data.record()["digest"]

    root = make_lists()
    first = digest(root)
    moved = shutil.copytree(root, tmp_path / "elsewhere")
    assert digest(moved) == first
    shutil.copy(moved / "train/rgb_00001.jpg", moved / "train/rgb_00002.jpg")
    assert digest(moved) != first


def test_a_cache_that_cannot_be_written_is_told(make_lists, tmp_path):
    (tmp_path / "file").write_text("")
    data = DepthDataModule.from_root(make_lists(), cache_dir=tmp_path / "file", num_workers=0)
    with pytest.raises(InputError, match=r"cannot write .*file/"):
        data.prepare_data()


def test_random_val_frames_are_told(make_lists):
    data = DepthDataModule.from_root(make_lists(train=30), val="random_frames", image_size=[24, 32])
    assert "neighbors" in data.describe()
    assert data.record()["val"] == "random_frames"


def keep_aspect(size):
    """Give an image 32 pixels on its longer side, in steps of 8, whatever its shape."""
    scale = 32 / max(size)
    return max(8, round(size[0] * scale / 8) * 8), max(8, round(size[1] * scale / 8) * 8)


@pytest.fixture
def mixed(make_lists):
    """Six landscape frames to train on and three to validate on, of which two and one are turned upright."""
    root = make_lists(train=6, val=3)  # frames 0 to 5 and 7 to 9
    for number in (1, 4, 8):
        for name in (f"rgb_{number:05d}.jpg", f"sync_depth_{number:05d}.png"):
            with Image.open(root / "train" / name) as old:
                turned = old.transpose(Image.Transpose.ROTATE_90)
            turned.save(root / "train" / name)
    return root


def test_images_keep_their_aspect_and_a_batch_has_one_size(mixed, tmp_path):
    options = {"image_size": [24, 32], "batch_size": 2, "num_workers": 0, "seed": 1, "cache_dir": tmp_path}
    plain, cached = (
        DepthDataModule.from_root(mixed, size_for=keep_aspect, cache=cache, **options) for cache in ("none", "disk")
    )
    loaders = plain.train_dataloader(), cached.train_dataloader()
    seen = []
    for epoch in range(2):
        for loader in loaders:
            loader.batch_sampler.set_epoch(epoch)
        batches = list(loaders[0])
        assert len(batches) == len(loaders[0]) == 3
        for batch, other in zip(batches, loaders[1], strict=True):
            assert all(torch.equal(a, b) for a, b in zip(batch, other, strict=True))
            assert batch.image.shape[-2:] == batch.depth.shape[-2:] == batch.mask.shape[-2:]
            for frame, intrinsics in zip(batch.frame.tolist(), batch.intrinsics, strict=True):
                size = (32, 24) if frame in (1, 4) else (24, 32)
                assert batch.image.shape[-2:] == size
                assert intrinsics.tolist() == pytest.approx(
                    plain.layout.intrinsics("train", frame).resized(plain.layout.size("train", frame), size)
                )
        seen.append([frame for batch in batches for frame in batch.frame.tolist()])
    assert [sorted(frames) for frames in seen] == [list(range(6))] * 2
    for data in (plain, cached):
        found = list(data.val_dataloader())
        assert [tuple(batch.image.shape) for batch in found] == [(1, 3, 24, 32), (1, 3, 32, 24), (1, 3, 24, 32)]
        assert [tuple(batch.depth.shape[-2:]) for batch in found] == [(48, 64), (64, 48), (48, 64)]
    assert "images 32x24, 24x32" in plain.describe()


class Recorder(LightningModule):
    """Learns nothing and notes which frames come."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.epochs = {}

    def training_step(self, batch, batch_idx):
        self.epochs.setdefault(self.current_epoch, []).append(batch.frame.tolist())
        return self.weight * batch.image.float().mean()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


def test_a_trainer_gives_each_epoch_its_order_of_sizes(mixed):
    def data():
        return DepthDataModule.from_root(
            mixed, size_for=keep_aspect, image_size=[24, 32], batch_size=2, num_workers=0, seed=1
        )

    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "accelerator": "cpu"}
    trainer = Trainer(max_epochs=2, use_distributed_sampler=False, enable_model_summary=False, **quiet)
    module = Recorder()
    trainer.fit(module, train_dataloaders=data().train_dataloader())
    loader = data().train_dataloader()
    for epoch in range(2):
        loader.batch_sampler.set_epoch(epoch)
        assert module.epochs[epoch] == [batch.frame.tolist() for batch in loader]
    assert module.epochs[0] != module.epochs[1]


def test_workers_are_given_sizes_and_no_network(mixed):
    class Unsendable:
        def __call__(self, size):
            return keep_aspect(size)

        def __reduce__(self):
            raise AssertionError("sent to a worker")

    data = DepthDataModule.from_root(mixed, size_for=Unsendable(), image_size=[24, 32], batch_size=2, num_workers=1)
    loader = data.train_dataloader()
    there = pickle.loads(pickle.dumps(loader.dataset))  # as a worker that is spawned gets it
    assert {frame: there[frame].image.shape for frame in (0, 1)} == {0: (3, 24, 32), 1: (3, 32, 24)}
    assert sorted(frame for batch in loader for frame in batch.frame.tolist()) == list(range(6))


def test_rooms_beside_pairs_have_the_size_of_most(mixed):
    data = DepthDataModule.from_root(
        mixed, size_for=keep_aspect, image_size=[48, 48], batch_size=2, num_workers=0, extra_rooms=2
    )
    batches = list(data.train_dataloader())
    assert {tuple(batch.image.shape[-2:]) for batch in batches for f in batch.frame if f >= 6} == {(24, 32)}
    assert data.facts()["extra_rooms"][1:] == [2, 2]


def test_a_resumed_run_resumes_after_its_batches(mixed):
    def loader(done):
        data = DepthDataModule.from_root(
            mixed, size_for=keep_aspect, image_size=[24, 32], batch_size=1, num_workers=0, seed=3
        )
        data.load_state_dict({"epoch": 0, "batches": done})
        return [batch.frame.item() for batch in data.train_dataloader()]

    assert loader(2) == loader(0)[2:]
    assert len(loader(0)) == 6


def test_a_size_for_that_stretches_changes_nothing(make_lists):
    root, options = make_lists(), {"image_size": [24, 32], "batch_size": 2, "num_workers": 0}
    plain = DepthDataModule.from_root(root, **options)
    other = DepthDataModule.from_root(root, size_for=lambda size: (24, 32), **options)
    assert plain.facts() == other.facts()
    assert "camera" not in plain.facts()
    assert plain.describe() == other.describe()
    for name in ("train_dataloader", "val_dataloader"):
        for batch, same in zip(getattr(plain, name)(), getattr(other, name)(), strict=True):
            assert all(torch.equal(a, b) for a, b in zip(batch, same, strict=True))


def test_the_training_focal_length_is_in_network_pixels(make_lists, mixed):
    size, resized = (48, 64), (24, 32)
    data = DepthDataModule.from_root(mixed, size_for=keep_aspect, image_size=[24, 32])
    camera = data.layout.intrinsics("train", 0)
    assert data.training_focal() == camera.resized(size, resized).focal, "exactly; two of six are upright"
    stretched = DepthDataModule.from_root(mixed, image_size=[24, 32])
    assert stretched.training_focal() == camera.resized(size, resized).focal
    rooms = DepthDataModule.rooms({"train": 4}, image_size=[24, 32])
    assert rooms.training_focal() == rooms.layout.intrinsics("train", 0).focal
    assert DepthDataModule.rooms({"val": 4}, image_size=[24, 32]).training_focal() is None


def test_the_camera_is_logged_and_compared_where_it_is_no_fact_of_the_data(make_lists):
    root = make_lists(train=6)
    path = root / "nyudepthv2_train_files_with_gt.txt"
    assert "camera: fx 51.9 px at 64x48 (NYU's)" in DepthDataModule.from_root(root).describe()
    rows = path.read_text()
    path.write_text(rows.replace("518.8579", "60"))
    data = DepthDataModule.from_root(root, image_size=[24, 32])
    assert "camera: fx 60.0 px at 64x48 (the lists' focal lengths)" in data.describe()
    assert data.record()["camera"] == "fx 60.0 px at 64x48 (the lists' focal lengths)"
    assert data.facts()["camera"] == 30.0
    path.write_text(rows.replace(" 518.8579", "", 5))
    for name in ("rgb_00000.jpg", "sync_depth_00000.png"):
        with Image.open(root / "train" / name) as old:
            old.crop((0, 0, 40, 48)).save(root / "train" / name)
    data = DepthDataModule.from_root(root)
    assert "camera: fx 51.9 px at 64x48 (NYU's), unknown for 17% of the frames" in data.describe()


def test_depth_that_a_network_cannot_predict_is_counted(make_lists, monkeypatch):
    data = DepthDataModule.from_root(make_lists(train=3, holes=True))
    depth = np.stack([data.layout.read("train", frame)[1] for frame in range(3)])
    valid, middle = depth > 1e-3, float(np.median(depth[depth > 0]))
    assert data.beyond_range(0.0001, middle) == pytest.approx(((depth > middle) & valid).sum() / valid.sum())
    assert data.beyond_range(middle, 20) == pytest.approx(((depth < middle) & valid).sum() / valid.sum())
    assert data.beyond_range(11, 12) == 1
    monkeypatch.setattr("depthnet.data.layouts.files.FileLayout.read", None)
    assert data.beyond_range(1e-3, 10) == data.beyond_range(1e-4, 80) == 0, "nothing is read"


def test_images_that_are_stretched_are_reported(make_lists):
    root = make_lists(size=(64, 48))
    stretched = DepthDataModule.from_root(root, image_size=(48, 64), check="cheap", size_for=lambda size: (48, 64))
    kept = DepthDataModule.from_root(root, image_size=(48, 64), check="cheap", size_for=lambda size: (64, 48))
    assert "images 64x48; of another aspect, such as 48x64, they are stretched" in stretched.describe()
    assert "images 48x64\n" in kept.describe()
    assert "they are stretched" in DepthDataModule.from_root(root, image_size=(48, 64), check="cheap").describe()
