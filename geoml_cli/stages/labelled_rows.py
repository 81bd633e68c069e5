"""Labels, places and folds of the rows of embeddings."""

from dataclasses import dataclass

import geopandas
import numpy as np
import pandas

from geoml_cli.errors import GeomlError, UsageMistake
from geoml_cli.geo.rows import lay_blocks
from geoml_cli.geo.splits import Lattice
from geoml_cli.stages.similar import labels_of

MOST = 200  # distinct numbers that are still taken for classes, where they are whole


@dataclass(frozen=True)
class Labels:
    """What is told of rows: class ids (n,) int64, -1 unknown, with `names`; or values (n,), NaN unknown."""

    column: str
    values: np.ndarray
    names: tuple[str, ...]

    @property
    def known(self) -> np.ndarray:
        """Rows (n,) with a label."""
        return self.values >= 0 if self.names else np.isfinite(self.values)

    @property
    def weights(self) -> np.ndarray:
        """Rows of each class (n, K), or all rows that have a value (n, 1)."""
        if not self.names:
            return self.known[:, None].astype(float)
        return (self.values[:, None] == np.arange(len(self.names))).astype(float)


def read_labels(table: pandas.DataFrame, column: str, wanted: str | None = None) -> Labels:
    """Labels of a column: text and whole numbers are classes, numbers with fractions values.

    `wanted` says which they are to be, classes or values.
    """
    text = labels_of(table, column)
    kind = table[column].dtype
    numeric = pandas.api.types.is_numeric_dtype(kind)
    if wanted == "values" and not numeric:
        raise GeomlError(f"column {column}: holds text, not numbers")
    if numeric and (wanted == "values" or not pandas.api.types.is_bool_dtype(kind)):
        numbers = pandas.to_numeric(table[column]).to_numpy(float, na_value=np.nan)
        seen = numbers[np.isfinite(numbers)]
        if not len(seen):
            raise GeomlError(f"column {column}: holds no label")
        numbers = np.where(np.isfinite(numbers), numbers, np.nan)
        fractions = (seen != np.round(seen)).any()
        if wanted == "values" or (wanted is None and (fractions or len(np.unique(seen)) > MOST)):
            return Labels(column, numbers, ())
        if fractions:
            raise GeomlError(f"column {column}: holds fractions, not classes; --task regress")
        text = np.array(["" if np.isnan(v) else str(int(v)) for v in numbers])
    names = sorted(set(text) - {""}, key=lambda s: (not s.lstrip("-").isdigit(), int(s) if s.lstrip("-").isdigit() else 0, s))  # fmt: skip
    if not names:
        raise GeomlError(f"column {column}: holds no label")
    if len(names) > MOST:
        raise GeomlError(f"column {column}: {len(names)} classes; is it an id?")
    ids = {name: i for i, name in enumerate(names)}
    return Labels(column, np.array([ids.get(t, -1) for t in text], np.int64), tuple(names))


def middles(table: geopandas.GeoDataFrame) -> np.ndarray:
    """Longitude and latitude (n, 2) of the rows' middles; NaN where they have none."""
    points = table.geometry.representative_point()
    return np.column_stack([points.x, points.y])


def lay_rows(
    table: geopandas.GeoDataFrame,
    labels: Labels | None,
    blocks: int,
    shares: tuple[int, ...],
    seed: int,
) -> tuple[Lattice, np.ndarray]:
    """Blocks of ground over the rows, dealt into folds by what is labelled, and the rows' middles (n, 2)."""
    places = middles(table)
    if not np.isfinite(places).all():
        raise GeomlError("some rows lie nowhere; folds are blocks of ground")
    weights = np.ones((len(places), 1)) if labels is None else labels.weights
    if blocks**2 < len(shares):
        raise UsageMistake(f"--blocks {blocks}: fewer blocks than the {len(shares)} folds")
    return lay_blocks(places, weights, blocks, shares, seed), places
