"""Rows of a table dealt into folds: by blocks, cells or a checkerboard of ground, by a column, or at random."""

import re
from dataclasses import dataclass

import geopandas
import numpy as np
import pandas
from scipy.spatial import cKDTree

from geoml_cli.errors import GeomlError, UsageMistake
from geoml_cli.formats.vectors import class_value
from geoml_cli.geo.cells import Cells, Scattered
from geoml_cli.geo.deal import deal
from geoml_cli.geo.grid import LONLAT, between
from geoml_cli.geo.listed import Listed
from geoml_cli.geo.places import chord_of, xyz
from geoml_cli.geo.rows import lay_blocks, lay_checkerboard, lay_degrees
from geoml_cli.geo.splits import NONE, PLAIN, Lattice, Split
from geoml_cli.stages.labelled_rows import middles
from geoml_cli.stages.split_file import WORDS

USUAL = "blocks:8"
LENGTH = re.compile(r"(\d+(?:\.\d+)?|\.\d+)(k?m)")
WRITE = (
    "write blocks:8 (8 x 8 over the places), blocks:500km, cells:10 (degrees), checkerboard:10 (degrees)"
    " or random"
)
APART_M = 1.0  # places no further apart are one, where they are dealt at random


@dataclass(frozen=True)
class RowSplit:
    """What was asked for: a kind with its size, or a column (`by`, perhaps with values that test)."""

    split: str | None = None
    by: str | None = None
    folds: int = 0
    buffer: str | None = None

    @property
    def shares(self) -> tuple[int, ...]:
        """Whole numbers, one a fold, that rows are dealt by."""
        return (1,) * self.folds if self.folds else PLAIN

    @property
    def buffer_m(self) -> float:
        """Metres from held ground within which nothing trains."""
        return metres(self.buffer, "--buffer") if self.buffer else 0.0

    def kind(self) -> tuple[str, float]:
        """The kind and its size: blocks a side, degrees, or metres; no file is read."""
        if self.by and self.split:
            raise UsageMistake(
                f"--split-by {self.by} and --split {self.split} both deal the rows; give one"
            )
        _ = self.buffer_m
        if self.by:
            return "column", 0
        word, _, size = (self.split or USUAL).partition(":")
        if word == "random" and not size:
            return "random", 0
        if word == "blocks" and size.isdigit():
            if int(size) ** 2 < len(self.shares):
                raise UsageMistake(
                    f"--split {self.split}: fewer blocks than the {len(self.shares)} folds"
                )
            return "blocks", int(size)
        if word == "blocks" and size:
            return "km", metres(size, "--split blocks")
        if word in ("cells", "checkerboard"):
            if word == "checkerboard" and self.folds:
                raise UsageMistake("--split checkerboard has two sides; leave --folds out")
            try:
                degrees = float(size)
            except ValueError:
                degrees = 0.0
            if 0 < degrees <= 90:
                return word, degrees
        raise UsageMistake(f"--split {self.split!r}: {WRITE}")


def metres(text: str, option: str) -> float:
    """A length such as 50km or 500m, in metres."""
    found = LENGTH.fullmatch(text)
    if not found or not float(found[1]):
        raise UsageMistake(f"{option} {text}: write a length such as 500m or 50km")
    return float(found[1]) * (1000 if found[2] == "km" else 1)


def deal_rows(
    table: geopandas.GeoDataFrame, weights: np.ndarray, wish: RowSplit, seed: int
) -> tuple[Split, np.ndarray, np.ndarray]:
    """The split, and fold (n,) and near bits (n,) int64 of each row; fold 255 is on no side."""
    kind, size = wish.kind()
    places = middles(table)
    if not np.isfinite(places).all():
        raise GeomlError("some rows lie nowhere; folds are blocks of ground")
    split: Split
    if kind == "column":
        split, fold = _by_column(table, weights, places, wish, seed)
    elif kind in ("km", "random"):
        split = (
            Cells(size, wish.shares, seed, 0.0)
            if kind == "km"
            else Scattered(APART_M, wish.shares, seed)
        )
        cells = split if isinstance(split, Cells) else split.cells
        fold = cells.fold_of(*cells.cell_at(*places.T)).astype(int)
    else:
        split = _laid(kind, size, places, weights, wish, seed)
        fold = split.fold_at(*between(LONLAT, split.crs).transform(*places.T)).astype(int)
    return split, fold, near_bits(places, fold, wish.buffer_m)


