"""The features of a label file in burn order, each with its class or value."""

import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas
from pandas.api.types import is_datetime64_any_dtype, is_timedelta64_dtype

from geoml_cli.errors import GeomlError
from geoml_cli.formats.vectors import class_value, read_vectors
from geoml_cli.geo.grid import crs_name

SHOWN = 5  # rows in one message
log = logging.getLogger("geoml")


@dataclass(frozen=True)
class Read:
    """Shapes (n,) in a CRS, and the class names or numbers (float32) of them, in burn order."""

    shapes: np.ndarray
    crs: str
    names: list[str]
    numbers: np.ndarray


def read_features(
    path: str,
    column: str | None,
    layer: str | None,
    order: str | None,
    kind: str,
    *,
    unnamed: bool,
) -> Read:
    """Read a vector file; features without a label are left out with a word on how many.

    Where they may be `unnamed` no column is needed: all are of one class, named `*`.
    """
    if not Path(path).exists() and ("://" in path or path.startswith("/vsi")):
        raise GeomlError(f"{path}: vector labels are local files; fetch or unpack it first")
    table = read_vectors(path, [name for name in (column, order) if name], layer)
    if order:
        try:
            table = table.sort_values(order, kind="stable", na_position="first")
        except TypeError:
            raise GeomlError(
                f"{path}: column {order!r} mixes text and numbers; it sets no burn order"
            ) from None
    if column is None and (kind == "values" or not unnamed):
        have = ", ".join(str(c) for c in table.columns if c != table.geometry.name)
        what = "value" if kind == "values" else "class"
        raise GeomlError(
            f"{path}: which column holds the {what}? give --label-column; it has {have or 'none'}"
            + (", so give a class map with a row *" if kind == "classes" and not have else "")
        )
    numbers: np.ndarray = np.zeros(len(table))
    names: list[str | None] = ["*"] * len(table)
    if kind == "values" and column:
        numbers = _numbers(path, column, table[column])
    elif column:
        names = [class_value(v) for v in table[column]]
    missing = np.isnan(numbers) | np.array([name is None for name in names])
    if missing.any():
        log.warning(
            "%s: %d of %d features have no %s; left out",
            *(path, missing.sum(), len(table), "class" if kind == "classes" else "value"),
        )
    if missing.all():
        raise GeomlError(f"{path}: column {column!r} is empty; no feature has a label")
    kept = table.geometry.to_numpy()[~missing]
    crs, said = crs_name(table.crs.to_wkt()), [name for name in names if name]
    return Read(kept, crs, said, numbers[~missing].astype(np.float32))


def _numbers(path: str, column: str, cells: pandas.Series) -> np.ndarray:
    """A column as numbers, NaN where a cell is empty; what is none is told by row."""
    if is_datetime64_any_dtype(cells) or is_timedelta64_dtype(cells):
        raise GeomlError(f"{path}: column {column!r} holds times, not numbers")
    numbers = pandas.to_numeric(cells, errors="coerce").to_numpy(np.float64, na_value=np.nan)
    with np.errstate(over="ignore"):
        fine = np.isfinite(numbers.astype(np.float32))
    empty = cells.isna().to_numpy() | (cells.astype(str).str.strip() == "").to_numpy()
    bad = np.flatnonzero(~fine & ~empty)
    if len(bad):
        rows = sorted((int(cells.index[i]) + 1, str(cells.iloc[i])) for i in bad)
        shown = ", ".join(f"{row} ({cell!r})" for row, cell in rows[:SHOWN])
        more = f" and {len(rows) - SHOWN} more" if len(rows) > SHOWN else ""
        raise GeomlError(f"{path}: column {column!r} holds no number in row {shown}{more}")
    return np.where(empty, np.nan, numbers)
