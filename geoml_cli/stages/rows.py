"""Rows to embed: tiles of a tile set, windows of a raster, or places on one."""

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, Protocol

import geopandas
import numpy as np
import pandas
import shapely

from geoml_cli.core.batch import Batch
from geoml_cli.formats.tileset import Tiles
from geoml_cli.geo.bounds import footprints
from geoml_cli.geo.grid import LONLAT
from geoml_cli.stages.embedder import Embedder
from geoml_cli.stages.stream import Course, Group, GroupReader, course_of
from geoml_cli.stages.targets import UNDATED, Target
from geoml_cli.stages.tile_batches import TileBatches

DROPPED = (
    "shard",
    "row",
    "window_row",
    "window_col",
    "near",
    "proj:code",
    "proj:transform",
    "geometry",
)
INNER = ("counts_", "fold_counts_", "fold_labelled_", "labelled_", "valid_", "dates_")


class Rows(Protocol):
    """Some of the rows of a file, computed in groups that never change."""

    name: str
    count: int  # rows of the raw file
    extra: int  # numbers a row besides the vector

    def groups(self, size: int) -> list[range]:
        """What is computed together: ranges of rows of the raw file."""

    def read(self, group: range) -> Any:
        """Read a group; called in threads."""

    def batch(self, read: Any) -> Batch | None:
        """What of it a network is shown."""

    def compute(self, embedder: Embedder, read: Any) -> np.ndarray:
        """Rows (n, D + extra) of a group; NaN where there is nothing."""

    def finished(
        self, raw: np.ndarray, rows: int
    ) -> Iterator[tuple[geopandas.GeoDataFrame, np.ndarray]]:
        """Columns and vectors, `rows` at a time, of a raw file (count, D + extra) that is done."""

    def close(self) -> None:
        """Let go of files."""


class TileRows:
    """Every tile of a tile set."""

    extra = 0

    def __init__(self, name: str, tiles: Tiles, head: Mapping[str, Any]) -> None:
        self.name, self.tiles, self.count = name, tiles, len(tiles.index)
        self._batches = TileBatches(tiles, [one["name"] for one in head["sensors"]], head["codes"])

    @cached_property
    def columns(self) -> list[str]:
        """Columns of the index that go with the rows: labels a tile, and what is said of it."""
        index = self.tiles.index
        return [c for c in index if c not in DROPPED and not c.startswith(INNER)]

    def groups(self, size: int) -> list[range]:
        """See Rows."""
        return [range(i, min(i + size, self.count)) for i in range(0, self.count, size)]

    def read(self, group: range) -> Batch:
        """See Rows."""
        return self._batches.read(np.arange(group.start, group.stop))

    def batch(self, read: Batch) -> Batch:
        """See Rows."""
        return read

    def compute(self, embedder: Embedder, read: Batch) -> np.ndarray:
        """See Rows."""
        return embedder.tiles(read)

    def finished(
        self, raw: np.ndarray, rows: int
    ) -> Iterator[tuple[geopandas.GeoDataFrame, np.ndarray]]:
        """See Rows."""
        for start in range(0, self.count, rows):
            part = self.tiles.index.iloc[start : start + rows]
            table = part[[*self.columns, "geometry"]].reset_index(drop=True)
            yield table, raw[start : start + rows]

    def close(self) -> None:
        """See Rows."""


