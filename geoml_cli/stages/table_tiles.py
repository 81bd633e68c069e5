"""Tables as tile sets: a row is a tile of one pixel, so all that takes tiles takes them.

Of embeddings a dimension is a band; of places longitude and latitude are, or other columns of numbers.
"""

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pandas

from geoml_cli.errors import GeomlError
from geoml_cli.formats.embeddings import Embeddings, dimension_names, is_embeddings, open_embeddings
from geoml_cli.formats.points import open_points
from geoml_cli.formats.tileset import Tiles
from geoml_cli.geo.classes import IGNORE, legend
from geoml_cli.geo.grid import LONLAT
from geoml_cli.geo.splits import Lattice
from geoml_cli.stages.labelled_rows import Labels, middles, read_labels
from geoml_cli.stages.row_splits import RowSplit, deal_rows

log = logging.getLogger("geoml")
SENSOR = "embedding"
PLACE = "place"  # the sensor of a table of places
LON, LAT = "lon", "lat"


@dataclass(frozen=True)
class TableTiles(Tiles):
    """Rows of a table; `known` are its vectors (n, D), where they are read already."""

    path: str = ""
    known: np.ndarray | None = field(default=None, repr=False)

    @property
    def stamp(self) -> Path:
        """The file."""
        return Path(self.path)

    @cached_property
    def vectors(self) -> np.ndarray:
        """All vectors (n, D)."""
        return open_embeddings(self.path).vectors() if self.known is None else self.known

    def take(self, kind: str, rows: Iterable[int], name: str | None = None) -> np.ndarray:
        """See Tiles."""
        at = np.fromiter(rows, int)
        if kind == "images":
            return self.vectors[at][:, None, :, None, None]
        assert kind == "valid", kind
        return np.ones((len(at), 1, 1, 1), bool)


def plain_table(
    path: str, bands: Sequence[str] = (LON, LAT), lonlat: Sequence[str] = ()
) -> TableTiles:
    """Rows without labels; of places `bands` are the columns that a network sees."""
    table, tiles = _opened(path, bands, lonlat)
    return tiles


def labelled_table(
    path: str,
    column: str,
    wish: RowSplit,
    seed: int,
    *,
    kind: str | None = None,
    bands: Sequence[str] = (),
    lonlat: Sequence[str] = (),
) -> TableTiles:
    """Rows with the labels of a column, dealt to folds, or to train, validation and test.

    `kind` is what the labels are to be: classes, values, or present (one thing a row that is there; a row that names
    none is background, where all are absent).
    """
    table, tiles = _opened(path, bands or (LON, LAT), lonlat)
    labels = read_labels(table, column, None if kind is None else KINDS[kind])
    if len(labels.names) > IGNORE:
        raise GeomlError(
            f"column {column}: {len(labels.names)} classes; there is room for {IGNORE}"
        )
    without = int((~labels.known).sum())
    present, weights = kind == "present", labels.weights
    if without:
        said = f"name no {column}: background" if present else f"have no {column}"
        log.warning("%s: %d of %d rows %s", path, without, len(table), said)
    if present:  # background is dealt as evenly as a class
        weights = np.column_stack([weights, ~labels.known])
    split, fold, near = deal_rows(table, weights, wish, seed)
    index, layer = tiles.index, _layer(tiles.index, labels, column, present)
    index["fold"], index["near"] = fold.astype("int16"), near
    place = _scene(path, split, middles(table), tiles.sensor)
    index["scene"] = place["id"]
    head = tiles.head | {
        "layers": [layer],
        "split": split.to_dict(),
        "folds": wish.folds,
        "scenes": [place],
    }
    return TableTiles(tiles.folder, head, index, path, tiles.known)


KINDS = {"classes": "classes", "values": "values", "present": "classes"}


def _layer(
    index: geopandas.GeoDataFrame, labels: Labels, column: str, present: bool
) -> dict[str, Any]:
    """The layer of some labels, which become a column of the index."""
    name = "label" if column in index.columns or column == "geometry" else column
    layer: dict[str, Any] = {"name": name, "kind": "values", "per": "tile"}
    if not labels.names:
        index[name] = labels.values
        return layer | {"ignore": None, "unit": None}
    layer |= {"kind": "classes", "ignore": IGNORE, "unit": None}
    layer["classes"] = [one.to_dict() for one in legend(labels.names)]
    if present:
        index[name] = pandas.Series([[v] if v >= 0 else [] for v in labels.values], dtype=object)
        return layer | {"per": "present"}
    index[name] = np.where(labels.known, labels.values, IGNORE)
    index[name] = index[name].astype("Int64").where(labels.known)
    return layer


