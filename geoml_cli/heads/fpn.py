"""Feature pyramid and semantic branch of Panoptic FPN: every level up to the finest, added.

Source: Kirillov et al. 2019 (CVPR), section 3.2 and figure 3: width 256 and 128, group norm.
"""

from collections.abc import Sequence

import torch
from torch import nn

from geoml_cli.core.layers.fpn import FPN, Rise


class FPNHead(nn.Module):
    """Maps fine to coarse -> (B, outputs, h, w) at the finest map's resolution."""

    def __init__(
        self,
        channels: Sequence[int],
        strides: Sequence[int],
        outputs: int,
        sizes: tuple[int, int],
        norm: str,
        dropout: float,
    ) -> None:
        super().__init__()
        width, decoded = sizes
        self.fpn = FPN(channels, width)
        self.decoder = Rise(width, decoded, strides, norm, corners=False)
        self.drop = nn.Dropout2d(dropout)
        self.last = nn.Conv2d(decoded, outputs, 1)

    def forward(self, maps: Sequence[torch.Tensor]) -> torch.Tensor:
        """Pyramid, sum at the finest level, outputs."""
        return self.last(self.drop(self.decoder(self.fpn(maps))))


def build(
    channels: Sequence[int],
    strides: Sequence[int],
    outputs: int,
    *,
    width: int = 256,
    decoded: int = 128,
    norm: str = "batch",
    dropout: float = 0.1,
) -> nn.Module:
    """Build with `width` channels a pyramid level and `decoded` after; norm batch or group.

    Group norm looks at the whole map: with it there is no finite receptive field.
    """
    return FPNHead(channels, strides, outputs, (width, decoded), norm, dropout)