class WindowRows:
    """Windows of a raster, side by side; what holds nothing valid is left out."""

    extra = 1  # share of valid pixels

    def __init__(self, name: str, target: Target, head: Mapping[str, Any]) -> None:
        self.name, self.target = name, target
        self.course = _course_of_tiles(target)
        self.count = len(self.course.windows)
        self._reader = GroupReader(target, self.course, head["sensors"], head["codes"])

    def groups(self, size: int) -> list[range]:
        """See Rows."""
        return self.course.groups(size)

    def read(self, group: range) -> Group:
        """See Rows."""
        return self._reader.read(group)

    def batch(self, read: Group) -> Batch | None:
        """See Rows."""
        return read.batch

    def compute(self, embedder: Embedder, read: Group) -> np.ndarray:
        """See Rows."""
        if read.batch is None:
            return np.full((len(read.members), 1), np.nan, np.float32)
        found = embedder.tiles(read.batch)
        out = np.full((len(read.members), found.shape[1] + 1), np.nan, np.float32)
        at = [n - read.members[0] for n in read.busy]
        out[at, :-1] = found
        seen = (read.batch, *read.batch.others)
        share = np.mean([one.valid.any(dim=1).float().mean((1, 2)).numpy() for one in seen], 0)
        out[at, -1] = share
        return out

    def finished(
        self, raw: np.ndarray, rows: int
    ) -> Iterator[tuple[geopandas.GeoDataFrame, np.ndarray]]:
        """See Rows."""
        target, laid = self.target, self.target.lattice
        for start in range(0, self.count, rows):
            part = np.array(raw[start : start + rows])
            some = np.flatnonzero(~np.isnan(part[:, -1]))
            if not len(some):
                continue
            windows = [laid.window(int(self.course.windows[start + int(i)])) for i in some]
            grid = target.shown.grid
            placed = grid.placed
            shapes = footprints(grid, windows) if placed else np.full(len(some), None)
            table = {
                "id": [f"{target.id}-{w.row}-{w.col}" for w in windows],
                "scene": target.id,
                "datetime": moments(target, len(some)),
                "valid": part[some, -1].astype(float),
            }
            yield geopandas.GeoDataFrame(table, geometry=shapes, crs=LONLAT), part[some, :-1]

    def close(self) -> None:
        """See Rows."""
        self._reader.close()


def _course_of_tiles(target: Target) -> Course:
    """Windows of a lattice of tiles that bear on what is kept; a few bytes each, there may be millions."""
    keep = target.keep
    rows = np.arange(keep.row, keep.row + keep.height)
    cols = np.arange(keep.col, keep.col + keep.width)
    windows = (rows[:, None] * target.lattice.cols.count + cols).ravel()
    return Course(windows, np.repeat(rows, len(cols)), (), ())


