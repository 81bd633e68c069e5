"""Spectra and series of single pixels: 1 x 1 convolutions, no neighbourhood."""

import torch
from torch import nn

from geoml_cli.core.layers.block import block

time = "folded"


class Pixel(nn.Module):
    """(B, C, H, W) -> one map of stride 1."""

    def __init__(self, in_channels: int, width: int, depth: int, dropout: float, norm: str) -> None:
        super().__init__()
        self.channels, self.strides = [width], [1]
        before = [in_channels] + [width] * (depth - 1)
        self.levels = nn.ModuleList(block(c, width, 1, norm) for c in before)
        self.drop = nn.Dropout(dropout)

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        """Features of every pixel."""
        for level in self.levels:
            x = self.drop(level(x))
        return [x]


def build(
    in_channels: int,
    *,
    width: int = 128,
    depth: int = 3,
    dropout: float = 0.2,
    norm: str = "batch",
) -> nn.Module:
    """Build `depth` layers of `width` channels; `norm` batch or group."""
    return Pixel(in_channels, width, depth, dropout, norm)
