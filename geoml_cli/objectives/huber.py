"""Huber loss of labelled values: squares near the truth, straight lines further off."""

import torch
from torch import nn
from torch.nn.functional import huber_loss

from geoml_cli.core.batch import Batch
from geoml_cli.core.targets import errors, mean_of
from geoml_cli.errors import UsageMistake

TARGETS = ("values",)


class Huber(nn.Module):
    """e^2 / 2 up to delta, then delta (|e| - delta / 2); weighted mean over the labels."""

    def __init__(self, delta: float) -> None:
        super().__init__()
        self.delta = delta

    def forward(self, model: nn.Module, batch: Batch, step: int) -> dict[str, torch.Tensor]:
        """Loss of one (part of a) batch."""
        e = errors(model(batch), batch)
        each = huber_loss(e, torch.zeros_like(e), reduction="none", delta=self.delta)
        return {"loss": mean_of(each, batch)}


def build(*, delta: float = 1.0) -> nn.Module:
    """Build; `delta` in units of the targets, which are standard deviations of the training labels."""
    if delta <= 0:
        raise UsageMistake(f"huber:delta={delta}: more than 0")
    return Huber(delta)
