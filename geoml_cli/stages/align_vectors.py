"""Move polygons and lines onto the imagery that they were drawn for."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from scipy.spatial import cKDTree

from geoml_cli.errors import GeomlError, UsageMistake
from geoml_cli.formats.crasar import is_crasar
from geoml_cli.formats.raster import Raster, describe, opened
from geoml_cli.formats.stamp import Input
from geoml_cli.formats.vectors import digest_vectors
from geoml_cli.geo.displacements import Scales
from geoml_cli.geo.grid import Grid
from geoml_cli.geo.metric import pixel_m
from geoml_cli.geo.overlaps import new_overlaps
from geoml_cli.manners import Manners
from geoml_cli.stages.align_levels import GIVEN, GIVEN_PX, NEIGHBOURS, RIGHT, STAYED, Found, find
from geoml_cli.stages.align_shapes import (
    Source,
    check_out,
    metres,
    read_adjustments,
    read_source,
    write_source,
)
from geoml_cli.stages.align_things import Polygons, Roads, Things
from geoml_cli.stages.inputs import digest_source
from geoml_cli.stages.job import Job, plan

CUSTOM = "custom"
ROOM = 3.0  # standard deviations that a shape gives way to others
ROAD_M = 8.0  # width of roads whose rims are not looked for
log = logging.getLogger("geoml")


def run(
    moving: Sequence[str],
    reference: str,
    out: str,
    manners: Manners,
    *,
    adjustments: str | None = None,
    confidence: float | None = None,
    reach: float | None = None,
    road_width: float | None = None,
    layer: str | None = None,
) -> None:
    """Align a vector file, or CRASAR's JSON, to a raster; `reach` in pixels, `road_width` in metres."""
    if len(moving) != 1:
        raise UsageMistake(
            "one vector file a run: it is moved as a whole, neighbours tell neighbours"
        )
    path = moving[0]
    check_out(out, path, is_crasar(path))
    ortho = describe(reference)
    source = read_source(path, layer, ortho.grid)
    arguments = {
        "confidence": confidence,
        "reach": reach,
        "road_width": road_width,
        "layer": layer,
    }
    inputs = [
        Input(path, "moving", digest_vectors(path)),
        Input(reference, "reference", digest_source(reference)),
    ]
    arrows = np.zeros((0, 2, 2))
    if adjustments:
        arrows = read_adjustments(adjustments, None, ortho.grid)
        inputs.append(Input(adjustments, "adjustments", digest_vectors(adjustments)))
    check_place(source, ortho.grid, reference)
    if source.roads and road_width is None and not len(arrows):
        raise UsageMistake(
            f"{path}: roads are moved by --adjustments FILE; or give --road-width M to look for their rims"
        )
    if manners.dry_run:
        plan(manners, say_plan(source, ortho, len(arrows), out))
        return
    summary: dict[str, Any] = {}
    with Job("align", out, "vectors", None, arguments, inputs, manners) as job:
        if not job.done:
            moved, told, summary = move(
                source, ortho, arrows, confidence, reach, road_width, job.part, job.check
            )
            built = job.part / f"moved{Path(out).suffix.lower()}"
            write_source(
                built, source, moved, told, ortho.grid, job.record | {"alignment": summary}
            )
            log.info("%s", say(summary))
            job.commit_file(built)
    job.report([job.named], [{"path": job.named, **summary}], **summary)


def check_place(source: Source, grid: Grid, reference: str) -> None:
    """Refuse shapes of which none lies on the ortho."""
    box = shapely.bounds(source.shapes)
    inside = (
        (box[:, 2] > 0) & (box[:, 3] > 0) & (box[:, 0] < grid.width) & (box[:, 1] < grid.height)
    )
    if not inside.any():
        raise GeomlError(f"{source.path}: no shape lies on {reference}; is it the right ortho?")


def say_plan(source: Source, ortho: Raster, arrows: int, out: str) -> list[str]:
    """Lines for --dry-run."""
    kind = "lines, vertex by vertex," if source.roads else "polygons"
    size = f"{ortho.grid.width} x {ortho.grid.height} px"
    told = f", told by {arrows} adjustments" if arrows else ""
    return [
        f"move {len(source.shapes) - int(source.custom.sum())} {kind} onto {ortho.path}, {size}{told}",
        f"write {out}",
    ]


def things_of(source: Source, free: np.ndarray, grid: Grid, road_width: float | None) -> Things:
    """What is to be moved of a file."""
    if source.roads:
        width = ROAD_M if road_width is None else road_width
        return Roads(source.shapes[free], width / pixel_m(grid))
    return Polygons.of(source.shapes[free])


