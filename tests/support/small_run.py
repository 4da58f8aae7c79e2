"""A run's directory as training leaves it, with a small network that learned nothing."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf

from depthnet.data.dataset import DepthDataset
from depthnet.data.layouts.layout import SPLITS, Layout
from depthnet.evaluation.evaluator import Evaluation
from depthnet.evaluation.protocols import choose_protocols
from depthnet.models.checkpoint import RECORD_KEY, make_record, save_plain
from depthnet.models.depth_net import DepthNet

IMAGE_SIZE = (48, 64)
ROOMS = {
    "_target_": "depthnet.data.datamodule.DepthDataModule.rooms",
    "frames": {"train": 0, "val": 5, "test": 2},
    "scene_seed": 3,
    "holes": False,
    "depth_range": {"min": 1e-3, "max": 10.0},
    "image_size": list(IMAGE_SIZE),
}
HISTORY = "epoch,step,lr,train/loss,val/delta1,val/abs_rel\n0,10,0.001,0.9,0.2,0.5\n1,20,0.0001,0.7,0.3,0.4\n"


def from_root(root: Path) -> dict[str, Any]:
    """Return the config of the data at a root."""
    target = "depthnet.data.datamodule.DepthDataModule.from_root"
    depth_range = {"min": 1e-3, "max": 10.0}
    return {"_target_": target, "root": str(root), "depth_range": depth_range, "image_size": list(IMAGE_SIZE)}


def write_run(
    directory: Path,
    data: Mapping[str, Any],
    layout: Layout,
    split: str = "val",
    protocols: Any = "all",
    seed: int = 0,
) -> Path:
    """Write the files of an evaluated run, and return its directory."""
    torch.manual_seed(seed)
    network = DepthNet("test_resnet", depth_range=layout.depth_range, image_size=IMAGE_SIZE).eval()
    state = {f"network.{name}": value for name, value in network.state_dict().items()}
    save_plain(directory / "checkpoints/best.ckpt", {"state_dict": state, RECORD_KEY: make_record(network)})
    dataset = DepthDataset(layout, split, IMAGE_SIZE)
    evaluation = Evaluation(choose_protocols(protocols, layout, split))
    for frame in range(len(dataset)):
        sample = dataset[frame]
        with torch.inference_mode():
            pred = network(sample.image[None])
            flipped = network(sample.image[None].flip(-1)).flip(-1)
        evaluation.update(pred, sample.depth[None], sample.mask[None], frame, flipped)
    evaluation.write(
        directory,
        split=split,
        labels=[layout.label(split, frame) for frame in range(len(dataset))],
        scenes=[layout.scene(split, frame) for frame in range(len(dataset))],
        expected=len(dataset),
        seed=seed,
        commit="c0ffee",
        versions={"torch": "2"},
        data={
            "description": layout.description,
            "layout": layout.name,
            "ground_truth": layout.ground_truth,
            "frames": {name: layout.count(name) for name in SPLITS},
            "scenes": layout.scene_rule,
            "val": layout.val,
            "digest": "d1935t",
            "image_size": list(IMAGE_SIZE),
        },
        mean_map=evaluation.figures(),
    )
    config = {"data": dict(data), "model": {"pretrained": False}, "ckpt": None, "split": split}
    config |= {"watch": "val/delta1", "directory": "${directory}"}
    (directory / "config.yaml").write_text(OmegaConf.to_yaml(config))
    (directory / "history.csv").write_text(HISTORY)
    return directory
