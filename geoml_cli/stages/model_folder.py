"""What a model folder says besides its weights: the contract, the ground it saw, its STAC Item, its curves."""

import json
from pathlib import Path
from typing import Any

import geopandas
import shapely

from geoml_cli.formats.model import mlm_item
from geoml_cli.formats.tileset import Tiles
from geoml_cli.geo.bounds import footprint
from geoml_cli.geo.grid import LONLAT, Grid
from geoml_cli.geo.splits import Split

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
    tiles: Tiles,
    arguments: dict[str, Any],
    network: Any,
    halo: int | None,
    norms: list[tuple[list[float], list[float]]],
    bests: list[dict[str, Any]],
    device: dict[str, Any],
) -> dict[str, Any]:
    """The content of model.json: all that predict needs to be right or to refuse."""
    sensor = tiles.head["sensors"][0]
    dates = sorted(s["datetime"] for s in tiles.head["scenes"] if s["datetime"])
    return {
        "task": arguments["task"],
        "encoder": arguments["encoder"],
        "head": arguments["head"],
        "bands": sensor["bands"],
        "dtype": sensor["dtype"],
        "gsd_m": sensor["gsd_m"],
        "classes": [c.to_dict() for c in tiles.classes],
        "outputs": len(tiles.classes),
        "frames": 1,
        "members": len(norms),
        "normalisation": [{"mean": mean, "std": std} for mean, std in norms],
        "nodata": "a pixel counts where every band is valid; others enter as the mean and come out as nodata",
        "window": tiles.size,
        "stride": network.stride,
        "halo": halo,
        "blend": None if halo is not None else "partition of unity",
        "tta": None,
        "split": tiles.head["split"],
        "folds": tiles.folds,
        "dates": dates[:1] + dates[-1:] or ["1900-01-01T00:00:00Z", "2100-01-01T00:00:00Z"],
        "best": bests,
        "device": device,
    }


def item_of_model(
    name: str, head: dict[str, Any], table: geopandas.GeoDataFrame, network: Any
) -> dict[str, Any]:
    """item.json: the model as a STAC Item."""
    seen = shapely.union_all(table.geometry[table["role"] == "train"].to_numpy())
    whole = json.loads(shapely.to_geojson(shapely.convex_hull(seen)))
    count = sum(p.numel() for p in network.parameters()) * head["members"]
    return mlm_item(name, head, whole, list(seen.bounds), count)


def draw_curves(path: Path, rows: list[dict[str, Any]]) -> None:
    """Loss and validation score of every member over the epochs."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.5), layout="constrained")
    left, right = figure.subplots(1, 2)
    for member in sorted({row["member"] for row in rows}):
        mine = [row for row in rows if row["member"] == member]
        epochs = [row["epoch"] for row in mine]
        left.plot(epochs, [row["loss"] for row in mine], label=f"member {member}")
        if "watch" in mine[0]:
            right.plot(epochs, [row["watch"] for row in mine])
    left.set(title="training loss", xlabel="epoch", yscale="log")
    right.set(title="validation score", xlabel="epoch", ylim=(0, 1))
    left.legend(fontsize=7)
    figure.savefig(path, dpi=110, metadata={"Software": None})
