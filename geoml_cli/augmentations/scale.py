"""Make each sample larger or smaller, as seen at another pixel size; what is bared is invalid."""

import math

import torch

from geoml_cli.core.augment import between, chosen
from geoml_cli.core.batch import Batch
from geoml_cli.core.zoom import zoomed
from geoml_cli.errors import UsageMistake


def apply(
    batch: Batch,
    generator: torch.Generator,
    *,
    p: float = 0.5,
    low: float = 0.75,
    high: float = 1.33,
) -> Batch:
    """Scale a share `p` of the samples by `low`..`high` (2: twice as large), at a random place.

    Small and large factors are as likely: their logarithms are drawn evenly. `gsd_m` stays.
    """
    if not 0 < low <= high:
        raise UsageMistake(f"scale: low..high are factors above 0, not {low}..{high}")
    count = (len(batch.images),)
    picked = chosen(count, p, generator)
    factor = between(math.log(low), math.log(high), count, generator).exp()
    share = torch.where(picked, 1 / factor, 1.0)
    top, left = ((1 - share) * between(0, 1, count, generator) for _ in "yx")
    return zoomed(batch, top, left, share)
