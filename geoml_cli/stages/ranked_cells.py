"""Ranked cells of queries, held against where these truly are."""

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

import geopandas
import numpy as np
import pandas
import shapely

from geoml_cli import registry
from geoml_cli.errors import GeomlError
from geoml_cli.geo.grid import LONLAT
from geoml_cli.stages.labelled_rows import middles

if TYPE_CHECKING:
    from geoml_cli.stages.evaluate_table import Compared

EQUAL_AREA = "EPSG:6933"


def ranked_cells(
    inputs: Sequence[str], known: geopandas.GeoDataFrame, areas_km2: Sequence[float]
) -> "Compared":
    """Cells and their scores beside the number of the true one; cells of no `query` are those of every row.

    The answers have columns `score`, and `query` (an id of the truth) where each has cells of its own;
    `area_km2` or polygons; `cell` where the truth names cells, else polygons that hold its places.
    """
    from geoml_cli.stages.evaluate_table import Compared

    tables = [_read(one) for one in inputs]
    cells = pandas.concat(tables, ignore_index=True)
    if "score" not in cells:
        raise GeomlError(f"{inputs[0]}: no column score; it has {', '.join(map(str, cells))}")
    km2 = _areas(cells, inputs[0])
    score = cells["score"].to_numpy(float)
    truth, found = [], []
    each = dict(tuple(cells.groupby(cells["query"].astype(str)))) if "query" in cells else None
    for row, place in zip(known.to_dict("records"), middles(known), strict=True):
        mine = cells if each is None else each.get(str(row["id"]), cells.iloc[:0])
        at = mine.index.to_numpy()
        truth.append(_true(mine, row, place, inputs[0]))
        found.append(np.stack([score[at], km2[at]], axis=1))
    most = max(len(one) for one in found)
    guess = np.zeros((len(found), most, 2))
    valid = np.zeros((len(found), most), bool)
    for i, one in enumerate(found):
        guess[i, : len(one)], valid[i, : len(one)] = one, True
    part = registry.load("metrics", "recall-area")
    areas = tuple(areas_km2) or part.AREAS_KM2
    valid[:, 0] = True  # a query without cells counts too
    guess[~valid.any(axis=1)] = 0
    return Compared(
        part,
        np.array(truth),
        guess,
        valid,
        [f"{area:g} km2" for area in areas],
        stats=partial(part.stats, areas_km2=areas),
    )


def _read(path: str) -> pandas.DataFrame:
    """Cells, with polygons or without."""
    if path.lower().endswith(".csv"):
        return pandas.read_csv(path)
    try:
        return geopandas.read_file(path) if path.lower().endswith(".gpkg") else _parquet(path)
    except (ValueError, OSError) as error:
        raise GeomlError(f"{path}: not readable as a table ({error})") from None


def _parquet(path: str) -> pandas.DataFrame:
    try:
        return geopandas.read_parquet(path).to_crs(LONLAT)
    except ValueError:
        return pandas.read_parquet(path)


def _areas(cells: pandas.DataFrame, path: str) -> np.ndarray:
    """Square kilometres (n,) of cells."""
    if "area_km2" in cells:
        return cells["area_km2"].to_numpy(float)
    if "geometry" not in cells:
        raise GeomlError(f"{path}: no column area_km2, and no polygons to measure")
    return (
        geopandas.GeoSeries(cells["geometry"], crs=LONLAT).to_crs(EQUAL_AREA).area.to_numpy() / 1e6
    )


def _true(mine: pandas.DataFrame, row: dict, place: np.ndarray, path: str) -> int:
    """Number of the true cell among a query's, -1 where none is."""
    if "cell" in mine and "cell" in row:
        hit = np.flatnonzero(mine["cell"].astype(str).to_numpy() == str(row["cell"]))
    elif "geometry" in mine:
        hit = np.flatnonzero(shapely.intersects_xy(mine["geometry"].to_numpy(), *place))
    else:
        raise GeomlError(
            f"{path}: no polygons, and no column cell in both tables: which cell is the true one?"
        )
    return int(hit[0]) if len(hit) else -1
