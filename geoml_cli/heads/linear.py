"""One 1 x 1 convolution on the last map: a linear probe."""

from collections.abc import Sequence

import torch
from torch import nn

from geoml_cli.core.layers.pointwise import Pointwise

MAPS = "last"


class LinearHead(nn.Module):
    """Last map (B, C, h, w) -> (B, outputs, h, w); the mean of a map -> the mean of the outputs."""

    def __init__(self, channels: int, outputs: int, dropout: float) -> None:
        super().__init__()
        self.drop = nn.Dropout(dropout)
        self.last = Pointwise(channels, outputs)

    def forward(self, maps: Sequence[torch.Tensor]) -> torch.Tensor:
        """Outputs of the last map."""
        return self.last(self.drop(maps[-1]))


def build(
    channels: Sequence[int], strides: Sequence[int], outputs: int, *, dropout: float = 0.0
) -> nn.Module:
    """Build for an encoder's last map."""
    return LinearHead(channels[-1], outputs, dropout)