def _laid(
    kind: str, size: float, places: np.ndarray, weights: np.ndarray, wish: RowSplit, seed: int
) -> Lattice:
    if kind == "blocks":
        return lay_blocks(places, weights, int(size), wish.shares, seed)
    if kind == "cells":
        return lay_degrees(places, weights, size, wish.shares, seed)
    return lay_checkerboard(places, weights, size, PLAIN[:2], seed)


def _by_column(
    table: geopandas.GeoDataFrame,
    weights: np.ndarray,
    places: np.ndarray,
    wish: RowSplit,
    seed: int,
) -> tuple[Split, np.ndarray]:
    """Folds of a column's values: its words, the values that test, or regions dealt whole."""
    column, _, tested = str(wish.by).partition("=")
    if column not in table:
        have = ", ".join(str(c) for c in table.columns if c != "geometry")
        raise GeomlError(f"--split-by: no column {column!r}; there are {have}")
    said = [class_value(value) for value in table[column]]
    names = sorted({one for one in said if one is not None})
    if tested:
        return _tested(column, tested.split(","), said, names, weights, places, wish, seed)
    if not wish.folds and {one.lower() for one in names} <= set(WORDS):
        sides = [NONE if one is None else WORDS[one.lower()] for one in said]
        return Listed(column, 3), np.array(sides)
    if len(names) < len(wish.shares):
        raise GeomlError(
            f"--split-by {column}: {len(names)} values; {len(wish.shares)} sides need as many at least"
        )
    ids = {name: i for i, name in enumerate(names)}
    number = np.array([-1 if one is None else ids[one] for one in said])
    held = np.zeros((len(names), weights.shape[1]))
    np.add.at(held, number[number >= 0], weights[number >= 0])
    folds = deal(held, wish.shares, seed)
    return Listed(column, len(wish.shares)), np.where(number >= 0, folds[number], NONE)


def _tested(
    column: str,
    wanted: list[str],
    said: list[str | None],
    names: list[str],
    weights: np.ndarray,
    places: np.ndarray,
    wish: RowSplit,
    seed: int,
) -> tuple[Split, np.ndarray]:
    """Rows of some values test; of the others blocks of ground train and validate."""
    strange = [one for one in wanted if one not in names]
    if strange:
        listed = ", ".join(names[:10]) + (" ..." if len(names) > 10 else "")
        raise GeomlError(f"--split-by {column}={strange[0]}: it holds {listed}")
    if wish.folds:
        raise UsageMistake(f"--split-by {column}=...: says what tests; leave --folds out")
    test = pandas.Series(said, dtype=object).isin(wanted).to_numpy()
    known = np.array([one is not None for one in said])
    rest = np.flatnonzero(known & ~test)
    if not len(rest):
        raise GeomlError(f"--split-by {wish.by}: no row is left to train on")
    blocks = lay_blocks(places[rest], weights[rest], 8, PLAIN[:2], seed)
    fold = np.where(test, 2, NONE)
    fold[rest] = blocks.fold_at(*between(LONLAT, blocks.crs).transform(*places[rest].T))
    return Listed(f"{column}={','.join(wanted)}", 3), fold


def near_bits(places: np.ndarray, fold: np.ndarray, buffer_m: float) -> np.ndarray:
    """Bits (n,) int64 of the folds with a row within a distance of each row, its own included."""
    bits = np.where(fold == NONE, 0, np.int64(1) << np.minimum(fold, 62).astype(np.int64))
    if not buffer_m:
        return bits
    at = xyz(places)
    for f in np.unique(fold[fold != NONE]):
        tree = cKDTree(at[fold == f])
        close = np.isfinite(tree.query(at, distance_upper_bound=chord_of(buffer_m / 1000))[0])
        bits[close] |= np.int64(1) << np.int64(f)
    return bits
