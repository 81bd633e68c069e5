"""From what was asked for to a layout: scenes opened, layers, places, split, windows."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import geopandas

from geoml_cli import registry
from geoml_cli.errors import UsageMistake
from geoml_cli.formats.stamp import Input
from geoml_cli.formats.vectors import read_vectors
from geoml_cli.formats.views import RESAMPLING
from geoml_cli.geo.field import Pick
from geoml_cli.geo.grid import Grid, Window
from geoml_cli.geo.snap import Target
from geoml_cli.stages import split as splits
from geoml_cli.stages.balanced import block_counts
from geoml_cli.stages.cut_plan import Wanted
from geoml_cli.stages.drawn import draw_picks, sampler_inputs
from geoml_cli.stages.grids import target_of
from geoml_cli.stages.inputs import (
    Scene,
    check_local,
    digest_source,
    expand,
    read_scenes,
    scene_inputs,
)
from geoml_cli.stages.kept import try_where
from geoml_cli.stages.labels import is_raster
from geoml_cli.stages.layers import LabelWords, Layered, holds_masks, open_layers, wishes_of
from geoml_cli.stages.layout import Layout
from geoml_cli.stages.place import Frames, Place, count_frames, lay_places
from geoml_cli.stages.stack import Stack, agree, stack_of
from geoml_cli.stages.tiling import (
    check_frames,
    frames_of,
    length,
    named_values,
    pixels,
    side,
    value_for,
)

FORMATS = ("npy", "gtiff", "virtual")
SENSOR = "image"
WHOLE = "whole"  # for --size: every raster is one tile


@dataclass(frozen=True)
class Order:
    """What `geoml tile` was asked for, as it was given."""

    inputs: list[str]
    beside: Sequence[str]
    bands: Sequence[str]
    frames: str | None
    within: float | None
    crs: str | None
    resolution: float | None
    like: str | None
    resampling: str
    words: LabelWords
    all_touched: bool
    folder_classes: bool
    size: str
    stride: str | None
    sampler: str
    split: str | None
    split_by: str | None
    folds: int
    buffer: str
    min_valid: float
    min_labelled: int | None
    max_cloud: float | None
    where: str | None
    format: str
    seed: int


def lay(order: Order) -> tuple[Layout, dict[str, Any], list[Input]]:
    """Lay a tile set out: the layout, the arguments that change bytes, what is read."""
    wishes = wishes_of(order.words, order.all_touched)
    split = order.split or ("auto" if wishes else "none")
    _check(order, split)
    sampler, files = sampler_inputs(order.sampler)
    named = expand(order.inputs)
    others = named_values(order.beside, "--with", SENSOR)
    check_local([*named, *others.values()])
    target = target_of(order.crs, order.resolution, order.like)
    chips = order.size == WHOLE or order.folder_classes or any(holds_masks(w.path) for w in wishes)
    scenes = {SENSOR: read_scenes(named, loose=True, pictures=chips)}
    for name, path in others.items():
        if name == SENSOR:
            raise UsageMistake(f"--with {path}: name the sensor: --with NAME={path}")
        scenes[name] = read_scenes([path], loose=True)
    layers = open_layers(wishes, order.folder_classes, scenes[SENSOR])
    stacks = [_stacks(found, name, list(scenes), order, target) for name, found in scenes.items()]
    size, stride = _sizes(order, stacks[0], target)
    frames = frames_of(order.frames, order.within, stacks[0])
    places = lay_places(stacks, target, frames, stride)
    number, unit = length(order.buffer, "--buffer")
    wish = splits.SplitWish(
        split, order.split_by, order.folds, number, unit, size, _features(order, wishes)
    )
    dealt = _deal(wish, places, layers, order.seed)
    if order.size == WHOLE:
        picks = [Pick(i, Window(0, 0, *size), None) for i in range(len(places))]
    else:
        picks = draw_picks(places, layers, order.sampler, size, stride, order.seed)
    least = order.min_labelled if order.min_labelled is not None else int(bool(layers))
    layout = Layout(
        places=places,
        sensors=[_sensor(name, i, places, frames, order) for i, name in enumerate(scenes)],
        frames=frames,
        layers=layers,
        split=dealt,
        folds=splits.folds_of(wish, dealt),
        size=size,
        stride=stride,
        picks=picks,
        format=order.format,
        wanted=Wanted(order.min_valid, least, order.max_cloud, order.where),
    )
    if order.where:
        try_where(layout.plan(""), order.where)
    arguments = {
        "bands": list(order.bands),
        "frames": order.frames,
        "within": order.within,
        "crs": order.crs,
        "resolution": order.resolution,
        "resampling": order.resampling,
        **{k: list(v) for k, v in vars(order.words).items() if k not in ("labels", *FILES)},
        "all_touched": order.all_touched,
        "folder_classes": order.folder_classes,
        "size": order.size,
        "stride": order.stride,
        "sampler": sampler,
        "split": None if splits.inputs(wish) else order.split,
        "split_by": order.split_by,
        "folds": order.folds,
        "buffer": order.buffer,
        "min_valid": order.min_valid,
        "min_labelled": order.min_labelled,
        "max_cloud": order.max_cloud,
        "where": order.where,
        "format": order.format,
        "seed": order.seed,
    }
    sources = scene_inputs(named, scenes[SENSOR])
    for name, path in others.items():
        sources += scene_inputs([path], scenes[name], f"with={name}")
    for layer in layers:
        sources += layer.inputs()
    sources += [*splits.inputs(wish), *files]
    sources += [Input(order.like, "like", digest_source(order.like))] if order.like else []
    return layout, arguments, sources


FILES = ("label_area", "classes")  # options about labels that name files: among the inputs


def _check(order: Order, split: str) -> None:
    """Refuse what is wrong whatever the files hold."""
    if order.format not in FORMATS:
        raise UsageMistake(f"--format {order.format}: write {', '.join(FORMATS)}")
    if order.resampling not in RESAMPLING:
        raise UsageMistake(f"--resampling {order.resampling}: write {', '.join(RESAMPLING)}")
    check_frames(order.frames)
    registry.parse("samplers", order.sampler)
    splits.parse(split, order.split_by, order.folds)
    length(order.buffer, "--buffer")
    if order.size != WHOLE:
        side(order.size, "--size")
    if order.stride:
        side(order.stride, "--stride")
    if order.size == WHOLE and (order.stride or order.sampler != "grid"):
        raise UsageMistake("--size whole: every raster is one tile; no --stride or --sampler")


def _stacks(
    scenes: Sequence[Scene],
    name: str,
    names: Sequence[str],
    order: Order,
    target: Target | None,
) -> list[Stack]:
    """The scenes of one sensor as stacks of the same bands; only the first keeps a resolution of its own."""
    text = value_for(order.bands, name, names, "--bands")
    asked = [band.strip() for band in text.split(",")] if text else []
    found = [stack_of(scene, asked, order.resampling) for scene in scenes]
    return agree(found, asked, resized=target is not None or name != names[0])


def _sizes(
    order: Order, stacks: Sequence[Stack], target: Target | None
) -> tuple[tuple[int, int], tuple[int, int]]:
    """Size and stride of tiles, px; metres by the pixels of the first scene."""
    grid = stacks[0].grid
    if order.size == WHOLE:
        longest = max(max(stack.grid.height, stack.grid.width) for stack in stacks)
        return (longest, longest), (longest, longest)
    if target and grid.placed:
        grid = target.grid(grid, None) or grid
    size = pixels(order.size, "--size", grid)
    stride = pixels(order.stride, "--stride", grid) if order.stride else size
    return (size, size), (stride, stride)


def _sensor(
    name: str, i: int, places: Sequence[Place], frames: Frames, order: Order
) -> dict[str, Any]:
    """One sensor as in tileset.json."""
    stack = places[0].shots[i][0].stacks[0]
    count = frames.count if i == 0 else count_frames([p.shots[i] for p in places], frames)
    grid = places[0].grid
    return {
        "name": name,
        "bands": [band.to_dict() for band in stack.bands],
        "dtype": stack.dtype,
        "gsd_m": grid.gsd_m() if grid.placed else None,
        "frames": count,
        "resampling": order.resampling,
    }


def _features(order: Order, wishes: Sequence[Any]) -> geopandas.GeoDataFrame | None:
    """The features of the first label file, where the split goes by a column of them."""
    if not order.split_by:
        return None
    if not wishes or is_raster(wishes[0].path):
        raise UsageMistake(
            f"--split-by {order.split_by}: is a column of the --labels; give a vector file"
        )
    return read_vectors(wishes[0].path, [order.split_by], wishes[0].table)


def _deal(
    wish: splits.SplitWish, places: Sequence[Place], layers: Sequence[Layered], seed: int
) -> Any:
    """The split over the ground of all places; the usual one by what is labelled where."""
    grids: list[Grid] = [place.grid for place in places]
    placed = all(grid.placed for grid in grids)
    kind, _ = splits.parse(wish.split, wish.by, wish.folds)
    if kind != "auto":
        return splits.lay(wish, grids, seed)
    if not placed:
        return None
    weights = block_counts(splits.blocks_of(wish, grids, seed), places, layers)
    return splits.lay(wish, grids, seed, weights)
