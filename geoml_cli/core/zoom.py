"""Rectangles of images brought back to the images' size: what crop and scale are made of."""

from dataclasses import replace
from typing import Any

import torch

from geoml_cli.core.augment import a_pixel
from geoml_cli.core.batch import Batch

FINE = 2**20  # parts of a pixel


def zoomed(batch: Batch, top: torch.Tensor, left: torch.Tensor, share: torch.Tensor) -> Batch:
    """Show of every sample the rectangle that begins at (top, left) and is `share` of the sides.

    All are (B,), shares of the height or width; the size in pixels stays. Labels and masks are
    those of the nearest pixel, values are bilinear between valid pixels. Beyond the rim (where
    share > 1) nothing is valid and nothing labelled.
    """

    h, w = batch.images.shape[-2:]
    device = batch.images.device
    rows, cols = Axis(top, share, h, device), Axis(left, share, w, device)
    new: dict[str, Any] = {}
    if a_pixel(batch):
        assert batch.target is not None and batch.weight is not None
        new["target"] = nearest(batch.target, rows, cols, None)
        new["weight"] = nearest(batch.weight, rows, cols, 0)
    return replace(
        batch,
        images=bilinear(batch.images, batch.valid, rows, cols),
        valid=nearest(batch.valid, rows, cols, 0),
        others=tuple(zoomed(one, top, left, share) for one in batch.others),
        **new,
    )


class Axis:
    """Where the pixels of one axis of the rectangle lie, (B, n), in the pixels of the image."""

    def __init__(
        self, start: torch.Tensor, share: torch.Tensor, length: int, device: torch.device
    ) -> None:
        """Centres of the new pixels; all is reckoned in float64, on the CPU."""
        centre = (torch.arange(length, dtype=torch.float64) + 0.5) / length
        at = (start[:, None].double() + centre * share[:, None].double()) * length
        at = (at * FINE).round() / FINE  # so that nothing moves where the rectangle is the image
        self.inside = ((at >= 0) & (at < length)).to(device)
        self.near = at.floor().clamp(0, length - 1).long().to(device)
        low = (at - 0.5).floor()
        self.part = (at - 0.5 - low).to(device, torch.float32)  # of the pixel after `low`
        self.low = low.clamp(0, length - 1).long().to(device)
        self.high = (low + 1).clamp(0, length - 1).long().to(device)


def take(x: torch.Tensor, rows: torch.Tensor, cols: torch.Tensor) -> torch.Tensor:
    """Pixels (rows (B, n), cols (B, m)) of each sample of x (B, ..., H, W) -> (B, ..., n, m)."""
    b, middle = x.shape[0], x.shape[1:-2]
    flat = x.reshape(b, -1, *x.shape[-2:])
    sample = torch.arange(b, device=x.device)[:, None, None]
    found = flat.movedim(1, -1)[sample, rows[:, :, None], cols[:, None, :]]
    return found.movedim(-1, 1).reshape(b, *middle, rows.shape[1], cols.shape[1])


def nearest(x: torch.Tensor, rows: Axis, cols: Axis, beyond: int | None) -> torch.Tensor:
    """x (B, ..., H, W) at the nearest pixels; beyond the rim `beyond`, or the rim's where None."""
    found = take(x, rows.near, cols.near)
    if beyond is None:
        return found
    inside = rows.inside[:, :, None] & cols.inside[:, None, :]
    inside = inside.view(len(x), *(1,) * (x.ndim - 3), *inside.shape[1:])
    return torch.where(inside, found, torch.full((), beyond, dtype=x.dtype, device=x.device))


def bilinear(images: torch.Tensor, valid: torch.Tensor, rows: Axis, cols: Axis) -> torch.Tensor:
    """images (B, T, C, H, W) between the valid ones of the four pixels around; 0 where none is."""
    seen = valid[:, :, None].to(images.dtype)
    known = torch.where(valid[:, :, None], images, 0)  # a NaN would survive a weight of 0
    total = weight = torch.zeros((), dtype=images.dtype, device=images.device)
    for y, fy in ((rows.low, 1 - rows.part), (rows.high, rows.part)):
        for x, fx in ((cols.low, 1 - cols.part), (cols.high, cols.part)):
            share = (fy[:, :, None] * fx[:, None, :])[:, None, None].to(images.dtype)
            total = total + share * take(known, y, x)
            weight = weight + share * take(seen, y, x)
    return torch.where(weight > 0, total / weight.clamp(min=1e-6), 0)
