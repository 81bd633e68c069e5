"""A map of which ground trains, validates and tests, beside some of the tiles."""

from typing import Any

import numpy as np
import shapely

from geoml_cli.errors import GeomlError
from geoml_cli.formats.tileset import Tiles
from geoml_cli.geo.bounds import footprint, project
from geoml_cli.geo.grid import LONLAT, Grid
from geoml_cli.stages.sheets import contact_sheet, draw_sheet
from geoml_cli.stages.tile_portrait import fold_names
from geoml_cli.stages.tiles import open_tiles

PLAIN = ("#4477aa", "#ddaa33", "#cc3344")  # train, val, test: told apart by the colour-blind too
MANY = ("#4477aa", "#ddaa33", "#cc3344", "#228833", "#66ccee", "#aa3377", "#bbbbbb", "#994f00")
MIXED = "#333333"  # tiles on several sides
LENGTHS_M = [d * 10**e for e in range(8) for d in (1, 2, 5)]
MOST_OUTLINES = 20_000  # tiles that are drawn one by one
FLAT_DEG = 60.0  # ground wider than this is drawn in degrees


def tiles_figure(path: str) -> Any:
    """The split on the ground beside a contact sheet; the sheet alone where there is no split or no ground."""
    from matplotlib.figure import Figure

    tiles = open_tiles(path)
    shapes = tiles.index.geometry.to_numpy()
    if tiles.split is None or "fold" not in tiles.index or shapely.is_missing(shapes).all():
        return contact_sheet(tiles)
    figure = Figure(figsize=(15, 8), dpi=110, layout="constrained")
    sides: Any = figure.subfigures(1, 2, width_ratios=(1, 1.1))
    draw_split(sides[0], tiles)
    draw_sheet(sides[1], tiles)
    return figure


def colors_of(names: list[str]) -> list[str]:
    """A colour for each side."""
    palette = PLAIN if len(names) == 3 and names[0] == "train" else MANY
    return [palette[i % len(palette)] for i in range(len(names))]


def draw_split(figure: Any, tiles: Tiles) -> None:
    """Ground of each side filled, tiles outlined in the colour of theirs; north up, with a scale bar."""
    names = fold_names(tiles.head)
    colors = colors_of(names)
    shapes = tiles.index.geometry.to_numpy()
    kept = ~shapely.is_missing(shapes)
    shapes, fold = shapes[kept], tiles.index["fold"].astype("Int16").fillna(-1).to_numpy(int)[kept]
    crs = _plane(shapes)
    axes = figure.subplots()
    for f, area in _ground(tiles):
        _fill(axes, [area], crs, facecolor=colors[f], alpha=0.35)
    sides = np.where((fold >= 0) & (fold < len(names)), fold, len(names))
    every = [*colors, MIXED]
    step = -(-len(shapes) // MOST_OUTLINES)
    for side in np.unique(sides):
        mine = shapes[sides == side][::step]
        _fill(axes, list(mine), crs, facecolor="none", edgecolor=every[side], linewidth=0.7)
    axes.set_aspect("equal" if crs != LONLAT else "auto")
    axes.autoscale_view()
    axes.axis("off")
    _legend(figure, names, every, sides)
    if crs != LONLAT:
        _scale(axes)
    axes.annotate("N", (0.97, 0.99), (0.97, 0.9), "axes fraction", "axes fraction", ha="center", arrowprops={"arrowstyle": "-|>", "color": "black"})  # fmt: skip
    part = f", every {step}th drawn" if step > 1 else ""
    figure.suptitle(f"split of {len(tiles.index)} tiles{part}", fontsize=9)


def _legend(figure: Any, names: list[str], colors: list[str], sides: np.ndarray) -> None:
    from matplotlib.patches import Patch

    counts = np.bincount(sides, minlength=len(names) + 1)
    labels = [f"{name} ({n} tiles)" for name, n in zip(names, counts, strict=False)]
    patches = [
        Patch(facecolor=c, edgecolor=c, label=t) for c, t in zip(colors, labels, strict=False)
    ]
    if counts[-1]:
        patches.append(Patch(facecolor="none", edgecolor=MIXED, label=f"several or none ({counts[-1]})"))  # fmt: skip
    figure.legend(handles=patches, loc="outside lower center", ncols=4, fontsize=8, frameon=False)


def _ground(tiles: Tiles) -> list[tuple[int, shapely.Geometry]]:
    """Ground of each side within all scenes; of tiles dealt one by one, none but their own."""
    split = tiles.split
    assert split
    if split.grids_only:
        return []
    grids = [Grid.from_dict(scene) for scene in tiles.head["scenes"]]
    placed = [footprint(grid.outline()) for grid in grids if grid.placed]
    try:
        return split.areas(shapely.union_all(shapely.make_valid(np.array(placed, object))))
    except GeomlError:  # cells too small to be seen
        return []


def _plane(shapes: np.ndarray) -> str:
    """A CRS in metres, north up in its middle, that keeps areas; degrees for much of the world."""
    west, south, east, north = shapely.total_bounds(shapes)
    lon = (west + east) / 2
    if east - west > 180:  # across the antimeridian
        lon = 180.0
        bounds = shapely.bounds(shapes)
        east = (bounds[:, 2] % 360).max()
        west = (bounds[:, 0] % 360).min()
    if min(east - west, 360) > FLAT_DEG or north - south > FLAT_DEG:
        return LONLAT
    return f"+proj=laea +lon_0={lon:.6f} +lat_0={(south + north) / 2:.6f} +datum=WGS84 +units=m"


def _fill(axes: Any, shapes: list[shapely.Geometry], crs: str, **style: Any) -> None:
    """Draw areas (CRS84), holes left open."""
    from matplotlib.collections import PathCollection
    from matplotlib.path import Path

    parts = shapely.get_parts(np.array(shapes, object))
    parts = shapely.get_parts(parts)
    parts = parts[shapely.get_dimensions(parts) == 2]
    paths = []
    for part in parts if crs == LONLAT else project(parts, LONLAT, crs):
        rings = [shapely.get_coordinates(r) for r in shapely.get_rings(part)]
        if all(np.isfinite(r).all() for r in rings):
            paths.append(Path.make_compound_path(*(Path(r, closed=True) for r in rings)))
    axes.add_collection(PathCollection(paths, **{"linewidth": 0, **style}), autolim=True)


def _scale(axes: Any) -> None:
    """A bar of a round length, about a quarter of the width."""
    (west, east), (south, north) = axes.get_xlim(), axes.get_ylim()
    length = max((m for m in LENGTHS_M if m <= (east - west) / 3), default=None)
    if length is None:
        return
    text = f"{length // 1000} km" if length >= 1000 else f"{length} m"
    x, y = west + 0.03 * (east - west), south + 0.03 * (north - south)
    for color, thick in (("white", 5), ("black", 2.5)):
        axes.plot([x, x + length], [y, y], color=color, linewidth=thick, solid_capstyle="butt")
    box = {"facecolor": "white", "alpha": 0.8, "edgecolor": "none", "pad": 1.5}
    axes.text(x, y + 0.015 * (north - south), text, fontsize=8, va="bottom", bbox=box)
