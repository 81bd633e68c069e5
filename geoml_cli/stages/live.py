"""Tile sets whose pixels lie elsewhere: windows of the scenes themselves, or a GeoTIFF a tile."""

import threading
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from geoml_cli.errors import GeomlError
from geoml_cli.formats.raster import Reader, describe
from geoml_cli.formats.tileset import Tiles
from geoml_cli.geo.grid import Grid, Window
from geoml_cli.geo.sides import read_split
from geoml_cli.stages.chain import changed_inputs
from geoml_cli.stages.cut import owned
from geoml_cli.stages.labels import Layer, burn, nothing
from geoml_cli.stages.place import Frames, Place
from geoml_cli.stages.place_reader import PlaceReader, Read
from geoml_cli.stages.tile_files import image_name, label_name

MOST = 256  # tiles that are kept for their masks


@dataclass(frozen=True)
class Live(Tiles):
    """What sets without arrays share: folds are worked out from the split, per tile."""

    _here: threading.local = field(default_factory=threading.local, repr=False)

    @cached_property
    def _split(self) -> Any:
        return read_split(self.head["split"])

    @cached_property
    def _rows(self) -> list[dict[str, Any]]:
        wanted = [c for c in self.index.columns if c.startswith(("proj:", "window_"))]
        return self.index[["id", "scene", *wanted]].to_dict("records")

    def grid(self, row: int) -> Grid:
        """Where a tile lies."""
        return Grid.from_dict(self._rows[row] | {"proj:shape": (self.size, self.size)})

    def window(self, row: int) -> Window:
        """Where a tile lies on the grid of its place."""
        one = self._rows[row]
        return Window(one["window_row"], one["window_col"], self.size, self.size)

    def take(self, kind: str, rows: Iterable[int], name: str | None = None) -> np.ndarray:
        """Arrays of some tiles, stacked in the order of `rows` (positions in the index)."""
        rows = list(rows)
        if kind in ("folds", "near"):
            sides = [self._split.on(self.grid(row))[kind == "near"] for row in rows]
            return np.stack(sides)
        listed = self.head["layers" if kind == "labels" else "sensors"]
        which = next(i for i, one in enumerate(listed) if name in (None, one["name"]))
        if kind == "labels":
            return np.stack([self._labels(row, which) for row in rows])
        reads = [self._read(row, which) for row in rows]
        return np.stack([getattr(read, kind) for read in reads])

    def _read(self, row: int, sensor: int) -> Read:
        raise NotImplementedError

    def _labels(self, row: int, layer: int) -> np.ndarray:
        raise NotImplementedError

    def __getstate__(self) -> dict[str, Any]:
        """Open files do not travel."""
        state = {"folder": self.folder, "head": self.head, "index": self.index}
        return state | {"_here": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Each process opens its own."""
        for key, value in (state | {"_here": threading.local()}).items():
            object.__setattr__(self, key, value)


@dataclass(frozen=True)
class Virtual(Live):
    """Tiles that are windows of the scenes, read each time; labels are burnt each time."""

    def __post_init__(self) -> None:
        for name in changed_inputs(self.folder, self.head["geoml"]):
            raise GeomlError(
                f"{name}: has changed since {self.folder} was laid over it; run the `geoml tile` again"
            )

    def _path(self, name: str) -> str:
        return name if "://" in name or name.startswith("/") else str(self.folder / name)

    @cached_property
    def _places(self) -> list[Place]:
        return [Place.from_dict(one, self._path) for one in self.head["places"]]

    @cached_property
    def _layers(self) -> list[Layer]:
        found = []
        for one in self.head["layers"]:
            wish = {
                k: self._path(v) if k in ("path", "area", "classes") else v
                for k, v in one["wish"].items()
            }
            masks = {k: self._path(v) for k, v in one.get("masks", {}).items()}
            found.append(Layer.again(one | {"wish": wish, "masks": masks}))
        return found

    @cached_property
    def _place_of(self) -> list[int]:
        return list(self.index["place"])

    def _reader(self) -> PlaceReader:
        if not hasattr(self._here, "reader"):
            counts = [sensor["frames"] for sensor in self.head["sensors"]]
            self._here.reader = PlaceReader(Frames.from_dict(self.head["frames"]), counts)
            self._here.seen = {}
        return self._here.reader

    def _all(self, row: int) -> list[Read]:
        """What a tile shows to every sensor; those of a batch are kept: their masks are asked for next."""
        reader, seen = self._reader(), self._here.seen
        if row not in seen:
            seen[row] = reader.read(self._places[self._place_of[row]], self.window(row))
        return seen[row]

    def take(self, kind: str, rows: Iterable[int], name: str | None = None) -> np.ndarray:
        """As of any tile set; a batch begins with the images of the first sensor."""
        rows = list(rows)
        self._reader()
        if kind == "images" and name in (None, self.sensor):
            self._here.seen.clear()
        found = super().take(kind, rows, name)
        if len(self._here.seen) > MOST:  # whoever takes but labels has no batches
            self._here.seen.clear()
        return found

    def _read(self, row: int, sensor: int) -> Read:
        return self._all(row)[sensor]

    def _labels(self, row: int, layer: int) -> np.ndarray:
        place, window = self._places[self._place_of[row]], self.window(row)
        one, wanted = self._layers[layer], self.head["layers"][layer]
        masks = wanted.get("masks")
        scene = place.shots[0][0].stacks[0].scene
        burnt = one.on_file(self._path(masks[scene]), place.grid) if masks else one.on(place.grid)
        pixels = burn(burnt, place.grid, window)
        seen = self._all(row)[0].valid.any(axis=0) & owned(window, self._own(row))
        pixels[~seen] = nothing(wanted["kind"])
        return pixels

    def _own(self, row: int) -> Window | None:
        own = self.index["own"].iloc[row] if "own" in self.index else None
        return None if own is None else Window(*(int(n) for n in own))


@dataclass(frozen=True)
class Files(Live):
    """Tiles that are GeoTIFF files."""

    def _raster(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        raster = describe(str(self.folder / name), picture=True)
        with Reader(raster) as reader:
            return reader.read(Window(0, 0, raster.grid.height, raster.grid.width))

    def _read(self, row: int, sensor: int) -> Read:
        wanted = self.head["sensors"][sensor]
        names = [image_name(wanted, self._rows[row]["id"], f) for f in range(wanted["frames"])]
        parts = [self._raster(name) for name in names]
        images, valid = (np.stack(arrays) for arrays in zip(*parts, strict=True))
        return Read(images, valid, [])

    def _labels(self, row: int, layer: int) -> np.ndarray:
        return self._raster(label_name(self.head["layers"][layer], self._rows[row]["id"]))[0][0]
