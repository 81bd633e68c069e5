"""Profiles of clouds along a track from the last map: five steps up, and the profile's size.

Source: Spradlin et al. 2024 (SatVision-TOA, arXiv:2411.17000), the task of clouds in three dimensions: 91 places of a
track by 40 heights.
"""

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn.functional import interpolate

MAPS = "last"
WIDTHS = (2048, 512, 256, 128, 64)


class CloudProfile(nn.Module):
    """Last map (B, C, h, w) -> (B, outputs, places, heights)."""

    def __init__(
        self, channels: int, widths: Sequence[int], outputs: int, size: tuple[int, int], dropout: float
    ) -> None:  # fmt: skip
        super().__init__()
        self.size = size
        steps: list[nn.Module] = []
        for before, after in zip([channels, *widths], widths, strict=False):
            steps += [nn.ConvTranspose2d(before, after, 3, 2, padding=1, output_padding=1)]
            steps += [nn.ReLU()]
        self.decoder = nn.Sequential(*steps)
        self.head = nn.Sequential(nn.Conv2d(widths[-1], outputs, 3, padding=1), nn.Dropout(dropout))

    def forward(self, maps: Sequence[torch.Tensor]) -> torch.Tensor:
        """Scores of every place and height."""
        x = self.head(self.decoder(maps[-1]))
        return interpolate(x, size=self.size, mode="bilinear", align_corners=False)


def build(
    channels: Sequence[int],
    strides: Sequence[int],
    outputs: int,
    *,
    places: int = 91,
    heights: int = 40,
    narrow: int = 1,
    dropout: float = 0.2,
) -> nn.Module:
    """Build for an encoder's last map; widths are those of the giant's head divided by `narrow`."""
    widths = [max(one // max(narrow, 1), 1) for one in WIDTHS]
    return CloudProfile(channels[-1], widths, outputs, (places, heights), dropout)
