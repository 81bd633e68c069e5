"""One 1 x 1 convolution on the last map to all the pixels beneath each of its own, as SimMIM decodes.

Source: Xie et al. 2022 (SimMIM, CVPR), section 3.3, one layer; Shi et al. 2016 (CVPR), the shuffle.
"""

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn.functional import pixel_shuffle

MAPS = "last"


class PixelShuffle(nn.Module):
    """Last map (B, C, h, w) of stride s -> (B, outputs, h s, w s)."""

    def __init__(self, channels: int, stride: int, outputs: int) -> None:
        super().__init__()
        self.stride = stride
        self.last = nn.Conv2d(channels, outputs * stride**2, 1)

    def forward(self, maps: Sequence[torch.Tensor]) -> torch.Tensor:
        """Outputs of pixels."""
        return pixel_shuffle(self.last(maps[-1]), self.stride)


def build(channels: Sequence[int], strides: Sequence[int], outputs: int) -> nn.Module:
    """Build for an encoder's last map."""
    return PixelShuffle(channels[-1], strides[-1], outputs)


def rename(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The decoder's keys in a checkpoint of SimMIM or SatVision-TOA."""
    return {
        f"last.{k.removeprefix('decoder.0.')}": v
        for k, v in state.items()
        if k.startswith("decoder.0.")
    }