class PlaceRows:
    """Polygons and points on a raster: the mean of the patches in a polygon, by the share of each that it
    covers; the patch that holds a point. Patches of windows that fade into each other are blended.
    """

    extra = 1  # the weight

    def __init__(
        self, name: str, target: Target, places: geopandas.GeoDataFrame, head: Mapping[str, Any]
    ) -> None:
        from geoml_cli.stages.shares import covered

        self.name, self.target, self.places = name, target, places
        self._shares = covered(places.geometry, target.out)
        laid, whole = target.lattice, course_of(target)
        found: list[tuple[int, int]] = []  # position in the course, place
        kept: list[int] = []
        boxes = [one.window for one in self._shares]
        tree = shapely.STRtree(
            [shapely.box(w.col, w.row, w.col + w.width, w.row + w.height) for w in boxes]
        )
        for n, i in enumerate(whole.windows):
            span = laid.reach(i)
            box = shapely.box(
                span.col + 0.25,
                span.row + 0.25,
                span.col + span.width - 0.25,
                span.row + span.height - 0.25,
            )
            hit = np.sort(tree.query(box, predicate="intersects"))
            if len(hit):
                found += [(len(kept), int(p)) for p in hit]
                kept.append(n)
        self.course = whole.only(kept)
        self._pairs = np.array(found, int).reshape(-1, 2)
        self.count = len(self._pairs)
        self._starts = np.searchsorted(self._pairs[:, 0], np.arange(len(kept) + 1))
        self._reader = GroupReader(target, self.course, head["sensors"], head["codes"])

    def groups(self, size: int) -> list[range]:
        """See Rows; ranges of pairs of a window and a place."""
        return [
            range(int(self._starts[g.start]), int(self._starts[g.stop]))
            for g in self.course.groups(size)
        ]

    def read(self, group: range) -> Group:
        """See Rows."""
        first, last = self._pairs[group.start, 0], self._pairs[group.stop - 1, 0]
        return self._reader.read(range(int(first), int(last) + 1))

    def batch(self, read: Group) -> Batch | None:
        """See Rows."""
        return read.batch

    def compute(self, embedder: Embedder, read: Group) -> np.ndarray:
        """See Rows."""
        start, stop = self._starts[read.members[0]], self._starts[read.members[-1] + 1]
        if read.batch is None:
            return np.full((int(stop - start), 1), np.nan, np.float32)
        laid = self.target.lattice
        windows = [self.course.windows[n] for n in read.busy]
        said = embedder.ask(read.batch, [laid.place(i) for i in windows], laid)
        out = np.zeros((int(stop - start), said[0].shape[0] + 1), np.float32)
        for n, i, channels in zip(read.busy, windows, said, strict=True):
            (r, c), span, values = laid.place(i), laid.reach(i), channels.cpu().numpy()
            count = np.outer(laid.rows.weights(r), laid.cols.weights(c)) * read.seen[n]
            for k in range(int(self._starts[n]), int(self._starts[n + 1])):
                share = self._shares[self._pairs[k, 1]].on(span) * count
                out[k - start, :-1] = np.einsum("dhw,hw->d", values, share)
                out[k - start, -1] = share.sum()
        return out

    def finished(
        self, raw: np.ndarray, rows: int
    ) -> Iterator[tuple[geopandas.GeoDataFrame, np.ndarray]]:
        """See Rows; in the order of the places."""
        order = np.argsort(self._pairs[:, 1], kind="stable")
        ends = np.searchsorted(self._pairs[order, 1], np.arange(len(self.places) + 1))
        for first in range(0, len(self.places), rows):
            last = min(first + rows, len(self.places))
            mine = order[ends[first] : ends[last]]
            if not len(mine):
                continue
            part = np.nan_to_num(np.array(raw[np.sort(mine)], np.float64))
            total = np.zeros((last - first, part.shape[1]))
            np.add.at(total, self._pairs[np.sort(mine), 1] - first, part)
            some = np.flatnonzero(total[:, -1] > 0)
            if not len(some):
                continue
            table = self.places.iloc[first + some].reset_index(drop=True).copy()
            table.insert(1, "scene", self.target.id)
            table.insert(2, "datetime", moments(self.target, len(table)))
            yield table, (total[some, :-1] / total[some, -1:]).astype(np.float32)

    def close(self) -> None:
        """See Rows."""
        self._reader.close()


def moments(target: Target, count: int) -> Any:
    """The time of a raster, or when its dates begin, for some rows; None where it has none."""
    when = target.times["datetime"] or target.times.get("start_datetime")
    return pandas.array([None if when == UNDATED[0] else when] * count, dtype="string")


def attributes(places: geopandas.GeoDataFrame, ids: Sequence[str]) -> geopandas.GeoDataFrame:
    """Places in CRS84 with an id first, and those of their columns that a file of rows can hold."""
    table = places.to_crs(LONLAT)
    taken = ("scene", "datetime", "embedding", "valid", "geometry", table.geometry.name)
    plain = [c for c in table if c != "id" and c not in taken]
    kept: dict[str, Any] = {"id": [str(one) for one in ids]}
    for name in plain:
        values = table[name]
        whole = pandas.api.types.is_numeric_dtype(values) or pandas.api.types.is_bool_dtype(values)
        kept[str(name)] = (
            values.to_numpy() if whole else [None if pandas.isna(v) else str(v) for v in values]
        )
    return geopandas.GeoDataFrame(kept, geometry=table.geometry.to_numpy(), crs=LONLAT)
