"""Splits that a file holds: shapes with a column, a raster of folds, another tile set."""

from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import rasterio
import shapely

from geoml_cli.errors import GeomlError
from geoml_cli.formats.digest import digest_file
from geoml_cli.formats.raster import describe, opened
from geoml_cli.formats.remote import is_remote
from geoml_cli.formats.stamp import Input, read_stamp
from geoml_cli.formats.tileset import NAME
from geoml_cli.formats.vectors import digest_vectors, read_vectors
from geoml_cli.geo.regions import Regions, in_degrees
from geoml_cli.geo.sides import read_split
from geoml_cli.geo.splits import NONE, Split
from geoml_cli.stages.inputs import digest_source
from geoml_cli.stages.labels_raster import is_raster

COLUMNS = ("split", "fold")
WORDS = {
    **dict.fromkeys(("train", "training"), 0),
    **dict.fromkeys(("val", "valid", "validation"), 1),
    **dict.fromkeys(("test", "testing"), 2),
}
MOST_FOLDS = 32
MOST_PATCHES = 200_000  # of one fold each in a raster: more are no split but noise


def is_tileset(path: str) -> bool:
    """Whether a path is a tile set's folder or its stamp."""
    return not is_remote(path) and (Path(path).is_dir() or Path(path).name == NAME)


def inputs_of(path: str) -> list[Input]:
    """The file that a split is read from."""
    if is_tileset(path):
        folder, _ = read_stamp(path, NAME, "tile")
        return [Input(str(folder / NAME), "split", digest_file(folder / NAME))]
    digest = digest_source(path) if is_raster(path) else digest_vectors(path)
    return [Input(path, "split", digest)]


def folds_in(path: str, split: Split) -> int:
    """Number of folds of a split that a file holds; 0 where they are train, validation, test."""
    if isinstance(split, Regions) and not is_tileset(path):
        return 0 if split.plain else split.count
    return int(read_stamp(path, NAME, "tile")[1]["folds"])


def open_split(path: str, buffer_m: float, thin_m: float) -> Split:
    """The split that a file holds."""
    if is_tileset(path):
        _, head = read_stamp(path, NAME, "tile")
        split = read_split(head["split"])
        if split is None:
            raise GeomlError(f"{path}: its tiles have no split to take over; cut them with --split")
        return split
    return (_of_raster if is_raster(path) else _of_shapes)(path, buffer_m, thin_m)


def _of_shapes(path: str, buffer_m: float, thin_m: float) -> Regions:
    table: geopandas.GeoDataFrame = read_vectors(path)
    column = next((name for name in COLUMNS if name in table.columns), None)
    if column is None:
        have = ", ".join(str(c) for c in table.columns if c != table.geometry.name)
        raise GeomlError(
            f"{path}: no column split (train, val, test) or fold (numbers); it has {have or 'none'}"
        )
    said = table[column]
    kept = ~said.isna()
    if not kept.any():
        raise GeomlError(f"{path}: column {column} is empty")
    folds, count, plain = _read_folds(said[kept].tolist(), f"{path}: column {column}")
    shapes = in_degrees(table.geometry[kept].to_list(), table.crs.to_wkt())
    return Regions(shapes, tuple(folds), count, buffer_m, thin_m, plain)


def _read_folds(said: list[Any], where: str) -> tuple[list[int], int, bool]:
    """Fold of each value, their number, and whether they mean train, validation and test."""
    words = [str(value).strip().lower() for value in said]
    if all(word in WORDS for word in words):
        return [WORDS[word] for word in words], 3, True
    try:
        numbers = [float(word) for word in words]
    except ValueError:
        strange = next(w for w in words if w not in WORDS and not _is_number(w))
        raise GeomlError(
            f"{where}: {strange!r} is no side; write train, val and test, or numbers of folds"
        ) from None
    found = sorted(set(numbers))
    if found not in ([*range(len(found))], [*range(1, len(found) + 1)]):
        listed = ", ".join(f"{n:g}" for n in found[:8])
        raise GeomlError(
            f"{where}: folds are {listed}; number them 0, 1, 2 and so on, none left out"
        )
    if not 3 <= len(found) <= MOST_FOLDS:
        raise GeomlError(
            f"{where}: {len(found)} folds; from 3 (train, validation, test) to {MOST_FOLDS},"
            " or write train, val and test"
        )
    return [int(n - found[0]) for n in numbers], len(found), False


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def _of_raster(path: str, buffer_m: float, thin_m: float) -> Regions:
    """Patches of equal value, along the borders of pixels."""
    crs = describe(path).grid.crs
    with opened(path) as dataset:
        if dataset.count != 1 or not np.issubdtype(dataset.dtypes[0], np.integer):
            raise GeomlError(f"{path}: a split is one band of whole numbers")
        values, mask = dataset.read(1), dataset.read_masks(1) > 0
        tags, transform = dataset.tags() | dataset.tags(1), dataset.transform
    found = np.unique(values[mask]).tolist()
    if not found:
        raise GeomlError(f"{path}: holds no valid pixel")
    named = [tags.get(f"CLASS_{v}", str(v)) for v in found]
    folds, count, plain = _read_folds(named, path)
    sides = np.full(values.shape, NONE, np.uint8)
    for value, fold in zip(found, folds, strict=True):
        sides[mask & (values == value)] = fold
    patches: list[tuple[Any, float]] = []
    for patch in rasterio.features.shapes(sides, mask=sides != NONE, transform=transform):
        patches.append(patch)
        if len(patches) > MOST_PATCHES:
            raise GeomlError(f"{path}: over {MOST_PATCHES} patches; smooth it first: gdal_sieve.py")
    shapes = in_degrees([shapely.geometry.shape(shape) for shape, _ in patches], crs)
    return Regions(shapes, tuple(int(f) for _, f in patches), count, buffer_m, thin_m, plain)
