"""Sines and cosines of longitude and latitude at many scales (Space2Vec grid).

Source: Mai et al. 2020 (ICLR). Jumps at the dateline unless `turns=true`, and at the poles.
"""

import torch
from torch import nn

from geoml_cli.core.layers.on_places import network_on
from geoml_cli.core.places import PlaceEncoder
from geoml_cli.core.waves import Waves, paired

DATELINE = False  # whether it is continuous there
POLES = False


class Grid(Waves):
    """(N, 2) degrees -> (N, 4 count): sin, cos of longitude by scale, then of latitude."""

    @property
    def out_channels(self) -> int:
        """Columns."""
        return 4 * self.count

    def forward(self, lonlat: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        """See the class."""
        each = [self.angles(degrees) for degrees in self.fine(lonlat)]
        return torch.cat([paired([a.sin(), a.cos()]) for a in each], 1).to(dtype)


def build(
    *,
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

    `network` on it: none, linear, mlp, fcnet or siren, of `hidden` channels and `layers` (as is usual where not
    given), to `out` channels.
    """
    basis = Grid(min_radius, max_radius, frequencies, turns)
    return PlaceEncoder(
        basis, network_on(basis.out_channels, network, hidden, layers, out, dropout)
    )
