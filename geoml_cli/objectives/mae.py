"""Masked autoencoding: squared error of patches that were hidden.

Source: He et al. 2022 (MAE, CVPR), equation in section 3; patches over space and time as in Prithvi (arXiv:2310.18660).
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from geoml_cli.core.batch import Batch
from geoml_cli.core.filling import hidden, laid_on, lattice_of
from geoml_cli.core.layers.masked import shuffled
from geoml_cli.core.targets import TINY, errors, share_of
from geoml_cli.errors import UsageMistake

TARGETS = ("images",)
Noise = Callable[[int], torch.Tensor]  # count -> (B, count), 0..1


class MaskedAutoencoding(nn.Module):
    """Hide a share of each sample's patches; of what was hidden, the mean squared error of standardised values."""

    def __init__(self, ratio: float, patch: int) -> None:
        super().__init__()
        self.ratio, self.patch = ratio, patch

    def hide(self, model: Any, batch: Batch, noise: Noise) -> Batch:
        """The batch with patches hidden: of each sensor the share of those with the highest noise."""
        found = []
        for i, one in enumerate((batch, *batch.others)):
            lattice = lattice_of(model, i, one, self.patch)
            mask = shuffled(noise(lattice.patches), self.ratio)[2]
            found.append(replace(one, hide=laid_on(mask.to(one.images.device) > 0, lattice, one)))
        return replace(found[0], others=tuple(found[1:]))

    def forward(self, model: nn.Module, batch: Batch, step: int) -> dict[str, torch.Tensor]:
        """Loss of one (part of a) batch."""
        batch = self.hide(model, batch, lambda count: torch.rand(len(batch.images), count))
        assert batch.weight is not None
        error, weight = errors(model(batch), batch) ** 2, batch.weight * hidden(batch)
        return {"loss": share_of(batch) * (error * weight).sum() / weight.sum().clamp(min=TINY)}


def build(*, ratio: float = 0.75, patch: int = 16) -> nn.Module:
    """Build; a share `ratio` of the patches is hidden, of the encoder's size, or of `patch` px where it has none."""
    if not 0 < ratio < 1:
        raise UsageMistake(f"mae:ratio={ratio}: a share above 0 and below 1")
    return MaskedAutoencoding(ratio, patch)
