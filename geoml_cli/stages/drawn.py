"""The windows of a tile set: what samplers may ask of the ground, and the files their options name."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import shapely

from geoml_cli import registry
from geoml_cli.errors import GeomlError, NothingMatched
from geoml_cli.formats.raster import opened
from geoml_cli.formats.stamp import Input
from geoml_cli.formats.vectors import digest_vectors, read_vectors
from geoml_cli.geo.bounds import project
from geoml_cli.geo.field import Field, Pick
from geoml_cli.geo.grid import Grid, Window
from geoml_cli.stages.inputs import digest_source
from geoml_cli.stages.labels import Layer, Wish, burn, is_raster
from geoml_cli.stages.layers import Layered
from geoml_cli.stages.place import Place

Strata = Callable[[int, Window], np.ndarray]


def draw_picks(
    places: Sequence[Place],
    layers: Sequence[Layered],
    sampler: str,
    size: tuple[int, int],
    stride: tuple[int, int],
    seed: int,
) -> list[Pick]:
    """The windows of all places, as the sampler lays them."""
    name, chosen = registry.parse("samplers", sampler)
    grids = tuple(place.grid for place in places)
    pixel = [layer for layer in layers if layer.kind == "classes" and layer.per != "folder"]
    field = Field(
        grids,
        size,
        stride,
        _strata(pixel[0], places) if pixel else None,
        lambda path: _strata_of(path, grids),
        lambda path: _points(path, grids),
    )
    rng = np.random.Generator(np.random.PCG64(seed))
    picks = list(registry.load("samplers", name).draw(field, rng, **chosen))
    if not picks:
        raise NothingMatched(
            f"no tile of {size[0]} px fits; the scenes are smaller: lower --size,"
            " or let tiles stick out: --sampler grid:edge=pad"
        )
    return by_blocks(picks, places) if name == "grid" and not chosen.get("like") else picks


def by_blocks(picks: list[Pick], places: Sequence[Place]) -> list[Pick]:
    """Tiles in the order of the blocks that the first scene is stored in, so that each is unpacked once."""
    raster = places[0].shots[0][0].stacks[0].rasters[0]
    with opened(raster.path) as dataset:
        high, wide = dataset.block_shapes[raster.indexes[0] - 1]
    if raster.grid != places[0].grid:
        return picks

    def block(pick: Pick) -> tuple[int, int, int]:
        return pick.place, pick.window.row // high, pick.window.col // wide

    return sorted(picks, key=block)


def _strata(layer: Layered, places: Sequence[Place]) -> Strata:
    """Class ids of a layer on windows of places."""
    burns: dict[int, Any] = {}

    def read(place: int, window: Window) -> np.ndarray:
        if place not in burns:
            burns[place] = layer.on_place(places[place])
        return burn(burns[place], places[place].grid, window)

    return read


def _strata_of(path: str, grids: Sequence[Grid]) -> Strata:
    """Strata of a class raster, or of a vector file by its column `class`, `stratum` or its only one."""
    column: str | None = None
    if not is_raster(path):
        table = read_vectors(path)
        have = [str(c) for c in table.columns if c != table.geometry.name]
        known = [c for c in ("stratum", "class") if c in have] or have
        if len(have) != 1 and known == have:
            raise GeomlError(f"{path}: which column is the stratum? call it `stratum`")
        column = known[0]
    layer = Layer(Wish(path, "stratum", column))
    burns: dict[int, Any] = {}

    def read(place: int, window: Window) -> np.ndarray:
        if place not in burns:
            burns[place] = layer.on(grids[place])
        return burn(burns[place], grids[place], window)

    return read


def _points(path: str, grids: Sequence[Grid]) -> list[np.ndarray]:
    """Centroids (n, 2) of a file's features in the CRS of every grid."""
    table = read_vectors(path)
    centres = shapely.centroid(table.geometry.to_numpy())
    crs = table.crs.to_wkt()
    return [
        shapely.get_coordinates([project(point, crs, grid.crs) for point in centres])
        for grid in grids
    ]


def sampler_inputs(spec: str) -> tuple[str, list[Input]]:
    """A sampler as it is recorded, and the files that its options name."""
    name, chosen = registry.parse("samplers", spec)
    found, said = [], spec
    for option in registry.constant("samplers", name, "FILES") or ():
        path = chosen.get(option)
        if path:
            if not Path(path).exists():
                raise GeomlError(f"{path}: no such file; --sampler {spec} reads it")
            digest = digest_source if is_raster(path) else digest_vectors
            found.append(Input(path, "part", digest(path)))
            said = said.replace(path, f"parts/{Path(path).name}")
    return said, found
