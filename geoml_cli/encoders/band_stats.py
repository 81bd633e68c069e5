"""Mean, spread, minimum and maximum of every band: nothing learnt, a baseline.

Source: the image statistics of Corley et al. 2023 (arXiv:2305.13456), which are hard to beat with a kNN.
"""

import torch
from torch import nn

from geoml_cli.core.batch import Batch
from geoml_cli.core.layers.patches import patched, statistics

time = "native"
POOL = "cls"
KINDS = ("mean", "std", "min", "max")


class BandStats(nn.Module):
    """(B, T, C, H, W) -> one map: statistics of the valid pixels of every patch, band and date."""

    def __init__(self, in_channels: int, frames: int, patch: int) -> None:
        super().__init__()
        self.patch = patch
        self.channels, self.strides = [len(KINDS) * in_channels * frames], [patch]

    def forward(self, x: torch.Tensor, batch: Batch) -> list[torch.Tensor]:
        """Statistics of patches."""
        valid = patched(batch.valid[:, :, None].to(x.dtype), self.patch) > 0
        found = statistics(patched(x, self.patch), valid, KINDS)  # (B, T, C, h, w, K)
        return [found.movedim(-1, 1).flatten(1, 3)]

    def summary(self, x: torch.Tensor, batch: Batch) -> torch.Tensor:
        """Statistics (B, D) of the whole image."""
        found = statistics(x.flatten(3), batch.valid[:, :, None].flatten(3), KINDS)
        return found.movedim(-1, 1).flatten(1)


def build(in_channels: int, frames: int, *, patch: int = 16) -> nn.Module:
    """Build for maps of one value for each `patch` x `patch` pixels."""
    return BandStats(in_channels, frames, patch)
