"""Start from a checkpoint: its record says what its weights mean, and only the command line changes that."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from typing import Any

from omegaconf import OmegaConf, open_dict

from depthnet.core.types import InputError
from depthnet.data.datamodule import DepthDataModule
from depthnet.models.checkpoint import fitting_weights, load_weights, read_checkpoint
from depthnet.models.depth_net import NETWORKS
from depthnet.models.network import DepthNetwork
from depthnet.run.arguments import accepts
from depthnet.run.overrides import named_keys

log = logging.getLogger("depthnet")

_FEWEST_FITTING = 0.1  # of a network's tensors; a head in common is no start
_FEATURES = ("mean", "std", "encoder_pad")  # what the weights of an encoder mean
_DEPTH = ("depth_range", "head", "geometry", "camera")  # what the output means
_HEAD = ("depth_range", "head")
_UNREACHABLE = 0.01  # of the valid pixels


def start_config(cfg: Any, words: Sequence[str]) -> None:
    """Give a new run's config, in place, the network, image size and geometry of the checkpoint that ``ckpt=`` names.

    What the command line says by ``model.KEY=`` and ``data.image_size=`` wins, and nothing else does: not the
    defaults, and not an experiment's. ``model=NAME`` asks for another network, which takes the weights that fit; then
    normalization and padding stay the checkpoint's where the encoder does, and so does what the output means.
    ``data.depth_range`` is the checkpoint's where the config has none. What differs from the config is logged.

    Args:
        cfg: The config of a run, as Hydra composed it.
        words: The command line's overrides.

    Raises:
        InputError: If the checkpoint cannot be read, its record would build something or read the environment, or
            pretrained weights are named too.
    """
    checkpoint = read_checkpoint(cfg.ckpt)
    record, kind, named = checkpoint.config, NETWORKS.get(checkpoint.network), named_keys(words)
    if "_target_" in str(record) or "${" in str(record):  # it becomes part of a config
        raise InputError(f"ckpt={cfg.ckpt}: its record holds more than plain values; take another checkpoint")
    composed: Any = OmegaConf.to_container(cfg.model, resolve=True)
    if "model" in named or kind is None:
        kept = [*(_FEATURES if composed.get("encoder") == record.get("encoder") else ()), *_DEPTH]
        taken = [key for key in kept if key in record and accepts(str(composed.get("_target_")), key)]
        model = composed | {key: record[key] for key in taken}
    else:
        if "model.pretrained" in named and composed.get("pretrained"):
            raise InputError("model.pretrained: with ckpt= the encoder's weights are the checkpoint's; leave it out")
        model = {"_target_": f"{kind.__module__}.{kind.__name__}", **record}
    own = {key.partition(".")[2] for key in named if key.startswith("model.")}
    model |= {key: composed.get(key) for key in own}
    if "pretrained" in model and "model.pretrained" not in named:
        model["pretrained"] = False  # the checkpoint brings the weights
    given = list(cfg.data.image_size)
    model["image_size"] = given if "data.image_size" in named else list(record["image_size"])
    values = {"data.image_size": (given, model["image_size"])} | {
        f"model.{key}": (composed.get(key), value)
        for key, value in model.items()
        if key not in ("_target_", "pretrained", "image_size")
    }
    lines = [
        f"{key}={value} (the config has {stated})"
        for key, (stated, value) in values.items()
        if stated not in (None, "auto", value)  # None and auto leave it to the weights
    ]
    with open_dict(cfg):
        cfg.model, cfg.data.image_size = model, model["image_size"]
        if cfg.data.get("depth_range") is None:
            cfg.data.depth_range = record["depth_range"]
            lines.append(f"data.depth_range={record['depth_range']} (the config states none)")
    if lines:
        log.info("ckpt=%s: network, image size and depth range are the checkpoint's: %s", cfg.ckpt, "; ".join(lines))


def start_network(
    network: DepthNetwork,
    data: DepthDataModule,
    path: str | os.PathLike[str] | None,
    auto_camera: bool = False,
    any_range: bool = False,
) -> None:
    """Give a network the weights and the camera that it starts with, and check that it can predict the data's depths.

    Args:
        network: Changed in place. Its depth range holds for its training camera; other cameras' depths are scaled.
        data: What it is trained on.
        path: A checkpoint to take the weights of; what did not fit is logged. The head is new where its depth range or
            its kind is.
        auto_camera: Whether its training camera becomes that of the data.
        any_range: Whether it may train on depths that it cannot predict.

    Raises:
        InputError: If the checkpoint cannot be read or next to nothing in it fits; unless ``any_range``, also if more
            than 1 % of the valid pixels can never be predicted.
    """
    if path is not None:
        _load_start(network, path)
    focal = data.training_focal()
    if auto_camera:
        network.camera = None if focal is None else {"focal": focal, "size": list(network.image_size)}
    elif focal and network.camera is None:
        log.warning("camera: the network states no training camera, so depth is not scaled by the data's")
    ratio = focal / network.camera["focal"] if focal and network.camera else 1.0
    low, high = network.depth_range.min * ratio, network.depth_range.max * ratio
    share, limits = data.beyond_range(low, high), data.layout.depth_range
    line = (
        f"the network predicts {low:g} to {high:g} m and the data has {limits.min:g} to {limits.max:g} m: "
        f"{share:.2%} of its valid pixels can never be predicted"
    )
    if share > _UNREACHABLE and not any_range:
        wanted = f"model.depth_range='{{min: {limits.min:g}, max: {limits.max:g}}}'"
        raise InputError(f"data.depth_range: {line}; add {wanted} for a new head of that range")
    if share:
        log.warning("depth range: %s", line)


def _load_start(network: DepthNetwork, path: str | os.PathLike[str]) -> None:
    config, checkpoint = network.config(), read_checkpoint(path)
    state = checkpoint.state
    changed = [key for key in _HEAD if checkpoint.config.get(key) != config[key]]
    if changed:
        log.warning("ckpt: new head, as model.%s=%s is not the checkpoint's", changed[0], config[changed[0]])
        state = {name: value for name, value in state.items() if not name.startswith("head.")}
    fitting = len(fitting_weights(network, state))
    if fitting < _FEWEST_FITTING * len(network.state_dict()):
        raise InputError(
            f"ckpt={path}: {fitting} of its {len(state)} tensors fit this network; choose the model it is of"
        )
    for line in (misfits := load_weights(network, state)):
        log.warning("ckpt: %s", line)
    log.info(
        "ckpt: started from %s; %s", path, f"{len(misfits)} tensors did not fit" if misfits else "all weights loaded"
    )
