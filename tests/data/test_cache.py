import errno
import multiprocessing
import os
import pickle
import shutil
import signal
import sys
import time
from pathlib import Path

import albumentations as A
import numpy as np
import pytest
import torch
from drawing import millimetres
from PIL import Image
from torch.utils.data import DataLoader

from depthnet.core import atomic_io as durable
from depthnet.core.atomic_io import locked
from depthnet.core.errors import error_line
from depthnet.core.images import resize_image, resize_nearest
from depthnet.core.types import InputError
from depthnet.data import cache
from depthnet.data.cache import PairCache
from depthnet.data.dataset import DepthDataset
from depthnet.data.layouts.kaggle import KaggleLayout
from depthnet.data.layouts.layout import Source
from depthnet.data.layouts.lists import ListsLayout
from depthnet.data.rooms.layout import RoomsLayout
from depthnet.data.transforms import Augment

SMALL = (24, 32)
FORK = multiprocessing.get_context("fork")


class Logged(ListsLayout):
    """Lists that write down which frame which process reads, and hang at the frames that a file names."""

    def __init__(self, root):
        super().__init__(Source(root, ground_truth="raw"))
        self.log, self.gate = root.parent / "log", root.parent / "gate"

    def read(self, split, frame):
        with self.log.open("a") as file:
            file.write(f"{frame} {os.getpid()}\n")
        while self.gate.exists() and frame >= int(self.gate.read_text() or 0):
            time.sleep(0.01)
        return super().read(split, frame)

    def reads(self):
        """Return the frames that were read since the last call."""
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        self.log.unlink(missing_ok=True)
        return [int(line.split()[0]) for line in lines]


@pytest.fixture
def logged(make_lists):
    return Logged(make_lists(train=7, val=3, holes=True))


def own_sizes(layout, split):
    return [layout.size(split, frame) for frame in range(layout.count(split))]


def resized(layout, split, frame, image_size, depth_size):
    image, depth = layout.read(split, frame)
    return resize_image(image, image_size), depth if depth_size is None else resize_nearest(depth, depth_size)


def assert_equal(cached, layout, split="train", image_size=SMALL, depth_size=SMALL):
    for frame in range(layout.count(split)):
        for one, other in zip(cached.read(frame), resized(layout, split, frame, image_size, depth_size), strict=True):
            assert one.dtype == other.dtype
            np.testing.assert_array_equal(one, other)


def wait_until(condition):
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize(("split", "depth_size"), [("train", SMALL), ("val", None)])
@pytest.mark.parametrize("image_size", [SMALL, (48, 64)])
def test_pairs_of_lists_are_bit_equal(make_lists, tmp_path, workers, split, depth_size, image_size):
    layout = ListsLayout(Source(make_lists(holes=True)))
    cached = PairCache(layout, split, tmp_path / "cache", image_size, depth_size or own_sizes(layout, split))
    cached.build(workers)
    assert_equal(cached, layout, split, image_size, depth_size)
    assert (cached.read(0)[1] == 0).any()


@pytest.mark.parametrize(("split", "depth_size"), [("train", SMALL), ("test", None)])
def test_pairs_of_kaggle_are_bit_equal(make_kaggle, tmp_path, split, depth_size):
    layout = KaggleLayout(Source(make_kaggle()))  # 8-bit to train, 16-bit to test
    cached = PairCache(layout, split, tmp_path / "cache", SMALL, depth_size or own_sizes(layout, split))
    cached.build()
    assert_equal(cached, layout, split, SMALL, depth_size)


def test_samples_are_those_of_the_files(make_lists, tmp_path):
    layout = ListsLayout(Source(make_lists(holes=True)))
    augment = Augment([A.HorizontalFlip(p=0.5), A.ColorJitter(p=1.0)])
    for split, depth_size, how in (("train", SMALL, augment), ("val", None, None)):
        cached = PairCache(layout, split, tmp_path / "cache", SMALL, depth_size or own_sizes(layout, split))
        cached.build()
        plain, fast = (DepthDataset(layout, split, SMALL, how, seed=5, read=read) for read in (None, cached.read))
        for frame in range(len(plain)):
            for one, other in zip(plain[3, frame], fast[3, frame], strict=True):
                assert torch.equal(torch.as_tensor(one), torch.as_tensor(other))


