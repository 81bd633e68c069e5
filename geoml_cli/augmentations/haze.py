"""Add smooth haze: brightness that varies over the scene, most in the short waves."""

import torch

from geoml_cli.core.augment import between, chosen
from geoml_cli.core.batch import Batch
from geoml_cli.core.radiance import each_sensor, optical, scatter, smooth, spread_of


def apply(
    batch: Batch,
    generator: torch.Generator,
    *,
    p: float = 0.3,
    strength: float = 1.0,
    exponent: float = 1.0,
    size: float = 0.5,
) -> Batch:
    """Add up to `strength` standard deviations of haze to a share `p` of the samples' dates.

    A band gets (shortest / wavelength) ** `exponent` of it (Chavez 1988: 0.5 very hazy air, 1
    moderate, 4 very clear); all alike where no wavelength is known. `size` is that of its lumps as
    a share of the side. Other sensors get haze of their own where their wavelengths are known.
    """
    through_air = iter(optical(batch))

    def change(one: Batch) -> torch.Tensor:
        if not next(through_air):
            return one.images
        dates = one.valid.shape[:2]
        field = smooth(tuple(one.valid.shape), size, generator)  # (B, T, H, W)
        height = between(0, strength, dates, generator) * chosen(dates, p, generator)
        field = (field * height[..., None, None]).to(one.images)
        amount = (scatter(one, exponent)[:, None, None] * spread_of(one)).to(one.images)
        return one.images + field[:, :, None] * amount

    return each_sensor(batch, change)
