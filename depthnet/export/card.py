"""The card of an exported model: what it is, how it was made, what it scores and where it fails.

It is a Hugging Face model card. All in it comes from the run's own record; ``card.md.j2`` is its text.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from depthnet.core.tables import count_in_words
from depthnet.evaluation.bootstrap import DRAWS, LEVEL
from depthnet.export.terms import NYU_LAYOUTS, Origin
from depthnet.models.network import DepthNetwork
from depthnet.models.shipped import portable
from depthnet.run.files import Run

_TASK = "depth-estimation"
_IN_METERS = ("sq_rel", "rmse")


@dataclass(frozen=True)
class Export:
    """What the export adds to a run's own record.

    Attributes:
        name: The model's.
        command: What trains it anew.
        origin: What it was trained on.
        terms: The license of the weights.
        notes: What a user should know of its limits.
        size: Of the file of weights [bytes].
        digest: Its SHA-256.
        changes: Mean and largest relative change of depth by the rounding of the weights.
    """

    name: str
    command: str
    origin: Origin
    terms: str
    notes: Sequence[str]
    size: int
    digest: str
    changes: tuple[float, float]


def model_card(run: Run, network: DepthNetwork, export: Export) -> str:
    """Return the text of a card.

    Args:
        run: The run that made the weights.
        network: With these weights.
        export: What the run does not know.
    """
    metrics, split = run.metrics, run.metrics["split"]
    card = ModelCard.from_template(
        _head(run, export),
        template_path=str(Path(__file__).with_name("card.md.j2")),
        export=export,
        network=network,
        parameters=sum(parameter.numel() for parameter in network.parameters()),
        training=_training(run, export),
        split=split,
        counts=count_in_words(metrics["images"], metrics["expected"]),
        watch=run.config["watch"] if split == "val" else None,
        level=f"{LEVEL:.0%}",
        draws=DRAWS,
        protocols=[(name, metrics["definitions"][name], list(_figures(run, name))) for name in run.rows],
    )
    text: str = portable(f"{card}\n")
    return text


def _head(run: Run, export: Export) -> ModelCardData:
    """What Hugging Face reads: license, data, and the figures under the run's first protocol."""
    data, known = run.metrics["data"], re.fullmatch(r"[a-z0-9][a-z0-9.-]*", export.terms)
    dataset = {
        "dataset_type": "nyu_depth_v2" if data["layout"] in NYU_LAYOUTS else data["layout"],
        "dataset_name": _described(data),
        "dataset_config": run.protocol,
        "dataset_split": run.metrics["split"],
    }
    figures = run.metrics["protocols"][run.protocol]
    return ModelCardData(
        model_name=export.name,
        license=export.terms if known else "other",
        license_name=None if known else export.terms,
        datasets=["nyu_depth_v2"] if "nyu" in export.origin.data else None,
        library_name="depthnet",
        pipeline_tag=_TASK,
        eval_results=[
            EvalResult(task_type=_TASK, metric_type=name, metric_value=value, **dataset)
            for name, value in figures.items()
            if not math.isnan(value)
        ],
    )


def _training(run: Run, export: Export) -> dict[str, Any]:
    """How the weights were made, in words, by what is described."""
    data, config = run.metrics["data"], run.config
    frames = ", ".join(f"{count} {split}" for split, count in data["frames"].items() if count)
    if data.get("extra_rooms"):
        frames += f"; {data['extra_rooms']} built-in rooms beside the training frames"
    height, width = data["image_size"]
    pretrained, start = config.get("model", {}).get("pretrained", False), config.get("ckpt")
    first = "timm's pretrained ones for the encoder" if pretrained is True else "random"
    if isinstance(pretrained, str):
        first = f"those of {pretrained} for the encoder"
    what = "Data"
    if config.get("mode") == "test":  # its checkpoint is what was made, not what it was made from
        first, start, what = "as the command says", None, "Evaluated on"
    versions = ", ".join(f"{name} {version}" for name, version in run.metrics["versions"].items() if version)
    return {
        what: f"{_described(data)}; {frames}; {data['truth']} truth; images {height}x{width}",
        "Scenes": data["scenes"],
        "Data digest": data.get("digest") or "none",
        "First weights": f"those of {start}" if start else first,
        "Seed": run.metrics["seed"],
        "Command": f"`{export.command}`",
        "Commit": run.metrics["commit"] or "unknown",
        "Versions": versions,
    }


def _described(data: dict[str, Any]) -> str:
    """What the data is, without the place where it lay."""
    description = str(data["description"])
    return description.rpartition(", ")[0] if data["layout"] != "rooms" else description


def _figures(run: Run, protocol: str) -> Iterator[tuple[str, str, str, str]]:
    """A row for each metric: its name, mean, interval, and that of the mean map."""
    constant = run.mean_map(protocol)
    for name, value in run.metrics["protocols"][protocol].items():
        low, high = run.metrics["intervals"][protocol][name]
        ends = "none, one scene" if low is None else f"{low:.3f} to {high:.3f}"
        beside = f"{constant[name]:.3f}" if name in constant else ""
        yield f"{name}{' [m]' if name in _IN_METERS else ''}", f"{value:.3f}", ends, beside
