"""The maps that a run of `predict` is to make: what is shown, on which grid, in which windows."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import shapely

from geoml_cli.core import lattice
from geoml_cli.core.lattice import Lattice
from geoml_cli.errors import GeomlError, NothingMatched, UsageMistake
from geoml_cli.formats.embeddings import is_embeddings
from geoml_cli.formats.model import sees_places
from geoml_cli.formats.points import is_places
from geoml_cli.formats.stamp import Input, stamp_in
from geoml_cli.formats.tileset import NAME, Tiles
from geoml_cli.formats.vectors import digest_vectors
from geoml_cli.geo.bounds import cover, project
from geoml_cli.geo.grid import LONLAT, Grid, Window
from geoml_cli.stages import contract
from geoml_cli.stages.catalog import read_area
from geoml_cli.stages.grids import target_of
from geoml_cli.stages.inputs import (
    Scene,
    check_local,
    digest_source,
    read_scenes,
    scene_inputs,
)
from geoml_cli.stages.models import Opened
from geoml_cli.stages.place import lay_places
from geoml_cli.stages.shown import Shown, show, show_tiles
from geoml_cli.stages.stack import Stack, stack_of
from geoml_cli.stages.tiles import open_tiles
from geoml_cli.stages.tiling import named_values

UNDATED = (
    "1900-01-01T00:00:00Z",
    "2100-01-01T00:00:00Z",
)  # what STAC is told of the times of no date


@dataclass(frozen=True)
class Wish:
    """What decides which maps are made, as it was given."""

    inputs: Sequence[Any]  # what stdin held is in its place
    beside: Sequence[str] = ()
    frames: str | None = None
    within: float | None = None
    crs: str | None = None
    resolution: float | None = None
    like: str | None = None
    aoi: str | None = None
    window: int | None = None
    bbox: str | None = None


@dataclass(frozen=True)
class Target:
    """One map to make.

    `grid` is the whole map's, which windows are laid on, `keep` what of it is written; `work` is that of the
    pixels that the network is given. `area` (CRS of the grid) is the ground that is wanted, None all.
    """

    name: str  # of the file, without suffix
    id: str
    path: str  # of the first file that it is made of, for people
    times: dict[str, Any]  # datetime, or the first and the last
    shown: Shown  # on the grid of the network's pixels
    grid: Grid
    lattice: Lattice
    keep: Window
    rim: str | None  # how ground is mirrored at its rim; None: not at all
    area: shapely.Geometry | None = None
    whole: Window | None = None  # where `keep` is a share of it
    located: bool = False  # whether the network is told the place of every pixel
    fills: bool = False  # what is not seen is mapped too, where anything near is

    @property
    def out(self) -> Grid:
        """The grid of the file."""
        return self.grid.crop(self.keep)


def targets_of(wish: Wish, opened: Opened) -> tuple[list[Target], list[Input]]:
    """Open all that was named, and check it against the model."""
    named = list(wish.inputs)
    sets = tile_sets(named)
    area = read_area(None, wish.aoi) if wish.aoi else None
    extra = [Input(wish.aoi, "aoi", digest_vectors(wish.aoi))] if wish.aoi else []
    extra += [Input(wish.like, "like", digest_source(wish.like))] if wish.like else []
    sources: list[Input] = []
    if not named:
        found = [_of_grid(wish, opened)]
    elif wish.bbox:
        raise UsageMistake("--bbox: is for maps of places, without INPUT; give --aoi")
    elif sets:
        found, sources = _of_tiles(sets, wish, opened)
    else:
        found, sources = _of_scenes(named, wish, opened)
    targets = [one for one in (_within(t, area) for t in found) if one]
    if not targets:
        raise NothingMatched(f"{wish.aoi}: none of the inputs lies there")
    return targets, [*sources, *extra]


def tile_sets(named: Sequence[Any]) -> list[str]:
    """Tile sets among inputs; they are not mixed with scenes."""
    sets = [one for one in named if isinstance(one, str) and _is_tiles(one)]
    if sets and len(sets) < len(named):
        raise UsageMistake(f"{sets[0]}: tiles and scenes in one run; map them one after the other")
    return sets


def _is_tiles(name: str) -> bool:
    stamp = stamp_in(name)
    if stamp is None:
        return is_embeddings(name) or is_places(name)
    return stamp.name == NAME


def _of_grid(wish: Wish, opened: Opened) -> Target:
    """A map of a model that sees nothing but places."""
    from geoml_cli.stages.place_grid import ShownGrid, grid_of

    if not sees_places(opened.head):
        raise NothingMatched("no inputs")
    grid = grid_of(wish.like, wish.bbox, wish.crs, wish.resolution)
    shown = ShownGrid(grid)
    return _target("map", "the grid", _times([], None, True), shown, wish, opened.head)


def _of_scenes(named: list[Any], wish: Wish, opened: Opened) -> tuple[list[Target], list[Input]]:
    sensors = opened.head["sensors"]
    names = [one["name"] for one in sensors]
    others = named_values(wish.beside, "--with", "")
    for name in others:
        if name not in names[1:]:
            raise UsageMistake(
                f"--with {name or others[name]}: the model sees {', '.join(names)}; write --with NAME=INPUT"
            )
    for name in names[1:]:
        if name not in others:
            raise UsageMistake(f"the model also sees {name}: give it with --with {name}=INPUT")
    check_local([*named, *others.values()])
    scenes = {names[0]: read_scenes(named)}
    scenes |= {name: read_scenes([path], loose=True) for name, path in others.items()}
    stacks = [_stacks(scenes[one["name"]], one) for one in sensors]
    contract.check_sharpness(stacks[0], opened.head["gsd_m"])
    for found, one in zip(stacks, sensors, strict=True):
        contract.warn_of_types(found, one)
    aim = target_of(wish.crs, wish.resolution, wish.like)
    frames = contract.frames_for(opened.head, wish.frames, wish.within, stacks[0])
    places = lay_places(stacks, aim, frames, (1, 1))
    by_id = {scene.id: scene for scene in scenes[names[0]]}
    targets = []
    for place in places:
        shown = show(place, frames, [one["frames"] for one in sensors])
        dates = [shot.datetime for shot in place.shots[0] if shot.datetime]
        path = place.shots[0][0].stacks[0].rasters[0].path
        times = _times(dates, by_id.get(place.id), frames.kind == "one")
        targets.append(_target(place.id, path, times, shown, wish, opened.head))
    sources = scene_inputs(named, scenes[names[0]])
    for name, path in others.items():
        sources += scene_inputs([path], scenes[name], f"with={name}")
    return targets, sources


def _stacks(scenes: Sequence[Scene], about: dict[str, Any]) -> list[Stack]:
    """The scenes of a sensor as stacks of the model's bands; scenes without any of them are left out of many."""
    return [contract.match(stack_of(scene), about) for scene in scenes]