def test_ground_truth_keeps_its_sizes(make_lists, tmp_path):
    root = make_lists(val=3)  # frames 7 to 9
    for name in ("rgb_00008.jpg", "sync_depth_00008.png"):
        with Image.open(root / "train" / name) as old:
            other = old.resize((32, 40), Image.Resampling.NEAREST)
        other.save(root / "train" / name)
    layout = ListsLayout(Source(root))
    cached = PairCache(layout, "val", tmp_path / "cache", SMALL, own_sizes(layout, "val"))
    cached.build()
    again = PairCache(layout, "val", tmp_path / "cache", SMALL, own_sizes(layout, "val"))
    assert_equal(again, layout, "val", SMALL, None)


@pytest.mark.parametrize("workers", [0, 2])
def test_images_of_several_sizes(make_lists, tmp_path, workers):
    layout = ListsLayout(Source(make_lists(train=5, holes=True)))
    sizes = [SMALL, (32, 24), SMALL, (20, 40), (32, 24)]
    for depth_sizes in (sizes, None):
        cached = PairCache(layout, "train", tmp_path / "cache", sizes, depth_sizes or own_sizes(layout, "train"))
        cached.build(workers)
        again = PairCache(layout, "train", tmp_path / "cache", sizes, depth_sizes or own_sizes(layout, "train"))
        for frame, size in enumerate(sizes):
            found, expected = again.read(frame), resized(layout, "train", frame, size, depth_sizes and size)
            for one, other in zip(found, expected, strict=True):
                np.testing.assert_array_equal(one, other)


def test_equal_sizes_are_the_cache_of_one_size(make_lists, tmp_path):
    layout = ListsLayout(Source(make_lists(train=3)))
    paths = {PairCache(layout, "train", tmp_path, size, size).path for size in (SMALL, [SMALL] * 3)}
    assert len(paths) == 1
    assert PairCache(layout, "train", tmp_path, [SMALL, SMALL, (48, 64)], SMALL).path not in paths


@pytest.mark.parametrize("depth_size", [SMALL, None])
def test_floats_are_bit_equal(tmp_path, depth_size):
    layout = RoomsLayout({"val": 3}, (48, 64))
    cached = PairCache(layout, "val", tmp_path, SMALL, depth_size or own_sizes(layout, "val"))
    cached.build()
    assert_equal(cached, layout, "val", SMALL, depth_size)


def test_reading_gives_fresh_arrays(logged, tmp_path):
    cached = PairCache(logged, "train", tmp_path / "cache", SMALL, SMALL)
    cached.build()
    for array in cached.read(2):
        array[:] = 0
    assert_equal(cached, logged)


def test_a_cache_is_made_once(logged, tmp_path):
    progress = []
    first = PairCache(logged, "train", tmp_path / "cache", SMALL, SMALL)
    first.build(advance=lambda *done: progress.append(done))
    assert progress == [(made, 7) for made in range(1, 8)]
    assert sorted(logged.reads()) == list(range(7))
    PairCache(logged, "train", tmp_path / "cache", SMALL, SMALL).build()
    assert logged.reads() == []


def test_the_key_is_of_all_that_decides_the_pixels(make_lists, tmp_path, monkeypatch):
    root = make_lists()

    def path(split="train", image_size=SMALL, depth_size=SMALL):
        return PairCache(ListsLayout(Source(root)), split, tmp_path, image_size, depth_size).path

    paths = [path(), path("val"), path(image_size=(12, 16)), path(depth_size=(48, 64))]
    monkeypatch.setattr(cache.PIL, "__version__", "0")
    paths.append(path())
    monkeypatch.undo()
    monkeypatch.setattr(cache, "_FORMAT", 0)
    paths.append(path())
    monkeypatch.undo()
    assert path() == paths[0]
    Image.fromarray(millimetres(99, (48, 64))).save(root / "train/sync_depth_00001.png")
    paths.append(path())
    assert len(set(paths)) == len(paths)


class StopBuildError(Exception):
    pass


