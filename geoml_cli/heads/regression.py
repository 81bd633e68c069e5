"""Values a pixel at full resolution: UPerNet's decoder, learnt doublings, one convolution.

Source: Muszynski et al. 2024 (fine-tuning foundation models for above-ground biomass): UPerNet,
sub-pixel convolutions (Shi et al. 2016), dropout 0.162, ReLU. The decoder's pooled views see the
whole map: there is no finite receptive field unless `pool` is off. With them bilinear steps align
corners, as published.
"""

import math
from collections.abc import Sequence

import torch
from torch import nn
from torch.nn.functional import relu

from geoml_cli.core.layers.block import norm_of
from geoml_cli.core.layers.upernet import UPerDecoder

MINE = ("decoder.", "head.")


class Doubling(nn.Module):
    """(B, C, h, w) -> (B, C, 2h, 2w): four times the channels, laid out as 2 x 2 pixels."""

    def __init__(self, channels: int, norm: str) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, 4 * channels, 3, padding=1)
        self.bn = norm_of(norm, channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Convolution, pixel shuffle, norm, ReLU."""
        return relu(self.bn(nn.functional.pixel_shuffle(self.conv(x), 2)), inplace=True)


class RegressionHead(nn.Module):
    """Maps fine to coarse -> (B, outputs, H, W), `doublings` times finer than the finest map."""

    def __init__(
        self,
        decoder: UPerDecoder,
        doublings: Sequence[nn.Module],
        last: Sequence[nn.Module],
        dropout: float,
    ) -> None:
        super().__init__()
        self.decoder = decoder
        self.head = nn.Sequential(nn.Sequential(*doublings), nn.Dropout(dropout), *last)

    def forward(self, maps: Sequence[torch.Tensor]) -> torch.Tensor:
        """Decoder, doublings, values."""
        return self.head(self.decoder(maps))


def rename(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The authors' checkpoint (the encoder's tensors within) to this head's."""
    mine = {key: value for key, value in state.items() if key.startswith(MINE)}
    return {key.replace("head.head.", "head.", 1): value for key, value in mine.items()}


def build(
    channels: Sequence[int],
    strides: Sequence[int],
    outputs: int,
    *,
    width: int = 32,
    doublings: int | None = None,
    norm: str = "batch",
    pool: bool = True,
    dropout: float = 0.1,
    positive: bool = False,
) -> nn.Module:
    """Build with `width` channels and as many doublings as the finest stride needs, or as told.

    norm batch or group; `pool` off: no pooled views; `positive`: outputs below 0 become 0 (in the
    units that the head is trained in, and a gaussian-nll's log variances with them).
    """
    count = round(math.log2(strides[0])) if doublings is None else doublings
    last: list[nn.Module] = [nn.Conv2d(width, outputs, 1)]
    if positive:
        last.append(nn.ReLU())
    decoder = UPerDecoder(channels, width, norm, pool, corners=pool)
    return RegressionHead(decoder, [Doubling(width, norm) for _ in range(count)], last, dropout)
