"""Every decoder by its name, and one of them built."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import cast

from depthnet.core.types import InputError
from depthnet.models.decoders.decoder import Decoder
from depthnet.models.decoders.unet import UNetDecoder

DECODERS: dict[str, type[Decoder]] = {"unet": UNetDecoder}
"""Every decoder by the name that ``model.decoder`` gives it."""


def build_decoder(
    name: str, encoder_channels: Sequence[int], widths: Sequence[int], attention: bool | None, context: bool
) -> tuple[Decoder, bool]:
    """Build a decoder.

    Args:
        name: A key of :data:`DECODERS`.
        encoder_channels: Channels of the features, fine to coarse.
        widths: Channels of the decoder's levels, coarse to fine.
        attention: Whether its skips are gated; None: where it has gates.
        context: Whether it begins with pyramid pooling.

    Returns:
        The decoder, and whether its skips are gated.

    Raises:
        InputError: If there is no such decoder, or it has no such option.
    """
    if name not in DECODERS:
        raise InputError(f"model.decoder={name}: it is one of {', '.join(DECODERS)}")
    kind = DECODERS[name]
    options = {"attention": "attention" in kind.takes if attention is None else attention, "context": context}
    for option, value in options.items():
        if value and option not in kind.takes:
            raise InputError(f"model.{option}=true: the {name} decoder has none; set it to false")
    taken = {option: value for option, value in options.items() if option in kind.takes}
    return cast(Callable[..., Decoder], kind)(encoder_channels, widths, **taken), options["attention"]
