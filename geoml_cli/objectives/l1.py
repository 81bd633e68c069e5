"""Mean absolute error of labelled values."""

import torch
from torch import nn

from geoml_cli.core.batch import Batch
from geoml_cli.core.targets import errors, mean_of

TARGETS = ("values",)


class L1(nn.Module):
    """Weighted mean over the labels, of which there may be few."""

    def forward(self, model: nn.Module, batch: Batch, step: int) -> dict[str, torch.Tensor]:
        """Loss of one (part of a) batch."""
        return {"loss": mean_of(errors(model(batch), batch).abs(), batch)}


def build() -> nn.Module:
    """Build the objective."""
    return L1()
