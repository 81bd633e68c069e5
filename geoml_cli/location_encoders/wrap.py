"""Sine and cosine of longitude and of latitude; closed at the dateline, jumps at the poles.

Source: Mac Aodha, Cole, Perona 2019 (ICCV). A pole has as many vectors as longitudes.
"""

import torch
from torch import nn

from geoml_cli.core.layers.on_places import network_on
from geoml_cli.core.places import PlaceEncoder, on_sphere

DATELINE = True  # whether it is continuous there
POLES = False


class Wrap(nn.Module):
    """(N, 2) degrees -> (N, 4): cos lon, sin lon, cos lat, sin lat."""

    out_channels = 4

    def forward(self, lonlat: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        """See the class."""
        lon, sin, cos = on_sphere(lonlat)
        return torch.stack([lon.cos(), lon.sin(), cos, sin], 1).to(dtype)


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
    basis = Wrap()
    return PlaceEncoder(
        basis, network_on(basis.out_channels, network, hidden, layers, out, dropout)
    )
