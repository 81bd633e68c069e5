"""Waves in three directions 120 degrees apart at many scales (Space2Vec theory).

Source: Mai et al. 2020 (ICLR). Jumps at the dateline and at the poles.
"""

import torch
from torch import nn

from geoml_cli.core.layers.on_places import network_on
from geoml_cli.core.places import PlaceEncoder
from geoml_cli.core.waves import Waves, paired

DATELINE = False  # whether it is continuous there
POLES = False


class Theory(Waves):
    """(N, 2) degrees -> (N, 6 count): by scale, sin and cos of the place along each direction."""

    directions = ((1.0, 0.0), (-0.5, 0.75**0.5), (-0.5, -(0.75**0.5)))

    @property
    def out_channels(self) -> int:
        """Columns."""
        return 6 * self.count

    def forward(self, lonlat: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        """See the class."""
        lon, lat = self.fine(lonlat)
        each = [self.angles(x * lon + y * lat) for x, y in self.directions]
        return paired([wave for a in each for wave in (a.sin(), a.cos())]).to(dtype)


def build(
    *,
    min_radius: float = 10.0,
    max_radius: float = 360.0,
    frequencies: int = 16,
    network: str = "none",
    hidden: int = 256,
    layers: int | None = None,
    out: int = 256,
    dropout: float = 0.0,
) -> nn.Module:
    """Build it of waves of `frequencies` radii, geometric from `min_radius` to `max_radius`.

    `network` on it: none, linear, mlp, fcnet or siren, of `hidden` channels and `layers` (as is usual where not
    given), to `out` channels.
    """
    basis = Theory(min_radius, max_radius, frequencies)
    return PlaceEncoder(
        basis, network_on(basis.out_channels, network, hidden, layers, out, dropout)
    )
