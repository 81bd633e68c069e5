"""Focal loss: cross-entropy that what is already right counts less in.

Source: Lin, Goyal, Girshick, He, Dollar 2017.
"""

import torch
from torch import nn

from geoml_cli.core.batch import Batch
from geoml_cli.core.targets import crossed, known, mean_of

TARGETS = ("classes", "present")


class Focal(nn.Module):
    """Sum of weight * a (1 - p)^gamma * -log p over the labels, divided by the sum of weights."""

    def __init__(self, gamma: float, alpha: float | None) -> None:
        super().__init__()
        self.gamma, self.alpha = gamma, alpha

    def forward(self, model: nn.Module, batch: Batch, step: int) -> dict[str, torch.Tensor]:
        """Loss of one (part of a) batch."""
        each = crossed(model(batch), batch)
        # 1 - p without cancellation; the floor keeps the slope finite where gamma < 1
        wrong = (-torch.expm1(-each)).clamp(min=1e-7)
        each = wrong**self.gamma * each
        if self.alpha is not None:
            there = known(batch)[0] > 0
            each = each * torch.where(there, self.alpha, 1 - self.alpha)
        return {"loss": mean_of(each, batch)}


def build(*, gamma: float = 2.0, alpha: float | None = None) -> nn.Module:
    """Build; `gamma` 0 is cross-entropy; `alpha` weighs what is present (any class but the first), 1 - alpha the rest."""
    return Focal(gamma, alpha)
