"""Tversky loss: Dice with false alarms and misses weighed apart; focal with an exponent.

Sources: Salehi, Erdogmus, Gholipour 2017; Abraham, Khan 2019 (the exponent).
"""

import torch
from torch import nn

from geoml_cli.core.batch import Batch
from geoml_cli.core.targets import chances, share_of

TARGETS = ("classes", "present")


class Tversky(nn.Module):
    """(1 - TP / (TP + alpha FP + beta FN))^exponent of soft counts, mean over the classes in the batch."""

    def __init__(self, alpha: float, beta: float, exponent: float) -> None:
        super().__init__()
        self.alpha, self.beta, self.exponent = alpha, beta, exponent

    def forward(self, model: nn.Module, batch: Batch, step: int) -> dict[str, torch.Tensor]:
        """Loss of one (part of a) batch, in proportion to its share of the labelled weight."""
        p, t = (one.transpose(0, 1).flatten(1) for one in chances(model(batch), batch))  # (K, n)
        both, alarms, misses = (p * t).sum(1), p.sum(1), t.sum(1)
        whole = both + self.alpha * (alarms - both) + self.beta * (misses - both)
        lost = 1 - both / whole.clamp(min=1e-6)
        if self.exponent != 1:
            lost = lost.clamp(min=1e-6) ** self.exponent  # the slope at 0 is infinite below 1
        here = (misses > 0).float()
        return {"loss": share_of(batch) * (lost * here).sum() / here.sum().clamp(min=1)}


def build(*, alpha: float = 0.3, beta: float = 0.7, exponent: float = 1.0) -> nn.Module:
    """Build; `alpha` weighs false alarms, `beta` misses; `exponent` 0.75 makes it focal."""
    return Tversky(alpha, beta, exponent)
