"""A pyramid out of maps of one stride, such as a plain vision transformer's.

Source: Li, Mao, Girshick, He 2022 (ViTDet), the simple feature pyramid; each level of a map of
its own where there are four.
"""

from collections.abc import Sequence

import torch
from torch import nn


class Pyramid(nn.Module):
    """Maps (B, C, h, w) of one stride -> maps at a quarter, half, once and twice of it, fine to coarse."""

    def __init__(self, channels: Sequence[int], strides: Sequence[int]) -> None:
        super().__init__()
        width, stride = channels[-1], strides[-1]
        half, quarter = max(width // 2, 1), max(width // 4, 1)
        finer: list[tuple[nn.Module, int, int]] = []
        if stride % 4 == 0:
            four = nn.Sequential(
                nn.ConvTranspose2d(width, half, 2, stride=2),
                nn.GroupNorm(1, half),
                nn.GELU(),
                nn.ConvTranspose2d(half, quarter, 2, stride=2),
            )
            finer.append((four, quarter, stride // 4))
        if stride % 2 == 0:
            finer.append((nn.ConvTranspose2d(width, half, 2, stride=2), half, stride // 2))
        steps = [step for step, _, _ in finer]
        self.steps = nn.ModuleList([*steps, nn.Identity(), nn.AvgPool2d(2, ceil_mode=True)])
        self.channels = [c for _, c, _ in finer] + [width, width]
        self.strides = [s for _, _, s in finer] + [stride, 2 * stride]

    def forward(self, maps: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Maps fine to coarse."""
        own = len(maps) == len(self.steps)
        return [step(maps[i] if own else maps[-1]) for i, step in enumerate(self.steps)]
