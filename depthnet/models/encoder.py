"""Any timm network that gives a feature pyramid, behind one interface; the only place that knows timm.

timm takes seconds to import, so it is imported where it is needed and not with this module.
"""

from __future__ import annotations

import contextlib
import difflib
import functools
import itertools
import json
import logging
import math
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from depthnet.core.types import BEST, InputError
from depthnet.models.shipped import shipped_models
from depthnet.models.weights_kind import torch_owner, weights_kind

Size = tuple[int, int]

_HUB_PATIENCE = 3.0  # seconds that the hub has to answer
_HUB_FILE = "model.safetensors"
_ODD = (235, 311)  # halved with rounding up or down, it differs at every level: what takes it takes any larger size


class Encoder(nn.Module):
    """A timm network without its classifier; gives features from fine to coarse.

    Inputs whose size the network cannot take are padded at the right and the bottom (by repeating the border), and the
    features are cropped again. A feature at the input's own size, which VGG and a few others give, is left out.

    Args:
        name: timm's name of the network, with or without the tag of its weights.
        pretrained: As :func:`resolve_pretrained`.
        pad: ``default``: the network's own padding. ``same``: each level is exactly half the one before, rounded up. A
            weights file that states its padding overrides this.
        image_size: (height, width) of the images to come: is checked, and a network of a single size is built for it.
        mean: Mean of the images that the weights expect, in [0, 1]; that of timm's configuration by default.
        std: Their standard deviation, likewise.

    Attributes:
        pad, mean, std: Those in use.
        channels: Channels of each feature, fine to coarse.
        reductions: Nominal stride of each feature, fine to coarse.

    Raises:
        InputError: If the network is unknown or gives no pyramid, the weights cannot be had or do not fit, or
            ``image_size`` is too small.

    Example:
        >>> encoder = Encoder("test_resnet")
        >>> [tuple(feature.shape) for feature in encoder(torch.zeros(1, 3, 61, 97))][-2:]
        [(1, 192, 4, 7), (1, 96, 2, 4)]
    """

    def __init__(
        self,
        name: str,
        pretrained: bool | str = False,
        pad: Literal["default", "same"] = "default",
        image_size: Sequence[int] | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        if pad not in ("default", "same"):
            raise InputError(f"model.encoder_pad={pad}: choose default or same")
        weights = resolve_pretrained(name, pretrained)
        stated = _read_header(name, weights) if isinstance(weights, str) else {}
        self.name = name
        self.pad: Literal["default", "same"] = stated.get("pad", pad)
        self.image_size = (int(image_size[0]), int(image_size[1])) if image_size is not None else None
        self.fixed_size: Size | None = None

        self.net = _create(name, weights, self.pad)
        config = self.net.pretrained_cfg
        reductions = self.net.feature_info.reduction()
        if not _is_pyramid(reductions):
            near = ", ".join(_nearest_pyramids(name))
            raise InputError(f"model.encoder={name} gives no feature pyramid (strides {reductions}); near: {near}")
        kept = slice(sum(reduction < 2 for reduction in reductions), None)
        self.reductions: tuple[int, ...] = tuple(reductions[kept])
        self.channels: tuple[int, ...] = tuple(self.net.feature_info.channels()[kept])
        self.mean: tuple[float, ...] = tuple(mean or stated.get("mean") or config["mean"])
        self.std: tuple[float, ...] = tuple(std or stated.get("std") or config["std"])

        fine, coarse = self.reductions[0], self.reductions[-1]
        for self._multiple in (1, fine, coarse, 2 * coarse, 4 * coarse, 8 * coarse):
            if self._takes(_ODD):
                break
        else:
            self._multiple = coarse
            self.fixed_size = tuple(config["input_size"][1:])
            with contextlib.suppress(TypeError):  # it has no such argument, only the size that it is trained for
                size = self._padded(self.image_size or self.fixed_size)
                self.net = _create(name, weights, self.pad, img_size=size)
                self.fixed_size = size
            if not self._takes(self.fixed_size):
                raise InputError(f"model.encoder={name} cannot be run with encoder_pad={self.pad}")
        if self.image_size is not None:
            self.check_size(self.image_size)

    def forward(self, image: Tensor) -> list[Tensor]:
        """Return the features.

        Args:
            image: Already normalised, shape ``(B, 3, H, W)``.

        Returns:
            From fine to coarse, shapes ``(B, channels[i], h, w)``.

        Raises:
            InputError: If the network is built for one size and this is another.
        """
        height, width = image.shape[-2:]
        padded = self._padded((height, width))
        if self.fixed_size:
            self.check_size((height, width))
        if padded == (height, width):
            return self._pyramid(self.net(image))
        image = F.pad(image, (0, padded[1] - width, 0, padded[0] - height), mode="replicate")
        return [
            feature[..., : math.ceil(height / reduction), : math.ceil(width / reduction)]
            for feature, reduction in zip(self._pyramid(self.net(image)), self.reductions, strict=True)
        ]

    def check_size(self, image_size: Size) -> None:
        """Raise InputError if images of this (height, width) are too small, or the network is built for another."""
        height, width = image_size
        if self.fixed_size:
            if self._padded(image_size) != self.fixed_size:
                fixed = "x".join(map(str, self.fixed_size))
                raise InputError(
                    f"data.image_size {height}x{width}: {self.name} is built for {fixed}, and for no other"
                )
        elif (height < _ODD[0] or width < _ODD[1]) and not self._takes(image_size):
            least = self.min_size
            raise InputError(f"data.image_size {height}x{width}: {self.name} needs at least {least}x{least}")

    @functools.cached_property
    def min_size(self) -> int:
        """Height and width of the smallest square image that the network takes [px]."""
        if self.fixed_size:
            return min(self.fixed_size)
        small, enough = self.reductions[-1] - 1, max(_ODD)
        while enough - small > 1:
            middle = (small + enough) // 2
            small, enough = (small, middle) if self._takes((middle, middle)) else (middle, enough)
        return enough

    def config(self) -> dict[str, Any]:
        """Return constructor arguments, fit for JSON, that build the same network and normalisation without weights."""
        return {
            "name": self.name,
            "pretrained": False,
            "pad": self.pad,
            "image_size": list(self.image_size) if self.image_size else None,
            "mean": list(self.mean),
            "std": list(self.std),
        }

    def _padded(self, size: Size) -> Size:
        height, width = (math.ceil(side / self._multiple) * self._multiple for side in size)
        return height, width

    def _pyramid(self, outputs: Sequence[Tensor]) -> list[Tensor]:
        """Leave out what is finer than our finest level, and put the channels first."""
        features = outputs[-len(self.channels) :]
        if str(getattr(self.net, "output_fmt", "")).endswith("NHWC"):
            return [feature.permute(0, 3, 1, 2) for feature in features]
        return list(features)

    def _takes(self, size: Size) -> bool:
        """Whether images of this size give the promised features, found without computing or allocating any."""
        if min(size) < self.reductions[-1]:
            return False
        size = self._padded(size)
        state = itertools.chain(self.net.named_parameters(), self.net.named_buffers())
        on_meta = {name: tensor.to("meta") for name, tensor in state}
        training = self.net.training
        self.net.eval()
        try:
            with torch.no_grad():
                image = torch.empty((1, 3, *size), device="meta")
                # tie_weights=True would leave modules that the network holds twice on the meta device
                outputs = torch.func.functional_call(self.net, on_meta, (image,), tie_weights=False)
        except (RuntimeError, AssertionError, ValueError):
            return False
        finally:
            self.net.train(training)
        shapes = [tuple(feature.shape[1:]) for feature in self._pyramid(outputs)]
        if tuple(channels for channels, _, _ in shapes) != self.channels or min(shapes[-1]) < 1:
            return False
        if self.pad == "same":
            halved = [tuple(math.ceil(side / reduction) for side in size) for reduction in self.reductions]
            return [shape[1:] for shape in shapes] == halved
        return all(fine[1] > coarse[1] and fine[2] > coarse[2] for fine, coarse in itertools.pairwise(shapes))


def resolve_pretrained(name: str, value: bool | str) -> bool | str:
    """Return which weights an encoder starts from, as :func:`choose_weights` decides."""
    return choose_weights(name, value)[0]


def choose_weights(name: str, value: bool | str) -> tuple[bool | str, str]:
    """Decide once which weights an encoder starts from.

    Args:
        name: timm's name of the encoder.
        value: ``True``: timm's weights, or an error. ``"auto"``: timm's weights if they lie in the local cache or the
            hub answers within three seconds, else none. ``False``: none. Another string: a safetensors file with timm's
            key names, whose header (architecture, mean, std, pad_type) is obeyed.

    Returns:
        ``True``, ``False`` or the file; and the weights in words, with the reason, to stand after the encoder's name.

    Raises:
        InputError: If the encoder is unknown, the weights cannot be had, or the file is none for this encoder.
    """
    _require_known(name)
    if value is False:
        return False, "from scratch: model.pretrained=false"
    if isinstance(value, str) and value != "auto":
        path = str(Path(value).expanduser())
        _read_header(name, path)
        return path, f"pretrained weights from {path}"
    import timm
    from huggingface_hub import constants

    repository = timm.get_pretrained_cfg(name).hf_hub_id
    if _cached_weights(repository):
        return True, f"pretrained weights {repository} from the local cache"
    if _hub_answers(repository):
        return True, f"pretrained weights {repository} from the hub"
    hub = "HF_HUB_OFFLINE forbids the hub" if constants.HF_HUB_OFFLINE else "the hub does not answer"
    if value == "auto":
        return False, f"from scratch: {f'no cached weights, and {hub}' if repository else 'timm has no weights for it'}"
    why = f"are not in the cache, and {hub}" if repository else "do not exist"
    raise InputError(f"model.pretrained=true: the weights of {name} {why}; use auto, false or a file")


def _create(name: str, weights: bool | str, pad: Literal["default", "same"], **options: Any) -> Any:
    """Build timm's network, with its weights where any are wanted."""
    import timm

    config = timm.get_pretrained_cfg(name)
    file = weights if isinstance(weights, str) else weights and _cached_weights(config.hf_hub_id)
    attempts: list[dict[str, Any]] = [options]
    if config.fixed_input_size and not options:
        attempts.insert(0, {"strict_img_size": False})
    if pad == "same":
        attempts = [attempt | extra for attempt in attempts for extra in ({"pad_type": "same"}, {})]
    for attempt in attempts:
        try:
            with _quiet_timm():
                net = timm.create_model(
                    name,
                    pretrained=bool(weights),
                    features_only=True,
                    pretrained_cfg_overlay={"file": file} if file else None,
                    **attempt,
                )
            break
        except TypeError:  # the network has no such argument
            if attempt is attempts[-1]:
                raise
        except Exception as error:  # timm, torch, safetensors and the hub have no common error
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise InputError(f"model.encoder={name}, model.pretrained={weights}: {reason}") from error
    if pad == "same" and "pad_type" not in attempt:
        _pad_windows(net)
    return net


def _pad_windows(net: nn.Module) -> None:
    """Give every convolution and pooling whose windows overlap and that pads nothing the padding of half its kernel."""
    for module in net.modules():
        if type(module) not in (nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d):  # subclasses pad by themselves
            continue
        kernel, stride, padding = (_pair(getattr(module, key)) for key in ("kernel_size", "stride", "padding"))
        if padding == (0, 0) and (kernel[0] > stride[0] or kernel[1] > stride[1]):
            module.padding = (kernel[0] // 2, kernel[1] // 2)  # type: ignore[assignment]
            module.count_include_pad = False  # type: ignore[assignment]  # read by average pooling only


def _pair(value: Any) -> Size:
    return (value, value) if isinstance(value, int) else tuple(value)


def _read_header(name: str, path: str) -> dict[str, Any]:
    """Return what a weights file states (``mean``, ``std``, ``pad``); refuse one that is not this encoder's."""
    import timm
    from safetensors import SafetensorError, safe_open

    given = f"model.pretrained={path}"
    whole = f"{given}: a whole network of depthnet, not an encoder's weights; start from it with ckpt={path}"
    if not Path(path).is_file() and (path in shipped_models() or Path(path, BEST).is_file()):
        raise InputError(whole)
    if Path(path).is_dir():
        raise InputError(f"{given}: a folder; name the .safetensors file in it")
    if not Path(path).exists():
        raise InputError(f"{given}: no such file; give a file, auto, true or false")
    if weights_kind(path, given) == "torch":
        if torch_owner(path) == "depthnet":
            raise InputError(whole)
        new = Path(path).with_suffix(".safetensors").name
        raise InputError(
            f"{given}: a PyTorch file, and only safetensors with timm's key names are read; convert it: "
            "import torch; from safetensors.torch import save_file; "
            f'save_file(torch.load("{path}", weights_only=True), "{new}")'
        )
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            shapes = {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118  no mapping
    except (OSError, SafetensorError) as error:
        raise InputError(f"model.pretrained={path}: not a whole safetensors file ({error})") from None

    if "depthnet" in header:
        raise InputError(whole)
    if not path.endswith(".safetensors"):  # timm would unpickle it
        raise InputError(f"model.pretrained={path}: its name must end in .safetensors")
    architecture = header.get("architecture", name).split(".")[0]
    if architecture != name.split(".", maxsplit=1)[0]:
        raise InputError(f"model.pretrained={path} holds {architecture}, but model.encoder is {name}")
    with torch.device("meta"):
        network = timm.create_model(name)
    classifier = network.pretrained_cfg.get("classifier") or ()
    heads = tuple(f"{head}." for head in ((classifier,) if isinstance(classifier, str) else classifier))
    expected = {key: tuple(tensor.shape) for key, tensor in network.state_dict().items()}
    needed = {key for key in expected if not key.startswith(heads) and not key.endswith("num_batches_tracked")}
    if wrong := sorted({key for key in needed if shapes.get(key) != expected[key]} | (shapes.keys() - expected.keys())):
        keys = f"{len(wrong)} keys are missing, foreign or of another shape, the first is {wrong[0]}"
        raise InputError(f"model.pretrained={path} does not fit {name}: {keys}")

    try:
        stated: dict[str, Any] = {
            field: json.loads(f"[{header[field]}]") for field in ("mean", "std") if field in header
        }
        if padding := header.get("pad_type"):
            stated["pad"] = {"same": "same", "symmetric": "default", "default": "default"}[padding.split()[0]]
    except (ValueError, LookupError):
        raise InputError(f"model.pretrained={path}: its mean, std or pad_type is not understood: {header}") from None
    return stated


def _cached_weights(repository: str | None) -> str | None:
    """Return the file of a hub repository's weights in the local cache, if it is there."""
    from huggingface_hub import try_to_load_from_cache

    path = try_to_load_from_cache(repository, _HUB_FILE) if repository else None
    return path if isinstance(path, str) else None  # it has a third answer: known not to exist


def _hub_answers(repository: str | None) -> bool:
    """Ask the hub for the size of the weights, in a thread because looking up a host's name knows no timeout."""
    from huggingface_hub import constants, get_hf_file_metadata, hf_hub_url

    if repository is None or constants.HF_HUB_OFFLINE:
        return False
    answers = []

    def ask() -> None:
        with contextlib.suppress(Exception):  # whatever is wrong, the hub cannot be used
            answers.append(get_hf_file_metadata(hf_hub_url(repository, _HUB_FILE), timeout=_HUB_PATIENCE))

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(_HUB_PATIENCE)
    return bool(answers)


def _require_known(name: str) -> None:
    import timm

    base, _, tag = name.partition(".")
    if not timm.is_model(base):
        near = difflib.get_close_matches(base, timm.list_models(), n=3, cutoff=0.0)
        raise InputError(f"model.encoder={name}: timm has no such network; near: {', '.join(near)}")
    if tag and name not in (tagged := timm.list_pretrained(base)):
        raise InputError(f"model.encoder={name}: timm has no such weights; it has: {', '.join(tagged) or 'none'}")


def _is_pyramid(reductions: Sequence[int]) -> bool:
    return len(reductions) >= 3 and all(fine < coarse for fine, coarse in itertools.pairwise(reductions))


def _nearest_pyramids(name: str) -> list[str]:
    """Return the three encoders with the most similar names, one a family, that do give a pyramid."""
    import timm

    base = name.split(".", maxsplit=1)[0]
    families = {timm.model_entrypoint(base).__module__}
    found: list[str] = []
    for match in difflib.get_close_matches(base, timm.list_models(), n=1000, cutoff=0.0):
        family = timm.model_entrypoint(match).__module__
        if family in families:
            continue
        families.add(family)
        with contextlib.suppress(Exception), torch.device("meta"), _quiet_timm():
            if _is_pyramid(timm.create_model(match, features_only=True).feature_info.reduction()):
                found.append(match)
        if len(found) == 3:
            break
    return found


@contextlib.contextmanager
def _quiet_timm() -> Iterator[None]:
    """Keep timm from telling which weights it loads, and that a classifier's were left out."""
    logger = logging.getLogger("timm")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
