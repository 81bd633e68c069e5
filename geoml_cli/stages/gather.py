"""Tiles to arrays a network takes: one pass over the stored values, turned on the way."""

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pandas

from geoml_cli.formats.bands import Band
from geoml_cli.formats.tileset import Tiles
from geoml_cli.geo.classes import IGNORE
from geoml_cli.geo.grid import LONLAT, between
from geoml_cli.stages.buffers import Buffers
from geoml_cli.stages.tiles import each

# added to the rows of the scratch that tiles are turned in: rows whose length is a power of two
# fall on the same few lines of the cache, and reading down a column is then twice as slow
PAD = 16


def turned(x: np.ndarray, k: int) -> np.ndarray:
    """A view under symmetry k of the square, as `core.augment.turn`: quarter turns, then a flip."""
    x = np.rot90(x, k % 4, (-2, -1))
    return x[..., ::-1] if k >= 4 else x


def gather(
    pieces: Iterable[np.ndarray],
    count: int,
    dtype: Any,
    turns: np.ndarray | None = None,
    finish: Callable[[np.ndarray], None] | None = None,
    empty: Callable[..., np.ndarray] = np.empty,
) -> np.ndarray:
    """Tiles (..., H, W) converted and turned into one new array (count, ..., H, W).

    A tile is converted into a scratch that stays in the cache and turned from there; `finish`
    works on each converted tile while it is still there; `empty` gives the array.
    """
    out: np.ndarray | None = None
    scratch: np.ndarray | None = None
    for i, tile in enumerate(pieces):
        if out is None:
            out = empty((count, *tile.shape), dtype)
        k = int(turns[i]) if turns is not None else 0
        if k == 0:
            np.copyto(out[i], tile, casting="unsafe")
        else:
            if scratch is None:
                scratch = np.empty((*tile.shape[:-1], tile.shape[-1] + PAD), dtype)[..., :-PAD]
            np.copyto(scratch, tile, casting="unsafe")
            np.copyto(out[i], turned(scratch, k))
        if finish:
            finish(out[i])
    assert out is not None, "no tile asked for"
    return out


class Images:
    """Values and validity of one sensor."""

    def __init__(self, tiles: Tiles, name: str | None = None) -> None:
        sensors = tiles.head["sensors"]
        self.tiles, self.name = tiles, name or sensors[0]["name"]
        [self.head] = [s for s in sensors if s["name"] == self.name]
        first = self.name == sensors[0]["name"]
        self._whole = tiles.index["valid" if first else f"valid_{self.name}"].to_numpy() == 1.0
        bands = [Band.from_dict(b) for b in self.head["bands"]]
        self._scale = np.array([b.scale for b in bands], np.float32)[:, None, None]
        self._offset = np.array([b.offset for b in bands], np.float32)[:, None, None]
        self._plain = all((b.scale, b.offset) == (1, 0) for b in bands)
        self._buffers = Buffers()

    def values(self, rows: np.ndarray, turns: np.ndarray | None = None) -> np.ndarray:
        """Physical values (n, T, C, H, W) float32."""
        pieces = each(self.tiles, "images", rows, self.name)
        finish = None if self._plain else self._finish
        return gather(pieces, len(rows), np.float32, turns, finish, self._buffers.empty)

    def _finish(self, tile: np.ndarray) -> None:
        tile *= self._scale
        tile += self._offset

    def valid(self, rows: np.ndarray, turns: np.ndarray | None = None) -> np.ndarray:
        """Which of them hold (n, T, H, W); tiles that are valid throughout are not read."""
        size, frames = self.tiles.size, self.head["frames"]
        out = self._buffers.empty((len(rows), frames, size, size), bool)
        out.fill(True)
        part = np.flatnonzero(~self._whole[rows])
        if len(part):
            pieces = each(self.tiles, "valid", rows[part], self.name)
            some = None if turns is None else turns[part]
            out[part] = gather(pieces, len(part), bool, some)
        return out

    def days(self) -> np.ndarray:
        """Days since 1970-01-01 (tiles, T) float32 of all tiles; NaN where unknown."""
        index, frames = self.tiles.index, self.head["frames"]
        column = f"dates_{self.name}"
        listed = column in index
        flat = [date for dates in index[column] for date in dates] if listed else index["datetime"]
        said = pandas.to_datetime(pandas.Series(flat, dtype=object), utc=True, format="ISO8601")
        days = (said - pandas.Timestamp(0, tz="UTC")) / pandas.Timedelta(days=1)
        found = days.to_numpy(np.float32).reshape(len(index), -1)
        return np.repeat(found, frames, axis=1) if found.shape[1] < frames else found


class Labels:
    """Labels of one layer, for each pixel or for each tile."""

    def __init__(self, tiles: Tiles, name: str) -> None:
        self.tiles, self.name = tiles, name
        [self.head] = [layer for layer in tiles.head["layers"] if layer["name"] == name]
        self.a_tile = self.head["per"] != "pixel"
        self._classes = self.head["kind"] == "classes"
        self._each = self._of_tiles() if self.a_tile else None
        self._buffers = Buffers()

    def read(
        self, rows: np.ndarray, hold: np.ndarray | None, turns: np.ndarray | None = None
    ) -> np.ndarray:
        """Labels (n, H, W) int64, 255 where ignored, or float32, NaN; where `hold` (n, H, W) is not set, ignored.

        Of a layer with a label a tile (n,), or (n, classes) float32 where several classes may be present.
        """
        ignore = IGNORE if self._classes else np.nan
        if self._each is not None:
            found = self._each[rows]  # a copy
            if hold is not None:
                found[~hold] = np.nan if found.dtype.kind == "f" else ignore
            return found
        pieces = each(self.tiles, "labels", rows, self.name)
        if hold is not None:
            pieces = (
                np.where(seen, tile, tile.dtype.type(ignore))
                for tile, seen in zip(pieces, hold, strict=True)
            )
        to = np.int64 if self._classes else np.float32
        return gather(pieces, len(rows), to, turns, empty=self._buffers.empty)

    def _of_tiles(self) -> np.ndarray:
        """Labels of all tiles: ids (n,) int64, values (n,) float32, or what is present (n, classes) float32."""
        column = self.tiles.index[self.name]
        if not self._classes:
            return column.to_numpy(np.float32, na_value=np.nan)
        if column.dtype != object:
            return column.fillna(IGNORE).to_numpy(np.int64)
        known = column.notna().to_numpy()  # lists of ids
        found = np.full((len(column), len(self.head["classes"])), np.nan, np.float32)
        found[known] = 0
        for i in np.flatnonzero(known):
            found[i, np.asarray(column.iloc[i], int)] = 1
        return found


def centres(tiles: Tiles) -> np.ndarray:
    """Longitude and latitude (tiles, 2) float32 of the tiles' middles; NaN where there is no CRS."""
    index = tiles.index
    out = np.full((len(index), 2), np.nan, np.float32)
    known = index["proj:code"].notna().to_numpy()
    for code, rows in index[known].groupby("proj:code").indices.items():
        rows = np.flatnonzero(known)[rows]
        a, b, c, d, e, f = np.stack(index["proj:transform"].iloc[rows].to_list())[:, :6].T
        half = tiles.size / 2
        xy = a * half + b * half + c, d * half + e * half + f
        out[rows] = np.stack(between(code, LONLAT).transform(*xy), axis=1)
    return out