def _of_tiles(sets: list[str], wish: Wish, opened: Opened) -> tuple[list[Target], list[Input]]:
    head = opened.head
    names = [one["name"] for one in head["sensors"]]
    if wish.beside or wish.frames or wish.crs or wish.resolution or wish.like:
        raise UsageMistake(
            "tiles hold their own sensors, dates and grid: no --with, --frames, --crs, --resolution or --like"
        )
    targets: list[Target] = []
    for path in sets:
        tiles = open_tiles(path, head["sensors"])
        check_tiles(path, tiles, head)
        dates = {s["id"]: s["datetime"] for s in tiles.head["scenes"]}
        for name, shown in show_tiles(tiles, names):
            when = dates.get(name)
            times = _times([when] if when else [], None, True)
            targets.append(_target(name, path, times, shown, wish, head))
    taken: dict[str, int] = {}
    unique = []
    for target in targets:
        n = taken[target.name] = taken.get(target.name, 0) + 1
        unique.append(target if n == 1 else _renamed(target, n))
    return unique, scene_inputs(list(sets), [], "tiles")


def check_tiles(path: str, tiles: Tiles, head: dict[str, Any]) -> None:
    """Refuse tiles of other sensors, bands or dates than those that the model was trained on."""
    have = {one["name"]: one for one in tiles.head["sensors"]}
    for one in head["sensors"]:
        got = have.get(one["name"])
        if got is None and is_embeddings(path):
            raise GeomlError(
                f"{path}: embeddings of another encoder, or normalised otherwise, than those that the model"
                " was trained on; embed with --as the file of its training"
            )
        if got is None:
            raise GeomlError(f"{path}: no sensor {one['name']}; it has {', '.join(have)}")
        bands = [[b["name"] for b in side["bands"]] for side in (got, one)]
        if bands[0] != bands[1] or got["frames"] != one["frames"]:
            raise GeomlError(
                f"{path}: {one['name']} has bands {', '.join(bands[0])} of {got['frames']} date(s), the model"
                f" was trained on {', '.join(bands[1])} of {one['frames']}"
            )
        if one["gsd_m"] and got["gsd_m"] and abs(got["gsd_m"] / one["gsd_m"] - 1) > contract.NEAR:
            raise GeomlError(
                f"{path}: pixels of {got['gsd_m']:.4g} m, the model was trained on {one['gsd_m']:.4g} m;"
                " cut them with --resolution"
            )


