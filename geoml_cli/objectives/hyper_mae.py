"""Masked autoencoding of channels and positions apart: whole bands are hidden, and patches.

Source: Si et al. 2025 (LESS ViT, arXiv:2503.12843), Hyper-MAE: of optical and of radar bands each the error at hidden
positions and the error of hidden channels.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from geoml_cli.core.batch import Batch
from geoml_cli.core.filling import Lattice, laid_on, lattice_of
from geoml_cli.core.layers.less import cut, hidden_of
from geoml_cli.core.layers.pad import fitted
from geoml_cli.core.targets import TINY, known, share_of
from geoml_cli.errors import UsageMistake

TARGETS = ("images",)
Noise = Callable[[int], torch.Tensor]  # count -> (B, count), 0..1
EPS = 1e-6


class HyperMae(nn.Module):
    """Hide a share of each sample's bands and of its patches, the same ones on every date."""

    def __init__(self, channels: float, positions: float, normed: bool, patch: int) -> None:
        super().__init__()
        self.shares, self.normed, self.patch = (channels, positions), normed, patch

    def hide(self, model: Any, batch: Batch, noise: Noise) -> Batch:
        """The batch with bands and patches hidden, of each sensor those with the highest noise."""
        found = []
        for i, one in enumerate((batch, *batch.others)):
            lattice, count = self._lattice(model, i, one), one.images.shape[2]
            drawn = noise(count + lattice.patches).to(one.images.device)
            bands, spots = hidden_of(drawn, count, self.shares)
            hide = laid_on(spots, lattice, one) | bands[:, None, :, None, None]
            found.append(replace(one, hide=hide.expand_as(one.images)))
        return replace(found[0], others=tuple(found[1:]))

    def _lattice(self, model: Any, sensor: int, batch: Batch) -> Lattice:
        own = lattice_of(model, sensor, batch, self.patch)
        return Lattice(batch.valid.shape[1], own.side, (1, *own.grid[1:]))

    def forward(self, model: Any, batch: Batch, step: int) -> dict[str, torch.Tensor]:
        """Loss of one (part of a) batch."""
        batch = self.hide(model, batch, lambda count: torch.rand(len(batch.images), count))
        outputs, (target, weight) = model(batch).float(), known(batch)
        sizes = [one.images.shape[1] * one.images.shape[2] for one in (batch, *batch.others)]
        parts = [x.split(sizes, dim=1) for x in (outputs, target, weight)]
        losses: list[torch.Tensor] = []
        for i, (one, *each) in enumerate(zip((batch, *batch.others), *parts, strict=True)):
            losses += self._of_sensor(
                model, i, one, [x.unflatten(1, one.images.shape[1:3]) for x in each]
            )
        return {"loss": share_of(batch) * torch.stack(losses).mean()}

    def _of_sensor(
        self, model: Any, i: int, batch: Batch, given: list[torch.Tensor]
    ) -> Iterator[torch.Tensor]:
        """Losses of the kinds of bands of a sensor, of outputs, targets and weights (B, T, C, H, W)."""
        side = self._lattice(model, i, batch).side
        assert batch.hide is not None
        t = batch.hide.shape[1]
        hidden = (
            cut(fitted(batch.hide.flatten(0, 1).float(), side), side).amin(-1).unflatten(0, (-1, t))
        )
        bands, spots = hidden.amin((1, 3)), hidden.amin((1, 2))  # (B, C), (B, N)
        said, true, weight = (
            cut(fitted(x.flatten(0, 1), side), side) for x in given
        )  # (B T, C, N, p p)
        if self.normed:
            spread, middle = torch.var_mean(true, dim=-1, keepdim=True)
            true = (true - middle) / (spread + EPS).sqrt()
        total = weight.sum(-1)
        error = ((said - true) ** 2 * weight).sum(-1) / total.clamp(min=TINY)
        error, there = (
            x.unflatten(0, (-1, t)).transpose(1, 2) for x in (error, (total > 0).float())
        )
        for rows in kinds_of(model, i, batch):  # (B, C, T, N)
            e, w = error[:, rows], there[:, rows]
            yield _mean(e, w * spots[:, None, None]) + _mean(e, w * bands[:, rows, None, None])


def kinds_of(model: Any, sensor: int, batch: Batch) -> list[list[int]]:
    """Bands of each kind, optical and radar, where an encoder tells them apart; else all together."""
    encoder = model.sensors[sensor].encoder
    count = batch.images.shape[2]
    if not hasattr(encoder, "spectrum"):
        return [list(range(count))]
    radar = encoder.spectrum(count, batch).radar
    each = [[i for i, one in enumerate(radar) if one == kind] for kind in (False, True)]
    return [one for one in each if one]


def _mean(error: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return (error * weight).sum() / weight.sum().clamp(min=TINY)


def build(
    *, channels: float = 0.5, positions: float = 0.75, normed: bool = False, patch: int = 16
) -> nn.Module:
    """Build; shares of the bands and of the patches are hidden, patches of the encoder's size, or of `patch` px where it has none.

    `normed`: what is told of a patch is less its mean and by its spread, as the authors train. That may teach more, but
    such outputs are no images: take --keep last then, scores of them mean nothing.
    """
    if not 0 <= channels < 1 or not 0 <= positions < 1 or channels + positions == 0:
        raise UsageMistake(f"hyper-mae:channels={channels},positions={positions}: shares of 0 to below 1, not both 0")  # fmt: skip
    return HyperMae(channels, positions, normed, patch)
