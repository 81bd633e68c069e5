"""Feature pyramid network, and the decoder that brings its levels to the finest and adds them.

Sources: Lin et al. 2017 (CVPR), figure 3; Kirillov et al. 2019 (Panoptic FPN, CVPR), figure 3.
"""

import math
from collections.abc import Sequence

import torch
from torch import nn
from torch.nn.functional import interpolate

from geoml_cli.core.layers.block import block


class FPN(nn.Module):
    """Maps fine to coarse -> as many maps of `width` channels, each with what the coarser ones see.

    Convolutions have a bias and no norm; level i is `fpn_inner{i}` (1 x 1) and `fpn_layer{i}`
    (3 x 3), counted from 1 at the finest.
    """

    def __init__(self, channels: Sequence[int], width: int) -> None:
        super().__init__()
        self.levels = len(channels)
        for i, c in enumerate(channels, 1):
            self.add_module(f"fpn_inner{i}", nn.Conv2d(c, width, 1))
            self.add_module(f"fpn_layer{i}", nn.Conv2d(width, width, 3, padding=1))

    def forward(self, maps: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """From the coarsest down: nearest neighbours of the sum so far, plus the finer map."""
        above: torch.Tensor | None = None
        found: list[torch.Tensor] = []
        for i in range(self.levels, 0, -1):
            x = self.get_submodule(f"fpn_inner{i}")(maps[i - 1])
            if above is not None:
                x = x + interpolate(above, size=x.shape[-2:], mode="nearest")
            above = x
            found.insert(0, self.get_submodule(f"fpn_layer{i}")(x))
        return found


class Rise(nn.Module):
    """Levels of a pyramid -> their sum at the finest: convolutions, each followed by a doubling.

    A level k halvings below the finest goes through max(k, 1) convolution blocks.
    """

    def __init__(
        self, channels: int, width: int, strides: Sequence[int], norm: str, corners: bool
    ) -> None:
        super().__init__()
        self.corners = corners  # whether bilinear steps align the centres of corner pixels
        self.halvings = [max(0, round(math.log2(s / strides[0]))) for s in strides]
        self.blocks = nn.ModuleList(
            nn.Sequential(
                *(block(width if j else channels, width, norm=norm) for j in range(max(k, 1)))
            )
            for k in self.halvings
        )

    def forward(self, maps: Sequence[torch.Tensor]) -> torch.Tensor:
        """Sum (B, width, h, w) over the levels, at the finest level's size."""
        h, w = maps[0].shape[-2:]
        total: torch.Tensor | None = None
        for x, k, blocks in zip(maps, self.halvings, self.blocks, strict=True):
            for j, one in enumerate(blocks.children()):
                x = one(x)
                # the size that the encoder's map of this stride has: ceil of the finest
                shrink = 2 ** max(k - j - 1, 0)
                x = self._to(x, (math.ceil(h / shrink), math.ceil(w / shrink)))
            total = x if total is None else total + x
        assert total is not None
        return total

    def _to(self, x: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
        if x.shape[-2:] == size:
            return x
        return interpolate(x, size=size, mode="bilinear", align_corners=self.corners)
