"""Embeddings asked: what is like this, what is there twice, which groups, what is odd, what to label next."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pandas

from geoml_cli.core import device as devices
from geoml_cli.core.neighbours import farthest, pairs, top, unit
from geoml_cli.errors import GeomlError, NothingMatched, UsageMistake
from geoml_cli.formats.digest import digest_file
from geoml_cli.formats.embeddings import Embeddings, open_embeddings
from geoml_cli.formats.stamp import Input
from geoml_cli.formats.vectors import GPKG, PARQUET, write_vectors
from geoml_cli.manners import Manners
from geoml_cli.stages.job import Job, plan

log = logging.getLogger("geoml")
NEIGHBOURS = 10  # whose mean similarity says how odd a row is
ALIKE = 5  # labelled rows of a class that a row is compared with


def answer(
    files: Sequence[str],
    out: str,
    question: str,
    value: Any,
    *,
    top: int,
    balance: str | None,
    seed: int,
    device: str,
    manners: Manners,
) -> None:
    """Write a table of the rows that answer a question, without their vectors."""
    if not out.lower().endswith((*PARQUET, GPKG)):
        raise UsageMistake(f"-o {out}: the answer is a table; name NAME.parquet or NAME.gpkg")
    opened = [open_embeddings(path) for path in files]
    check_space(opened)
    inputs = [Input(path, "embeddings", digest_file(Path(path))) for path in files]
    arguments: dict[str, Any] = {question: value, "seed": seed, "balance": balance}
    query: Embeddings | str | None = None
    if question == "search":
        arguments = {"top": top}
        if Path(value).is_file():
            query = open_embeddings(value)
            check_space([opened[0], query])
            inputs.append(Input(value, "search", digest_file(Path(value))))
        else:
            query = value
            arguments |= {"search": value}
    if manners.dry_run:
        count = sum(one.count for one in opened)
        held = 4e-6 * count * opened[0].width
        plan(manners, [f"ask {count} embeddings, hold {held:.0f} MB of them, and write to {out}"])
        return
    with Job("embed", out, "answers", None, arguments, inputs, manners) as job:
        if not job.done:
            used = devices.pick(device).torch
            asked = _Asked(opened, used, job.check)
            found = {
                "search": lambda: asked.search(query, top),  # type: ignore[arg-type]
                "near_duplicates": lambda: asked.duplicates(value),
                "cluster": lambda: asked.cluster(value, seed),
                "outliers": lambda: asked.outliers(value),
                "coverage": lambda: asked.coverage(value, balance),
            }[question]()
            built = job.part / f"table{Path(out).suffix.lower()}"
            write_vectors(built, found, job.record)
            job.commit_file(built)
    job.report([job.named], [{"path": job.named, "question": question}])


def check_space(opened: Sequence[Embeddings]) -> None:
    """Refuse files whose vectors do not mean the same."""
    first = opened[0]
    for one in opened[1:]:
        if one.width != first.width:
            raise GeomlError(
                f"{one.path}: embeddings of {one.width} dimensions, {first.path} has {first.width}; embed it"
                f" with --as {first.path}"
            )
        if one.space and first.space and one.space != first.space:
            raise GeomlError(
                f"{one.path}: made by another encoder, or normalised otherwise, than {first.path}; embed it"
                f" with --as {first.path}"
            )


class _Asked:
    """Rows of some files, unit vectors."""

    def __init__(self, opened: Sequence[Embeddings], device: Any, check: Any) -> None:
        self.device, self.check = device, check
        self.table = joined(opened)
        self.z = np.concatenate([one.vectors() for one in opened])
        self.z = unit(self.z)

    def search(self, query: Embeddings | str, count: int) -> geopandas.GeoDataFrame:
        """The rows most like each row of a file, or the row of an id; the query itself is left out."""
        ids = {one: i for i, one in enumerate(self.table["id"])}
        if isinstance(query, str):
            if query not in ids:
                raise GeomlError(f"--search {query}: no such file, and no row of that id")
            asked, z = self.table.iloc[[ids[query]]], self.z[[ids[query]]]
        else:
            asked, z = query.table(), unit(query.vectors())
        own = np.array([ids.get(one, -1) for one in asked["id"]])
        same = own >= 0
        same[same] = (np.abs(z[same] - self.z[own[same]]) < 1e-6).all(axis=1)
        own = np.where(same, own, -1)
        rows, close = top(self.z, z, count, self.device, own, self.check)
        at, rank = np.nonzero(rows >= 0)
        found = self.table.iloc[rows[at, rank]].reset_index(drop=True)
        found.insert(0, "query", asked["id"].to_numpy()[at])
        found.insert(1, "rank", rank + 1)
        found.insert(2, "similarity", close[at, rank].astype(float))
        return found

    def duplicates(self, least: float) -> geopandas.GeoDataFrame:
        """Rows that have one at least so alike: their group, and the most alike row."""
        from scipy.sparse import coo_array
        from scipy.sparse.csgraph import connected_components

        a, b, close = pairs(self.z, least, self.device, self.check)
        if not len(a):
            raise NothingMatched(f"no two rows are as alike as {least}")
        size = len(self.z)
        _, group = connected_components(coo_array((np.ones(len(a)), (a, b)), (size, size)), False)
        best = np.full(size, -np.inf, np.float32)
        other = np.full(size, -1)
        for one, two in ((a, b), (b, a)):
            order = np.lexsort(
                (-two, close)
            )  # the last written is the most alike, of equals the first row
            better = close[order] >= best[one[order]]
            for i, j, s in zip(
                one[order][better], two[order][better], close[order][better], strict=True
            ):
                if s > best[i] or (s == best[i] and j < other[i]):
                    best[i], other[i] = s, j
        rows = np.flatnonzero(other >= 0)
        first: dict[int, int] = {}
        for row in rows:
            first.setdefault(group[row], len(first) + 1)
        number = np.array([first[g] for g in group[rows]])
        order = np.lexsort((rows, number))
        rows, number = rows[order], number[order]
        found = self.table.iloc[rows].reset_index(drop=True)
        found.insert(0, "group", number)
        found.insert(1, "similarity", best[rows].astype(float))
        found.insert(2, "like", self.table["id"].to_numpy()[other[rows]])
        return found

    def cluster(self, count: int, seed: int) -> geopandas.GeoDataFrame:
        """Every row with its cluster, the largest first, and its similarity to the middle of it."""
        from sklearn.cluster import KMeans

        if count > len(self.z):
            raise GeomlError(f"--cluster {count}: there are {len(self.z)} rows")
        made = KMeans(count, n_init=4, random_state=seed).fit(self.z)
        sizes = np.bincount(made.labels_, minlength=count)
        rank = np.empty(count, int)
        rank[np.argsort(-sizes, kind="stable")] = np.arange(count)
        middles = unit(made.cluster_centers_)
        found = self.table.copy()
        found.insert(1, "cluster", rank[made.labels_])
        found.insert(2, "similarity", (self.z * middles[made.labels_]).sum(1).astype(float))
        return found

    def outliers(self, count: int) -> geopandas.GeoDataFrame:
        """The rows whose nearest others are least alike."""
        k = min(NEIGHBOURS, len(self.z) - 1)
        if k < 1:
            raise GeomlError("one row only; there is nothing to compare it with")
        _, close = top(self.z, self.z, k, self.device, np.arange(len(self.z)), self.check)
        mean = close.mean(axis=1)
        rows = np.argsort(mean, kind="stable")[:count]
        found = self.table.iloc[rows].reset_index(drop=True)
        found.insert(0, "rank", np.arange(len(rows)) + 1)
        found.insert(1, "similarity", mean[rows].astype(float))
        return found

    def coverage(self, count: int, balance: str | None) -> geopandas.GeoDataFrame:
        """Rows to label next."""
        if balance:
            rows, close, why = self._balanced(count, balance)
        else:
            rows, close = farthest(self.z, count, None, self.device, self.check)
            why = None
        found = self.table.iloc[rows].reset_index(drop=True)
        found.insert(0, "rank", np.arange(len(rows)) + 1)
        found.insert(1, "similarity", close.astype(float))
        if why is not None:
            found.insert(2, "like", why)
        return found

    def _balanced(self, count: int, column: str) -> tuple[np.ndarray, np.ndarray, list[str]]:
        """Rows without a label that are most like the classes of which there are fewest: after each pick the
        class counts as one larger.
        """
        labels = labels_of(self.table, column)
        known = np.flatnonzero(labels != "")
        todo = np.flatnonzero(labels == "")
        names, sizes = np.unique(labels[known], return_counts=True)
        if len(names) < 2 or not len(todo):
            raise GeomlError(
                f"--balance {column}: wants rows of two classes or more, and rows without a label to choose from"
            )
        close = []
        for name in names:
            mine = self.z[known[labels[known] == name]]
            _, near = top(mine, self.z[todo], min(ALIKE, len(mine)), self.device, None, self.check)
            close.append(near.mean(axis=1))
        likeness, free = np.stack(close), np.ones(len(todo), bool)
        # what sets a row apart for a class is how much more it is like it than like any other
        others = np.stack([np.delete(likeness, k, 0).max(0) for k in range(len(names))])
        margin = likeness - others
        rows, said, why = [], [], []
        for _ in range(min(count, len(todo))):
            k = int(np.argmin(sizes))
            pick = int(np.argmax(np.where(free, margin[k], -np.inf)))
            free[pick] = False
            sizes[k] += 1
            rows.append(todo[pick])
            said.append(likeness[k, pick])
            why.append(str(names[k]))
        return np.array(rows), np.array(said), why


def labels_of(table: pandas.DataFrame, column: str) -> np.ndarray:
    """A column as text, '' where there is no label."""
    if column not in table:
        have = ", ".join(str(c) for c in table.columns if c != "geometry")
        raise GeomlError(f"no column {column!r}; there are {have}")
    return np.array(["" if pandas.isna(v) else str(v) for v in table[column]], object).astype(str)


def joined(opened: Sequence[Embeddings]) -> geopandas.GeoDataFrame:
    """Columns of all rows of some files; those of one file only are empty in the others."""
    tables = [one.table() for one in opened]
    if len(tables) == 1:
        return tables[0]
    return geopandas.GeoDataFrame(pandas.concat(tables, ignore_index=True), crs=tables[0].crs)
