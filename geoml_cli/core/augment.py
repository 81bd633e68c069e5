"""Augmentation on the device that keeps the physics: the eight symmetries of the square."""

from dataclasses import replace
from typing import Any

import torch

from geoml_cli.core.batch import Batch


def turn(x: torch.Tensor, k: int) -> torch.Tensor:
    """Apply symmetry k (0..7) to the last two axes: k % 4 quarter turns, then a flip for k >= 4."""
    x = torch.rot90(x, k % 4, (-2, -1))
    return x.flip(-1) if k >= 4 else x


def turn_back(x: torch.Tensor, k: int) -> torch.Tensor:
    """Undo `turn(x, k)`."""
    x = x.flip(-1) if k >= 4 else x
    return torch.rot90(x, -(k % 4), (-2, -1))


def dihedral(batch: Batch, generator: torch.Generator) -> Batch:
    """Turn and flip every sample by its own random symmetry, labels and masks alike."""
    count = batch.images.shape[0]
    ks = torch.randint(8, (count,), generator=generator).tolist()
    names = ("images", "valid", "target", "weight")
    turned: dict[str, Any] = {
        name: torch.stack([turn(value[i], k) for i, k in enumerate(ks)])
        for name in names
        if (value := getattr(batch, name)) is not None
    }
    return replace(batch, **turned)
