"""Score moved shapes against where they should be."""

import sys
from collections.abc import Sequence
from typing import Any

import geopandas
import numpy as np
import shapely

from geoml_cli.errors import GeomlError, UsageMistake
from geoml_cli.formats.commit import write_text
from geoml_cli.formats.crasar import is_crasar, read_degrees
from geoml_cli.formats.jsonfile import canonical, dumps
from geoml_cli.formats.scores import number, read_scores
from geoml_cli.formats.stamp import Input, read_record, record
from geoml_cli.formats.vectors import digest_vectors, read_vectors
from geoml_cli.geo.bounds import project
from geoml_cli.geo.grid import LONLAT, crs_name
from geoml_cli.geo.offsets import Pairs, explained, iou, middles, redraw, scores
from geoml_cli.manners import Manners
from geoml_cli.stages.gates import drops, failures, judge, parse_gate
from geoml_cli.stages.job import Job, plan

IDS = ("id", "building_id", "fid", "osm_id")
AREAL = {"Polygon", "MultiPolygon"}
HIGH = ("iou", "relative_gain", "share_above_05", "share_above_08")


def evaluate_alignment(
    files: Sequence[str],
    truth: str | None,
    out: str | None,
    *,
    before: str | None,
    layer: str | None,
    blocks: int,
    draws: int,
    seed: int,
    report: str | None,
    fail_if: Sequence[str],
    baseline: str | None,
    max_drop: float | None,
    manners: Manners,
) -> dict[str, Any]:
    """Score one file of moved shapes and give the scores."""
    if len(files) != 1 or truth is None:
        raise UsageMistake(
            "--task alignment: one file of moved shapes, and --truth FILE where they belong"
        )
    if report:
        raise UsageMistake("--report: is of maps; the scores of an alignment are the JSON file")
    if out is not None and not out.endswith(".json"):
        raise UsageMistake(f"-o {out}: scores are one JSON file; name it scores.json")
    if max_drop is not None and not baseline:
        raise UsageMistake("--max-drop needs earlier scores to compare with: --baseline old.json")
    old = read_scores(baseline) if baseline else None
    if old:  # of what is left, lower is better
        old["metrics"] = {k: v for k, v in old["metrics"].items() if k in HIGH}
    roles = [("moved", files[0]), ("truth", truth), *([("before", before)] if before else [])]
    inputs = [Input(path, role, digest_vectors(path)) for role, path in roles]
    arguments = {
        "task": "alignment",
        "layer": layer,
        "blocks": blocks,
        "bootstrap": draws,
        "seed": seed,
    }
    if manners.dry_run:
        plan(manners, [f"hold {files[0]} against {truth}", f"write {out or 'to stdout alone'}"])
        return {}

    def work() -> dict[str, Any]:
        return score_files(files[0], truth, before, layer, blocks, draws, seed)

    if out is None:
        found = work()
        found["geoml"] = record("evaluate", "scores", arguments, inputs)
        sys.stdout.write(canonical(found).decode() + "\n" if manners.ndjson else dumps(found))
        sys.stdout.flush()
    else:
        with Job("evaluate", out, "scores", None, arguments, inputs, manners) as job:
            if job.done:
                found = read_scores(job.out)
            else:
                found = work()
                found["geoml"] = job.record
                built = job.part / job.out.name
                write_text(built, dumps(found))
                job.commit_file(built)
        job.report([out], [{"path": out, **found}], metrics=found["metrics"])
    from geoml_cli.stages.evaluate import show

    show(found, manners)
    gates = [parse_gate(text, list(found["metrics"]), []) for text in fail_if]
    judge(
        failures(gates, found) + (drops(old, found, max_drop or 0.0, str(baseline)) if old else [])
    )
    return found


def score_files(
    moved: str,
    truth: str,
    before: str | None,
    layer: str | None,
    blocks: int,
    draws: int,
    seed: int,
) -> dict[str, Any]:
    """The scores document of three files, without its record."""
    after, right = read_shapes(moved, None), read_shapes(truth, layer)
    rows, there = matched(after, right, moved, truth)
    first = unmoved(after)
    if before:
        old = read_shapes(before, None)
        mine, theirs = matched(after, old, moved, before)
        first = np.full(len(after), None, object)
        first[mine] = old.geometry.to_numpy()[theirs]
        both = np.isin(rows, mine)
        rows, there = rows[both], there[both]
    pairs = in_metres(
        right.geometry.to_numpy()[there],
        None if first is None else first[rows],
        after.geometry.to_numpy()[rows],
    )
    gsd_m = ((read_record(moved) or {}).get("alignment") or {}).get("gsd_m")
    return document(pairs, gsd_m, len(after) - len(rows), first is not None, blocks, draws, seed)


def read_shapes(path: str, layer: str | None) -> geopandas.GeoDataFrame:
    """Shapes in degrees (CRS84), of a vector file or of CRASAR's JSON."""
    if is_crasar(path):
        plain, degrees = read_degrees(path)
        closed = all(len(d) > 3 and np.allclose(d[0], d[-1]) for d in degrees)
        shapes = [shapely.Polygon(d) if closed else shapely.LineString(d) for d in degrees]
        told = [o.get("alignment") or {} for o in plain]
        columns = {k: [o.get(k) for o in plain] for k in IDS if all(k in o for o in plain)}
        columns |= {
            k: [o.get(k) for o in told] for k in ("dx_m", "dy_m") if all(k in o for o in told)
        }
        return geopandas.GeoDataFrame(columns, geometry=shapes, crs=LONLAT)
    table = read_vectors(path, (), layer)
    shapes = project(
        shapely.force_2d(table.geometry.to_numpy()), crs_name(table.crs.to_wkt()), LONLAT
    )
    return table.set_geometry(geopandas.GeoSeries(shapes, table.index, LONLAT))