def _renamed(target: Target, n: int) -> Target:
    return replace(target, name=f"{target.name}-{n}", id=f"{target.id}-{n}")


def _target(
    name: str, path: str, times: dict[str, Any], shown: Any, wish: Wish, head: dict[str, Any]
) -> Target:
    grid = shown.grid
    ratio = contract.ratio_of(grid, head["gsd_m"])
    work = contract.shrunk(grid, ratio)
    shown = shown if ratio == 1 else shown.on(work)
    rim: str | None = "reflect"
    if head["aim"]["per"] == "tile":
        laid = Lattice(
            lattice.tiles(work.height, head["window"]),
            lattice.tiles(work.width, head["window"]),
            per_tile=True,
        )
        t, rim = work.transform, None
        size = head["window"]
        coarse = type(t)(t.a * size, 0.0, t.c, 0.0, t.e * size, t.f)
        grid = Grid(grid.crs, coarse, *laid.shape)
    elif head.get("step"):
        step, t, rim = head["step"], work.transform, "reflect" if head["halo"] is None else None
        laid = lattice.patches(
            (work.height, work.width),
            step,
            halo=head["halo"],
            stride=head["stride"],
            window=wish.window or head["window"],
            given=wish.window is not None,
        )
        coarse = type(t)(t.a * step, 0.0, t.c, 0.0, t.e * step, t.f)
        grid = Grid(grid.crs, coarse, *laid.shape)
    else:
        blend = head["blend"]
        laid = lattice.lay(
            (grid.height, grid.width),
            ratio,
            halo=head["halo"],
            stride=head["stride"],
            blend=(blend["window"], blend["overlap"]) if blend else None,
            window=wish.window,
        )
        rim = blend["rim"] if blend else rim
    keep = Window(0, 0, grid.height, grid.width)
    located = bool(head.get("network", {}).get("location_encoder"))
    fills = head["aim"].get("fills", False)
    return Target(
        _file_name(name), name, path, times, shown, grid, laid, keep, rim,
        located=located, fills=fills,
    )  # fmt: skip


def _within(target: Target, area: shapely.Geometry | None) -> Target | None:
    """The target with only the ground in a CRS84 area; None where there is none."""
    if area is None:
        return target
    if not target.grid.placed:
        raise GeomlError(f"{target.path}: no CRS, so it is not known what of it lies in --aoi")
    keep = cover(area, target.grid)
    if keep is None:
        return None
    west, south, east, north = shapely.bounds(area)
    bent = shapely.segmentize(area, max(east - west, north - south, 1e-9) / 256)
    flat = shapely.make_valid(project(bent, LONLAT, target.grid.crs))
    return replace(target, keep=keep, area=flat)


def _times(dates: Sequence[str], scene: Scene | None, alone: bool) -> dict[str, Any]:
    """Time fields of a STAC Item; STAC wants some, and an undated raster may be of any."""
    if alone and scene and scene.datetime:
        spans = ("start_datetime", "end_datetime")
        kept = {k: v for k, v in scene.properties.items() if k in spans}
        return {"datetime": scene.datetime, **kept}
    if len(set(dates)) == 1:
        return {"datetime": dates[0]}
    span = (min(dates), max(dates)) if dates else UNDATED
    return {"datetime": None, "start_datetime": span[0], "end_datetime": span[1]}


def _file_name(name: str) -> str:
    safe = re.sub(r"[^\w.\-]+", "_", name).strip("._") or "map"
    return safe[:120]
