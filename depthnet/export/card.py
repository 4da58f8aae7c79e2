"""The card of an exported model: what it is, how it was made, its figures and its limits.

It is a Hugging Face model card. All of it comes from the run's own record; ``card.md.j2`` is its text.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from depthnet.core.tables import count_in_words
from depthnet.evaluation.bootstrap import DRAWS, LEVEL
from depthnet.export.portable import portable
from depthnet.export.terms import NYU_LAYOUTS, Origin
from depthnet.models.network import DepthNetwork
from depthnet.run.files import Run

_TASK = "depth-estimation"


@dataclass(frozen=True)
class Export:
    """What the export adds to a run's own record.

    Attributes:
        name: The model's.
        command: The command that trains it again.
        origin: What it was trained on.
        terms: The license of the weights.
        notes: Limits that a user should know.
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
    metrics, data = run.metrics, run.metrics["data"]
    described = data["description"] if data["layout"] == "rooms" else data["description"].rpartition(", ")[0]
    dataset = {
        "dataset_type": "nyu_depth_v2" if data["layout"] in NYU_LAYOUTS else data["layout"],
        "dataset_name": described,  # without the place where it lay
        "dataset_config": run.protocol,
        "dataset_split": metrics["split"],
    }
    known = re.fullmatch(r"[a-z0-9][a-z0-9.-]*", export.terms)
    head = ModelCardData(
        model_name=export.name,
        license=export.terms if known else "other",
        license_name=None if known else export.terms,
        datasets=["nyu_depth_v2"] if "nyu" in export.origin.data else None,
        library_name="depthnet",
        pipeline_tag=_TASK,
        eval_results=[
            EvalResult(task_type=_TASK, metric_type=name, metric_value=value, **dataset)
            for name, value in metrics["protocols"][run.protocol].items()
            if not math.isnan(value)
        ],
    )
    card = ModelCard.from_template(
        head,
        template_path=str(Path(__file__).with_name("card.md.j2")),
        run=run,
        export=export,
        network=network,
        parameters=sum(parameter.numel() for parameter in network.parameters()),
        described=described,
        counts=count_in_words(metrics["images"], metrics["expected"]),
        level=f"{LEVEL:.0%}",
        draws=DRAWS,
    )
    text: str = portable(f"{card}\n")
    return text
