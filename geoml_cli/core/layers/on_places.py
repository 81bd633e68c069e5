"""Networks that sit on a basis of places: linear, mlp, fcnet and siren.

Key names are those of published checkpoints (`nnet.layers.0.weight`, `nnet.class_emb.weight`).
"""

import math

import torch
from torch import nn

from geoml_cli.errors import UsageMistake

KINDS = ("none", "linear", "mlp", "fcnet", "siren")


def network_on(
    channels: int, kind: str, hidden: int, layers: int | None, out: int, dropout: float
) -> nn.Module | None:
    """Build a network on `channels` features; None for the kind `none`.

    `layers` are hidden layers of an mlp or a siren (2 if not given), residual blocks of a fcnet (4).
    """
    if kind not in KINDS:
        raise UsageMistake(f"network={kind}: one of {', '.join(KINDS)}")
    if kind == "none":
        return None
    if kind == "linear":
        return Linear(channels, out)
    if kind == "mlp":
        return Mlp(channels, hidden, 2 if layers is None else layers, out, dropout)
    if kind == "fcnet":
        return FcNet(channels, hidden, 4 if layers is None else layers, out, dropout)
    return Siren(channels, hidden, 2 if layers is None else layers, out, dropout)


class Linear(nn.Linear):
    """One matrix; says how many channels it gives."""

    def __init__(self, channels: int, out: int) -> None:
        super().__init__(channels, out)
        self.out_channels = out


class Mlp(nn.Module):
    """Hidden layers with rectifiers, then a matrix."""

    def __init__(self, channels: int, hidden: int, layers: int, out: int, dropout: float) -> None:
        super().__init__()
        self.out_channels, self.dropout = out, dropout
        parts: list[nn.Module] = []
        for i in range(layers):
            parts += [nn.Linear(hidden if i else channels, hidden), nn.ReLU()]
        self.features = nn.Sequential(*parts, nn.Linear(hidden if layers else channels, out))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, channels) -> (N, out)."""
        *inner, last = self.features
        for part in inner:
            x = part(x)
            if isinstance(part, nn.ReLU):
                x = nn.functional.dropout(x, self.dropout, self.training)
        return last(x)


class Residual(nn.Module):
    """Two layers beside their input."""

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.w1, self.w2 = nn.Linear(width, width), nn.Linear(width, width)
        self.dropout = dropout

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, width) -> (N, width)."""
        y = nn.functional.dropout(torch.relu(self.w1(x)), self.dropout, self.training)
        return x + torch.relu(self.w2(y))


class FcNet(nn.Module):
    """Layer, residual blocks, and a matrix without bias (Mac Aodha, Cole, Perona 2019)."""

    def __init__(self, channels: int, hidden: int, layers: int, out: int, dropout: float) -> None:
        super().__init__()
        self.out_channels = out
        blocks = [Residual(hidden, dropout) for _ in range(layers)]
        self.feats = nn.Sequential(nn.Linear(channels, hidden), nn.ReLU(), *blocks)
        self.class_emb = nn.Linear(hidden, out, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, channels) -> (N, out)."""
        return self.class_emb(self.feats(x))


class Siren(nn.Module):
    """Layers with sines, then a matrix (Sitzmann et al. 2020).

    Dropout falls before the sine, and in training only, as in SatCLIP.
    """

    first, after = (
        30.0,
        1.0,
    )  # what the argument of the first sine and of later ones is multiplied by

    def __init__(self, channels: int, hidden: int, layers: int, out: int, dropout: float) -> None:
        super().__init__()
        self.out_channels, self.dropout = out, dropout
        widths = [channels] + [hidden] * layers
        self.layers = nn.ModuleList(
            nn.Linear(a, b) for a, b in zip(widths[:-1], widths[1:], strict=True)
        )
        self.last_layer = nn.Linear(widths[-1], out)
        for i, part in enumerate((*self.layers, self.last_layer)):
            assert isinstance(part, nn.Linear)
            width = part.in_features
            reach = 1 / width if i == 0 else math.sqrt(6 / width) / self.after
            nn.init.uniform_(part.weight, -reach, reach)
            nn.init.uniform_(part.bias, -reach, reach)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, channels) -> (N, out)."""
        for i, layer in enumerate(self.layers):
            x = nn.functional.dropout(layer(x), self.dropout, self.training)
            x = torch.sin(x * (self.first if i == 0 else self.after))
        return self.last_layer(x)
