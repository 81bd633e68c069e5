"""1 x 1 convolutions with GELU on the last map: a perceptron of every pixel, or of a tile's mean."""

from collections.abc import Sequence

import torch
from torch import nn

from geoml_cli.core.layers.pointwise import Pointwise

MAPS = "last"


class MLPHead(nn.Module):
    """Last map (B, C, h, w) -> (B, outputs, h, w)."""

    def __init__(self, widths: Sequence[int], outputs: int, dropout: float) -> None:
        super().__init__()
        self.hidden = nn.ModuleList(
            Pointwise(a, b) for a, b in zip(widths, widths[1:], strict=False)
        )
        self.drop = nn.Dropout(dropout)
        self.last = Pointwise(widths[-1], outputs)

    def forward(self, maps: Sequence[torch.Tensor]) -> torch.Tensor:
        """Outputs of the last map."""
        x = maps[-1]
        for one in self.hidden:
            x = self.drop(nn.functional.gelu(one(x)))
        return self.last(x)


def build(
    channels: Sequence[int],
    strides: Sequence[int],
    outputs: int,
    *,
    width: int = 256,
    depth: int = 2,
    dropout: float = 0.1,
) -> nn.Module:
    """Build with `depth` hidden layers of `width`; 0 is a linear head."""
    return MLPHead([channels[-1], *[width] * depth], outputs, dropout)
