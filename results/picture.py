"""Make README's picture: built-in rooms at 640x480 that nyu_small has not seen, with its depth.

python results/picture.py [--output docs/panel.png] [--frames 1 7]
"""

from __future__ import annotations

import argparse

import numpy as np

from depthnet.core.images import write_image_png
from depthnet.core.visualize import panel
from depthnet.data.rooms.layout import RoomsLayout
from depthnet.models.depth_net import load_network

SIZE = (480, 640)
SCENE_SEED = 2026  # nyu_small was trained on the rooms of seed 0


def main() -> None:
    """Write the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", default="docs/panel.png")
    parser.add_argument("--frames", nargs="+", type=int, default=[1, 7], help="which rooms")
    options = parser.parse_args()
    rooms = RoomsLayout({"test": max(options.frames) + 1}, SIZE, SCENE_SEED)
    network = load_network("nyu_small")
    rows = []
    for frame in options.frames:
        image, depth = rooms.read("test", frame)
        rows.append(panel(image, depth, depth > 0, network.infer(image, rooms.intrinsics("test", frame))))
    wide = max(row.shape[1] for row in rows)
    rows = [np.pad(row, ((0, 0), (0, wide - row.shape[1]), (0, 0)), constant_values=255) for row in rows]
    write_image_png(options.output, np.vstack(rows))
    print(options.output)


if __name__ == "__main__":
    main()
