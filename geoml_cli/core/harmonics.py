"""Real spherical harmonics, accurate at every degree and at the poles.

Up to `COMPILED` degrees on a CPU they are sphericart's (Bigi et al. 2023), which is fastest and, in float64, exact to
1e-12 there; beyond it overflows near the poles, and in float32 long before. All else is a recurrence of fully
normalised Legendre functions, upwards in degree at each order, in float64 (Holmes and Featherstone 2002, eqs. 11 to
13). Columns are degree by degree, orders -l to l: column l * l + l + m.
"""

import math
import threading
from functools import lru_cache
from typing import Any

import numpy as np
import torch

from geoml_cli.core.places import in_parts, on_sphere
from geoml_cli.errors import UsageMistake

# Published networks were trained on bases that differ in signs and, by a slip, in scale. A reflection of the
# place makes the signs: (-1)^l at the antipode, (-1)^(l + m) across the equator.
REFLECTED = {
    "standard": (1, 1, 1),
    "fixed": (-1, -1, -1),
    "satclip": (-1, -1, -1),
    "closed-form": (1, 1, -1),
}
VARIANTS = tuple(REFLECTED)
COMPILED = 64  # degrees
BLOCK = 128  # places of a block that stays in the cache


def harmonics(
    lonlat: torch.Tensor, degrees: int, variant: str = "standard", dtype: torch.dtype | None = None
) -> torch.Tensor:
    """Harmonics of degrees 0 to `degrees` - 1 at places (N, 2) in degrees, (N, degrees ** 2); orthonormal.

    `standard` has no Condon-Shortley phase; `fixed` is it times (-1)^l, as in locationencoder; `closed-form` is
    `fixed` times (-1)^m; `satclip` is `fixed` with order 0 times pi, as in SatCLIP. Differentiable in the
    places. `dtype` is the places' where it is not given; sums are float64.
    """
    check(degrees, variant)
    dtype = dtype or lonlat.dtype
    if lonlat.requires_grad and torch.is_grad_enabled():
        return torch.cat(list(_by_degree(lonlat, degrees, variant))).T.to(dtype)
    if lonlat.device.type == "cpu" and degrees <= COMPILED:
        return _compiled(lonlat, degrees, variant, dtype)
    return in_parts(
        lambda part: _recurred(part, degrees, variant, dtype).T, lonlat, degrees**2, dtype
    )


def check(degrees: int, variant: str) -> None:
    """Refuse what there is none of."""
    if degrees < 1:
        raise UsageMistake(f"degrees={degrees}: 1 or more")
    if variant not in VARIANTS:
        raise UsageMistake(f"variant={variant}: one of {', '.join(VARIANTS)}")


def _compiled(lonlat: torch.Tensor, degrees: int, variant: str, dtype: torch.dtype) -> torch.Tensor:
    """By sphericart, (N, degrees ** 2)."""
    lon, sin, cos = on_sphere(lonlat.detach())
    x, y, z = REFLECTED[variant]
    points = torch.stack([x * cos * lon.cos(), y * cos * lon.sin(), z * sin], 1).numpy()
    calculator = _calculator(degrees, threading.get_ident())
    order = np.arange(degrees)
    zero = order * order + order  # the columns of order 0

    def computed(some: np.ndarray) -> torch.Tensor:
        found = calculator.compute(some)
        if variant == "satclip":
            found[:, zero] *= math.pi
        return torch.from_numpy(found)

    if dtype == torch.float64:
        return computed(points)
    out = torch.empty(len(points), degrees**2, dtype=dtype)
    for start in range(0, len(points), BLOCK):
        out[start : start + BLOCK] = computed(points[start : start + BLOCK])
    return out


@lru_cache(16)
def _calculator(degrees: int, thread: int) -> Any:
    """One a thread: they have room of their own to work in."""
    from sphericart import SphericalHarmonics

    return SphericalHarmonics(degrees - 1)


def _recurred(lonlat: torch.Tensor, degrees: int, variant: str, dtype: torch.dtype) -> torch.Tensor:
    """By the recurrence, column by column: (degrees ** 2, N) in one piece of memory."""
    with torch.no_grad():
        out = torch.empty(degrees**2, len(lonlat), dtype=dtype, device=lonlat.device)
        start = 0
        for part in _by_degree(lonlat, degrees, variant):
            out[start : start + len(part)] = part
            start += len(part)
    return out


def _by_degree(lonlat: torch.Tensor, degrees: int, variant: str):  # type: ignore[no-untyped-def]
    """Harmonics (., N) in the order of the columns: orders -n to -1, then 0 to n, of each degree."""
    lon, sin, cos = on_sphere(lonlat)
    x, _, z = REFLECTED[variant]
    order = torch.arange(degrees, dtype=lon.dtype, device=lon.device)
    angle = order[:, None] * lon
    turned = torch.full_like(angle[:, :1], math.sqrt(2))
    turned[1::2] *= x  # of lon + 180
    along, down = turned * torch.cos(angle), (turned * torch.sin(angle)).flip(0)
    first = math.pi if variant == "satclip" else 1.0
    for n, legendre in enumerate(_legendre(z * sin, cos, degrees)):
        yield legendre[1:].flip(0) * down[degrees - 1 - n : -1]
        yield legendre[:1] * first
        yield legendre[1:] * along[1 : n + 1]


def _legendre(sin: torch.Tensor, cos: torch.Tensor, degrees: int):  # type: ignore[no-untyped-def]
    """Normalised Legendre functions of degrees 0, 1, ...: (n + 1, N), orders upwards."""
    a, b, diagonal = _recurrence(degrees, sin.dtype, sin.device)
    before = current = torch.full_like(sin, 1 / math.sqrt(4 * math.pi))[None]
    last = current[0]
    small = 1e-250 if sin.dtype == torch.float64 else 1e-30  # numbers below normal ones are slow
    yield current
    for n in range(1, degrees):
        last = last * cos * diagonal[n]
        last = torch.where(last.abs() < small, 0.0, last)
        rise = sin * current * a[n, :n, None]
        if n > 1:
            rise[:-1] -= b[n, : n - 1, None] * before
        before, current = current, torch.cat([rise, last[None]])
        yield current


@lru_cache(8)
def _recurrence(degrees: int, dtype: torch.dtype, device: torch.device) -> list[torch.Tensor]:
    """Factors a, b (degrees, degrees) and of the diagonal: P_n = a sin P_n-1 - b P_n-2."""
    n = torch.arange(degrees, dtype=torch.float64)[:, None]
    m = torch.arange(degrees, dtype=torch.float64)[None]
    a = ((4 * n**2 - 1) / (n**2 - m**2)).sqrt()
    b = a * (((n - 1) ** 2 - m**2) / (4 * (n - 1) ** 2 - 1)).sqrt()
    diagonal = ((2 * n[:, 0] + 1) / (2 * n[:, 0])).sqrt()
    return [one.to(device, dtype) for one in (a, b, diagonal)]