def _scene(path: str, split: Any, places: np.ndarray, sensor: str) -> dict[str, Any]:
    """The ground of all rows as one scene."""
    crs, side = LONLAT, 256
    if isinstance(split, Lattice):
        crs, b = split.crs, split.bounds
        west, south, east, north = b
    else:
        (west, south), (east, north) = places.min(0) - 1e-6, places.max(0) + 1e-6
    return {
        "id": Path(path).name,
        "sensor": sensor,
        "datetime": None,
        "proj:code": crs,
        "proj:shape": [side, side],
        "proj:transform": [
            float((east - west) / side), 0.0, float(west), 0.0, float((south - north) / side), float(north),
        ],
    }  # fmt: skip


def _opened(
    path: str, bands: Sequence[str], lonlat: Sequence[str]
) -> tuple[geopandas.GeoDataFrame, TableTiles]:
    """A table, and its rows as tiles without labels."""
    if is_embeddings(path):
        opened = open_embeddings(path)
        table = opened.table()
        return table, TableTiles(Path(path).parent, _embedded(opened), _index(table), path)
    table = open_points(path, lonlat).frame()
    about = [
        {"name": name, "unit": "degree"} if name in (LON, LAT) else {"name": name} for name in bands
    ]
    head = _head(len(table), PLACE, about, "places")
    return table, TableTiles(
        Path(path).parent, head, _index(table), path, _columns(path, table, bands)
    )


def _columns(path: str, table: geopandas.GeoDataFrame, bands: Sequence[str]) -> np.ndarray:
    """Numbers (n, D) float32 of some columns, of a place its coordinates."""
    places = middles(table)
    found = []
    for name in bands:
        if tuple(bands) == (LON, LAT):
            found.append(places[:, (LON, LAT).index(name)])
            continue
        if name not in table:
            have = ", ".join(str(c) for c in table.columns if c != "geometry")
            raise GeomlError(f"{path}: no column {name!r}; it has {have}")
        value = pandas.to_numeric(table[name], errors="coerce").to_numpy(float, na_value=np.nan)
        lost = np.flatnonzero(~np.isfinite(value))
        if len(lost):
            raise GeomlError(
                f"{path}: {name} is no number in {len(lost)} row(s), the first is row {lost[0]}; leave them out"
            )
        found.append(value)
    return np.stack(found, axis=1).astype(np.float32)


def _embedded(opened: Embeddings) -> dict[str, Any]:
    space = f"-{opened.space[:8]}" if opened.space else ""
    bands = [{"name": name} for name in dimension_names(opened.width)]
    return _head(opened.count, f"{SENSOR}{space}", bands, "embeddings")


def _head(count: int, sensor: str, bands: list[dict[str, Any]], kind: str) -> dict[str, Any]:
    return {
        "size": 1,
        "count": count,
        "format": kind,
        "sensors": [
            {"name": sensor, "bands": bands, "dtype": "float32", "gsd_m": None, "frames": 1}
        ],
        "layers": [],
        "split": None,
        "folds": 0,
        "scenes": [],
        "frames": {"kind": "one", "count": 1, "slots": [], "within_days": None},
    }


def _index(table: geopandas.GeoDataFrame) -> geopandas.GeoDataFrame:
    places = middles(table)
    known = np.isfinite(places).all(axis=1)
    rows = {
        "id": table["id"].to_numpy(),
        "scene": table["scene"].to_numpy() if "scene" in table else None,
        "datetime": table["datetime"].to_numpy() if "datetime" in table else None,
        "valid": 1.0,
        "proj:code": [LONLAT if one else None for one in known],
        "proj:transform": [[0.0, 0.0, x, 0.0, 0.0, y] for x, y in places],
    }
    return geopandas.GeoDataFrame(rows, geometry=table.geometry.to_numpy(), crs=LONLAT)
