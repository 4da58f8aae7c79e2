"""Scores nyu_small on images of other cameras and aspects, without and with their intrinsics, and prints a table.

    python results/cameras.py NYU SAMPLES

NYU is the folder of the labelled set's pairs as lists; SAMPLES holds hololens/, kinect/, icl/ and kitti/ as their
authors publish them: images, depth as PNG or PGM. Each set goes through predict.py's and score's own functions.
"""

import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from depthnet.data.layouts.official import NYU_INTRINSICS
from depthnet.evaluation.predictions import score_predictions
from depthnet.inference.predict import predict_files

SETS = {  # images, depth and its ending, levels a meter, fx fy cx cy, the range that counts [m]
    "hololens": ("images", "depth", ".png", 1000, (495.57, 495.48, 269.50, 169.19), 10.0),
    "kinect": ("color", "depth", ".pgm", 1000, (518.0, 519.0, 325.5, 253.5), 10.0),
    "icl": ("color", "depth", ".png", 5000, (481.2, 480.0, 319.5, 239.5), 10.0),
    "kitti": ("rgb", "depth", ".png", 256, (707.0493, 707.0493, 604.0814, 180.5066), 80.0),
}
Frame = tuple[Image.Image, np.ndarray]


def sample(folder: Path, name: str) -> Iterator[Frame]:
    images, depth, ending, levels, _, _ = SETS[name]
    for path in sorted((folder / name / images).iterdir()):
        with Image.open(folder / name / depth / f"{path.stem}{ending}") as stored:
            yield Image.open(path), np.asarray(stored).astype(np.float32) / levels


def upright(folder: Path, count: int = 32) -> Iterator[Frame]:
    lines = (folder / "nyudepthv2_val_files_with_gt.txt").read_text().splitlines()
    for line in lines[:: len(lines) // count][:count]:
        image, depth = (Image.open(folder / name.lstrip("/")).crop((140, 0, 500, 480)) for name in line.split()[:2])
        yield image, np.asarray(depth).astype(np.float32) / 1000


def score(name: str, frames: Iterator[Frame], camera: tuple[float, ...], far: float) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder, "pairs")
        (root / "images").mkdir(parents=True)
        (root / "depths").mkdir()
        rows = ["image,depth,split\n"]
        for number, (image, depth) in enumerate(frames):
            image.save(root / f"images/{number}.png")
            np.save(root / f"depths/{number}.npy", depth)
            rows.append(f"images/{number}.png,depths/{number}.npy,val\n")
        (root / "pairs.csv").write_text("".join(rows))
        for known in ("unknown", "known"):
            if known == "known":
                (root / "K.txt").write_text(" ".join(map(str, camera)))
            predict_files(root / "images", "nyu_small", Path(folder, known))
            source = {"layout": "folder", "unit": "m", "depth_range": {"min": 1e-3, "max": far}}
            found = score_predictions(Path(folder, known), root, protocol="all", allow=("saturated", "unit"), **source)
            raw, scaled = found["protocols"]["uncropped"], found["protocols"]["median_scaled"]
            figures = [*(raw[metric] for metric in ("delta1", "abs_rel", "rmse")), scaled["delta1"]]
            words = [name, str(len(rows) - 1), known, *(f"{value:.3f}" for value in figures)]
            print(f"| {' | '.join(words)} |", flush=True)


def main() -> None:
    nyu, samples = map(Path, sys.argv[1:])
    print("| images | frames | camera | delta1 | AbsRel | RMSE | delta1, median-scaled |\n|" + " --- |" * 7)
    fx, fy, cx, cy = NYU_INTRINSICS
    score("NYU val, upright crops 360x480", upright(nyu), (fx, fy, cx - 140, cy), 10.0)
    for name, (*_, camera, far) in SETS.items():
        score(name, sample(samples, name), camera, far)


if __name__ == "__main__":
    main()
