"""Soft Dice loss of what is labelled, mean over the classes in the batch.

Source: Milletari, Navab, Ahmadi 2016 (V-Net), with squared denominators.
"""

import torch
from torch import nn

from geoml_cli.core.batch import Batch
from geoml_cli.core.targets import chances, share_of

TARGETS = ("classes", "present")


class Dice(nn.Module):
    """1 - 2 sum(p t) / (sum(p^2) + sum(t^2)), over all labels of a class; weights of classes do not enter."""

    def forward(self, model: nn.Module, batch: Batch, step: int) -> dict[str, torch.Tensor]:
        """Loss of one (part of a) batch, in proportion to its share of the labelled weight."""
        p, t = (one.transpose(0, 1).flatten(1) for one in chances(model(batch), batch))  # (K, n)
        overlap, extent = (p * t).sum(1), (p * p).sum(1) + (t * t).sum(1)
        here = (t.sum(1) > 0).float()
        lost = 1 - 2 * overlap / extent.clamp(min=1e-6)
        return {"loss": share_of(batch) * (lost * here).sum() / here.sum().clamp(min=1)}


def build() -> nn.Module:
    """Build the objective."""
    return Dice()
