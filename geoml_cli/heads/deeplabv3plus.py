"""DeepLabv3+: convolutions of several dilations on the last map, then a join with a finer one.

Source: Chen et al. 2018 (DeepLabv3+, ECCV), figure 2; rates of Chen et al. 2017 (DeepLabv3), section 3.3.
The pooled branch sees the whole map: there is no finite receptive field unless `pool` is off.
"""

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn.functional import interpolate

from geoml_cli.core.layers.block import block
from geoml_cli.errors import UsageMistake

SKIP = 48  # channels that the finer map is brought down to


class ASPP(nn.Module):
    """One map -> `width` channels seen at several scales side by side, then joined."""

    def __init__(
        self, channels: int, width: int, rates: Sequence[int], norm: str, pool: bool
    ) -> None:
        super().__init__()
        self.convs = nn.ModuleList([block(channels, width, 1, norm)])
        self.convs.extend(block(channels, width, 3, norm, rate) for rate in rates)
        self.pooled = block(channels, width, 1, norm) if pool else None
        self.project = block(width * (len(self.convs) + pool), width, 1, norm)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, C, h, w) -> (B, width, h, w)."""
        views = [conv(x) for conv in self.convs]
        if self.pooled is not None:
            views.append(self.pooled(x.mean((2, 3), keepdim=True)).expand_as(views[0]))
        return self.project(torch.cat(views, dim=1))


class DeepLabHead(nn.Module):
    """Maps fine to coarse -> (B, outputs, h, w) at the resolution of the finer map that it joins."""

    def __init__(
        self,
        aspp: ASPP,
        skip: int | None,
        channels: Sequence[int],
        sizes: tuple[int, int],
        norm: str,
    ) -> None:
        super().__init__()
        width, outputs = sizes
        self.aspp, self.skip = aspp, skip  # skip: index of the map to join, None: there is none
        self.low = None if skip is None else block(channels[skip], SKIP, 1, norm)
        first = width if skip is None else width + SKIP
        self.decoder = nn.Sequential(block(first, width, norm=norm), block(width, width, norm=norm))
        self.last = nn.Conv2d(width, outputs, 1)

    def forward(self, maps: Sequence[torch.Tensor]) -> torch.Tensor:
        """Scales of the last map, joined with the finer one."""
        x = self.aspp(maps[-1])
        if self.low is not None and self.skip is not None:
            low = self.low(maps[self.skip])
            x = interpolate(x, size=low.shape[-2:], mode="bilinear", align_corners=False)
            x = torch.cat([x, low], dim=1)
        return self.last(self.decoder(x))


def _rates(text: str | None, stride: int) -> list[int]:
    """Dilations: as told, or 6, 12, 18 at stride 16, doubled at 8 and finer, halved at 32 and coarser."""
    if text is None:
        return [round(rate * min(max(16 / stride, 0.5), 2.0)) for rate in (6, 12, 18)]
    try:
        rates = [int(one) for one in text.split("-")]
    except ValueError:
        rates = []
    if not rates or min(rates) < 1:
        raise UsageMistake(f"rates={text}: numbers from 1 up joined by -, as in rates=6-12-18")
    return rates


def build(
    channels: Sequence[int],
    strides: Sequence[int],
    outputs: int,
    *,
    width: int = 256,
    rates: str | None = None,
    skip_stride: int = 4,
    norm: str = "batch",
    pool: bool = True,
) -> nn.Module:
    """Build with `width` channels; joins the coarsest map of at most `skip_stride`, else the finest.

    rates: dilations as 6-12-18 (default: by the stride of the last map); norm batch or group;
    `pool` off: no branch that sees the whole map.
    """
    finer = range(len(strides) - 1)
    skip = max((i for i in finer if strides[i] <= skip_stride), default=0) if finer else None
    aspp = ASPP(channels[-1], width, _rates(rates, strides[-1]), norm, pool)
    return DeepLabHead(aspp, skip, channels, (width, outputs), norm)
