"""Turn and flip each sample by one of the square's eight symmetries."""

import torch

from geoml_cli.core.augment import chosen, moved, turn
from geoml_cli.core.batch import Batch

KEEPING = (0, 2, 4, 6)  # symmetries that leave a rectangle its shape


def apply(batch: Batch, generator: torch.Generator, *, p: float = 1.0) -> Batch:
    """Turn a share `p` of the samples, all sensors and labels alike; rectangles are only flipped."""
    if batch.images.shape[-2:] == (1, 1):
        return batch  # a row of a table
    count, square = len(batch.images), batch.images.shape[-2] == batch.images.shape[-1]
    ks = torch.randint(8, (count,), generator=generator)
    picked = torch.where(chosen((count,), p, generator), ks, 0).tolist()
    if not square:
        picked = [KEEPING[k % 4] if k else 0 for k in picked]
    return moved(batch, lambda x: torch.stack([turn(x[i], k) for i, k in enumerate(picked)]))
