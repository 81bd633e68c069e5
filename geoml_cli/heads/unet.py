"""Expanding path of U-Net: upsample, join the finer map, double convolution.

Source: Ronneberger, Fischer, Brox 2015 (MICCAI), figure 1; with bilinear upsampling.
"""

import math
from collections.abc import Sequence

import torch
from torch import nn
from torch.nn.functional import interpolate

from geoml_cli.core.layers.conv import DoubleConv

LEAST = 16  # channels below which a step past the finest map does not go


class UNetHead(nn.Module):
    """Maps fine to coarse -> (B, outputs, H, W), `beyond` doublings finer than the finest map."""

    def __init__(
        self, channels: Sequence[int], outputs: int, beyond: int, dropout: float, norm: str
    ) -> None:
        super().__init__()
        self.steps = nn.ModuleList(
            DoubleConv(coarse + fine, fine, dropout, norm)
            for fine, coarse in reversed(list(zip(channels, channels[1:], strict=False)))
        )
        widths = [min(channels[0], max(LEAST, channels[0] >> i)) for i in range(beyond + 1)]
        self.beyond = nn.ModuleList(
            DoubleConv(a, b, dropout, norm) for a, b in zip(widths, widths[1:], strict=False)
        )
        self.last = nn.Conv2d(widths[-1], outputs, 1)

    def forward(self, maps: Sequence[torch.Tensor]) -> torch.Tensor:
        """Decode from the coarsest map to the finest, and past it."""
        x = maps[-1]
        for step, finer in zip(self.steps, reversed(maps[:-1]), strict=True):
            x = interpolate(x, size=finer.shape[-2:], mode="bilinear", align_corners=False)
            x = step(torch.cat([finer, x], dim=1))
        for step in self.beyond:
            x = step(interpolate(x, scale_factor=2, mode="bilinear", align_corners=False))
        return self.last(x)


def build(
    channels: Sequence[int],
    strides: Sequence[int],
    outputs: int,
    *,
    full: bool = False,
    dropout: float = 0.0,
    norm: str = "batch",
) -> nn.Module:
    """Build for an encoder's channels; norm batch or group.

    `full`: where the finest map is coarser than the image, further steps up to it, without skips.
    """
    beyond = max(0, round(math.log2(strides[0]))) if full else 0
    return UNetHead(channels, outputs, beyond, dropout, norm)
