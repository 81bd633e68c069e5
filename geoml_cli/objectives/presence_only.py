"""Presence alone, of many things: what is not seen here, and all at random places, counts as absent.

Source: Cole et al. 2023 (ICML, SINR), the loss "full assume negative". A record tells what is there; of
absence nothing is known. Places to compare with are drawn at random; rows that name nothing are such places too.
"""

from typing import Any

import torch
from torch import nn
from torch.nn.functional import logsigmoid

from geoml_cli.core.batch import Batch
from geoml_cli.core.location import ALONE
from geoml_cli.core.targets import full, known
from geoml_cli.errors import GeomlError

TARGETS = ("present",)
ASKS = "places"  # that the batch does not hold
ROWS = "rows"
GROUNDS = ("sphere", "extent", ROWS)


class PresenceOnly(nn.Module):
    """Mean over records and things of
    -(weight z log p + (1 - z) log(1 - p)) - log(1 - q), p here, q at a random place.

    Random places are uniform on the sphere, or on the part of it between the westernmost, southernmost,
    ... row met so far. With ground `rows` none are drawn, and there is no q: rows that name nothing are enough.
    """

    low: torch.Tensor
    high: torch.Tensor

    def __init__(self, weight: float, ground: str) -> None:
        super().__init__()
        self.weight, self.ground = weight, ground
        self.wants_background = ground == ROWS  # rows at which nothing is there
        self.register_buffer("low", torch.full((2,), torch.inf))
        self.register_buffer("high", torch.full((2,), -torch.inf))

    def forward(self, model: Any, batch: Batch, step: int) -> dict[str, torch.Tensor]:
        """Loss of one (part of a) batch."""
        here, (target, seen) = full(model(batch)), known(batch)
        found = self.weight * target * logsigmoid(here) + (1 - target) * logsigmoid(-here)
        if self.ground != ROWS:
            found = found + logsigmoid(-full(model(self.elsewhere(model, batch))))
        return {"loss": -(found * seen).sum() / max(batch.total, 1e-12)}

    def elsewhere(self, model: Any, batch: Batch) -> Batch:
        """As many random places, of which a network that sees nothing but places can be asked."""
        place = batch.lonlat
        alone = all(
            one.location is not None and one.location.join == ALONE for one in model.sensors
        )
        if place is None or place.ndim != 2 or batch.images.shape[-3:] != (2, 1, 1) or not alone:
            raise GeomlError(
                "--objective presence-only: asks about random places, of which no features are known; add rows without"
                " a name as background, and write presence-only:ground=rows"
            )
        if self.ground == "extent" and torch.is_grad_enabled():  # held places do not widen it
            self.low.copy_(torch.minimum(self.low, place.min(0).values))
            self.high.copy_(torch.maximum(self.high, place.max(0).values))
        drawn = self.draw(len(place)).to(place)
        images = drawn[:, None, :, None, None].to(batch.images)
        return Batch(images, torch.ones_like(batch.valid), lonlat=drawn)

    def draw(self, count: int) -> torch.Tensor:
        """Places (n, 2) in degrees, as dense anywhere on the ground."""
        if self.ground == "sphere":
            x, y, z = torch.nn.functional.normalize(torch.randn(count, 3)).unbind(1)
            return torch.rad2deg(torch.stack([torch.atan2(y, x), torch.asin(z)], dim=1))
        share = torch.rand(count, 2)
        (west, south), (east, north) = self.low.cpu(), self.high.cpu()
        low, high = torch.sin(torch.deg2rad(south)), torch.sin(torch.deg2rad(north))
        lon = west + (east - west) * share[:, 0]
        lat = torch.rad2deg(torch.asin(low + (high - low) * share[:, 1]))
        return torch.stack([lon, lat], dim=1)


def build(*, weight: float = 2048.0, ground: str = "sphere") -> nn.Module:
    """Build; `weight` of a presence, `ground` sphere or extent (of the rows) where random places lie, or rows: none are drawn,
    those of the table that name nothing are enough."""
    if ground not in GROUNDS:
        raise GeomlError(f"presence-only:ground={ground}: write {', '.join(GROUNDS)}")
    return PresenceOnly(weight, ground)
