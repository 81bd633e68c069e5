"""The point of the unit sphere, x, y, z: continuous everywhere.

x points to 0 E 0 N, y to 90 E, z to the north pole (`cartesian3d` of Russwurm et al. 2024).
"""

import torch
from torch import nn

from geoml_cli.core.layers.on_places import network_on
from geoml_cli.core.places import PlaceEncoder, on_sphere

DATELINE = True  # whether it is continuous there
POLES = True


class Cartesian(nn.Module):
    """(N, 2) degrees -> (N, 3)."""

    out_channels = 3

    def forward(self, lonlat: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        """See the class."""
        lon, sin, cos = on_sphere(lonlat)
        return torch.stack([lon.cos() * cos, lon.sin() * cos, sin], 1).to(dtype)


def build(
    *,
    network: str = "none",
    hidden: int = 256,
    layers: int | None = None,
    out: int = 256,
    dropout: float = 0.0,
) -> nn.Module:
    """Build it.

    `network` on it: none, linear, mlp, fcnet or siren, of `hidden` channels and `layers` (as is usual where not
    given), to `out` channels.
    """
    basis = Cartesian()
    return PlaceEncoder(
        basis, network_on(basis.out_channels, network, hidden, layers, out, dropout)
    )
