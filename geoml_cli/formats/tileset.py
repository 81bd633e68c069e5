"""Tile sets: `tileset.json`, `index.parquet` and shards of arrays that can be memory-mapped.

A shard k has `images-SENSOR-k.npy` (n, T, C, H, W) in the native dtype and `valid-SENSOR-k.npy`
(n, T, H, W) bool for every sensor, `labels-LAYER-k.npy` (n, H, W) for every layer with a label a
pixel and, where there is a split, `folds-k.npy` (n, H, W) uint8 (the fold of each
pixel's ground; 255: of no fold) and `near-k.npy` (n, H, W) unsigned (bit f is set where fold f
lies within the buffer, the own fold included). A pixel may train while fold f is held out if and
only if bit f of `near` is not set and its ground has a fold.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from io import BytesIO
from pathlib import Path
from typing import Any

import geopandas
import numpy as np

from geoml_cli.errors import GeomlError
from geoml_cli.formats.bands import Band
from geoml_cli.formats.commit import whole_file
from geoml_cli.formats.digest import note_written
from geoml_cli.formats.stamp import damage, member_path, read_stamp
from geoml_cli.geo.classes import Class, read_classes
from geoml_cli.geo.sides import read_split
from geoml_cli.geo.splits import Split

NAME = "tileset.json"
INDEX = "index.parquet"
SMALL = 1 << 14  # bytes of a tile under which a step of a Python loop costs more than a second copy
SPLITS = ("train", "val", "test")  # what the folds of a split without --folds mean


@dataclass(frozen=True)
class Tiles:
    """A tile set of any format, opened for reading: the head, the index and `take`.

    It can be pickled, and opens its files anew in the process and the thread that reads.
    """

    folder: Path
    head: dict[str, Any]  # the content of tileset.json
    index: geopandas.GeoDataFrame  # one row a tile

    @property
    def stamp(self) -> Path:
        """The file whose digest stands for all of it."""
        return self.folder / NAME

    @property
    def bands(self) -> tuple[Band, ...]:
        """Bands of the first sensor."""
        return tuple(Band.from_dict(b) for b in self.head["sensors"][0]["bands"])

    @property
    def sensor(self) -> str:
        """Name of the first sensor."""
        return str(self.head["sensors"][0]["name"])

    @property
    def classes(self) -> list[Class]:
        """Classes of the first label layer; empty where there is none, or one of values."""
        return (
            read_classes(self.head["layers"][0].get("classes", [])) if self.head["layers"] else []
        )

    @property
    def size(self) -> int:
        """Height and width of a tile, px."""
        return int(self.head["size"])

    @property
    def split(self) -> Split | None:
        """How ground was dealt into folds, or None."""
        return read_split(self.head["split"])

    @property
    def folds(self) -> int:
        """Number of cross-validation folds; 0 for a plain split or none."""
        return int(self.head["folds"])

    def take(self, kind: str, rows: Iterable[int], name: str | None = None) -> np.ndarray:
        """Arrays of some tiles, stacked in the order of `rows` (positions in the index).

        `images` (n, T, C, H, W) in the native dtype and `valid` (n, T, H, W) bool of the sensor
        `name` (None: the first), `labels` (n, H, W) of the layer `name`, `folds` and `near` (n, H, W).
        """
        raise NotImplementedError


@dataclass(frozen=True)
class TileSet(Tiles):
    """Tiles in shards; arrays are mapped, not loaded."""

    _open: dict[tuple[str, int], np.ndarray] = field(default_factory=dict, repr=False)

    def array(self, kind: str, shard: int, name: str | None = None) -> np.ndarray:
        """One shard of `images` or `valid` (of a sensor), `labels` (of a layer), `folds` or `near`, mapped once."""
        key = f"{kind}{self._middle(kind, name)}"
        if (key, shard) not in self._open:
            self._open[key, shard] = self._map(key, shard)
        return self._open[key, shard]

    def _middle(self, kind: str, name: str | None) -> str:
        rooms = {"images": "sensors", "valid": "sensors", "labels": "layers"}
        if kind not in rooms:
            return ""
        listed = self.head[rooms[kind]]
        return f"-{name or listed[0]['name']}" if listed else ""

    def _map(self, key: str, shard: int) -> np.ndarray:
        path = member_path(self.folder, f"{key}-{shard:05d}.npy")
        try:
            return np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError) as error:
            raise GeomlError(
                f"{path}: damaged ({error}); run the `geoml tile` that made it"
            ) from None

    @cached_property
    def _places(self) -> tuple[np.ndarray, np.ndarray]:
        return self.index["shard"].to_numpy(np.int64), self.index["row"].to_numpy(np.int64)

    def views(
        self, kind: str, rows: Iterable[int], name: str | None = None
    ) -> Iterator[np.ndarray]:
        """The same as `take`, tile by tile, as views of the maps: nothing is read before it is used."""
        shards, places = self._places
        for row in rows:
            # not as np.memmap, whose every view costs microseconds
            yield np.asarray(self.array(kind, int(shards[row]), name))[places[row]]

    def take(self, kind: str, rows: Iterable[int], name: str | None = None) -> np.ndarray:
        """Arrays of some tiles, stacked in the order of `rows` (positions in the index)."""
        wanted = np.fromiter(rows, np.int64)
        shards, places = (column[wanted] for column in self._places)
        first = self.array(kind, int(shards[0]) if len(shards) else 0, name)
        out = np.empty((len(wanted), *first.shape[1:]), first.dtype)
        for shard in np.unique(shards):
            mapped, here = np.asarray(self.array(kind, int(shard), name)), shards == shard
            if out.nbytes < SMALL * len(out):
                out[here] = mapped[places[here]]
            else:  # one pass: a list of places would be gathered first, and then copied
                for i in np.flatnonzero(here):
                    out[i] = mapped[places[i]]
        return out

    def __getstate__(self) -> dict[str, Any]:
        """Maps do not travel: pickled, they would be copies of the files."""
        return {"folder": self.folder, "head": self.head, "index": self.index, "_open": {}}


def read_parts(path: str) -> tuple[Path, dict[str, Any], geopandas.GeoDataFrame]:
    """Folder, head and index of a tile set of any format; damage is said at once, not in the middle of training."""
    folder, head = read_stamp(path, NAME, "tile")
    lines = damage(folder)
    if lines:
        raise GeomlError(f"{lines[0]}; run the `geoml tile` that made it")
    if "part" in head:
        raise GeomlError(
            f"{path}: is share {head['part']['number']} of {head['part']['of']}; put them together with"
            " `geoml tile --merge`"
        )
    return folder, head, geopandas.read_parquet(folder / INDEX)


def read_tileset(path: str) -> TileSet:
    """Open a tile set of npy shards."""
    return TileSet(*read_parts(path))


def save_array(path: Path, array: np.ndarray) -> None:
    """Write one npy file, whole or not at all."""
    head, data = BytesIO(), np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
    np.lib.format.write_array_header_1_0(head, np.lib.format.header_data_from_array_1_0(array))
    with whole_file(path) as temporary, open(temporary, "wb") as file:
        # numpy's own writer hides a full disk: its error has no errno
        file.write(head.getvalue())
        file.write(data)
    note_written(path, head.getvalue(), data)  # so that it need not be read again for the stamp
