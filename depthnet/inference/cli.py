"""Predict depth for photographs.

    depthnet predict PHOTO... --output DIR                 (the model that ships with depthnet, nyu_small)
    depthnet predict PHOTO... --ckpt RUN --output DIR

PHOTO is a file, a folder or a glob. Each photograph gives <stem>_depth.npy (float32 meters), <stem>_depth.png (uint16
millimeters), <stem>_color.png (with its scale) and <stem>.json (what they were made from). A second run predicts only
what is missing or was made from another photograph, checkpoint or setting.

Distances in meters need the camera's focal length. It is taken from --focal or --fov-x, else from a K.txt or
intrinsics.json beside the photograph or up to two folders above, else from EXIF (35-mm focal length); where none is
known, the field of view of the training camera is assumed. The last lines and <stem>.json state which was used.

Exit code: 0, all done; 1, some photographs failed, each with a line on stderr; 2, nothing could be done; 130,
interrupted.
"""

from __future__ import annotations

import argparse
import functools
import sys
from collections.abc import Sequence
from typing import NoReturn

from depthnet.core.errors import finish
from depthnet.core.progress import progress_bar


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}; see --help\n")


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    style = argparse.RawDescriptionHelpFormatter
    parser = _Parser("depthnet predict", description=__doc__, formatter_class=style, allow_abbrev=False)
    add = parser.add_argument
    add("photos", nargs="*", metavar="PHOTO", help="a file, a folder or a glob; after --, names with a -")
    add("--ckpt", metavar="PATH", help="a checkpoint, a run's directory, or a shipped model's name")
    add("--output", metavar="DIR", default="predictions", help="where to write (default: predictions)")
    add("--overwrite", action="store_true", help="predict every photograph again")
    add("--device", default="auto", help="auto (default), cpu, cuda, cuda:1 or mps")
    ends = "ends of the color scale [m] (default: each picture's own)"
    add("--color-range", nargs=2, type=float, metavar=("LOW", "HIGH"), help=ends)
    add("--focal", type=float, metavar="PX", help="focal length of the photographs [px]")
    add("--fov-x", type=float, metavar="DEGREES", help="horizontal field of view of the photographs")
    seen = "what the network sees [px] (default: what it was trained at)"
    add("--size", nargs=2, type=int, metavar=("HEIGHT", "WIDTH"), help=seen)
    given = list(sys.argv[1:] if arguments is None else arguments)
    end = given.index("--") if "--" in given else len(given)
    options = parser.parse_intermixed_args(given[:end])  # photographs may stand between options, but not around "--"
    options.photos += given[end + 1 :]
    if not options.photos:
        parser.error("no photograph: name files, folders or globs")
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    options = _parse(arguments)
    again = "every file written is whole, and the same command resumes"
    return finish("depthnet predict", functools.partial(_run, options), again)


def _run(options: argparse.Namespace) -> int:
    from depthnet.inference.predict import check_options, predict_files
    from depthnet.models.shipped import default_model

    check_options(options.color_range, options.focal, options.fov_x, options.size)
    if options.ckpt is None:
        options.ckpt, line = default_model()
        print(line, flush=True)
    settings = {name: value for name, value in vars(options).items() if name not in ("photos", "ckpt", "output")}
    with progress_bar("photographs") as advance:
        report = predict_files(options.photos, options.ckpt, options.output, advance=advance, **settings)
    if report.camera_line:
        print(report.camera_line)
    print(report)
    return 1 if report.failed else 0