@pytest.mark.parametrize("workers", [0, 2])
def test_what_was_made_before_an_exception_stays(logged, tmp_path, workers):
    cached = PairCache(logged, "train", tmp_path / "cache", SMALL, SMALL)

    def stop(made, total):
        if made == 3:
            raise StopBuildError

    with pytest.raises(StopBuildError):
        cached.build(workers, stop)
    with pytest.raises(InputError, match="incomplete"):
        cached.read(0)
    logged.reads()
    progress = []
    cached.build(advance=lambda *done: progress.append(done))
    assert {*logged.reads()} == {3, 4, 5, 6}
    assert progress == [(made, 7) for made in range(4, 8)]
    assert_equal(cached, logged)


def made(cached):
    """Return how many frames are stated to be made."""
    path = cached.path / "made.txt"
    return int(path.read_text()) if path.exists() else 0


@pytest.mark.parametrize("workers", [0, 2])
def test_a_killed_build_resumes_at_once_and_leaves_no_process(logged, tmp_path, monkeypatch, workers):
    monkeypatch.setattr(cache, "_SYNC_SECONDS", 0.0)
    cached = PairCache(logged, "train", tmp_path / "cache", SMALL, SMALL)
    logged.gate.write_text("4")
    process = FORK.Process(target=cached.build, args=(workers,))
    process.start()
    wait_until(lambda: made(cached) == 4)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    readers = {int(line.split()[1]) for line in logged.log.read_text().splitlines()}
    with pytest.raises(InputError, match="incomplete"):
        cached.read(0)
    with locked(cached.path):  # though decoding processes live
        assert not workers or any(Path(f"/proc/{reader}").exists() for reader in readers)
    logged.gate.unlink()
    if workers:  # they are nobody's children now, so they vanish as they end
        wait_until(lambda: not any(Path(f"/proc/{reader}").exists() for reader in readers))
    logged.reads()
    cached.build()
    assert logged.reads() == [4, 5, 6]
    assert_equal(cached, logged)


def test_a_frame_counts_as_made_only_when_its_pixels_are_safe(logged, tmp_path, monkeypatch):
    monkeypatch.setattr(cache, "_SYNC_SECONDS", 0.0)
    cached = PairCache(logged, "train", tmp_path / "cache", SMALL, SMALL)
    expected, safe, counts = b"", b"", set()
    for frame in range(7):
        image, depth = resized(logged, "train", frame, SMALL, SMALL)
        expected += depth.tobytes() + image.tobytes()
    fsync = os.fsync

    def check(*_):
        """Compare the pixels that a power failure would leave now with those stated to be made."""
        counts.add(made(cached))
        length = made(cached) * len(expected) // 7
        assert safe[:length] == expected[:length]

    def watched_fsync(descriptor):
        nonlocal safe
        check()
        fsync(descriptor)
        safe = (cached.path / "pairs.bin").read_bytes()

    monkeypatch.setattr(os, "fsync", watched_fsync)
    cached.build(advance=check)
    assert counts == set(range(8))


def build_and_compare(cached, layout, barrier):
    barrier.wait()
    cached.build()
    assert_equal(cached, ListsLayout(Source(layout.log.parent / "nyu")))


def test_two_processes_make_one_cache(logged, tmp_path):
    barrier = FORK.Barrier(2)
    some = [PairCache(logged, "train", tmp_path / "cache", SMALL, SMALL) for _ in range(2)]
    processes = [FORK.Process(target=build_and_compare, args=(one, logged, barrier)) for one in some]
    for process in processes:
        process.start()
    for process in processes:
        process.join(10)
    assert [process.exitcode for process in processes] == [0, 0]
    assert sorted(logged.reads()) == list(range(7))


def test_a_process_that_waits_says_so(logged, tmp_path, capfd, monkeypatch):
    monkeypatch.setattr(durable.log, "warning", lambda *words: print(words[0] % words[1:], file=sys.stderr, flush=True))
    cached = PairCache(logged, "train", tmp_path / "cache", SMALL, SMALL)
    logged.gate.write_text("0")
    first = FORK.Process(target=cached.build)
    first.start()
    wait_until(logged.log.exists)
    second = FORK.Process(target=cached.build)
    second.start()
    said = []
    wait_until(lambda: said.append(capfd.readouterr().err) or said[-1])
    logged.gate.unlink()
    first.join(10)
    second.join(10)
    assert (first.exitcode, second.exitcode) == (0, 0)
    line = f"{cached.path}: another run is at work in this directory (process {first.pid} on"
    assert (said[-1] + capfd.readouterr().err).startswith(line)
    assert said[-1].endswith("; waiting for its end\n")


