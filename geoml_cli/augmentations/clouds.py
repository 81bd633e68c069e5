"""Lay patches of cloud and their shadows over each sample."""

import math
from dataclasses import replace

import torch

from geoml_cli.core.augment import a_pixel, between, chosen
from geoml_cli.core.batch import Batch
from geoml_cli.core.radiance import brightness as direction
from geoml_cli.core.radiance import mean_of, optical, smooth, spread_of

EDGE = 0.15  # of the field's range, over which a cloud grows from thin to opaque


def apply(
    batch: Batch,
    generator: torch.Generator,
    *,
    p: float = 0.3,
    cover: float = 0.3,
    brightness: float = 3.0,
    shadow: float = 1.0,
    size: float = 0.3,
    unlabel: bool = False,
) -> Batch:
    """Cover 0..`cover` of a share `p` of the samples' dates with cloud.

    A cloud hides the ground: it is `brightness` standard deviations above the sample's mean, in
    thermal bands as much below, and not seen in bands of unknown wavelength where others' are
    known. Its shadow, `shadow` standard deviations deep, falls up to a quarter of the side away.
    `unlabel`: nothing is learnt where clouds leave no date of any sensor to see.
    """
    sensors, hidden = [batch, *batch.others], []
    for i, through_air in enumerate(optical(batch)):
        one = sensors[i]
        if not through_air:
            hidden.append(torch.zeros_like(one.valid))
            continue
        alpha = _cover(one, generator, p, cover, size)
        shade = _shade(alpha, generator)
        sensors[i] = replace(one, images=_lay(one, alpha, shade, brightness, shadow))
        hidden.append((alpha > 0.5).to(one.valid.device))
    new = replace(sensors[0], others=tuple(sensors[1:]))
    return _unlabelled(new, hidden) if unlabel and a_pixel(batch) else new


def _cover(
    one: Batch, generator: torch.Generator, p: float, cover: float, size: float
) -> torch.Tensor:
    """Opacity 0..1 of clouds (B, T, H, W), on the CPU; a random share of it is more than half."""
    b, t, h, w = one.valid.shape
    field = smooth((b, t, h, w), size, generator, octaves=3)
    share = between(0, cover, (b, t), generator) * chosen((b, t), p, generator)
    ranked = field.flatten(2).sort(2).values
    at = ((1 - share) * h * w).floor().long().clamp(max=h * w - 1)
    level = ranked.gather(2, at[..., None])[..., None]
    alpha = ((field - level) / EDGE + 0.5).clamp(0, 1)
    return torch.where((share > 0)[..., None, None], alpha, 0)


def _shade(alpha: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Clouds (B, T, H, W) moved as their shadow is: one way for a date, and not beyond the rim."""
    b, t, h, w = alpha.shape
    angle = between(0, 2 * math.pi, (b, t), generator)
    away = between(0.05, 0.25, (b, t), generator)
    out = torch.zeros_like(alpha)
    for i in range(b):
        for j in range(t):
            dy = int(away[i, j] * h * angle[i, j].sin())
            dx = int(away[i, j] * w * angle[i, j].cos())
            to, of = _overlap(dy, h), _overlap(-dy, h)
            out[i, j, to, _overlap(dx, w)] = alpha[i, j, of, _overlap(-dx, w)]
    return out


def _overlap(offset: int, length: int) -> slice:
    return slice(max(offset, 0), length + min(offset, 0))


def _lay(
    one: Batch, alpha: torch.Tensor, shade: torch.Tensor, brightness: float, shadow: float
) -> torch.Tensor:
    images, way = one.images, direction(one).to(one.images)[:, None, None]
    alpha, shade = (x.to(images)[:, :, None] for x in (alpha, shade))
    spread = spread_of(one)
    dark = images - shade * shadow * spread * way.clamp(min=0)
    white = mean_of(one) + brightness * spread * way
    covered = dark * (1 - alpha) + white * alpha
    return torch.where((way != 0) & (alpha + shade > 0), covered, images)


def _unlabelled(new: Batch, hidden: list[torch.Tensor]) -> Batch:
    """The batch with weight 0 where clouds hid the last that was to be seen."""
    weight = new.weight
    assert weight is not None
    before = torch.zeros_like(new.valid[:, 0])
    after = before.clone()
    for one, cloud in zip((new, *new.others), hidden, strict=True):
        if one.valid.shape[-2:] == before.shape[-2:]:
            before |= one.valid.any(1)
            after |= (one.valid & ~cloud).any(1)
    gone = before & ~after  # (B, H, W)
    gone = gone if weight.ndim == 3 else gone[:, None]
    return replace(new, weight=torch.where(gone, torch.zeros_like(weight), weight))
