"""A pyramid out of maps of one stride, such as a plain vision transformer's.

Source: Li, Mao, Girshick, He 2022 (ViTDet), the simple feature pyramid.
"""

from collections.abc import Sequence

import torch
from torch import nn


class Pyramid(nn.Module):
    """The last of some maps (B, C, h, w) of one stride -> maps at a quarter, half, once and twice of it."""

    def __init__(self, channels: Sequence[int], strides: Sequence[int]) -> None:
        super().__init__()
        width, stride = channels[-1], strides[-1]
        half, quarter = max(width // 2, 1), max(width // 4, 1)
        up: list[tuple[nn.Module, int, int]] = [(nn.Identity(), width, stride)]
        if stride % 2 == 0:
            up.append((nn.ConvTranspose2d(width, half, 2, stride=2), half, stride // 2))
        if stride % 4 == 0:
            twice = nn.Sequential(
                nn.ConvTranspose2d(width, half, 2, stride=2),
                nn.GroupNorm(1, half),
                nn.GELU(),
                nn.ConvTranspose2d(half, quarter, 2, stride=2),
            )
            up.append((twice, quarter, stride // 4))
        up.reverse()
        down = nn.AvgPool2d(2, ceil_mode=True)
        self.steps = nn.ModuleList([step for step, _, _ in up] + [down])
        self.channels = [c for _, c, _ in up] + [width]
        self.strides = [s for _, _, s in up] + [2 * stride]

    def forward(self, maps: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Maps fine to coarse."""
        return [step(maps[-1]) for step in self.steps]