@pytest.mark.parametrize("workers", [0, 2])
def test_a_frame_that_cannot_be_read_is_named_and_the_others_stay(logged, tmp_path, workers):
    path = logged.files("train", 4)[1]
    whole = path.read_bytes()
    path.write_bytes(whole[:100])
    cached = PairCache(logged, "train", tmp_path / "cache", SMALL, SMALL)
    with pytest.raises(InputError, match=r"files_with_gt\.txt:5: .*sync_depth_00004") as caught:
        cached.build(workers)
    assert error_line(caught.value).startswith(str(logged.where("train", 4)))
    path.write_bytes(whole)
    logged.reads()
    cached.build()
    assert logged.reads() == [4, 5, 6]
    assert_equal(cached, logged)


def truncate(name, by):
    def damage(path):
        os.truncate(path / name, (path / name).stat().st_size - by)

    return damage


def lose(name):
    return lambda path: (path / name).unlink()


def half_written(path):
    with (path / "pairs.bin").open("ab") as file:
        file.write(b"half a frame")
    (path / "made.txt").write_text("2")


@pytest.mark.parametrize(
    ("damage", "again"),
    [(lose("pairs.bin"), 7), (lose("made.txt"), 7), (truncate("pairs.bin", 8), 1), (half_written, 5)],
)
def test_an_incomplete_cache_is_not_trusted(logged, tmp_path, damage, again):
    PairCache(logged, "train", tmp_path / "cache", SMALL, SMALL).build()
    logged.reads()
    cached = PairCache(logged, "train", tmp_path / "cache", SMALL, SMALL)
    damage(cached.path)
    with pytest.raises(InputError, match="incomplete"):
        cached.read(0)
    cached.build()
    assert len(logged.reads()) == again
    assert_equal(cached, logged)


def full(*arguments):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_full_disk_is_told_before_any_work(logged, tmp_path, monkeypatch):
    cached = PairCache(logged, "train", tmp_path / "cache", SMALL, SMALL)
    usage = shutil.disk_usage(tmp_path)
    message = r"of 7 train frames needs 3.*e-05 GB and .* GB are free; set data\.cache=none, or data\.cache_dir"
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1000))
        with pytest.raises(InputError, match=message) as caught:
            cached.build()
    assert "\n" not in str(caught.value)
    assert not made(cached)
    assert logged.reads() == []
    cached.build()
    assert_equal(cached, logged)


def test_a_disk_that_fills_up_all_the_same_is_told(logged, tmp_path, monkeypatch):
    cached = PairCache(logged, "train", tmp_path / "cache", SMALL, SMALL)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(InputError, match=r"cannot be written: No space left on device; set data\.cache=none"):
            cached.build()
    assert not made(cached)
    cached.build()
    assert_equal(cached, logged)


def test_a_folder_that_cannot_be_made_is_told(logged, tmp_path):
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(InputError, match=r"cannot be written: Not a directory; set data\.cache=none"):
        PairCache(logged, "train", tmp_path / "cache", SMALL, SMALL).build()


def test_loader_processes_read_it(logged, tmp_path):
    cached = PairCache(logged, "train", tmp_path / "cache", SMALL, own_sizes(logged, "train"))
    cached.build()
    cached.read(0)  # opens nothing that has to travel
    sent = pickle.dumps(cached)
    assert len(sent) < 10_000
    assert_equal(pickle.loads(sent), logged, depth_size=None)
    plain, fast = (DepthDataset(logged, "train", SMALL, read=read) for read in (None, cached.read))
    loader = DataLoader(fast, batch_size=3, num_workers=2)
    for one, other in zip(loader, DataLoader(plain, batch_size=3), strict=True):
        assert torch.equal(one.image, other.image)
        assert torch.equal(one.depth, other.depth)


def test_memory_stays_flat(tmp_path):
    cached = PairCache(RoomsLayout({"train": 1}, (8, 8)), "train", tmp_path, (2000, 2000), (2000, 2000))
    cached.build()

    def mapped():
        return int(Path("/proc/self/statm").read_text().split()[2]) * os.sysconf("SC_PAGE_SIZE")

    before = mapped()
    cached.read(0)
    assert mapped() - before < 4_000_000  # of 20 million
