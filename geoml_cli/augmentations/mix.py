"""Mix samples: a rectangle of another with its labels, or, for values a tile, a share of another."""

from dataclasses import replace

import torch

from geoml_cli.core.augment import a_pixel, between, chosen, moved
from geoml_cli.core.batch import Batch
from geoml_cli.errors import GeomlError, UsageMistake


def apply(batch: Batch, generator: torch.Generator, *, p: float = 0.5, most: float = 0.5) -> Batch:
    """Mix up to `most` of another sample into a share `p` of the samples.

    Labels a pixel: a rectangle of that share of the area is the other's, labels and masks with it.
    Values, or what is present, a tile: images and labels are averaged with that share of the
    other's. One class a tile cannot be mixed. The others are those of the samples at hand.
    """
    if not 0 <= most <= 1:
        raise UsageMistake(f"mix: most is a share, 0 to 1, not {most}")
    count = len(batch.images)
    other = torch.randperm(count, generator=generator)
    picked = chosen((count,), p, generator)
    share = torch.where(picked, between(0, most, (count,), generator), 0.0)
    if a_pixel(batch):
        return _pasted(batch, other, _rectangles(share, generator))
    if batch.target is not None and batch.target.ndim == 2 and batch.target.is_floating_point():
        return _averaged(batch, other, share)
    raise GeomlError("mix: the labels are one class a tile, of which there is no mean; leave mix out of --augment")  # fmt: skip


def _rectangles(share: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Top, bottom, left, right (4, B) as shares of the sides; of area `share`, with sides alike."""
    side = share.sqrt()
    top, left = ((1 - side) * between(0, 1, tuple(share.shape), generator) for _ in "yx")
    return torch.stack([top, top + side, left, left + side])


def _pasted(batch: Batch, other: torch.Tensor, edges: torch.Tensor) -> Batch:
    """Put the rectangle of sample other[i] over that of sample i."""

    def paste(x: torch.Tensor) -> torch.Tensor:
        h, w = x.shape[-2:]
        top, bottom, left, right = edges.double()[:, :, None]
        y, x_ = ((torch.arange(n, dtype=torch.float64) + 0.5) / n for n in (h, w))
        inside = ((y >= top) & (y < bottom))[:, :, None] & ((x_ >= left) & (x_ < right))[:, None]
        inside = inside.view(len(x), *(1,) * (x.ndim - 3), h, w).to(x.device)
        return torch.where(inside, x[other.to(x.device)], x)

    return moved(batch, paste)


def _averaged(batch: Batch, other: torch.Tensor, share: torch.Tensor) -> Batch:
    """Mean of samples i and other[i], `share` of the latter, where both are valid and labelled."""

    def mix(one: Batch) -> torch.Tensor:
        x, j = one.images, other.to(one.images.device)
        part = share.to(x)[:, None, None, None, None]
        both = (one.valid & one.valid[j])[:, :, None] & (part > 0)
        return torch.where(both, x * (1 - part) + x[j] * part, x)

    target, weight = batch.target, batch.weight
    assert target is not None and weight is not None
    j, part = other.to(target.device), share.to(target)[:, None]
    known = (weight > 0) & (weight[j] > 0)
    mixed = torch.where(known, target * (1 - part) + target[j] * part, target)
    heavy = torch.where(known, weight * (1 - part) + weight[j] * part, 0)
    return replace(
        batch,
        images=mix(batch),
        target=torch.where(part > 0, mixed, target),
        weight=torch.where(part > 0, heavy, weight),
        others=tuple(replace(one, images=mix(one)) for one in batch.others),
    )
