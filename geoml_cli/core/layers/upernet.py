"""Decoder of UPerNet: pooled views of the coarsest map, a feature pyramid, all levels joined.

Source: Xiao et al. 2018 (UPerNet, ECCV), figure 4; pooling pyramid: Zhao et al. 2017 (PSPNet, CVPR).
Key names are those of the mmsegmentation family.
"""

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn.functional import interpolate

from geoml_cli.core.layers.block import Block

BINS = (1, 2, 3, 6)


class UPerDecoder(nn.Module):
    """Maps fine to coarse -> (B, width, h, w) at the finest map's size.

    `pool` off leaves the pooled views out; with them the whole map reaches every output.
    `corners`: bilinear steps align the centres of corner pixels, so that results depend on where a
    map's edges are: only for networks that see the whole map anyway.
    """

    def __init__(
        self, channels: Sequence[int], width: int, norm: str, pool: bool, corners: bool = False
    ) -> None:
        super().__init__()
        self.corners = corners
        bins = BINS if pool else ()
        *finer, last = channels
        self.psp_modules = nn.ModuleList(
            nn.Sequential(nn.AdaptiveAvgPool2d(size), Block(last, width, 1, norm)) for size in bins
        )
        self.bottleneck = Block(last + width * len(bins), width, 3, norm)
        self.lateral_convs = nn.ModuleList(Block(c, width, 1, norm) for c in finer)
        self.fpn_convs = nn.ModuleList(Block(width, width, 3, norm) for _ in finer)
        self.fpn_bottleneck = Block(width * len(channels), width, 3, norm)

    def forward(self, maps: Sequence[torch.Tensor]) -> torch.Tensor:
        """Top-down sums of the levels, each smoothed, resized to the finest and joined."""
        last = maps[-1]
        views = [self._to(view(last), last) for view in self.psp_modules]
        above = self.bottleneck(torch.cat([last, *views], dim=1))
        levels = [above]
        for i in reversed(range(len(self.lateral_convs))):
            x = self.lateral_convs[i](maps[i])
            above = x + self._to(above, x)
            levels.insert(0, self.fpn_convs[i](above))
        return self.fpn_bottleneck(torch.cat([self._to(x, levels[0]) for x in levels], dim=1))

    def _to(self, x: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
        size = like.shape[-2:]
        if x.shape[-2:] == size:
            return x
        return interpolate(x, size=size, mode="bilinear", align_corners=self.corners)
