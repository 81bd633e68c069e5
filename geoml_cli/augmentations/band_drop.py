"""Take a band or a date away from each sample, so that none is relied on alone."""

from dataclasses import replace

import torch

from geoml_cli.core.augment import chosen
from geoml_cli.core.batch import Batch
from geoml_cli.core.radiance import each_sensor, mean_of
from geoml_cli.errors import UsageMistake


def apply(
    batch: Batch,
    generator: torch.Generator,
    *,
    p: float = 0.3,
    what: str = "band",
    most: int = 1,
) -> Batch:
    """Drop 1..`most` bands or dates of a share `p` of the samples, of each sensor by itself.

    what=band: the band is its own mean over the sample's valid pixels of that date, on all dates.
    what=date: the date is not valid. One band, or one date that has valid pixels, is always left.
    """
    if what not in ("band", "date") or most < 1:
        raise UsageMistake(
            f"band-drop: what={what},most={most}; what is band or date, most 1 or more"
        )
    if what == "date":
        others = tuple(_without_dates(one, generator, p, most) for one in batch.others)
        return replace(_without_dates(batch, generator, p, most), others=others)

    def change(one: Batch) -> torch.Tensor:
        gone = _dropped(len(one.images), one.images.shape[2], p, most, generator)
        gone = gone.to(one.images.device)[:, None, :, None, None]
        return torch.where(gone & one.valid[:, :, None], mean_of(one).to(one.images), one.images)

    return each_sensor(batch, change)


def _dropped(count: int, of: int, p: float, most: int, generator: torch.Generator) -> torch.Tensor:
    """Which bands or dates of each sample go (count, of): none or 1..most, never all."""
    rank = torch.rand((count, of), generator=generator).argsort(1).argsort(1)
    many = torch.randint(1, most + 1, (count, 1), generator=generator).clamp(max=of - 1)
    return (rank < many) & chosen((count, 1), p, generator)


def _without_dates(one: Batch, generator: torch.Generator, p: float, most: int) -> Batch:
    count, dates = one.valid.shape[:2]
    gone = _dropped(count, dates, p, most, generator).to(one.valid.device)
    has = one.valid.flatten(2).any(2)  # (B, T)
    lost = has.any(1) & ~(has & ~gone).any(1)  # samples that would be left without any pixel
    gone = gone & ~lost[:, None]
    return replace(one, valid=one.valid & ~gone[..., None, None])
