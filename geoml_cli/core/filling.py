"""What is hidden of images, and images with their gaps filled.

Images of all sensors and dates are put side by side as outputs (B, K, H, W) are: sensor by sensor, date by
date, band by band.
"""

from typing import Any, NamedTuple

import torch

from geoml_cli.core.batch import Batch


class Lattice(NamedTuple):
    """Patches of `tubelet` dates and `side` px over images of some dates, rows and columns of patches."""

    tubelet: int
    side: int
    grid: tuple[int, int, int]

    @property
    def patches(self) -> int:
        """How many patches there are."""
        return self.grid[0] * self.grid[1] * self.grid[2]


def lattice_of(model: Any, sensor: int, batch: Batch, side: int) -> Lattice:
    """The patches of one sensor's encoder, or of `side` px and one date where it has none."""
    patch = getattr(model.sensors[sensor].encoder, "patch", (1, side, side))
    t, h, w = batch.valid.shape[1:]
    grid = (-(-t // patch[0]), -(-h // patch[1]), -(-w // patch[2]))
    return Lattice(patch[0], patch[1], grid)


def laid_on(mask: torch.Tensor, lattice: Lattice, batch: Batch) -> torch.Tensor:
    """A mask of patches (B, N), in the order time, row, column, on the pixels of images (B, T, 1, H, W)."""
    wide = mask.unflatten(1, lattice.grid)
    for axis, times in ((1, lattice.tubelet), (2, lattice.side), (3, lattice.side)):
        wide = wide.repeat_interleave(times, dim=axis)
    t, h, w = batch.valid.shape[1:]
    return wide[:, :t, None, :h, :w]


def side_by_side(batch: Batch) -> torch.Tensor:
    """Images of all sensors as outputs are (B, K, H, W)."""
    return torch.cat([one.images.flatten(1, 2) for one in (batch, *batch.others)], dim=1)


def shown(batch: Batch) -> torch.Tensor:
    """Which values (B, K, H, W) are valid."""
    each = [
        one.valid[:, :, None].expand_as(one.images).flatten(1, 2) for one in (batch, *batch.others)
    ]
    return torch.cat(each, dim=1)


def hidden(batch: Batch) -> torch.Tensor:
    """Which values (B, K, H, W) are hidden from the network."""
    each = []
    for one in (batch, *batch.others):
        hide = torch.zeros_like(one.valid[:, :, None]) if one.hide is None else one.hide
        each.append(hide.expand_as(one.images).flatten(1, 2))
    return torch.cat(each, dim=1)


def filled(batch: Batch, said: torch.Tensor) -> torch.Tensor:
    """Values (B, K, H, W) as they are where they are seen, as it is said where not."""
    return torch.where(shown(batch) & ~hidden(batch), side_by_side(batch), said)


def gaps(batch: Batch) -> torch.Tensor:
    """1 where a date of a sensor is filled, else 0: (B, F, H, W) float32, F dates of all sensors."""
    return torch.cat([one.missing for one in (batch, *batch.others)], dim=1).float()
