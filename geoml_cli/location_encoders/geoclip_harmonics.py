"""GeoCLIP's vectors beside spherical harmonics that are hidden at random in training.

GeoCLIP's say what a place looks like, also far from all that is learnt from; harmonics say where it is, which tells
most where neighbours are known. A network that is shown both stands on the harmonics alone, and fails on ground that
was held out; where they are hidden from a share of the samples it must make do with either. Start it from GeoCLIP's
weights and keep them (`--location-weights pkg:geoclip --tune head`).
"""

import math

import torch
from torch import nn

from geoml_cli import registry
from geoml_cli.core.harmonics import check, harmonics
from geoml_cli.core.places import checked

ROOM = "location_encoders"
HOLDS = "geoclip"  # the location encoder whose weights it may start from
DATELINE = False  # whether it is continuous there
POLES = False


class Hide(nn.Module):
    """Set all columns from one on to 0 in a share of the rows, in training."""

    while_frozen = True  # it is for what is trained after it

    def __init__(self, first: int, share: float) -> None:
        super().__init__()
        self.first, self.share = first, share

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, D) -> (N, D)."""
        if not self.training or not self.share:
            return x
        shown = torch.rand(len(x), 1, device=x.device) >= self.share
        return torch.cat([x[:, : self.first], x[:, self.first :] * shown], 1)


class Both(nn.Module):
    """(N, 2) longitude, latitude in degrees -> (N, 512 + degrees ** 2).

    GeoCLIP's columns have mean 0 and variance 1 in each row, harmonics mean square 1 over the sphere.
    """

    exact = True

    def __init__(self, degrees: int, hidden: float) -> None:
        super().__init__()
        check(degrees, "standard")
        self.held = registry.make(ROOM, HOLDS)
        self.degrees, width = degrees, int(self.held.out_channels)
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.hide = Hide(width, hidden)
        self.out_channels = width + degrees**2

    def forward(self, lonlat: torch.Tensor) -> torch.Tensor:
        """Vectors with nothing hidden; whoever trains on them calls `hide`."""
        lonlat = checked(lonlat)
        seen = self.norm(self.held(lonlat))
        where = harmonics(lonlat, self.degrees, dtype=seen.dtype) * math.sqrt(4 * math.pi)
        return torch.cat([seen, where], 1)


def build(*, degrees: int = 20, hidden: float = 0.5) -> nn.Module:
    """Build it with harmonics of degrees 0 to `degrees` - 1, hidden from the share `hidden` of samples in training."""
    return Both(degrees, hidden)


def rename(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Keys of a GeoCLIP, or of one inside; the image side and the temperature are left out."""
    inner = registry.load(ROOM, HOLDS).rename(state)
    return {f"held.{key}": value for key, value in inner.items()}
