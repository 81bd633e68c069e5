"""Cross-entropy of what is labelled, weighted by class."""

import torch
from torch import nn

from geoml_cli.core.batch import Batch
from geoml_cli.core.targets import crossed, mean_of

TARGETS = ("classes", "present")


class CrossEntropy(nn.Module):
    """Sum of weight * -log p(truth) over the labels, divided by the sum of weights."""

    def __init__(self, smoothing: float) -> None:
        super().__init__()
        self.smoothing = smoothing

    def forward(self, model: nn.Module, batch: Batch, step: int) -> dict[str, torch.Tensor]:
        """Loss of one (part of a) batch."""
        return {"loss": mean_of(crossed(model(batch), batch, self.smoothing), batch)}


def build(*, smoothing: float = 0.0) -> nn.Module:
    """Build; `smoothing` moves that share of the target to all classes alike."""
    return CrossEntropy(smoothing)
