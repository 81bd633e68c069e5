"""From cut shards to a tile set: the index, the statistics, and what would make training pointless."""

import logging
from collections.abc import Sequence
from typing import Any

import geopandas
import numpy as np
import pandas

from geoml_cli.errors import GeomlError, NothingMatched
from geoml_cli.formats.bands import Band
from geoml_cli.formats.tileset import INDEX, SPLITS
from geoml_cli.formats.vectors import write_vectors
from geoml_cli.geo.apart import leakage
from geoml_cli.geo.bounds import footprints
from geoml_cli.geo.grid import LONLAT, Grid, Window
from geoml_cli.stages.cut import notes_of
from geoml_cli.stages.job import Job
from geoml_cli.stages.sides import parts_for
from geoml_cli.stages.statistics import Tally, summary

Done = Sequence[tuple[list[dict[str, Any]], list[Tally]]]  # rows and counts of each shard, in order
FIRST = ("id", "scene", "datetime", "shard", "row", "window_row", "window_col", "valid")
log = logging.getLogger("geoml")


def finish(job: Job, head: dict[str, Any], done: Done) -> None:
    """Write the index, put the counts into the head, commit."""
    rows = [row for found, _ in done for row in found]
    grids = [Grid.from_dict(place) for place in head["places"]]
    labels = [one.path for one in job.inputs if one.role.startswith("labels")]
    named = labels[0] if labels else job.named
    head = head | {"count": len(rows), "shards": 1 + max((r["shard"] for r in rows), default=-1)}
    check_rows(rows, head, named)
    head["statistics"] = statistics_of(head, done)
    table = index_of(rows, grids, head)
    if head["split"] and head["split"]["kind"] == "random":
        share = leakage(table.geometry.to_numpy(), table["fold"], head["folds"])
        log.warning(
            "--split random: %.0f %% of the test tiles touch ground that trains; scores on them flatter:"
            " --split blocks:8 keeps a distance",
            100 * share,
        )
    if head["format"] != "virtual":
        del head["places"]
    write_vectors(job.part / INDEX, table)
    for number in range(len(done)):
        for note in notes_of(job.part, number):
            note.unlink(missing_ok=True)
    job.commit(head)


def statistics_of(head: dict[str, Any], done: Done) -> dict[str, Any] | None:
    """Statistics of every sensor over the pixels that train; None where none was looked at."""
    found = {}
    for i, sensor in enumerate(head["sensors"]):
        total = Tally()
        for _, tallies in done:
            total.add(tallies[i])
        if total.bins is None and not total.sums:
            return None
        bands = [Band.from_dict(band) for band in sensor["bands"]]
        found[sensor["name"]] = summary(total, bands, sensor["dtype"], members(head))
    return found


def members(head: dict[str, Any]) -> list[tuple[int, int]]:
    """Each member of a model fitted on the set, with the near bits that it holds out."""
    if not head["folds"]:
        return [(0, 0)]  # the counts leave out what does not train
    return [(part.member, part.bits) for part in parts_for(True, head["folds"])]


def check_rows(rows: list[dict[str, Any]], head: dict[str, Any], named: str) -> None:
    """Say what would make training on these tiles pointless."""
    if not rows:
        if head["layers"]:
            raise GeomlError(
                f"{named}: no label lies on valid pixels of the tiles; check its place and CRS, and filters"
            )
        raise NothingMatched(
            "no tile is left: no valid pixel (all nodata), or filters drop them all"
        )
    for layer in head["layers"]:
        name = layer["name"]
        if layer["per"] != "pixel":
            _check_sides(rows, name, head)
            continue
        if layer["kind"] == "classes":
            counts = np.sum([row[f"counts_{name}"] for row in rows], axis=0)
            for one, count in zip(layer["classes"], counts, strict=True):
                if not count:
                    log.warning("class %s: no labelled pixel lies on the scenes", one["name"])
        if head["split"]:
            by_fold = np.sum([row[f"fold_labelled_{name}"] for row in rows], axis=0)
            for fold, count in enumerate(by_fold):
                if not count:
                    raise GeomlError(
                        f"{_side(fold, head)} has no labelled pixel; use fewer folds, more blocks or another --seed"
                    )


def _check_sides(rows: list[dict[str, Any]], name: str, head: dict[str, Any]) -> None:
    """Labels of whole tiles need tiles that lie on one side as a whole."""
    if not head["split"]:
        return
    seen = {row["fold"] for row in rows if row[name] not in (None, [])}
    for fold in range(head["folds"] or len(SPLITS)):
        if fold not in seen:
            log.warning(
                "%s has no labelled tile that lies on it as a whole; larger blocks, --split random"
                " or --split-by",
                _side(fold, head),
            )


def _side(fold: int, head: dict[str, Any]) -> str:
    return f"fold {fold}" if head["folds"] else f"the {SPLITS[fold]} split"


def index_of(
    rows: list[dict[str, Any]], grids: Sequence[Grid], head: dict[str, Any]
) -> geopandas.GeoDataFrame:
    """index.parquet: one row a tile, geometry in CRS84 cut at the scene's rim, columns in a fixed order."""
    shapes = np.empty(len(rows), object)
    by_place: dict[int, list[int]] = {}
    for i, row in enumerate(rows):
        by_place.setdefault(row["place"], []).append(i)
    for place, mine in by_place.items():
        windows = [_inner(rows[i], grids[place], head["size"]) for i in mine]
        shapes[mine] = footprints(grids[place], windows) if grids[place].placed else None
    table = pandas.DataFrame(rows)
    if head["format"] != "virtual":
        table = table.drop(columns="place")
    table = table[[*(c for c in FIRST if c in table), *sorted(set(table) - set(FIRST))]]
    if "fold" in table:
        table["fold"] = table["fold"].astype("Int16")  # null: the tile lies in several folds
    empty = [c for c in ("cloud", "own") if c in table and not table[c].notna().any()]
    table = table.drop(columns=empty)
    for layer in head["layers"]:
        if layer["per"] != "pixel" and layer["per"] != "present":
            kind = "Int16" if layer["kind"] == "classes" else "float32"
            table[layer["name"]] = table[layer["name"]].astype(kind)
    return geopandas.GeoDataFrame(table, geometry=list(shapes), crs=LONLAT)


def _inner(row: dict[str, Any], grid: Grid, size: int) -> Window:
    """What of a tile lies on its grid."""
    top, left = max(row["window_row"], 0), max(row["window_col"], 0)
    height = min(row["window_row"] + size, grid.height) - top
    return Window(top, left, height, min(row["window_col"] + size, grid.width) - left)
