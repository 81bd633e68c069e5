"""What every run of `geoml embed` that asks a network has: the network, what it is shown, how it is normalised."""

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from geoml_cli.core import device as devices
from geoml_cli.core.batch import Batch
from geoml_cli.core.network import own_scales
from geoml_cli.core.reduction import Reduction, from_plain
from geoml_cli.errors import NothingMatched
from geoml_cli.formats.stamp import Input
from geoml_cli.stages.embedder import (
    Embedder,
    Norms,
    Source,
    Way,
    measured,
    source_of_encoder,
    source_of_model,
)
from geoml_cli.stages.inputs import read_scenes
from geoml_cli.stages.stack import stack_of
from geoml_cli.stages.targets import Target, Wish, targets_of, tile_sets
from geoml_cli.stages.tiles import open_tiles

log = logging.getLogger("geoml")
LOOKS, LOOK = 32, 8  # groups, and rows of each, that are looked at to measure normalisation


@dataclass(frozen=True)
class Wanted:
    """What is to be embedded, and how it is stored."""

    inputs: Sequence[Any]
    beside: Sequence[str] = ()
    frames: str | None = None
    within: float | None = None
    crs: str | None = None
    resolution: float | None = None
    like: str | None = None
    aoi: str | None = None
    at: str | None = None
    dtype: str = "float32"
    reduce: str | None = None
    batch: int | None = None
    precision: str = "auto"
    device: str = "auto"
    co: Sequence[str] = ()
    shard: str | None = None
    trust_code: bool = False

    def recorded(self) -> dict[str, Any]:
        """What of it decides the bytes, besides inputs."""
        names = ("frames", "within", "crs", "resolution", "dtype", "reduce", "batch", "precision")
        found = {k: getattr(self, k) for k in names} | {"co": list(self.co)}
        return found | ({"shard": self.shard} if self.shard else {})


class Run:
    """A network, and what it is shown."""

    def __init__(self, way: Way, wanted: Wanted, extra: Sequence[Input]) -> None:
        self.way, self.wanted = way, wanted
        self.sets = tile_sets(wanted.inputs)
        if way.model:
            self.source = source_of_model(way, wanted.trust_code)
        else:
            self.source = source_of_encoder(way, self._sensors())
        self.inputs = [*self.source.inputs, *extra]

    def _sensors(self) -> list[dict[str, Any]]:
        """Sensors of the input, for an encoder that fits itself to them."""
        if self.way.sensors:
            return list(self.way.sensors)
        if self.sets:
            return list(open_tiles(self.sets[0]).head["sensors"])
        stack = stack_of(read_scenes(list(self.wanted.inputs))[0])
        gsd = stack.grid.gsd_m() if stack.grid.placed else None
        bands = [band.to_dict() for band in stack.bands]
        return [
            {"name": "images", "bands": bands, "dtype": str(stack.dtype), "gsd_m": gsd, "frames": 1}
        ]

    def targets(self, source: Source, window: int | None) -> tuple[list[Target], list[Input]]:
        """Rasters that are shown, in the windows that a source's head asks for."""
        w = self.wanted
        wish = Wish(
            w.inputs, w.beside, w.frames, w.within, w.crs, w.resolution, w.like, w.aoi, window
        )
        return targets_of(wish, source.opened)

    @property
    def arguments(self) -> dict[str, Any]:
        """What decides the bytes, besides inputs."""
        return self.way.recorded() | self.wanted.recorded()

    def embedder(
        self, source: Source, shown: Callable[[], Iterator[Batch]]
    ) -> tuple[Embedder, Norms]:
        """The network on its device; an encoder's bands are normalised by what some batches show."""
        device = devices.pick(self.wanted.device, self.wanted.precision)
        log.info("embedding on %s", device)
        norms = self.way.norms
        if norms is None and self.way.encoder:
            norms = self._own_scales(source) or measured(shown())
            if not norms:
                raise NothingMatched("no valid pixel in what was named")
        return Embedder(source, norms, device), norms or []

    def _own_scales(self, source: Source) -> Norms | None:
        """Those that the encoder has, whatever the data are."""
        each = [
            own_scales(str(self.way.encoder), len(one["bands"])) for one in source.head["sensors"]
        ]
        return [{"mean": m, "std": s} for m, s in filter(None, each)] or None

    def size(self, pixels: int) -> int:
        """Windows that are computed at a time."""
        if self.wanted.batch:
            return self.wanted.batch
        kind = devices.pick(self.wanted.device).torch.type
        return int(np.clip((1 << (22 if kind == "cuda" else 20)) // pixels, 1, 256))

    def reduction(self) -> Reduction | None:
        """That of the file that is followed."""
        return from_plain(dict(self.way.reduction)) if self.way.reduction else None


def spread(groups: Sequence[Any], count: int) -> list[Any]:
    """As many of some groups, evenly apart."""
    at = np.unique(np.linspace(0, len(groups) - 1, min(count, len(groups))).round().astype(int))
    return [groups[i] for i in at]
