"""Embeddings as a tile set: a row is a tile of one pixel, a dimension a band; so all that takes tiles takes them."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import geopandas
import numpy as np

from geoml_cli.errors import GeomlError
from geoml_cli.formats.embeddings import Embeddings, dimension_names, open_embeddings
from geoml_cli.formats.tileset import Tiles
from geoml_cli.geo.classes import IGNORE, legend
from geoml_cli.geo.grid import LONLAT
from geoml_cli.geo.rows import on_blocks
from geoml_cli.geo.splits import PLAIN
from geoml_cli.stages.labelled_rows import lay_rows, middles, read_labels

SENSOR = "embedding"


@dataclass(frozen=True)
class EmbeddingTiles(Tiles):
    """Rows of a file of embeddings."""

    path: str = ""

    @property
    def stamp(self) -> Path:
        """The file."""
        return Path(self.path)

    @cached_property
    def vectors(self) -> np.ndarray:
        """All vectors (n, D)."""
        return open_embeddings(self.path).vectors()

    def take(self, kind: str, rows: Iterable[int], name: str | None = None) -> np.ndarray:
        """See Tiles."""
        at = np.fromiter(rows, int)
        if kind == "images":
            return self.vectors[at][:, None, :, None, None]
        assert kind == "valid", kind
        return np.ones((len(at), 1, 1, 1), bool)


def plain_tiles(path: str) -> EmbeddingTiles:
    """Rows without labels."""
    opened = open_embeddings(path)
    return EmbeddingTiles(Path(path).parent, _head(opened), _index(opened.table()), path)


def labelled_tiles(path: str, column: str, blocks: int, folds: int, seed: int) -> EmbeddingTiles:
    """Rows with the labels of a column, dealt by blocks of ground to folds, or to train, validation and test."""
    opened = open_embeddings(path)
    table = opened.table()
    labels = read_labels(table, column)
    if len(labels.names) > IGNORE:
        raise GeomlError(
            f"column {column}: {len(labels.names)} classes; there is room for {IGNORE}"
        )
    shares = (1,) * folds if folds else PLAIN
    lattice, places = lay_rows(table, labels, blocks, shares, seed)
    fold, _ = on_blocks(lattice, places)
    index = _index(table)
    index["fold"], index["near"] = fold.astype("int16"), 1 << fold
    name = "label" if column in index.columns or column == "geometry" else column
    layer: dict[str, Any] = {
        "name": name,
        "kind": "values",
        "per": "tile",
        "ignore": None,
        "unit": None,
    }
    if labels.names:
        layer |= {"kind": "classes", "ignore": IGNORE}
        layer["classes"] = [one.to_dict() for one in legend(labels.names)]
        index[name] = np.where(labels.known, labels.values, IGNORE)
        index[name] = index[name].astype("Int64").where(labels.known)
    else:
        index[name] = labels.values
    b = lattice.bounds
    side = 256
    place = {
        "id": Path(path).name,
        "sensor": SENSOR,
        "datetime": None,
        "proj:code": lattice.crs,
        "proj:shape": [side, side],
        "proj:transform": [
            (b.east - b.west) / side, 0.0, b.west, 0.0, (b.south - b.north) / side, b.north,
        ],
    }  # fmt: skip
    head = _head(opened) | {
        "layers": [layer],
        "split": lattice.to_dict(),
        "folds": folds,
        "scenes": [place],
    }
    index["scene"] = place["id"]
    return EmbeddingTiles(Path(path).parent, head, index, path)


def _head(opened: Embeddings) -> dict[str, Any]:
    space = f"-{opened.space[:8]}" if opened.space else ""
    bands = [{"name": name} for name in dimension_names(opened.width)]
    return {
        "size": 1,
        "count": opened.count,
        "format": "embeddings",
        "sensors": [
            {
                "name": f"{SENSOR}{space}",
                "bands": bands,
                "dtype": "float32",
                "gsd_m": None,
                "frames": 1,
            }
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
        f"valid_{SENSOR}": 1.0,
        "proj:code": [LONLAT if one else None for one in known],
        "proj:transform": [[0.0, 0.0, x, 0.0, 0.0, y] for x, y in places],
    }
    return geopandas.GeoDataFrame(rows, geometry=table.geometry.to_numpy(), crs=LONLAT)
