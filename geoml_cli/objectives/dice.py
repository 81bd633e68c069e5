"""Soft Dice loss of labelled pixels, mean over the classes in the batch.

Source: Milletari, Navab, Ahmadi 2016 (V-Net), with squared denominators.
"""

import torch
from torch import nn
from torch.nn.functional import one_hot

from geoml_cli.core.batch import Batch


class Dice(nn.Module):
    """1 - 2 sum(p t) / (sum(p^2) + sum(t^2)), over labelled pixels."""

    def forward(self, model: nn.Module, batch: Batch, step: int) -> dict[str, torch.Tensor]:
        """Loss of one (part of a) batch, in proportion to its share of the labelled weight."""
        assert batch.target is not None and batch.weight is not None
        p = model(batch).float().softmax(dim=1)
        seen = (batch.weight > 0)[:, None].float()
        target = torch.where(batch.weight > 0, batch.target, 0)
        t = one_hot(target, p.shape[1]).movedim(-1, 1) * seen
        p = p * seen
        dims = (0, 2, 3)
        overlap, extent = (p * t).sum(dims), (p * p).sum(dims) + (t * t).sum(dims)
        here = t.sum(dims) > 0
        if not here.any():
            return {"loss": p.sum() * 0}
        share = batch.weight.sum() / batch.total
        return {"loss": share * (1 - 2 * overlap[here] / extent[here].clamp(min=1e-6)).mean()}


def build() -> nn.Module:
    """Build the objective."""
    return Dice()
