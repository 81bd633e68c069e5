"""Places on the ground as vectors: coordinates checked, a fixed basis, and a network on it.

Everything here takes (N, 2) longitude, latitude in degrees, float32 or float64, and nothing else;
whoever reads another order turns it at the border.
"""

from typing import Protocol

import torch
from torch import nn

from geoml_cli.geo.lonlat import check_lonlat

MEGABYTES, ROWS = (
    2,
    1024,
)  # of a basis held at a time where nothing is differentiated: it stays in the cache


class Basis(Protocol):
    """Functions of a place that are not learnt."""

    @property
    def out_channels(self) -> int:
        """Columns."""

    def __call__(self, lonlat: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        """(N, 2) degrees -> (N, out_channels), in any memory layout."""


def checked(lonlat: torch.Tensor) -> torch.Tensor:
    """Places with longitudes in -180 to 180; raises `GeomlError` where columns are not lon, lat in degrees."""
    if lonlat.ndim != 2 or lonlat.shape[1] != 2 or not lonlat.is_floating_point():
        raise ValueError(f"places are (N, 2) floats, longitude first, not {tuple(lonlat.shape)}")
    if not len(lonlat):
        return lonlat
    most = lonlat.detach().abs().amax(0).tolist()  # one look at the device
    if not (most[0] <= 360 and most[1] <= 90):  # also where it is no number
        check_lonlat(lonlat.detach().cpu().double().numpy(), "places")
    if most[0] <= 180:
        return lonlat
    lon = lonlat[:, :1]
    lon = torch.where(lon.abs() > 180, torch.remainder(lon + 180, 360) - 180, lon)
    return torch.cat([lon, lonlat[:, 1:]], 1)


class PlaceEncoder(nn.Module):
    """(N, 2) longitude, latitude in degrees -> (N, out_channels): a basis, and `nnet` on it if there is one.

    Vectors are of the type of the network's parameters; without a network, of the places' type. `exact` says of a
    module that it takes places in float64, whatever type its parameters have.
    """

    exact = True

    def __init__(self, basis: Basis, nnet: nn.Module | None = None) -> None:
        super().__init__()
        self.basis, self.nnet = basis, nnet
        self.out_channels: int = basis.out_channels if nnet is None else nnet.out_channels  # type: ignore[assignment]

    def forward(self, lonlat: torch.Tensor) -> torch.Tensor:
        """Vectors; in parts that stay in the cache where nothing is differentiated."""
        lonlat = checked(lonlat)
        weight = None if self.nnet is None else next(self.nnet.parameters(), None)
        dtype = lonlat.dtype if weight is None else weight.dtype
        if torch.is_grad_enabled() and (lonlat.requires_grad or self._learns()):
            return self._vectors(lonlat, dtype)
        return in_parts(
            lambda part: self._vectors(part, dtype), lonlat, self.basis.out_channels, dtype
        )

    def _learns(self) -> bool:
        return any(p.requires_grad for p in self.parameters())

    def _vectors(self, lonlat: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        found = self.basis(lonlat, dtype)
        return found if self.nnet is None else self.nnet(found)


def in_parts(work, lonlat: torch.Tensor, width: int, dtype: torch.dtype) -> torch.Tensor:  # type: ignore[no-untyped-def]
    """Rows of `work` put together; a part holds at most `MEGABYTES` of `width` columns."""
    rows = max(MEGABYTES * 2**20 // (max(width, 1) * dtype.itemsize), ROWS)
    if lonlat.device.type != "cpu":
        rows *= 64
    if len(lonlat) <= rows:
        return work(lonlat).contiguous()
    out = None
    for start in range(0, len(lonlat), rows):
        part = work(lonlat[start : start + rows])
        if out is None:
            out = part.new_empty(len(lonlat), part.shape[1])
        out[start : start + rows] = part
    assert out is not None
    return out


def radians(lonlat: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Longitudes and latitudes (N,) in radians, in the finest type that the device has."""
    fine = lonlat.to(finest(lonlat.device))
    return torch.deg2rad(fine[:, 0]), torch.deg2rad(fine[:, 1])


def finest(device: torch.device) -> torch.dtype:
    """Float64, but for devices of Apple, which have none."""
    return torch.float32 if device.type == "mps" else torch.float64


def on_sphere(lonlat: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Longitude in radians, and sine and cosine of latitude (N,); the cosine is exactly 0 at the poles."""
    fine = lonlat.to(finest(lonlat.device))
    lon, lat = torch.deg2rad(fine[:, 0]), fine[:, 1]
    return lon, torch.sin(torch.deg2rad(lat)), torch.sin(torch.deg2rad(90 - lat.abs()))
