"""Real spherical harmonics by a recurrence that is stable at every degree.

Fully normalised associated Legendre functions, upwards in degree at each order (Holmes and Featherstone 2002,
eqs. 11 to 13). Columns are degree by degree, orders -l to l: column l * l + l + m. Published networks were
trained on bases that differ in signs and, by a slip, in scale: `VARIANTS`.
"""

import math
from functools import lru_cache

import torch

from geoml_cli.core.places import in_parts, on_sphere
from geoml_cli.errors import UsageMistake

VARIANTS = ("standard", "fixed", "satclip", "closed-form")


def harmonics(
    lonlat: torch.Tensor, degrees: int, variant: str = "standard", dtype: torch.dtype | None = None
) -> torch.Tensor:
    """Harmonics of degrees 0 to `degrees` - 1 at places (N, 2) in degrees, (N, degrees ** 2); orthonormal.

    `standard` has no Condon-Shortley phase; `fixed` is it at the antipode (times (-1)^l), as in locationencoder;
    `closed-form` is `fixed` times (-1)^m; `satclip` is `fixed` with order 0 times pi, as in SatCLIP.
    Differentiable in the places. `dtype` is the places' where it is not given; sums are float64.
    """
    check(degrees, variant)
    dtype = dtype or lonlat.dtype
    if lonlat.requires_grad and torch.is_grad_enabled():
        return _joined(lonlat, degrees, variant).T.to(dtype)
    return in_parts(
        lambda part: columns(part, degrees, variant, dtype).T, lonlat, degrees**2, dtype
    )


def check(degrees: int, variant: str) -> None:
    """Refuse what there is none of."""
    if degrees < 1:
        raise UsageMistake(f"degrees={degrees}: 1 or more")
    if variant not in VARIANTS:
        raise UsageMistake(f"variant={variant}: one of {', '.join(VARIANTS)}")


def columns(lonlat: torch.Tensor, degrees: int, variant: str, dtype: torch.dtype) -> torch.Tensor:
    """As `harmonics` of a few places, feature by feature: (degrees ** 2, N) in one piece of memory."""
    with torch.no_grad():
        lon, sin, cos = on_sphere(lonlat)
        across, along = _across(lon, degrees, variant)
        across, along = across.to(dtype), along.to(dtype)
        out = torch.empty(degrees**2, len(lonlat), dtype=dtype, device=lonlat.device)
        for n, legendre in enumerate(_legendre(sin, cos, degrees, variant)):
            part = legendre.to(dtype)
            torch.mul(part, across[: n + 1], out=out[n * n + n : (n + 1) ** 2])
            if n:
                torch.mul(part[1:].flip(0), along[degrees - 1 - n : -1], out=out[n * n : n * n + n])
    return out


def _joined(lonlat: torch.Tensor, degrees: int, variant: str) -> torch.Tensor:
    """As `columns`, in a way that can be differentiated."""
    lon, sin, cos = on_sphere(lonlat)
    across, along = _across(lon, degrees, variant)
    found = []
    for n, legendre in enumerate(_legendre(sin, cos, degrees, variant)):
        found += [legendre[1:].flip(0) * along[degrees - 1 - n : -1], legendre * across[: n + 1]]
    return torch.cat(found)


def _across(lon: torch.Tensor, degrees: int, variant: str) -> tuple[torch.Tensor, torch.Tensor]:
    """sqrt(2) cos(m lon), m upwards, and sqrt(2) sin(m lon), m downwards to 0: (degrees, N) each."""
    order = torch.arange(degrees, dtype=lon.dtype, device=lon.device)
    angle = order[:, None] * lon
    sign = (
        torch.where(order % 2 == 1, -1.0, 1.0)
        if variant == "closed-form"
        else torch.ones_like(order)
    )
    scale = sign * math.sqrt(2)
    first = scale.clone()
    first[0] = math.pi if variant == "satclip" else 1.0
    return first[:, None] * torch.cos(angle), (scale[:, None] * torch.sin(angle)).flip(0)


def _legendre(sin, cos, degrees: int, variant: str):  # type: ignore[no-untyped-def]
    """Normalised Legendre functions of degrees 0, 1, ...: (n + 1, N), orders upwards."""
    a, b, diagonal = _recurrence(degrees, variant != "standard", sin.dtype, sin.device)
    before = current = torch.full_like(sin, 1 / math.sqrt(4 * math.pi))[None]
    last = current[0]
    yield current
    for n in range(1, degrees):
        last = last * cos * diagonal[n]
        last = torch.where(
            last.abs() < 1e-250, 0.0, last
        )  # numbers too small to be normal are slow
        rise = a[n, :n, None] * sin * current
        if n > 1:
            rise[:-1] -= b[n, : n - 1, None] * before
        before, current = current, torch.cat([rise, last[None]])
        yield current


@lru_cache(8)
def _recurrence(degrees: int, antipode: bool, dtype: torch.dtype, device: torch.device):  # type: ignore[no-untyped-def]
    """Factors a, b (degrees, degrees) and of the diagonal: P_l = a sin P_l-1 - b P_l-2.

    At the antipode a degree has the sign (-1)^n: that of a and of the diagonal.
    """
    n = torch.arange(degrees, dtype=torch.float64)[:, None]
    m = torch.arange(degrees, dtype=torch.float64)[None]
    a = ((4 * n**2 - 1) / (n**2 - m**2)).sqrt()
    b = a * (((n - 1) ** 2 - m**2) / (4 * (n - 1) ** 2 - 1)).sqrt()
    diagonal = ((2 * n[:, 0] + 1) / (2 * n[:, 0])).sqrt()
    sign = -1.0 if antipode else 1.0
    return tuple(x.to(device, dtype) for x in (sign * a, b, sign * diagonal))
