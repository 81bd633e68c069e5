"""Products of waves of longitude and latitude, all scales with all (Sphere2Vec dfs).

Source: Mai et al. 2023 (ISPRS), after the double Fourier sphere. Scales are 1, 2, 4, ... waves round the Earth:
closed at the dateline, jumps at the poles.
"""

import torch
from torch import nn

from geoml_cli.core.layers.on_places import network_on
from geoml_cli.core.places import PlaceEncoder, radians

DATELINE = True  # whether it is continuous there
POLES = False


class DoubleFourier(nn.Module):
    """(N, 2) degrees -> (N, 4 count + 4 count ** 2)."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.count, self.out_channels = count, 4 * count + 4 * count**2

    def forward(self, lonlat: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        """Waves of latitude, of longitude, then products cos cos, cos sin, sin cos, sin sin."""
        lon, lat = radians(lonlat)
        rates = 2.0 ** torch.arange(self.count, dtype=lon.dtype, device=lon.device)
        lon, lat = lon[:, None] * rates, lat[:, None] * rates
        alone = [lat.sin(), lat.cos(), lon.sin(), lon.cos()]
        pairs = [
            (lat.cos(), lon.cos()),
            (lat.cos(), lon.sin()),
            (lat.sin(), lon.cos()),
            (lat.sin(), lon.sin()),
        ]
        mixed = [(a[:, :, None] * b[:, None]).flatten(1) for a, b in pairs]
        return torch.cat([*alone, *mixed], 1).to(dtype)


def build(
    *,
    frequencies: int = 6,
    network: str = "none",
    hidden: int = 256,
    layers: int | None = None,
    out: int = 256,
    dropout: float = 0.0,
) -> nn.Module:
    """Build it of `frequencies` scales: 4 F + 4 F^2 columns.

    `network` on it: none, linear, mlp, fcnet or siren, of `hidden` channels and `layers` (as is usual where not
    given), to `out` channels.
    """
    basis = DoubleFourier(frequencies)
    return PlaceEncoder(
        basis, network_on(basis.out_channels, network, hidden, layers, out, dropout)
    )
