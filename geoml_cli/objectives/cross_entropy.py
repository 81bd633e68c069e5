"""Cross-entropy of labelled pixels, weighted by class."""

import torch
from torch import nn
from torch.nn.functional import cross_entropy

from geoml_cli.core.batch import Batch


class CrossEntropy(nn.Module):
    """Sum of weight * -log p(class) over labelled pixels, divided by the sum of weights."""

    def __init__(self, smoothing: float) -> None:
        super().__init__()
        self.smoothing = smoothing

    def forward(self, model: nn.Module, batch: Batch, step: int) -> dict[str, torch.Tensor]:
        """Loss of one (part of a) batch."""
        assert batch.target is not None and batch.weight is not None
        logits = model(batch).float()
        target = torch.where(batch.weight > 0, batch.target, 0)
        each = cross_entropy(logits, target, reduction="none", label_smoothing=self.smoothing)
        return {"loss": (each * batch.weight).sum() / batch.total}


def build(*, smoothing: float = 0.0) -> nn.Module:
    """Build; `smoothing` moves that share of the target to all classes alike."""
    return CrossEntropy(smoothing)
