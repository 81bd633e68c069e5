"""What holds for every shard of a run of `tile`: plain data."""

from dataclasses import dataclass
from typing import Any

from geoml_cli.geo.field import Pick
from geoml_cli.stages.place import Frames, Place


@dataclass(frozen=True)
class Wanted:
    """Which tiles are kept; the rest is dropped."""

    valid: float = 0.0
    labelled: int = 0
    cloud: float | None = None
    where: str | None = None

    @property
    def needs_pixels(self) -> bool:
        """Whether images must be read to tell."""
        return self.valid > 0 or self.cloud is not None or self.where is not None


@dataclass(frozen=True)
class Plan:
    """What holds for every shard of a run."""

    folder: str
    format: str  # npy, gtiff or virtual
    size: tuple[int, int]
    sensors: tuple[dict[str, Any], ...]  # as in tileset.json
    frames: Frames
    layers: tuple[dict[str, Any], ...]  # as in tileset.json
    split: Any  # None, or what deals the ground out
    held: int | None  # near bits that do not train; None where each fold's member holds its own
    wanted: Wanted

    @property
    def looks(self) -> bool:
        """Whether pixels are read."""
        return self.format != "virtual" or self.wanted.needs_pixels


@dataclass(frozen=True)
class Shard:
    """One unit of work: the windows scheduled for a shard, and all it takes to cut them."""

    plan: Plan
    number: int
    picks: tuple[Pick, ...]
    ids: tuple[str, ...]  # of the picks
    places: dict[int, Place]  # those that the picks are of
    labels: dict[int, tuple[Any, ...]]  # by place: what to burn, a layer
