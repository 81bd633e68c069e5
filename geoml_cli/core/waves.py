"""Sines and cosines of longitude and latitude at several scales (Space2Vec, Sphere2Vec).

As published, a wave of radius r is sin(degrees / r): degrees are taken for radians, so no wave closes at the
dateline. With `turns` r is a wavelength in degrees, and as many whole waves go round the Earth: that closes.
"""

import math

import torch
from torch import nn

from geoml_cli.core.places import finest
from geoml_cli.errors import UsageMistake


class Waves(nn.Module):
    """Scaled angles of a place, and what is made of them."""

    plus = False

    def __init__(
        self, least: float, most: float, count: int, turns: bool = False, plus: bool = False
    ) -> None:
        super().__init__()
        if not 0 < least <= most or count < 1:
            raise UsageMistake(f"radii of {least:g} to {most:g} in {count} steps: none such")
        growth = math.log(most / least) / max(count - 1, 1)
        radii = [least * math.exp(k * growth) for k in range(count)]
        whole = [max(round(360 / r), 1) for r in radii]
        self.rates = [math.radians(n) for n in whole] if turns else [1 / r for r in radii]
        self.single = math.radians(1) if turns else 1.0  # of the angle that is not scaled
        self.count, self.plus = count, plus

    def fine(self, lonlat: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Longitudes and latitudes (N,) in degrees, in the finest type."""
        fine = lonlat.to(finest(lonlat.device))
        return fine[:, 0], fine[:, 1]

    def angles(self, degrees: torch.Tensor) -> torch.Tensor:
        """(N,) degrees -> (N, count) radians."""
        return degrees[:, None] * torch.tensor(
            self.rates, dtype=degrees.dtype, device=degrees.device
        )


def paired(columns: list[torch.Tensor]) -> torch.Tensor:
    """Columns (N, count) each, to (N, count * their number): all of one scale beside each other."""
    return torch.stack(columns, 2).flatten(1)


def doubled(columns: list[torch.Tensor]) -> torch.Tensor:
    """As `paired`, each column twice, as the published networks of Sphere2Vec expect."""
    return torch.stack(columns, 2).repeat_interleave(2, 2).flatten(1)
