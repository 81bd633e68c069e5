"""GeoCLIP: random Fourier features of an equal-area map at three scales, a network on each, summed.

Source: Vivanco Cepeda, Nayak, Shah 2023 (NeurIPS). The map is Equal Earth (Savric, Patterson, Jenny 2018): it jumps
at the dateline, and a pole is a line of points. Here as everywhere the order is lon, lat; the authors' is lat, lon.
"""

import torch
from torch import nn

from geoml_cli.core.places import checked, in_parts
from geoml_cli.errors import UsageMistake

DATELINE = False  # whether it is continuous there
POLES = False
A1, A2, A3, A4 = 1.340264, -0.081106, 0.000893, 0.003796
SCALE, TURN = 66.50336, 180  # x and y of the map on a unit sphere are times SCALE / TURN
FEATURES, HIDDEN, OUT = 256, 1024, 512


def equal_earth(lonlat: torch.Tensor) -> torch.Tensor:
    """Project (N, 2) degrees to Equal Earth x, y (N, 2), in the scale that GeoCLIP was trained in."""
    lon, lat = torch.deg2rad(lonlat).unbind(1)
    root = torch.sqrt(torch.tensor(3.0, dtype=lonlat.dtype, device=lonlat.device))
    theta = torch.asin(root / 2 * torch.sin(lat))
    bend = 3 * (9 * A4 * theta**8 + 7 * A3 * theta**6 + 3 * A2 * theta**2 + A1)
    x = 2 * root * lon * torch.cos(theta) / bend
    y = A4 * theta**9 + A3 * theta**7 + A2 * theta**3 + A1 * theta
    return torch.stack([x, y], 1) * SCALE / TURN


class Fourier(nn.Module):
    """Random Fourier features of a point of a plane."""

    b: torch.Tensor

    def __init__(self, sigma: float) -> None:
        super().__init__()
        self.register_buffer("b", sigma * torch.randn(FEATURES, 2))

    def forward(self, point: torch.Tensor) -> torch.Tensor:
        """(N, 2) -> (N, 2 * 256): cos, then sin, of 2 pi point . b."""
        angle = (2 * torch.pi * point) @ self.b.T
        return torch.cat([angle.cos(), angle.sin()], 1)


class Capsule(nn.Module):
    """Features of one scale, and a network on them."""

    def __init__(self, sigma: float) -> None:
        super().__init__()
        parts: list[nn.Module] = [Fourier(sigma)]
        for i in range(3):
            parts += [nn.Linear(HIDDEN if i else 2 * FEATURES, HIDDEN), nn.ReLU()]
        self.capsule = nn.Sequential(*parts)
        self.head = nn.Sequential(nn.Linear(HIDDEN, OUT))

    def forward(self, point: torch.Tensor) -> torch.Tensor:
        """(N, 2) -> (N, 512)."""
        return self.head(self.capsule(point))


class GeoClip(nn.Module):
    """(N, 2) longitude, latitude in degrees -> (N, 512), not normalised."""

    out_channels, exact = OUT, True

    def __init__(self, sigmas: list[float]) -> None:
        super().__init__()
        for i, sigma in enumerate(sigmas):
            setattr(self, f"LocEnc{i}", Capsule(sigma))

    def forward(self, lonlat: torch.Tensor) -> torch.Tensor:
        """Sum of the capsules."""
        lonlat = checked(lonlat)
        if torch.is_grad_enabled():
            return self._vectors(lonlat)
        return in_parts(self._vectors, lonlat, HIDDEN, torch.float32)

    def _vectors(self, lonlat: torch.Tensor) -> torch.Tensor:
        # angles reach 10,000: their rounding in float32 shows (2e-5), so it is done as it was in training
        point = equal_earth(lonlat.to(next(self.buffers()).dtype))
        return torch.stack([capsule(point) for capsule in self.children()]).sum(0)


def build(*, sigma: str = "1-16-256") -> nn.Module:
    """Build it of a capsule for each `sigma`, numbers joined by a dash."""
    try:
        sigmas = [float(part) for part in sigma.split("-")]
    except ValueError:
        sigmas = []
    if not sigmas or min(sigmas) <= 0:
        raise UsageMistake(f"sigma={sigma}: numbers above 0 joined by a dash, as in 1-16-256")
    return GeoClip(sigmas)


def rename(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Keys of the capsules, LocEnc0 to LocEncN; the image side and the temperature are left out."""
    return {"LocEnc" + key.partition("LocEnc")[2]: v for key, v in state.items() if "LocEnc" in key}


def told(state: dict[str, torch.Tensor]) -> dict[str, str]:
    """Options that the keys of a renamed checkpoint tell: how many capsules; their sigmas lie in the weights."""
    count = len({key.partition(".")[0] for key in state})
    return {} if count == 3 else {"sigma": "-".join(["1"] * count)}
