"""Where the weights of an encoder come from: timm's, by the local cache or the hub; a safetensors file; or nowhere.

timm takes seconds to import, so it is imported where it is needed and not with this module.
"""

from __future__ import annotations

import difflib
import json
from functools import partial
from pathlib import Path
from typing import Any

import torch

from depthnet.core.deadline import within
from depthnet.core.types import InputError
from depthnet.models.checkpoint import RECORD_KEY, read_safetensors

_HUB_PATIENCE = 3.0  # seconds that the hub has to answer
_HUB_FILE = "model.safetensors"
_PADS = {"same": "same", "symmetric": "default", "default": "default"}  # by the first word of a header's pad_type


def choose_weights(name: str, value: bool | str) -> tuple[bool | str, str]:
    """Choose the weights that an encoder starts from.

    Args:
        name: timm's name of the encoder.
        value: ``True``: timm's weights, or an error. ``"auto"``: timm's weights if they lie in the local cache or the
            hub answers within three seconds, else none. ``False``: none. Another string: a safetensors file with timm's
            key names, whose header (architecture, mean, std, pad_type) is followed.

    Returns:
        ``True``, ``False`` or the file; and the weights in words, with the reason, to print after the encoder's name.

    Raises:
        InputError: If the encoder is unknown, the weights are not available, or the file does not fit this encoder.
    """
    _require_known(name)
    if value is False:
        return False, "from scratch: model.pretrained=false"
    if isinstance(value, str) and value != "auto":
        path = str(Path(value).expanduser())
        read_header(name, path)
        return path, f"pretrained weights from {path}"
    import timm
    from huggingface_hub import constants

    repository = timm.get_pretrained_cfg(name).hf_hub_id
    if cached_weights(repository):
        return True, f"pretrained weights {repository} from the local cache"
    if _hub_answers(repository):
        return True, f"pretrained weights {repository} from the hub"
    hub = "HF_HUB_OFFLINE forbids the hub" if constants.HF_HUB_OFFLINE else "the hub does not answer"
    if value == "auto":
        return False, f"from scratch: {f'no cached weights, and {hub}' if repository else 'timm has no weights for it'}"
    why = f"are not in the cache, and {hub}" if repository else "do not exist"
    raise InputError(f"model.pretrained=true: the weights of {name} {why}; use auto, false or a file")


def read_header(name: str, path: str) -> dict[str, Any]:
    """Return the ``mean``, ``std`` and ``pad`` that the header of a weights file states, if it does.

    Args:
        name: timm's name of the encoder.
        path: A safetensors file.

    Raises:
        InputError: If it is no such file, or does not fit this encoder.
    """
    import timm

    given = f"model.pretrained={path}"
    content = read_safetensors(path, given) if Path(path).is_file() else None
    if content is None or RECORD_KEY in content[0] or not path.endswith(".safetensors"):  # timm unpickles others
        new = Path(path).with_suffix(".safetensors").name
        raise InputError(
            f"{given}: not a .safetensors file of weights with timm's key names, nor auto, true or false; start from a "
            f"network of depthnet with ckpt={path}; convert a PyTorch file of the encoder's weights: "
            "import torch; from safetensors.torch import save_file; "
            f'save_file(torch.load("{path}", weights_only=True), "{new}")'
        )
    header, tensors = content
    shapes = {key: tuple(tensor.shape) for key, tensor in tensors.items()}
    architecture = header.get("architecture", name).partition(".")[0]
    if architecture != name.partition(".")[0]:
        raise InputError(f"{given} holds {architecture}, but model.encoder is {name}")
    with torch.device("meta"):
        network = timm.create_model(name)
    classifier = network.pretrained_cfg.get("classifier") or ()
    heads = tuple(f"{head}." for head in ((classifier,) if isinstance(classifier, str) else classifier))
    expected = {key: tuple(tensor.shape) for key, tensor in network.state_dict().items()}
    needed = {key for key in expected if not key.startswith(heads) and not key.endswith("num_batches_tracked")}
    if wrong := sorted({key for key in needed if shapes.get(key) != expected[key]} | (shapes.keys() - expected.keys())):
        keys = f"{len(wrong)} keys are missing, foreign or of another shape, the first is {wrong[0]}"
        raise InputError(f"{given} does not fit {name}: {keys}")

    try:
        stated: dict[str, Any] = {key: json.loads(f"[{header[key]}]") for key in ("mean", "std") if key in header}
        if padding := header.get("pad_type"):
            stated["pad"] = _PADS[padding.split()[0]]
    except (ValueError, LookupError):
        raise InputError(f"{given}: its mean, std or pad_type is not understood: {header}") from None
    return stated


def cached_weights(repository: str | None) -> str | None:
    """Return the file of a hub repository's weights in the local cache, if it exists."""
    from huggingface_hub import try_to_load_from_cache

    path = try_to_load_from_cache(repository, _HUB_FILE) if repository else None
    return path if isinstance(path, str) else None  # it has a third answer: known not to exist


def _hub_answers(repository: str | None) -> bool:
    """Ask the hub for the size of the weights, with a deadline, as looking up a host's name has no timeout."""
    from huggingface_hub import constants, get_hf_file_metadata, hf_hub_url

    if repository is None or constants.HF_HUB_OFFLINE:
        return False
    try:
        within(_HUB_PATIENCE, partial(get_hf_file_metadata, hf_hub_url(repository, _HUB_FILE), timeout=_HUB_PATIENCE))
    except Exception:  # of any kind: the hub cannot be used
        return False
    return True


def _require_known(name: str) -> None:
    import timm

    known = [*timm.list_models(), *timm.list_pretrained()]
    if name not in known:
        near = difflib.get_close_matches(name, known, n=3, cutoff=0.0)
        raise InputError(f"model.encoder={name}: timm has no such network or weights; near: {', '.join(near)}")
