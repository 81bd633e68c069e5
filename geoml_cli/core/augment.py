"""Augmentation on the device, chained from parts, and what those parts share.

An augmentation changes nothing of the batch that it is given, and takes its random numbers from
the generator alone, which is the CPU's: they are drawn there and moved, whatever the device.
`batch.total` stays that of the labels as they were read, also where some of them are left out.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

from geoml_cli import registry
from geoml_cli.core.batch import Batch
from geoml_cli.errors import UsageMistake

Augment = Callable[[Batch, torch.Generator], Batch]
LABELS = ("target", "weight")


def turn(x: torch.Tensor, k: int) -> torch.Tensor:
    """Apply symmetry k (0..7) to the last two axes: k % 4 quarter turns, then a flip for k >= 4."""
    x = torch.rot90(x, k % 4, (-2, -1))
    return x.flip(-1) if k >= 4 else x


def turn_back(x: torch.Tensor, k: int) -> torch.Tensor:
    """Undo `turn(x, k)`."""
    x = x.flip(-1) if k >= 4 else x
    return torch.rot90(x, -(k % 4), (-2, -1))


def chain(spec: str) -> Augment:
    """Augmentations of `name:options+name`, one after the other; `none` leaves a batch as it is."""
    steps: list[tuple[Callable[..., Batch], dict[str, Any]]] = []
    for one in spec.split("+") if spec != "none" else ():
        name, given = registry.parse("augmentations", one)
        if not 0 <= given.get("p", 0) <= 1:
            raise UsageMistake(f"{one}: p is a share of the samples, 0 to 1")
        apply = getattr(registry.load("augmentations", name), registry.ENTRY["augmentations"])
        steps.append((apply, given))

    def run(batch: Batch, generator: torch.Generator) -> Batch:
        for apply, given in steps:
            batch = apply(batch, generator, **given)
        return batch

    return run


def chosen(shape: tuple[int, ...], p: float, generator: torch.Generator) -> torch.Tensor:
    """Which of some samples are changed: true with probability p, on the CPU."""
    return torch.rand(shape, generator=generator) < p


def between(
    low: float, high: float, shape: tuple[int, ...], generator: torch.Generator
) -> torch.Tensor:
    """Random numbers low..high, float32 on the CPU."""
    return low + (high - low) * torch.rand(shape, generator=generator)


def moved(batch: Batch, move: Callable[[torch.Tensor], torch.Tensor]) -> Batch:
    """The batch with `move(tensor)` in place of everything that has pixels.

    Those are images (B, T, C, H, W) and valid (B, T, H, W), target and weight where labels are a
    pixel's, and the same of the other sensors.
    """
    new: dict[str, Any] = {"images": move(batch.images), "valid": move(batch.valid)}
    if batch.codes is not None and batch.codes.ndim == 5:
        new["codes"] = move(batch.codes)
    if batch.lonlat is not None and batch.lonlat.ndim == 4:
        new["lonlat"] = move(batch.lonlat)
    if batch.hide is not None:
        new["hide"] = move(batch.hide)
    for name in LABELS if a_pixel(batch) else ():
        value = getattr(batch, name)
        new[name] = None if value is None else move(value)
    return replace(batch, **new, others=tuple(moved(one, move) for one in batch.others))


def a_pixel(batch: Batch) -> bool:
    """Whether labels are a pixel's; of no labels this is false."""
    return batch.target is not None and batch.target.ndim >= 3
