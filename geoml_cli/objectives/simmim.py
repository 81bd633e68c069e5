"""Masked image modelling as SimMIM has it: absolute error of squares that were hidden.

Source: Xie et al. 2022 (SimMIM, CVPR), sections 3.2 to 3.4; with these numbers in SatVision-TOA (arXiv:2411.17000).
"""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from geoml_cli.core.batch import Batch
from geoml_cli.core.filling import Lattice, hidden, laid_on
from geoml_cli.core.layers.masked import lowest
from geoml_cli.core.targets import TINY, errors, share_of
from geoml_cli.errors import UsageMistake

TARGETS = ("images",)
Noise = Callable[[int], torch.Tensor]  # count -> (B, count), 0..1


class SimMim(nn.Module):
    """Hide a share of the squares of a size, the same ones on every date and of every band."""

    def __init__(self, ratio: float, square: int) -> None:
        super().__init__()
        self.ratio, self.square = ratio, square

    def hide(self, model: Any, batch: Batch, noise: Noise) -> Batch:
        """The batch with squares hidden, of each sensor those with the highest noise."""
        found = []
        for one in (batch, *batch.others):
            t, h, w = one.valid.shape[1:]
            lattice = Lattice(t, self.square, (1, -(-h // self.square), -(-w // self.square)))
            count = lattice.patches
            mask = lowest(noise(count), count - math.ceil(self.ratio * count))[2]
            found.append(replace(one, hide=laid_on(mask.to(one.images.device) > 0, lattice, one)))
        return replace(found[0], others=tuple(found[1:]))

    def forward(self, model: nn.Module, batch: Batch, step: int) -> dict[str, torch.Tensor]:
        """Loss of one (part of a) batch."""
        batch = self.hide(model, batch, lambda count: torch.rand(len(batch.images), count))
        assert batch.weight is not None
        error, weight = errors(model(batch), batch).abs(), batch.weight * hidden(batch)
        return {"loss": share_of(batch) * (error * weight).sum() / weight.sum().clamp(min=TINY)}


def build(*, ratio: float = 0.6, square: int = 8) -> nn.Module:
    """Build; of squares of `square` px the share `ratio`, rounded up, is hidden."""
    if not 0 < ratio < 1 or square < 1:
        raise UsageMistake(
            f"simmim:ratio={ratio},square={square}: a share above 0 and below 1, and pixels"
        )
    return SimMim(ratio, square)
