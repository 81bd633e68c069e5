"""Any tile set, opened: shards, files or windows of the scenes themselves, read in one way."""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import geopandas
import numpy as np

from geoml_cli.errors import GeomlError
from geoml_cli.formats.embeddings import is_embeddings
from geoml_cli.formats.tileset import Tiles, TileSet, read_parts
from geoml_cli.stages.live import Files, Virtual

OPENERS: dict[str, Callable[[Path, dict[str, Any], geopandas.GeoDataFrame], Tiles]] = {
    "npy": TileSet,
    "gtiff": Files,
    "virtual": Virtual,
}


def open_tiles(path: str) -> Tiles:
    """Open a tile set of any format, or embeddings as one."""
    if is_embeddings(path):
        from geoml_cli.stages.embedding_tiles import plain_tiles

        return plain_tiles(path)
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
