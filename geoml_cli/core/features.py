"""Embeddings out of a network: one of its feature maps, or what that comes to for a tile."""

from collections.abc import Sequence

import torch
from torch import nn

from geoml_cli.core.batch import Batch
from geoml_cli.core.network import Network
from geoml_cli.core.sensor import resized
from geoml_cli.errors import GeomlError

POOLS = ("mean", "cls", "attention")


class Features(nn.Module):
    """A network without its head.

    `level` is the feature map that is taken, 1 the finest, None the last. `pool` is how it becomes one
    vector a tile: `mean` over valid ground, `cls` the encoder's own summary (a transformer's class
    token), or `attention`, the mean weighted by how much each place is like the mean: softmax of scaled
    dot products (Psomas et al. 2023, ICCV, SimPool, without learnt projections).
    """

    def __init__(self, network: Network, level: int | None = None, pool: str = "mean") -> None:
        super().__init__()
        self.network, self.pool = network, pool
        first = network.sensors[0]
        count = len(first.channels)  # type: ignore[arg-type]
        if level is not None and not 1 <= level <= count:
            raise GeomlError(f"--level {level}: the encoder has {count} level(s), 1 is the finest")
        self.level = (level or count) - 1
        self.stride = int(first.strides[self.level])  # type: ignore[index]
        if pool == "cls" and not all(hasattr(s.encoder, "summary") for s in network.sensors):
            raise GeomlError("--pool cls: the encoder has no class token; take mean or attention")

    def forward(self, batch: Batch) -> torch.Tensor:
        """Embeddings (B, D, ceil(H / stride), ceil(W / stride))."""
        return self.network.maps(batch)[self.level].float()

    def tiles(self, batch: Batch) -> torch.Tensor:
        """One embedding a sample, (B, D)."""
        if self.pool == "cls":
            return self.network.summary(batch).float()
        maps = self(batch)
        seen = [batch, *batch.others]
        shown = torch.stack([one.valid.any(dim=1) for one in seen]).any(0)[:, None].float()
        weight = resized(shown, maps.shape[-2:]).flatten(2) + 1e-6  # (B, 1, N)
        places = maps.flatten(2)
        mean = (places * weight).sum(2) / weight.sum(2)
        if self.pool == "mean":
            return mean
        return attended(places, mean, weight[:, 0])


def attended(places: torch.Tensor, query: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Means (B, D) of places (B, D, N), weighted by softmax(place . query / sqrt(D)) times `weight` (B, N)."""
    close = torch.einsum("bdn,bd->bn", places, query) / places.shape[1] ** 0.5
    share = torch.softmax(close + weight.log(), dim=1)
    return torch.einsum("bdn,bn->bd", places, share)


def set_norms(network: Network, norms: Sequence[tuple[Sequence[float], Sequence[float]]]) -> None:
    """Means and standard deviations of every sensor's bands."""
    for sensor, (mean, std) in zip(network.sensors, norms, strict=True):
        sensor.mean.copy_(torch.tensor(mean))  # type: ignore[operator]
        sensor.std.copy_(torch.tensor(std))  # type: ignore[operator]
