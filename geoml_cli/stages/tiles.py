"""Any tile set, opened: shards, files or windows of the scenes themselves, read in one way."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import geopandas
import numpy as np

from geoml_cli.errors import GeomlError
from geoml_cli.formats.embeddings import is_embeddings
from geoml_cli.formats.points import is_places
from geoml_cli.formats.tileset import Tiles, TileSet, read_parts
from geoml_cli.stages.live import Files, Virtual

OPENERS: dict[str, Callable[[Path, dict[str, Any], geopandas.GeoDataFrame], Tiles]] = {
    "npy": TileSet,
    "gtiff": Files,
    "virtual": Virtual,
}


def open_tiles(
    path: str, sensors: Sequence[Mapping[str, Any]] = (), lonlat: Sequence[str] = ()
) -> Tiles:
    """Open a tile set of any format, or a table of embeddings or places as one.

    Of places, columns that `sensors` name are seen; `lonlat` names those of longitude and latitude.
    """
    if is_embeddings(path) or is_places(path):
        from geoml_cli.stages.table_tiles import LAT, LON, PLACE, plain_table

        named = next((one["bands"] for one in sensors if one["name"] == PLACE), None)
        bands = [band["name"] for band in named] if named else (LON, LAT)
        return plain_table(path, bands, lonlat)
    folder, head, index = read_parts(path)
    if head.get("format") not in OPENERS:
        raise GeomlError(
            f"{path}: written by another version of geoml; run the `geoml tile` that made it"
        )
    return OPENERS[head["format"]](folder, head, index)


def each(
    tiles: Tiles, kind: str, rows: Iterable[int], name: str | None = None
) -> Iterator[np.ndarray]:
    """Arrays tile by tile, where they are mapped without a copy."""
    if isinstance(tiles, TileSet):
        return tiles.views(kind, rows, name)
    return iter(tiles.take(kind, rows, name))