def matched(
    a: geopandas.GeoDataFrame, b: geopandas.GeoDataFrame, name: str, other: str
) -> tuple[np.ndarray, np.ndarray]:
    """Rows of two tables that are of one thing: by a column of ids, or by their order."""
    for key in IDS:
        if key in a and key in b and a[key].is_unique and b[key].is_unique:
            where = {str(v): i for i, v in enumerate(b[key])}
            pairs = [(i, where[str(v)]) for i, v in enumerate(a[key]) if str(v) in where]
            if pairs:
                rows, there = np.array(pairs).T
                return rows, there
    if len(a) != len(b):
        raise GeomlError(
            f"{name} has {len(a)} shapes, {other} has {len(b)}, and no column of ids is in both; add one called id"
        )
    return np.arange(len(a)), np.arange(len(b))


def unmoved(after: geopandas.GeoDataFrame) -> np.ndarray | None:
    """Where shapes were, by the columns that `geoml align` adds; None where there are none."""
    if not {"dx_m", "dy_m"} <= set(after.columns):
        return None
    shapes = after.geometry.to_numpy()
    crs = _local(shapes)
    flat = project(shapes, LONLAT, crs)
    back = -after[["dx_m", "dy_m"]].to_numpy(float)
    xy, owner = shapely.get_coordinates(flat, return_index=True)
    return np.asarray(project(shapely.set_coordinates(flat.copy(), xy + back[owner]), crs, LONLAT))


def _local(shapes: np.ndarray) -> str:
    """A CRS in metres about shapes in degrees."""
    west, south, east, north = shapely.total_bounds(shapes)
    if east - west > 20 or north - south > 20:
        raise GeomlError("shapes lie over more than 20 degrees; score them place by place")
    return f"+proj=aeqd +lat_0={(south + north) / 2:.6f} +lon_0={(west + east) / 2:.6f} +units=m"


def in_metres(truth: np.ndarray, before: np.ndarray | None, after: np.ndarray) -> Pairs:
    """Shapes in degrees as pairs in metres; where nothing is known of before, as if nothing was moved."""
    kinds = {one.geom_type for one in (*truth, *after)}
    areal = kinds <= AREAL
    if not areal and kinds & AREAL:
        raise GeomlError("one file holds polygons, the other lines")
    crs = _local(truth)
    flat = [
        project(one, LONLAT, crs) for one in (truth, after if before is None else before, after)
    ]
    if areal:
        flat = [np.where(shapely.is_valid(one), one, shapely.buffer(one, 0)) for one in flat]
    error = _apart(flat[0], flat[2], areal)
    right, was, now = flat
    return Pairs(right, was, now, error, middles(right) - middles(was), areal)


def _apart(truth: np.ndarray, after: np.ndarray, areal: bool) -> np.ndarray:
    """How far shapes are off (n,): centroids of polygons, of lines the mean over their vertices."""
    if areal:
        return np.hypot(*(middles(truth) - middles(after)).T)
    out = []
    for a, b in zip(truth, after, strict=True):
        one, two = shapely.get_coordinates(a), shapely.get_coordinates(b)
        if len(one) != len(two):
            return np.asarray(shapely.hausdorff_distance(truth, after))
        out.append(np.hypot(*(one - two).T).mean())
    return np.array(out)


def document(
    pairs: Pairs,
    gsd_m: float | None,
    left_out: int,
    known: bool,
    blocks: int,
    draws: int,
    seed: int,
) -> dict[str, Any]:
    """Scores with intervals, in metres and, where the pixel is known, in pixels."""
    none = np.zeros(len(pairs.truth))
    was = iou(pairs.truth, pairs.before) if pairs.areal else none
    now = iou(pairs.truth, pairs.after) if pairs.areal else none
    said = scores(pairs, was, now)
    spans = redraw(pairs, was, now, blocks, draws, seed)
    if known:
        said |= explained(pairs)
    else:
        for key in (
            "offset_mean_m",
            "circular_variance",
            "length_variation",
            "iou_before",
            "relative_gain",
        ):
            said.pop(key, None)
    metrics = {}
    for key, value in said.items():
        low, high = spans.get(key, (float("nan"), float("nan")))
        names = {key: 1.0}
        if gsd_m and key.endswith("_m"):
            names[f"{key[:-2]}_px"] = 1 / gsd_m
        for name, unit in names.items():
            metrics[name] = {
                "value": number(value * unit),
                "lo": number(low * unit),
                "hi": number(high * unit),
                "n": len(pairs.truth),
            }
    return {
        "metrics": metrics,
        "classes": {},
        "confusion": {"names": [], "matrix": []},
        "scored": {
            "n": len(pairs.truth),
            "left_out": {"unmatched": left_out},
            "bootstrap": draws,
            "seed": seed,
            "gsd_m": gsd_m,
            "before": known,
        },
    }
