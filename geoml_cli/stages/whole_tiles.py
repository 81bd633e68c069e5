"""Whether a tile set agrees with itself: arrays with the index, labels with the classes, sides with the split."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from geoml_cli.errors import GeomlError
from geoml_cli.formats.stamp import read_record
from geoml_cli.formats.tileset import INDEX, TileSet
from geoml_cli.formats.vectors import read_index
from geoml_cli.geo.splits import NONE
from geoml_cli.stages.complaints import complaints, read_raster


def look_into(folder: Path, head: dict[str, Any]) -> Iterator[str]:
    """Every array: its shape and type, as many rows as the index has, values that mean something."""
    tiles = TileSet(folder, head, read_index(folder / INDEX))
    pixels = [layer for layer in head["layers"] if layer["per"] == "pixel"]
    sensors = head["sensors"]
    if len(tiles.index) != head["count"]:
        yield f"{folder / INDEX}: {len(tiles.index)} rows, {head['count']} in tileset.json"
    yield from complaints(partial(_columns, tiles))
    for shard, table in tiles.index.groupby("shard"):
        rows = sorted(table["row"].tolist())
        if rows != list(range(len(rows))):
            yield f"{folder / INDEX}: rows of shard {shard} are not 0 to {len(rows) - 1}"
            continue
        if head["format"] != "npy":
            continue
        table = table.sort_values("row")
        for sensor in sensors:
            yield from complaints(partial(_images, tiles, sensor, int(shard), len(rows)))
            yield from complaints(partial(_valid, tiles, sensor, int(shard), table))
        for layer in pixels:
            yield from complaints(partial(_labels, tiles, layer, int(shard), table))
        if head["split"] and pixels:
            yield from complaints(partial(_sides, tiles, int(shard), table))
    if head["format"] == "gtiff":
        record = read_record(folder)
        for name in sorted((record or {}).get("members", {})):
            if name.endswith(".tif"):
                yield from complaints(partial(read_raster, str(folder / name)))


def _columns(tiles: TileSet) -> None:
    """Labels of whole tiles are classes."""
    for layer in tiles.head["layers"]:
        if layer["per"] == "pixel" or layer["kind"] != "classes":
            continue
        ids = {c["id"] for c in layer["classes"]}
        for value in tiles.index[layer["name"]].dropna():
            strange = set(np.atleast_1d(value).tolist()) - ids
            if strange:
                where = f"{tiles.folder / INDEX}: {layer['name']}"
                raise GeomlError(f"{where} holds {min(strange)}, which is no class")


def _array(
    tiles: TileSet, kind: str, name: str | None, shard: int, shape: tuple[int, ...], dtype: str
) -> tuple[Any, np.ndarray]:
    """Path and array of one shard, which is as it must be."""
    found = tiles.array(kind, shard, name)
    path = found.filename if isinstance(found, np.memmap) else tiles.folder
    if found.shape != shape:
        raise GeomlError(f"{path}: shape {found.shape}, not {shape} as the index says")
    if dtype and str(found.dtype) != dtype:
        raise GeomlError(f"{path}: {found.dtype}, not {dtype}")
    return path, found


def _images(tiles: TileSet, sensor: dict[str, Any], shard: int, count: int) -> None:
    shape = (count, sensor["frames"], len(sensor["bands"]), tiles.size, tiles.size)
    _array(tiles, "images", sensor["name"], shard, shape, sensor["dtype"])


def _valid(tiles: TileSet, sensor: dict[str, Any], shard: int, table: Any) -> None:
    shape = (len(table), sensor["frames"], tiles.size, tiles.size)
    path, found = _array(tiles, "valid", sensor["name"], shard, shape, "bool")
    first = sensor["name"] == tiles.head["sensors"][0]["name"]
    said = table["valid" if first else f"valid_{sensor['name']}"].to_numpy(float)
    wrong = np.flatnonzero(np.abs(found.mean(axis=(1, 2, 3)) - said) > 1e-6)
    if len(wrong):
        raise GeomlError(f"{path}: tile {wrong[0]} is not as valid as {INDEX} says")


def _labels(tiles: TileSet, layer: dict[str, Any], shard: int, table: Any) -> None:
    shape = (len(table), tiles.size, tiles.size)
    path, found = _array(tiles, "labels", layer["name"], shard, shape, layer["dtype"])
    if layer["kind"] == "classes":
        strange = np.setdiff1d(np.unique(found), [c["id"] for c in layer["classes"]])
        strange = strange[strange != layer["ignore"]]
        if len(strange):
            raise GeomlError(f"{path}: holds {strange[0]}, which is no class")
        known = found != layer["ignore"]
    else:
        if np.isinf(found).any():
            raise GeomlError(f"{path}: holds values that are not finite")
        known = ~np.isnan(found)
    said = table[f"labelled_{layer['name']}"].to_numpy()
    wrong = np.flatnonzero(known.sum(axis=(1, 2)) != said)
    if len(wrong):
        raise GeomlError(f"{path}: tile {wrong[0]} has not as many labels as {INDEX} says")


def _sides(tiles: TileSet, shard: int, table: Any) -> None:
    shape, split = (len(table), tiles.size, tiles.size), tiles.split
    assert split
    path, folds = _array(tiles, "folds", None, shard, shape, "uint8")
    strange = folds[(folds >= split.count) & (folds != NONE)]
    if len(strange):
        raise GeomlError(f"{path}: holds fold {strange.max()} of {split.count}")
    path, near = _array(tiles, "near", None, shard, shape, "")
    on = folds != NONE
    if not (near[on].astype(np.uint32) >> folds[on] & 1).all():
        raise GeomlError(f"{path}: the fold of a pixel is not near it")
    fold = table["fold"].astype("Int16").fillna(-1).to_numpy(int)
    for row in np.flatnonzero((fold >= 0) & (fold != NONE)):
        if (folds[row] != fold[row]).any():
            raise GeomlError(f"{path}: tile {row} is not of fold {fold[row]} as {INDEX} says")
