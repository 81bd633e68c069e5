"""What a model folder says besides its weights: the contract, the ground it saw, its STAC Item."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import geopandas
import shapely

from geoml_cli.core.lattice import FADE
from geoml_cli.formats.model import mlm_item
from geoml_cli.formats.tileset import Tiles
from geoml_cli.geo.bounds import footprint
from geoml_cli.geo.grid import LONLAT, Grid
from geoml_cli.geo.splits import Split
from geoml_cli.stages.base import checkpoint_of
from geoml_cli.stages.places_model import model_of
from geoml_cli.stages.spelled import is_local

RIM_POINTS = 65  # a side of a scene's footprint, so that curved edges stay inside


def ground_table(tiles: Tiles, parts: list[Any]) -> geopandas.GeoDataFrame:
    """The ground each member trained, validated and tested on, within each scene's footprint."""
    rows = []
    split = tiles.split
    for scene in tiles.head["scenes"]:
        areas = _areas(split, scene, tiles.index)
        for part in parts:
            for role, area in _roles(areas, part):
                rows.append(
                    {
                        "member": part.member,
                        "role": role,
                        "scene": scene["id"],
                        "datetime": scene["datetime"],
                        "geometry": area,
                    }
                )
    return geopandas.GeoDataFrame(
        rows, columns=["member", "role", "scene", "datetime", "geometry"], crs=LONLAT
    )


def _areas(
    split: Split | None, scene: dict[str, Any], index: geopandas.GeoDataFrame
) -> list[tuple[int, shapely.Geometry]]:
    """Ground of each fold in a scene; without a split all of it as one. None lies nowhere on Earth."""
    grid = Grid.from_dict(scene)
    if not grid.placed:
        return []
    if split is None:
        return [(0, footprint(grid.outline()))]
    if not split.grids_only:
        return split.areas(shapely.make_valid(footprint(grid.outline(points=RIM_POINTS))))
    mine = index[(index["scene"] == scene["id"]) & index["fold"].notna()]
    return [
        (int(fold), shapely.union_all(shapely.make_valid(table.geometry.to_numpy())))
        for fold, table in mine.groupby("fold")
    ]


def _roles(
    areas: list[tuple[int, shapely.Geometry]], part: Any
) -> list[tuple[str, shapely.Geometry]]:
    """The same ground by what it is to one member."""
    by_role: dict[str, list[shapely.Geometry]] = {"train": [], "val": [], "test": []}
    for fold, area in areas:
        role = "test" if fold == part.test else "val" if fold == part.val else "train"
        by_role[role].append(area)
    return [(role, shapely.union_all(found)) for role, found in by_role.items() if found]


def contract(
    order: Any, fitted: Sequence[Any], halo: int | None, device: dict[str, Any], out: Path
) -> dict[str, Any]:
    """The content of model.json: all that predict needs to be right or to refuse."""
    tiles, aim, given = order.tiles, order.aim, order.given
    about = {one["name"]: one for one in tiles.head["sensors"]}
    layers = {one["name"]: one for one in tiles.head["layers"]}
    sensors = [about[name] for name in order.sensors]
    dates = sorted(s["datetime"] for s in tiles.head["scenes"] if s["datetime"])
    bests = [{"member": one.feed.part.member, **_kept(one.progress)} for one in fitted]
    classes = layers[aim.layers[0]]["classes"] if aim.kind == "classes" else []
    if aim.kind == "present":
        classes = [{"id": i, "name": name} for i, name in enumerate(aim.names)]
    recorded = ("task", "encoder", "head", "adapter", "location_encoder")
    return {
        **{key: order.recorded(key) for key in recorded},
        "aim": {"kind": aim.kind, "per": aim.per, "names": list(aim.names), "binary": aim.binary}
        | ({"fills": True} if aim.fills else {}),
        "network": order.spec | {k: order.recorded(k) for k in recorded[1:]},
        "base": base_of(given, out) if any(one.partial for one in fitted) else None,
        "started_from": base_of(given, out) if given["encoder_weights"] else None,
        "place_started_from": _place_of(order, out) if given["location_weights"] else None,
        "sensors": [
            {key: one.get(key) for key in ("name", "bands", "dtype", "gsd_m", "frames")}
            for one in sensors
        ],
        "bands": sensors[0]["bands"],
        "dtype": sensors[0]["dtype"],
        "gsd_m": sensors[0]["gsd_m"],
        "codes": list(given["codes"]),
        "classes": classes,
        "values": [
            {"name": name, "unit": unit}
            for name, unit in zip(aim.names, _units(aim, sensors, layers), strict=False)
        ],
        "members": len(fitted),
        "normalisation": [
            [
                {"sensor": name, "mean": mean.tolist(), "std": std.tolist()}
                for name, (mean, std) in zip(order.sensors, one.feed.norms, strict=True)
            ]
            for one in fitted
        ],
        "nodata": "a pixel counts where every band is valid; others enter as the mean and come out as nodata",
        "window": tiles.size,
        "stride": fitted[0].network.stride,
        "halo": halo,
        "blend": None if halo is not None else blend_of(tiles.size),
        "frames": tiles.head["frames"],
        "tta": None if given["tta"] == "none" else given["tta"],
        "split": tiles.head["split"],
        "folds": tiles.folds,
        "dates": dates[:1] + dates[-1:] or ["1900-01-01T00:00:00Z", "2100-01-01T00:00:00Z"],
        "best": bests,
        "device": device,
    }


def _units(aim: Any, sensors: list[dict[str, Any]], layers: dict[str, Any]) -> list[str | None]:
    """Unit of each of the values that a model gives; none where it gives classes."""
    if aim.fills:
        return [
            b.get("unit") for one in sensors for _ in range(one["frames"]) for b in one["bands"]
        ]
    return [layers[name].get("unit") for name in aim.names] if aim.kind == "values" else []


def blend_of(window: int) -> dict[str, Any]:
    """How windows fade into each other where a network sees all of its window."""
    return {"window": window, "overlap": max(2, round(FADE * window)), "rim": "reflect"}


def _kept(progress: Any) -> dict[str, Any]:
    """The epoch whose weights are kept, its score, and how many tiles the device took at a time."""
    best = progress.kept > 0
    return {
        "epoch": progress.kept if best else progress.epoch,
        "epochs": progress.epoch,
        "watch": progress.best if best else None,
        "micro_batch": progress.micro or None,
    }


def base_of(given: Mapping[str, Any], out: Path) -> dict[str, Any]:
    """The checkpoint that the stored tensors are changes of; its place is told from the model folder."""
    return checkpoint_of(given["encoder_weights"]).recorded(out)


def _place_of(order: Any, out: Path) -> dict[str, Any]:
    """The weights that the location encoder began with."""
    name = order.given["location_weights"]
    found = model_of(order.parts["location_encoder"], name)
    path = os.path.relpath(name, out) if is_local(name) else name
    return {"path": path, "tensors_sha256": found.weights, "licence": found.licence}


def item_of_model(
    name: str, head: dict[str, Any], table: geopandas.GeoDataFrame, network: Any
) -> dict[str, Any]:
    """item.json: the model as a STAC Item."""
    seen = shapely.union_all(table.geometry[table["role"] == "train"].to_numpy())
    whole = json.loads(shapely.to_geojson(shapely.convex_hull(seen)))
    count = sum(p.numel() for p in network.parameters()) * head["members"]
    return mlm_item(name, head, whole, list(seen.bounds), count)
