"""Random Fourier features of the point on the sphere: continuous everywhere.

Source: Rahimi and Recht 2007. A Gaussian kernel of the chord, of length 1 / (2 pi sigma) Earth radii; several
sigmas give several blocks. Directions are drawn from `seed` and kept with the weights.
"""

import torch
from torch import nn

from geoml_cli.core.layers.on_places import network_on
from geoml_cli.core.places import PlaceEncoder, on_sphere
from geoml_cli.errors import UsageMistake

DATELINE = True  # whether it is continuous there
POLES = True


class RandomFourier(nn.Module):
    """(N, 2) degrees -> (N, 2 count) a sigma: cos, then sin, of 2 pi b . xyz."""

    b: torch.Tensor

    def __init__(self, sigmas: list[float], count: int, seed: int) -> None:
        super().__init__()
        draw = torch.Generator().manual_seed(seed)
        each = [s * torch.randn(count, 3, generator=draw, dtype=torch.float64) for s in sigmas]
        self.register_buffer("b", torch.stack(each).float())
        self.out_channels = 2 * count * len(sigmas)

    def forward(self, lonlat: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        """Block by block."""
        lon, sin, cos = on_sphere(lonlat)
        xyz = torch.stack([lon.cos() * cos, lon.sin() * cos, sin], 1)
        angle = 2 * torch.pi * (xyz @ self.b.to(xyz.dtype).transpose(1, 2))  # (sigmas, N, count)
        return torch.cat([angle.cos(), angle.sin()], 2).to(dtype).transpose(0, 1).flatten(1)


def build(
    *,
    sigma: str = "1",
    features: int = 256,
    seed: int = 0,
    network: str = "none",
    hidden: int = 256,
    layers: int | None = None,
    out: int = 256,
    dropout: float = 0.0,
) -> nn.Module:
    """Build it of `features` directions for each `sigma`, as in 0.5-2-8: 2 * features columns a sigma.

    `network` on it: none, linear, mlp, fcnet or siren, of `hidden` channels and `layers` (as is usual where not
    given), to `out` channels.
    """
    basis = RandomFourier(_sigmas(sigma), features, seed)
    return PlaceEncoder(
        basis, network_on(basis.out_channels, network, hidden, layers, out, dropout)
    )


def _sigmas(text: str) -> list[float]:
    """Numbers joined by a dash."""
    try:
        found = [float(part) for part in text.split("-")]
    except ValueError:
        found = []
    if not found or min(found) <= 0:
        raise UsageMistake(f"sigma={text}: numbers above 0 joined by a dash, as in 0.5-2-8")
    return found
