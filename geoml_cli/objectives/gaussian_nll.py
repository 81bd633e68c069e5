"""Likelihood of values under a mean and a variance that the network gives for each.

Source: Nix, Weigend 1994. The constant log(2 pi) / 2 is left out.
"""

import torch
from torch import nn

from geoml_cli.core.batch import Batch
from geoml_cli.core.targets import errors, known, mean_of

TARGETS = ("values",)
OUTPUTS = 2  # of each value: mean, log variance
LOWEST, HIGHEST = -10.0, 10.0  # log variance, in units of the targets


class GaussianNll(nn.Module):
    """(log s^2 + e^2 / s^2) / 2, weighted mean over the labels."""

    def forward(self, model: nn.Module, batch: Batch, step: int) -> dict[str, torch.Tensor]:
        """Loss of one (part of a) batch."""
        mean, log_variance = model(batch).float().chunk(2, dim=1)
        log_variance = log_variance.clamp(LOWEST, HIGHEST)
        log_variance = torch.where(known(batch)[1] > 0, log_variance, 0.0)
        each = (log_variance + errors(mean, batch) ** 2 * (-log_variance).exp()) / 2
        return {"loss": mean_of(each, batch)}


def build() -> nn.Module:
    """Build the objective."""
    return GaussianNll()