def move(
    source: Source,
    ortho: Raster,
    arrows: np.ndarray,
    confidence: float | None,
    reach: float | None,
    road_width: float | None,
    folder: Path,
    check: Any,
) -> tuple[np.ndarray, dict[str, np.ndarray], dict[str, Any]]:
    """Moved shapes (n,), columns told of each, and what is said of all."""
    free = ~source.custom
    out = source.shapes.copy()
    told = blank(len(out))
    if not free.any():
        return out, told, {"moved": 0, "shapes": len(out), CUSTOM: len(out)}
    things = things_of(source, free, ortho.grid, road_width)
    given = assign(things, arrows)
    if source.roads and road_width is None:
        found = by_arrows(things, arrows, given)
    else:
        with opened(ortho.path) as dataset:
            found = find(
                things, dataset, ortho, reach_px=reach, confidence=confidence,
                given=given, folder=folder, check=check,
            )  # fmt: skip
    weight = (found.confidence**2 + 1e-6) / found.sd**2  # the sure ones do not give way
    fixed = np.isin(found.status, (GIVEN, RIGHT, STAYED))
    room = np.where(fixed, 0, ROOM * found.sd)
    shift = things.settle(found.shift, weight, room)
    out[free] = things.moved(shift, weight)
    describe_each(told, np.flatnonzero(free), source, out, things, shift, found, ortho.grid)
    summary = summarise(told, found, ortho.grid)
    if not source.roads:
        summary["new_overlaps"] = len(new_overlaps(source.shapes, out))
    return out, told, summary


def blank(count: int) -> dict[str, np.ndarray]:
    """Columns of shapes that are not moved."""
    names = ("dx_px", "dy_px", "dx_m", "dy_m", "sd_px")
    return {name: np.zeros(count) for name in names} | {
        "confidence": np.ones(count),
        "status": np.full(count, CUSTOM, object),
    }


def assign(things: Things, arrows: np.ndarray) -> dict[int, np.ndarray]:
    """Which thing each arrow is of: the one with the nearest corner; the mean of several arrows."""
    if not len(arrows):
        return {}
    if isinstance(things, Polygons):
        corners, owner = shapely.get_coordinates(things.shapes, return_index=True)
        owner = things.body[owner]
    else:
        corners, owner = things.xy, np.arange(things.count)
    mine = owner[cKDTree(corners).query(arrows[:, 0])[1]]
    return {
        int(one): (arrows[mine == one, 1] - arrows[mine == one, 0]).mean(0)
        for one in np.unique(mine)
    }


def by_arrows(things: Things, arrows: np.ndarray, given: dict[int, np.ndarray]) -> Found:
    """Vertices of roads by the nearest arrow of each, as CRASAR moves them; how sure that is, none measured."""
    who = cKDTree(arrows[:, 0]).query(things.xy)[1]
    shift = (arrows[:, 1] - arrows[:, 0])[who]
    status = np.full(things.count, NEIGHBOURS, object)
    sure = np.zeros(things.count)
    status[list(given)], sure[list(given)] = GIVEN, 1.0
    return Found(shift, np.full(things.count, GIVEN_PX), sure, status, Scales(0, 0, 0), [])


def describe_each(
    told: dict[str, np.ndarray],
    rows: np.ndarray,
    source: Source,
    moved: np.ndarray,
    things: Things,
    shift: np.ndarray,
    found: Found,
    grid: Grid,
) -> None:
    """Fill the columns: of a polygon what its thing did, of a line the mean over its vertices."""
    middle = shapely.get_coordinates(shapely.centroid(source.shapes[rows]))
    if isinstance(things, Polygons):
        each = shapely.get_coordinates(shapely.centroid(moved[rows])) - middle
        each[~things.sheet] = shift[things.body[~things.sheet]]
        sd, sure = found.sd[things.body], found.confidence[things.body]
        status = found.status[things.body]
    else:
        each, sd, sure = things.mean(shift), things.mean(found.sd), things.mean(found.confidence)
        status = np.where((each == 0).all(1), STAYED, "moved").astype(object)
    told["dx_px"][rows], told["dy_px"][rows] = each.T
    told["dx_m"][rows], told["dy_m"][rows] = metres(middle, each, grid).T
    told["sd_px"][rows], told["confidence"][rows], told["status"][rows] = sd, sure, status


def summarise(told: dict[str, np.ndarray], found: Found, grid: Grid) -> dict[str, Any]:
    """What is said of all shapes together."""
    names, counts = np.unique(told["status"].astype(str), return_counts=True)
    length = np.hypot(told["dx_px"], told["dy_px"])
    return {
        "shapes": len(length),
        "status": {str(n): int(c) for n, c in zip(names, counts, strict=True)},
        "shift_px": {"mean": float(length.mean()), "most": float(length.max())},
        "shift_m": float(np.hypot(told["dx_m"], told["dy_m"]).mean()),
        "confidence": float(told["confidence"].mean()),
        "gsd_m": pixel_m(grid),
        "reduced": found.factors,
        "field_px": {k: float(v) for k, v in found.scales._asdict().items()},
    }


def say(summary: dict[str, Any]) -> str:
    """One line for people."""
    status = ", ".join(f"{count} {name}" for name, count in summary.get("status", {}).items())
    mean = summary.get("shift_px", {}).get("mean", 0.0)
    anew = summary.get("new_overlaps", 0)
    also = f"; {anew} pairs overlap that did not" if anew else ""
    return f"{summary['shapes']} shapes: {status}; by {mean:.1f} px on average{also}"
