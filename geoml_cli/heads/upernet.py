"""UPerNet: pooled views of the coarsest map, feature pyramid, all levels joined.

Source: Xiao et al. 2018 (ECCV), figure 4. The pooled views see the whole map: there is no finite
receptive field unless `pool` is off.
"""

from collections.abc import Sequence

import torch
from torch import nn

from geoml_cli.core.layers.upernet import UPerDecoder


class UPerNetHead(nn.Module):
    """Maps fine to coarse -> (B, outputs, h, w) at the finest map's resolution."""

    def __init__(self, decoder: UPerDecoder, width: int, outputs: int, dropout: float) -> None:
        super().__init__()
        self.decoder = decoder
        self.drop = nn.Dropout2d(dropout)
        self.last = nn.Conv2d(width, outputs, 1)

    def forward(self, maps: Sequence[torch.Tensor]) -> torch.Tensor:
        """Decoder, outputs."""
        return self.last(self.drop(self.decoder(maps)))


def build(
    channels: Sequence[int],
    strides: Sequence[int],
    outputs: int,
    *,
    width: int = 256,
    norm: str = "batch",
    pool: bool = True,
    dropout: float = 0.1,
) -> nn.Module:
    """Build with `width` channels; norm batch or group; `pool` off: no pooled views."""
    return UPerNetHead(UPerDecoder(channels, width, norm, pool), width, outputs, dropout)
