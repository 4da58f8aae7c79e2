"""The card of a model that is handed on: what it is, how it was made, what it scores and where it fails.

It is Markdown with a head of YAML, as Hugging Face reads it. All in it comes from the run's own record.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from depthnet.intervals import DRAWS, LEVEL
from depthnet.metrics import METRIC_NAMES
from depthnet.models.network import DepthNetwork
from depthnet.per_image import count_in_words
from depthnet.report.atlas import mean_figures
from depthnet.report.judge import Run
from depthnet.shipped import portable
from depthnet.terms import Origin

__all__ = ["Export", "model_card"]

_TERMS = {
    "nyu": "NYU Depth V2 is its authors': Silberman, Hoiem, Kohli and Fergus, Indoor Segmentation and Support "
    "Inference from RGBD Images, ECCV 2012. Cite them, and keep to their terms.",
    "rooms": "The built-in rooms are made by depthnet itself and are nobody's.",
    "own": "Pairs of one's own are their owner's.",
    "unknown": "Not all that the weights were trained on is known.",
}
_IN_METRES = ("sq_rel", "rmse")


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
        photographs: What that was measured on, in words.
    """

    name: str
    command: str
    origin: Origin
    terms: str
    notes: Sequence[str]
    size: int
    digest: str
    changes: tuple[float, float]
    photographs: str


def model_card(run: Run, network: DepthNetwork, export: Export) -> str:
    """Return the text of a card.

    Args:
        run: The run that made the weights.
        network: With these weights.
        export: What the run does not know.
    """
    parts = [_head(export), _about(network, export), _use(export), _training(run, export), _figures(run)]
    parts += [_limits(run, network, export), _license(export)]
    text: str = portable("\n".join(parts))
    return text


def _head(export: Export) -> str:
    known = re.fullmatch(r"[a-z0-9][a-z0-9.-]*", export.terms)
    license = [f"license: {export.terms}"] if known else ["license: other", f"license_name: {_quoted(export.terms)}"]
    datasets = ["datasets:", "- nyu_depth_v2"] if "nyu" in export.origin.data else []
    lines = [*license, *datasets, "library_name: depthnet", "pipeline_tag: depth-estimation"]
    return "\n".join(["---", *lines, "---", ""])


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _about(network: DepthNetwork, export: Export) -> str:
    config = network.config()
    encoder = f" with the encoder {config['encoder']}" if "encoder" in config else ""
    low, high = network.depth_range.min, network.depth_range.max
    parameters = sum(parameter.numel() for parameter in network.parameters())
    height, width = network.image_size
    return f"""# {export.name}

Depth in metres from one photograph: `{type(network).__name__}`{encoder}, {parameters:,} parameters. It says depths of
{low:g} to {high:g} m, and sees a photograph at {height}x{width}. The file has {export.size:,} bytes: its weights are
float16, and are computed with in float32. SHA-256: `{export.digest}`.
"""


def _use(export: Export) -> str:
    return f"""## Use

    python predict.py photo.jpg --ckpt {export.name}

```python
from depthnet.image import read_image
from depthnet.models.depth_net import load_network

depth = load_network("{export.name}").infer(read_image("photo.jpg"))  # metres, float32, the photograph's size
```

Its name will do where the file is in depthnet's `weights/`; elsewhere give its path.
"""


def _training(run: Run, export: Export) -> str:
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
    lines = {
        what: f"{_described(data)}; {frames}; {data['truth']} truth; images {height}x{width}",
        "Scenes": data["scenes"],
        "Data digest": data.get("digest") or "none",
        "First weights": f"those of {start}" if start else first,
        "Seed": run.metrics["seed"],
        "Command": f"`{export.command}`",
        "Commit": run.metrics["commit"] or "unknown",
        "Versions": versions,
    }
    return "\n".join(["## Training", "", *(f"- {name}: {text}" for name, text in lines.items()), ""])


def _described(data: dict[str, Any]) -> str:
    """What the data is, without the place where it lay."""
    description = str(data["description"])
    return description.rpartition(", ")[0] if data["layout"] != "rooms" else description


def _figures(run: Run) -> str:
    metrics, split = run.metrics, run.metrics["split"]
    chosen, counts = "", count_in_words(metrics["images"], metrics["expected"])
    if split == "val":
        chosen = f" The weights were chosen by `{run.config['watch']}` on these very frames, which flatters a little."
    lines = [
        "## Figures",
        "",
        f"Judged on {split}, {counts}, before the weights were rounded.{chosen} The intervals hold "
        f"{LEVEL:.0%} of {DRAWS} bootstrap draws of whole scenes. The mean map answers every image with the mean depth "
        "of the training images.",
        "",
    ]
    for protocol, rows in run.rows.items():
        figures = mean_figures(
            METRIC_NAMES, [row for *_, row in rows.values()], [scene for _, scene, _ in rows.values()]
        )
        constant = metrics.get("mean_map", {}).get(protocol, {})
        lines += [f"### {protocol}", "", metrics["definitions"][protocol], ""]
        lines += ["| figure | value | 95 % interval | mean map |", "| --- | --- | --- | --- |"]
        for name, (value, (low, high)) in figures.items():
            ends = "none, one scene" if math.isnan(low) else f"{low:.3f} to {high:.3f}"
            beside = f"{constant[name]:.3f}" if name in constant else ""
            lines.append(f"| {name}{' [m]' if name in _IN_METRES else ''} | {value:.3f} | {ends} | {beside} |")
        lines.append("")
    return "\n".join(lines)


def _limits(run: Run, network: DepthNetwork, export: Export) -> str:
    mean, largest = export.changes
    height, width = network.image_size
    lines = [
        *export.notes,
        f"Nothing beyond {network.depth_range.max:g} m, and no detail finer than {height}x{width} shows.",
        f"Rounding to float16 changes depth by {mean:.1e} of itself on average and {largest:.1e} at most, on "
        f"{export.photographs}.",
    ]
    return "\n".join(["## Limits", "", *(f"- {line}" for line in dict.fromkeys(lines)), ""])


def _license(export: Export) -> str:
    lines = [f"Weights: {export.terms}", *(f"Data: {_TERMS[kind]}" for kind in _TERMS if kind in export.origin.data)]
    lines += [
        f"Encoder: began with pretrained weights ({encoder}), whose terms hold too."
        for encoder in sorted(export.origin.pretrained)
    ]
    return "\n".join(["## License", "", *(f"- {line}" for line in lines), ""])
