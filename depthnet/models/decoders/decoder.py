"""What a decoder is: the seam between an encoder's features and the head."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor, nn


class Decoder(nn.Module):
    """From a feature pyramid to one feature at its finest size; built with the encoder's channels and the widths.

    Attributes:
        channels: Channels of the result.
        takes: The options that mean something to it, of ``attention`` and ``context``; its constructor takes these.
    """

    channels: int
    takes: ClassVar[frozenset[str]] = frozenset()

    @abstractmethod
    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Merge the features.

        Args:
            features: From fine to coarse, of any size and stride, shapes ``(B, encoder_channels[i], h, w)``.

        Returns:
            Shape ``(B, channels, h, w)``, the size of ``features[0]``.
        """
