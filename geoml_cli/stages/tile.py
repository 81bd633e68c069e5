"""Cut scenes and labels into tiles: open, lay windows, cut, write, index."""

import json
import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pandas
import shapely
from pyarrow import parquet

from geoml_cli import registry
from geoml_cli.errors import GeomlError, NothingMatched, UsageMistake
from geoml_cli.formats.stamp import Input
from geoml_cli.formats.tileset import INDEX, NAME, SPLITS
from geoml_cli.formats.vectors import write_geoparquet
from geoml_cli.geo.bounds import footprint
from geoml_cli.geo.classes import IGNORE
from geoml_cli.geo.grid import LONLAT, Bounds, Grid, Window
from geoml_cli.geo.splits import Lattice, assign, portion
from geoml_cli.manners import Manners
from geoml_cli.stages.cut import LAYER, SENSOR, Shard, cut, notes_of
from geoml_cli.stages.inputs import check_local, expand, read_scenes, scene_inputs
from geoml_cli.stages.job import Job, plan
from geoml_cli.stages.labels import Labels
from geoml_cli.stages.stack import Stack, agree, stack_of
from geoml_cli.stages.units import map_units

SHARD_BYTES = 1 << 26
MAX_FOLDS = 32
log = logging.getLogger("geoml")


def run(
    inputs: list[str],
    out: str,
    *,
    labels: str | None = None,
    label_column: str | None = None,
    label_layer: str | None = None,
    all_touched: bool = False,
    bands: str | None = None,
    size: int = 128,
    stride: int | None = None,
    sampler: str = "grid",
    split: str = "none",
    folds: int = 0,
    buffer: int = 8,
    min_valid: float = 0.0,
    min_labelled: int | None = None,
    seed: int = 0,
    manners: Manners = Manners(),
) -> None:
    """Write a tile set; see `geoml tile --help` for what each argument means."""
    stride = stride or size
    blocks = parse_split(split, folds)
    registry.parse("samplers", sampler)
    named = expand(inputs)
    check_local(named)
    label_file = Labels(labels, label_column, label_layer, all_touched) if labels else None
    scenes = read_scenes(named)
    stacks = agree([stack_of(scene) for scene in scenes], bands.split(",") if bands else [])
    least = min_labelled if min_labelled is not None else int(label_file is not None)
    arguments = {
        "bands": bands,
        "label_column": label_column,
        "label_layer": label_layer,
        "all_touched": all_touched,
        "size": size,
        "stride": stride,
        "sampler": sampler,
        "split": split,
        "folds": folds,
        "buffer": buffer,
        "min_valid": min_valid,
        "min_labelled": least,
        "seed": seed,
    }
    sources = scene_inputs(named, scenes)
    if label_file:
        sources.append(Input(label_file.path, "labels", label_file.digest()))
    lattice = lay_lattice(stacks, blocks, folds, buffer, seed) if blocks else None
    tiles = draw_windows(stacks, sampler, size, stride, seed)
    if manners.dry_run:
        plan(manners, say_plan(stacks, tiles, size, out))
        return
    with Job("tile", out, "tiles", NAME, arguments, sources, manners) as job:
        if not job.done:
            shards = lay_shards(
                job.part, stacks, tiles, size, label_file, lattice, min_valid, least
            )
            done = list(map_units(cut, shards, manners.jobs, job.check))
            rows = [row for found in done for row in found]
            head = describe_set(stacks, label_file, arguments, lattice, rows)
            check_rows(rows, head, labels)
            write_index(job.part / INDEX, rows, stacks, size)
            for shard in shards:
                notes_of(job.part, shard.number).unlink()
            job.commit(head)
    job.report([job.stamp], _records(job.out, job.named) if manners.ndjson else ())


def parse_split(split: str, folds: int) -> int:
    """Blocks a side of `blocks:N`; 0 for `none`."""
    kind, _, count = split.partition(":")
    if kind == "none" and not count:
        if folds:
            raise UsageMistake("--folds needs blocks to deal out: --split blocks:8")
        return 0
    if kind != "blocks" or not count.isdigit() or int(count) < 2:
        raise UsageMistake(f"--split {split!r}: write blocks:8 (8 x 8 blocks) or none")
    if folds and not 3 <= folds <= MAX_FOLDS:
        raise UsageMistake(f"--folds {folds}: from 3 (train, validation, test) to {MAX_FOLDS}")
    return int(count)


def lay_lattice(stacks: list[Stack], blocks: int, folds: int, buffer_px: int, seed: int) -> Lattice:
    """Blocks over the bounds of all scenes, in the first scene's CRS; the buffer in its pixels."""
    grid = stacks[0].grid
    corners = []
    for stack in stacks:
        corners.append(stack.grid.outline(grid.crs))
    xy = np.concatenate(corners)
    bounds = Bounds(*xy.min(axis=0).tolist(), *xy.max(axis=0).tolist())
    pixel = max(abs(grid.transform.a), abs(grid.transform.e))
    side = min(bounds.east - bounds.west, bounds.north - bounds.south) / blocks
    if buffer_px * pixel >= side / 2:
        raise UsageMistake(
            f"--buffer {buffer_px}: blocks are {side / pixel:.0f} px a side, no ground would be left to train on;"
            " fewer blocks or a smaller buffer"
        )
    dealt = assign(blocks, folds, seed) if folds else portion(blocks, (0.7, 0.15, 0.15), seed)
    return Lattice(grid.crs, bounds, dealt, buffer_px * pixel)


