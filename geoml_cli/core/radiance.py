"""What augmentations of the values of bands share: means and spreads, wavelengths, smooth fields."""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch.nn.functional import interpolate

from geoml_cli.core.batch import Batch

THERMAL_NM = 3000.0  # beyond, what is seen is warmth: clouds are dark
LONGEST_NM = 1e6  # 1 mm: radio waves begin, which go through clouds


def each_sensor(batch: Batch, change: Callable[[Batch], torch.Tensor]) -> Batch:
    """The batch with `change(sensor)` as images of every sensor, the first sensor's first."""
    images = change(batch)
    return replace(
        batch, images=images, others=tuple(replace(one, images=change(one)) for one in batch.others)
    )


def mean_of(batch: Batch) -> torch.Tensor:
    """Mean of each band over the valid pixels of its date, (B, T, C, 1, 1); 0 where there is none."""
    seen = batch.valid[:, :, None]
    total = torch.where(seen, batch.images, 0).sum((-2, -1), keepdim=True)
    return total / seen.sum((-2, -1), keepdim=True).clamp(min=1)


def spread_of(batch: Batch) -> torch.Tensor:
    """Standard deviation of each band (C, 1, 1): of the training ground, or else of this batch."""
    if batch.std is not None:
        return batch.std.to(batch.images)[:, None, None]
    seen = batch.valid[:, :, None]
    count = seen.sum((0, 1, 3, 4)).clamp(min=1)
    mean = torch.where(seen, batch.images, 0).sum((0, 1, 3, 4)) / count
    off = torch.where(seen, batch.images - mean[:, None, None], 0)
    return (off.square().sum((0, 1, 3, 4)) / count).sqrt()[:, None, None]


def optical(batch: Batch) -> list[bool]:
    """Which sensors see by light, which air and clouds change: those with a band of a wavelength.

    If none has any, the first is taken to; radar's waves are no light.
    """
    told = [bool(_light(one).isfinite().any()) for one in (batch, *batch.others)]
    return told if any(told) else [True] + [False] * len(batch.others)


def scatter(batch: Batch, exponent: float) -> torch.Tensor:
    """How much of haze each band (C,) sees: (shortest / wavelength) ** exponent.

    A band of unknown wavelength sees none, unless no band's is known: then all see it alike.
    """
    waves = _light(batch)
    known = waves.isfinite()
    if not known.any():
        return torch.ones_like(waves)
    shortest = torch.where(known, waves, torch.inf).min()
    return torch.where(known, (shortest / waves) ** exponent, 0)


def brightness(batch: Batch) -> torch.Tensor:
    """Which way clouds move each band (C,): 1 brighter, -1 darker (thermal), 0 unseen (no light).

    Where no band's wavelength is known, all are brighter.
    """
    waves = _light(batch)
    if not waves.isfinite().any():
        return torch.ones_like(waves)
    sign = 1 - 2 * (waves > THERMAL_NM).to(waves)
    return torch.where(waves.isfinite(), sign, 0)


def _light(batch: Batch) -> torch.Tensor:
    """Wavelengths (C,) in nm; NaN where unknown, and where longer than infrared light's."""
    if batch.wavelength_nm is None:
        return batch.images.new_full(batch.images.shape[2:3], torch.nan)
    waves = batch.wavelength_nm.to(batch.images)
    return torch.where(waves < LONGEST_NM, waves, torch.nan)


def smooth(
    shape: tuple[int, ...], size: float, generator: torch.Generator, octaves: int = 1
) -> torch.Tensor:
    """Smooth random fields 0..1 (*shape, H, W), shape ending in H, W, float32 on the CPU.

    `size` is that of their lumps as a share of the longer side; each further octave adds lumps of
    half the size and half the height.
    """
    *count, height, width = shape
    number = int(torch.tensor(count).prod()) if count else 1
    field = torch.zeros(number, height, width)
    for octave in range(octaves):
        lump = max(size * max(height, width) / 2**octave, 1.0)
        cells = [int(side / lump) + 2 for side in (height, width)]
        noise = torch.rand((number, 1, *cells), generator=generator)
        finer = interpolate(noise, size=(height, width), mode="bilinear", align_corners=True)
        field += finer[:, 0] / 2**octave
    low, high = field.amin((1, 2), keepdim=True), field.amax((1, 2), keepdim=True)
    return ((field - low) / (high - low).clamp(min=1e-6)).view(*count, height, width)
