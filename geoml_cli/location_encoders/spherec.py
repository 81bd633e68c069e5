"""Points of spheres at many scales (Sphere2Vec sphereC, sphereC+).

Source: Mai et al. 2023 (ISPRS). Jumps at the dateline unless `turns=true`, and at the poles.
"""

import torch
from torch import nn

from geoml_cli.core.layers.on_places import network_on
from geoml_cli.core.places import PlaceEncoder
from geoml_cli.core.waves import Waves, doubled

DATELINE = False  # whether it is continuous there
POLES = False


class SphereC(Waves):
    """(N, 2) degrees -> (N, 6 count), with `plus` (N, 12 count): by scale, each column twice as published."""

    @property
    def out_channels(self) -> int:
        """Columns."""
        return (12 if self.plus else 6) * self.count

    def forward(self, lonlat: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        """See the class."""
        lon, lat = (self.angles(degrees) for degrees in self.fine(lonlat))
        both = [lon.cos() * lat.cos(), lon.sin() * lat.cos()]
        grid = [lat.sin(), lat.cos(), lon.sin(), lon.cos()]
        return doubled([*(grid if self.plus else grid[:1]), *both]).to(dtype)


def build(
    *,
    plus: bool = False,
    min_radius: float = 10.0,
    max_radius: float = 360.0,
    frequencies: int = 16,
    turns: bool = False,
    network: str = "none",
    hidden: int = 256,
    layers: int | None = None,
    out: int = 256,
    dropout: float = 0.0,
) -> nn.Module:
    """Build it of waves of `frequencies` radii, geometric from `min_radius` to `max_radius`.

    `turns` takes radii for wavelengths in degrees, of which a whole number goes round the Earth: closed at the
    dateline then.
    `plus` adds the columns of the grid (sphereC+).

    `network` on it: none, linear, mlp, fcnet or siren, of `hidden` channels and `layers` (as is usual where not
    given), to `out` channels.
    """
    basis = SphereC(min_radius, max_radius, frequencies, turns, plus)
    return PlaceEncoder(
        basis, network_on(basis.out_channels, network, hidden, layers, out, dropout)
    )