def draw_windows(
    stacks: list[Stack], sampler: str, size: int, stride: int, seed: int
) -> list[tuple[int, Window]]:
    """Windows of every scene in order, each with the position of its stack."""
    name, chosen = registry.parse("samplers", sampler)
    draw = registry.load("samplers", name).draw
    tiles = []
    for i, stack in enumerate(stacks):
        rng = np.random.Generator(np.random.PCG64([seed, i]))
        shape = (stack.grid.height, stack.grid.width)
        tiles += [(i, window) for window in draw(shape, size, stride, rng, **chosen)]
    if not tiles:
        raise NothingMatched(f"no tile of {size} px fits; the scenes are smaller: lower --size")
    return tiles


def lay_shards(
    part: Path,
    stacks: list[Stack],
    tiles: list[tuple[int, Window]],
    size: int,
    labels: Labels | None,
    lattice: Lattice | None,
    min_valid: float,
    min_labelled: int,
) -> list[Shard]:
    """Deal the windows into shards of about 64 MiB of pixels, whatever filters drop later."""
    each = len(stacks[0].bands) * size * size * np.dtype(stacks[0].dtype).itemsize
    count = max(1, SHARD_BYTES // each)
    burns = [labels.on(stack.grid) for stack in stacks] if labels else None
    shards = []
    for number, start in enumerate(range(0, len(tiles), count)):
        chosen = tiles[start : start + count]
        used = sorted({i for i, _ in chosen})
        shards.append(
            Shard(
                str(part),
                number,
                tuple((used.index(i), window) for i, window in chosen),
                tuple(stacks[i] for i in used),
                tuple(burns[i] for i in used) if burns else None,
                len(labels.classes) if labels else 0,
                lattice,
                min_valid,
                min_labelled,
            )
        )
    return shards


def describe_set(
    stacks: list[Stack],
    labels: Labels | None,
    arguments: dict[str, Any],
    lattice: Lattice | None,
    rows: list[dict[str, Any]],
) -> dict[str, Any]:
    """The content of tileset.json."""
    first = stacks[0]
    return {
        "sensors": [
            {
                "name": SENSOR,
                "bands": [band.to_dict() for band in first.bands],
                "dtype": first.dtype,
                "gsd_m": first.grid.gsd_m(),
                "frames": 1,
            }
        ],
        "layers": [
            {"name": LAYER, "ignore": IGNORE, "classes": [c.to_dict() for c in labels.classes]}
        ]
        if labels
        else [],
        "size": arguments["size"],
        "stride": arguments["stride"],
        "count": len(rows),
        "shards": 1 + max((row["shard"] for row in rows), default=-1),
        "split": lattice.to_dict() if lattice else None,
        "folds": arguments["folds"],
        "scenes": [{"id": s.scene, "datetime": s.datetime, **s.grid.to_dict()} for s in stacks],
    }


def check_rows(rows: list[dict[str, Any]], head: dict[str, Any], labels: str | None) -> None:
    """Say what would make training on these tiles pointless."""
    if not rows:
        if labels:
            raise GeomlError(
                f"{labels}: no label lies on valid pixels of the scenes; check its place and CRS"
            )
        raise NothingMatched("the scenes hold no valid pixel (all nodata); nothing to cut")
    if not labels:
        return
    names = [c["name"] for c in head["layers"][0]["classes"]]
    counts = np.sum([row["counts"] for row in rows], axis=0)
    for name, count in zip(names, counts, strict=True):
        if not count:
            log.warning("class %s: no labelled pixel lies on the scenes", name)
    if head["split"]:
        per_fold = np.sum([row["fold_counts"] for row in rows], axis=0)  # (folds, classes)
        for fold, count in enumerate(per_fold.sum(axis=1)):
            if not count:
                what = f"fold {fold}" if head["folds"] else f"the {SPLITS[fold]} split"
                raise GeomlError(
                    f"{what} has no labelled pixel; use fewer folds, more blocks or another --seed"
                )


def write_index(path: Path, rows: list[dict[str, Any]], stacks: list[Stack], size: int) -> None:
    """Write index.parquet: one row a tile, geometry in CRS84, columns in a fixed order."""
    grids = {stack.scene: stack.grid for stack in stacks}
    shapes = [_ground(grids[row["scene"]], row, size) for row in rows]
    table = pandas.DataFrame(rows)
    if "fold" in table:
        table["fold"] = table["fold"].astype("Int16")  # null: the tile lies in several folds
    write_geoparquet(path, geopandas.GeoDataFrame(table, geometry=shapes, crs=LONLAT))


def _ground(grid: Grid, row: dict[str, Any], size: int) -> shapely.Geometry:
    """Footprint of a tile, cut at the scene's rim."""
    top, left = max(row["window_row"], 0), max(row["window_col"], 0)
    height = min(row["window_row"] + size, grid.height) - top
    width = min(row["window_col"] + size, grid.width) - left
    return footprint(grid.crop(Window(top, left, height, width)).outline())


def say_plan(
    stacks: list[Stack], tiles: list[tuple[int, Window]], size: int, out: str
) -> Iterable[str]:
    """Lines for --dry-run."""
    each = len(stacks[0].bands) * size * size * np.dtype(stacks[0].dtype).itemsize
    yield f"read {len(stacks)} scene(s), bands {', '.join(b.name for b in stacks[0].bands)}"
    yield f"write up to {len(tiles)} tiles of {size} x {size} px, {len(tiles) * each / 1e6:.1f} MB, to {out}"


def _records(folder: Path, named: str) -> Iterable[dict[str, Any]]:
    for row in parquet.read_table(folder / INDEX).to_pylist():
        shape = json.loads(shapely.to_geojson(shapely.from_wkb(row.pop("geometry"))))
        href = f"{named}/images-{SENSOR}-{row['shard']:05d}.npy#{row['row']}"
        yield {"id": row["id"], "href": href, "geometry": shape, "properties": row}
