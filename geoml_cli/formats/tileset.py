"""Tile sets: `tileset.json`, `index.parquet` and shards of arrays that can be memory-mapped.

A shard k has `images-SENSOR-k.npy` (n, T, C, H, W) in the native dtype, `valid-SENSOR-k.npy`
(n, T, H, W) bool, `labels-LAYER-k.npy` (n, H, W) and, where there is a split, `folds-k.npy`
(n, H, W) uint8 (the fold of each pixel's ground) and `near-k.npy` (n, H, W) unsigned (bit f
is set where fold f lies within the buffer, the own fold included). A pixel may train while
fold f is held out if and only if bit f of `near` is not set.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import geopandas
import numpy as np

from geoml_cli.errors import GeomlError
from geoml_cli.formats.bands import Band
from geoml_cli.formats.commit import whole_file
from geoml_cli.formats.stamp import damage, member_path, read_stamp
from geoml_cli.geo.classes import Class, read_classes
from geoml_cli.geo.splits import Lattice

NAME = "tileset.json"
INDEX = "index.parquet"
SPLITS = ("train", "val", "test")  # what the folds of a split without --folds mean


@dataclass(frozen=True)
class TileSet:
    """A tile set opened for reading; arrays are mapped, not loaded."""

    folder: Path
    head: dict[str, Any]
    index: geopandas.GeoDataFrame
    _open: dict[tuple[str, int], np.ndarray] = field(default_factory=dict, repr=False)

    @property
    def bands(self) -> tuple[Band, ...]:
        """Bands of the (only) sensor."""
        return tuple(Band.from_dict(b) for b in self.head["sensors"][0]["bands"])

    @property
    def sensor(self) -> str:
        """Name of the (only) sensor."""
        return str(self.head["sensors"][0]["name"])

    @property
    def classes(self) -> list[Class]:
        """Classes of the (only) label layer; empty where there are no labels."""
        return read_classes(self.head["layers"][0]["classes"]) if self.head["layers"] else []

    @property
    def size(self) -> int:
        """Height and width of a tile, px."""
        return int(self.head["size"])

    @property
    def lattice(self) -> Lattice | None:
        """The blocks of the split, or None."""
        return Lattice.from_dict(self.head["split"]) if self.head["split"] else None

    @property
    def folds(self) -> int:
        """Number of cross-validation folds; 0 for a plain split or none."""
        return int(self.head["folds"])

    def array(self, kind: str, shard: int) -> np.ndarray:
        """One shard of `images`, `valid`, `labels`, `folds` or `near`, memory-mapped once."""
        if (kind, shard) not in self._open:
            self._open[kind, shard] = self._map(kind, shard)
        return self._open[kind, shard]

    def _map(self, kind: str, shard: int) -> np.ndarray:
        middle = {
            "images": f"-{self.sensor}",
            "valid": f"-{self.sensor}",
            "labels": f"-{self.head['layers'][0]['name']}" if self.head["layers"] else "",
        }.get(kind, "")
        path = member_path(self.folder, f"{kind}{middle}-{shard:05d}.npy")
        try:
            return np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError) as error:
            raise GeomlError(
                f"{path}: damaged ({error}); run the `geoml tile` that made it"
            ) from None

    def take(self, kind: str, rows: Iterable[int]) -> np.ndarray:
        """Arrays of some tiles, stacked in the order of `rows` (positions in the index)."""
        shards, places = self.index["shard"].to_numpy(), self.index["row"].to_numpy()
        return np.stack([self.array(kind, int(shards[r]))[int(places[r])] for r in rows])


def read_tileset(path: str) -> TileSet:
    """Open a tile set; damage is said at once, not in the middle of training."""
    folder, head = read_stamp(path, NAME, "tile")
    lines = damage(folder)
    if lines:
        raise GeomlError(f"{lines[0]}; run the `geoml tile` that made it")
    return TileSet(folder, head, geopandas.read_parquet(folder / INDEX))


def save_array(path: Path, array: np.ndarray) -> None:
    """Write one npy file, whole or not at all."""
    layout = np.lib.format.header_data_from_array_1_0(array)
    with whole_file(path) as temporary, open(temporary, "wb") as file:
        # numpy's own writer hides a full disk: its error has no errno
        np.lib.format.write_array_header_1_0(file, layout)
        file.write(np.ascontiguousarray(array).data)
