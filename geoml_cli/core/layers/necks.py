"""Necks that published models put between a plain transformer and their heads, with their key names."""

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn.functional import layer_norm


class Pyramid(nn.Module):
    """Four maps (B, D, h, w) of one stride -> maps at a quarter, half, once and twice of it.

    Source: terratorch's learned interpolation (Apache-2.0), as UPerNet heads of Prithvi-EO-2.0 want it.
    """

    def __init__(self, width: int, stride: int) -> None:
        super().__init__()
        half, quarter = width // 2, width // 4
        self.fpn1 = nn.Sequential(
            nn.ConvTranspose2d(width, half, 2, 2),
            nn.BatchNorm2d(half),
            nn.GELU(),
            nn.ConvTranspose2d(half, quarter, 2, 2),
        )
        self.fpn2 = nn.Sequential(nn.ConvTranspose2d(width, half, 2, 2))
        self.fpn3 = nn.Identity()
        self.fpn4 = nn.MaxPool2d(2, 2, ceil_mode=True)
        self.channels = [quarter, half, width, width]
        self.strides = [stride // 4, stride // 2, stride, 2 * stride]

    def forward(self, maps: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Maps fine to coarse."""
        steps = (self.fpn1, self.fpn2, self.fpn3, self.fpn4)
        return [step(one) for step, one in zip(steps, maps, strict=True)]


class Norm2d(nn.Module):
    """Layer norm over the channels of every pixel."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.ln = nn.LayerNorm(width, eps=1e-6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, C, H, W) -> the same."""
        ln = self.ln
        x = layer_norm(x.permute(0, 2, 3, 1), ln.normalized_shape, ln.weight, ln.bias, ln.eps)
        return x.permute(0, 3, 1, 2).contiguous()


class Upscale(nn.Module):
    """The last of some maps (B, C, h, w) -> one map of a sixteenth of the stride.

    Source: hls-foundation-os (Apache-2.0), the neck of Prithvi-EO-1.0's fine-tuned models.
    """

    def __init__(self, width: int, outputs: int, stride: int) -> None:
        super().__init__()

        def step(before: int) -> nn.Sequential:
            return nn.Sequential(
                nn.ConvTranspose2d(before, outputs, 2, 2),
                Norm2d(outputs),
                nn.GELU(),
                nn.ConvTranspose2d(outputs, outputs, 2, 2),
            )

        self.fpn1, self.fpn2 = step(width), step(outputs)
        self.channels, self.strides = [outputs], [stride // 16]

    def forward(self, maps: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """One map."""
        return [self.fpn2(self.fpn1(maps[-1]))]
