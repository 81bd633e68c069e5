"""Expanding path of U-Net: upsample, join the finer map, double convolution.

Source: Ronneberger, Fischer, Brox 2015 (MICCAI), figure 1; with bilinear upsampling.
"""

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn.functional import interpolate

from geoml_cli.core.layers.conv import DoubleConv


class UNetHead(nn.Module):
    """Maps fine to coarse -> (B, outputs, H, W) at the finest map's resolution."""

    def __init__(self, channels: Sequence[int], outputs: int) -> None:
        super().__init__()
        self.steps = nn.ModuleList(
            DoubleConv(coarse + fine, fine)
            for fine, coarse in reversed(list(zip(channels, channels[1:], strict=False)))
        )
        self.last = nn.Conv2d(channels[0], outputs, 1)

    def forward(self, maps: Sequence[torch.Tensor]) -> torch.Tensor:
        """Decode from the coarsest map to the finest."""
        x = maps[-1]
        for step, finer in zip(self.steps, reversed(maps[:-1]), strict=True):
            x = interpolate(x, size=finer.shape[-2:], mode="bilinear", align_corners=False)
            x = step(torch.cat([finer, x], dim=1))
        return self.last(x)


def build(channels: Sequence[int], outputs: int) -> nn.Module:
    """Build for an encoder's channels, fine to coarse."""
    return UNetHead(channels, outputs)
