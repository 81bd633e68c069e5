"""Contracting path of U-Net: double convolutions and max pooling, with batch norm.

Source: Ronneberger, Fischer, Brox 2015 (MICCAI), figure 1; with padding and batch norm.
"""

import torch
from torch import nn

from geoml_cli.core.layers.conv import DoubleConv

time = "folded"


class UNetEncoder(nn.Module):
    """(B, C, H, W) -> maps fine to coarse, strides 1, 2, 4, ..."""

    def __init__(self, in_channels: int, width: int, depth: int, dropout: float, norm: str) -> None:
        super().__init__()
        self.channels = [width * 2**i for i in range(depth + 1)]
        self.strides = [2**i for i in range(depth + 1)]
        before = [in_channels, *self.channels[:-1]]
        self.levels = nn.ModuleList(
            DoubleConv(a, b, dropout, norm=norm) for a, b in zip(before, self.channels, strict=True)
        )
        self.pool = nn.MaxPool2d(2, ceil_mode=True)  # any size, down to one pixel

    def by_depth(self) -> list[nn.Module]:
        """Levels from input to output."""
        return list(self.levels)

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        """Feature maps of every level."""
        maps = []
        for i, level in enumerate(self.levels):
            x = level(self.pool(x) if i else x)
            maps.append(x)
        return maps


def build(
    in_channels: int, *, width: int = 32, depth: int = 3, dropout: float = 0.1, norm: str = "batch"
) -> nn.Module:
    """Build with `width` channels at full resolution, doubled at each of `depth` halvings; `norm` batch or group."""
    return UNetEncoder(in_channels, width, depth, dropout, norm)
