"""Zoom in on a part of each sample: a random crop, brought back to the size of the tile."""

import torch

from geoml_cli.core.augment import between, chosen
from geoml_cli.core.batch import Batch
from geoml_cli.core.zoom import zoomed
from geoml_cli.errors import UsageMistake


def apply(
    batch: Batch, generator: torch.Generator, *, p: float = 0.5, smallest: float = 0.5
) -> Batch:
    """Crop a share `p` of the samples to `smallest`..1 of their sides, anywhere inside."""
    if not 0 < smallest <= 1:
        raise UsageMistake(f"crop: smallest is a share of the sides, above 0 to 1, not {smallest}")
    count = (len(batch.images),)
    picked = chosen(count, p, generator)
    share = torch.where(picked, between(smallest, 1, count, generator), 1.0)
    top, left = ((1 - share) * between(0, 1, count, generator) for _ in "yx")
    return zoomed(batch, top, left, share)
