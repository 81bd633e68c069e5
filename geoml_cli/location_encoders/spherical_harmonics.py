"""Real spherical harmonics, orthonormal, of any degree: continuous everywhere.

Signs and scales of published networks are variants (`core/harmonics.py`); Russwurm et al. 2024 (ICLR).
"""

import torch
from torch import nn

from geoml_cli.core.harmonics import check, harmonics
from geoml_cli.core.layers.on_places import network_on
from geoml_cli.core.places import PlaceEncoder

DATELINE = True  # whether it is continuous there
POLES = True


class Harmonics(nn.Module):
    """(N, 2) degrees -> (N, degrees ** 2); degree by degree, orders -l to l."""

    def __init__(self, degrees: int, variant: str) -> None:
        super().__init__()
        check(degrees, variant)
        self.degrees, self.variant, self.out_channels = degrees, variant, degrees**2

    def forward(self, lonlat: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        """See the class."""
        return harmonics(lonlat, self.degrees, self.variant, dtype)


def build(
    *,
    degrees: int = 10,
    variant: str = "standard",
    network: str = "none",
    hidden: int = 256,
    layers: int | None = None,
    out: int = 256,
    dropout: float = 0.0,
) -> nn.Module:
    """Build it of degrees 0 to `degrees` - 1 (L of the papers); `variant` standard, fixed, satclip or closed-form.

    `network` on it: none, linear, mlp, fcnet or siren, of `hidden` channels and `layers` (as is usual where not
    given), to `out` channels.
    """
    basis = Harmonics(degrees, variant)
    return PlaceEncoder(
        basis, network_on(basis.out_channels, network, hidden, layers, out, dropout)
    )
