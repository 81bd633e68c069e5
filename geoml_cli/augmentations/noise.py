"""Add the noise of a sensor, and change the gain and offset of each band."""

import torch

from geoml_cli.core.augment import between, chosen
from geoml_cli.core.batch import Batch
from geoml_cli.core.radiance import each_sensor, mean_of, spread_of


def apply(
    batch: Batch,
    generator: torch.Generator,
    *,
    p: float = 0.3,
    sigma: float = 0.05,
    gain: float = 0.1,
    offset: float = 0.1,
) -> Batch:
    """Disturb a share `p` of the samples' dates, every sensor by itself.

    White noise of up to `sigma` standard deviations; a gain of each band within 1 - `gain`..1 +
    `gain` about the sample's own mean, which needs no true zero of the unit; an offset of each
    band of up to `offset` standard deviations either way.
    """

    def change(one: Batch) -> torch.Tensor:
        images, bands = one.images, one.images.shape[:3]
        which = chosen(bands[:2], p, generator)[..., None, None, None]
        gains, offsets = (between(-most, most, bands, generator) for most in (gain, offset))
        deep = between(0, sigma, bands[:2], generator)[..., None, None, None]
        white = torch.randn(images.shape, generator=generator) * deep
        gains, offsets = (x[..., None, None].to(images) for x in (gains, offsets))
        added = (white.to(images) + offsets) * spread_of(one)
        new = images + (images - mean_of(one)) * gains + added
        return torch.where(which.to(images.device), new, images)

    return each_sensor(batch, change)
