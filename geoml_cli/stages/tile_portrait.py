"""What a tile set is, as plain data: sensors, labels by side, how far test ground is from training ground."""

import math
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
from pyproj import CRS

from geoml_cli.formats.tileset import INDEX, SPLITS
from geoml_cli.formats.vectors import read_index
from geoml_cli.geo.apart import distances, leakage
from geoml_cli.geo.grid import Grid
from geoml_cli.stages.any_raster import told_grid, unit_of

SEVERAL = "several"  # tiles that lie on more than one side


def tiles(head: dict[str, Any], folder: Path) -> dict[str, Any]:
    """A tile set: what its head says and its index adds up to."""
    index, names = read_index(folder / INDEX), fold_names(head)
    sensors = [_sensor(one, i, index) for i, one in enumerate(head["sensors"])]
    found: dict[str, Any] = {
        "kind": "tiles",
        **{k: head[k] for k in ("format", "count", "size", "stride", "shards", "folds")},
        # of the first sensor, by which the others lie
        **{k: sensors[0][k] for k in ("frames", "dtype", "gsd_m", "bands", "valid")},
        "sensors": sensors,
        "scenes": [_scene(scene) for scene in head["scenes"]],
        "dates": _dates(index, head),
        "layers": [_layer(layer, index, names) for layer in head["layers"]],
    }
    if head["split"]:
        found["split"] = {**_split(head["split"]), "folds": names}
        if "fold" in index:
            found["split"] |= _sides(index, names, head["folds"])
    if found["layers"] and "classes" in found["layers"][0]:
        found["classes"] = found["layers"][0]["classes"]
    if head.get("statistics"):
        found["statistics"] = head["statistics"]
    return found


def fold_names(head: dict[str, Any]) -> list[str]:
    """What the folds are called; none without a split."""
    if not head["split"]:
        return []
    return [f"fold {i}" for i in range(head["folds"])] if head["folds"] else list(SPLITS)


def _sensor(one: dict[str, Any], place: int, index: geopandas.GeoDataFrame) -> dict[str, Any]:
    column = index.get(f"valid_{one['name']}" if place else "valid")
    share = math.nan if column is None else float(column.astype(float).mean())
    said = {k: one[k] for k in ("name", "bands", "dtype", "gsd_m", "frames")}
    return {**said, "resampling": one.get("resampling"), "valid": _number(share)}


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _scene(scene: dict[str, Any]) -> dict[str, Any]:
    grid = Grid.from_dict(scene)
    found = {"id": scene["id"], "datetime": scene["datetime"], "shape": scene["proj:shape"]}
    found |= {"sensor": scene["sensor"]} if "sensor" in scene else {}
    return found | {"grid": told_grid(grid) if grid.placed else {"crs": None}}


def _dates(index: geopandas.GeoDataFrame, head: dict[str, Any]) -> list[str]:
    """First and last date of any frame of any tile."""
    said = set(index["datetime"].dropna())
    for sensor in head["sensors"]:
        if (name := f"dates_{sensor['name']}") in index:
            said |= {d for row in index[name] if row is not None for d in row if d}
    dates = sorted(map(str, said))
    return dates[:1] + dates[-1:]


def _split(plain: dict[str, Any]) -> dict[str, Any]:
    """How the ground was dealt: only what says so, not which ground."""
    found: dict[str, Any] = {"kind": plain["kind"]}
    if plain["kind"] == "blocks":
        found["blocks"] = [len(plain["folds"]), len(plain["folds"][0])]
        found |= {"buffer": plain["buffer"], "unit": unit_of(CRS.from_user_input(plain["crs"]))}
    else:
        found |= {"buffer": plain.get("buffer_m", 0.0), "unit": "metre"}
    if "size_m" in plain:
        found["size_m"] = plain["size_m"]
    if "shapes" in plain:
        found["shapes"] = len(plain["shapes"])
    return found


def _sides(index: geopandas.GeoDataFrame, names: list[str], folds: int) -> dict[str, Any]:
    """Tiles on each side, and how those that test lie to those that train."""
    fold = index["fold"].astype("Int16")
    counts = {name: int((fold == i).sum()) for i, name in enumerate(names)}
    apart = distances(index.geometry.to_numpy(), fold, folds)
    return {
        "tiles": {**counts, SEVERAL: len(index) - sum(counts.values())},
        "distance": apart,
        "touching": leakage(index.geometry.to_numpy(), fold, folds) if apart else None,
    }


def _layer(
    layer: dict[str, Any], index: geopandas.GeoDataFrame, names: list[str]
) -> dict[str, Any]:
    """One set of labels: pixels or tiles of each class, in all and on each side."""
    found: dict[str, Any] = {
        k: layer[k] for k in ("name", "kind", "per", "dtype", "unit") if k in layer
    }
    by_fold = layer_counts(layer, index, len(names))  # (folds + 1, classes)
    total, folds = by_fold.sum(axis=0), dict(zip(names, by_fold, strict=False))
    found["labelled"] = int(total.sum()) if layer["per"] != "present" else _labelled(layer, index)
    if layer["kind"] == "classes":
        found["classes"] = [{k: c[k] for k in ("id", "name", "color")} for c in layer["classes"]]
        for i, one in enumerate(found["classes"]):
            one["count"] = int(total[i])
            if names:
                one["count_by_fold"] = {name: int(row[i]) for name, row in folds.items()}
    elif names:
        found["labelled_by_fold"] = {name: int(row.sum()) for name, row in folds.items()}
    return found


def _labelled(layer: dict[str, Any], index: geopandas.GeoDataFrame) -> int:
    return sum(value is not None and len(value) > 0 for value in index[layer["name"]])


def layer_counts(layer: dict[str, Any], index: geopandas.GeoDataFrame, folds: int) -> np.ndarray:
    """Pixels, or tiles, (folds + 1, classes) with a label; the last row is on several sides or none.

    Of a layer of values there is one column, for all.
    """
    name, kinds = layer["name"], len(layer["classes"]) if layer["kind"] == "classes" else 1
    out = np.zeros((folds + 1, kinds), np.int64)
    if not len(index):
        return out
    if layer["per"] == "pixel":
        whole, parts = ("counts", "fold_counts") if layer["kind"] == "classes" else ("labelled", "fold_labelled")  # fmt: skip
        total = np.sum([np.atleast_1d(row) for row in index[f"{whole}_{name}"]], axis=0)
        if folds:
            per_fold = [np.stack(list(row)) for row in index[f"{parts}_{name}"]]
            out[:folds] = np.sum(per_fold, axis=0).reshape(folds, kinds)
        out[folds] = total - out[:folds].sum(axis=0)
        return out
    side = np.full(len(index), folds)
    if folds and "fold" in index:
        fold = index["fold"].astype("Int16").fillna(-1).to_numpy(int)
        side = np.where((fold >= 0) & (fold < folds), fold, folds)
    for row, value in zip(side, index[name], strict=True):
        for one in _values(value):
            out[row, int(one) if layer["kind"] == "classes" else 0] += 1
    return out


def _values(value: Any) -> list[Any]:
    """The labels of one tile: none, one, or several."""
    if value is None or (np.isscalar(value) and value != value) or str(value) == "<NA>":
        return []
    return [value] if np.isscalar(value) else list(value)
