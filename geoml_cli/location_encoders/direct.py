"""Longitude and latitude in radians, turned by pi; jumps at the dateline and at the poles.

Source: Russwurm et al. 2024 (ICLR), `direct`.
"""

import torch
from torch import nn

from geoml_cli.core.layers.on_places import network_on
from geoml_cli.core.places import PlaceEncoder, radians

DATELINE = False  # whether it is continuous there
POLES = False


class Direct(nn.Module):
    """(N, 2) degrees -> (N, 2): lon - pi, lat - pi."""

    out_channels = 2

    def forward(self, lonlat: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        """See the class."""
        return (torch.stack(radians(lonlat), 1) - torch.pi).to(dtype)


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
    basis = Direct()
    return PlaceEncoder(
        basis, network_on(basis.out_channels, network, hidden, layers, out, dropout)
    )
