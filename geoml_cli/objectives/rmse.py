"""Root mean squared error of labelled values."""

import torch
from torch import nn

from geoml_cli.core.batch import Batch
from geoml_cli.core.targets import TINY, errors, known, share_of

TARGETS = ("values",)


class Rmse(nn.Module):
    """Root of the weighted mean of squares over the labels of the batch: no sum over them."""

    def forward(self, model: nn.Module, batch: Batch, step: int) -> dict[str, torch.Tensor]:
        """Loss of one (part of a) batch, in proportion to its share of the labelled weight."""
        weight = known(batch)[1]
        squares = (errors(model(batch), batch) ** 2 * weight).sum()
        mean = squares / weight.sum().clamp(min=TINY)
        return {"loss": share_of(batch) * (mean + TINY).sqrt()}  # the slope at 0 is infinite


def build() -> nn.Module:
    """Build the objective."""
    return Rmse()
