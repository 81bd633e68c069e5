"""Score tables of answers against tables of truth: classes, values, presence, places, ranked cells."""

import logging
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pandas

from geoml_cli import registry
from geoml_cli.core.probing import Probed
from geoml_cli.core.scoring import Stats, bootstrap
from geoml_cli.errors import GeomlError, NothingMatched, UsageMistake
from geoml_cli.formats.digest import digest_file
from geoml_cli.formats.points import is_places, open_points
from geoml_cli.formats.scores import number
from geoml_cli.formats.stamp import Input
from geoml_cli.geo.places import great_circle_km
from geoml_cli.geo.rows import lay_blocks, on_blocks
from geoml_cli.manners import Manners
from geoml_cli.stages.deliver import check_file, deliver
from geoml_cli.stages.job import plan
from geoml_cli.stages.labelled_rows import middles, read_labels
from geoml_cli.stages.ranked_cells import ranked_cells

log = logging.getLogger("geoml")
APART_KM = 0.05  # places of one row no further apart are the same
OWN = ("id", "scene", "datetime", "ground", "class", "class_id", "probability", "geometry", "valid")


def evaluate_tables(
    inputs: Sequence[str],
    truth: str,
    out: str | None,
    *,
    column: str | None,
    metric: str,
    areas: Sequence[float],
    lonlat: Sequence[str],
    blocks: int,
    draws: int,
    seed: int,
    strict: bool,
    include_trained: bool,
    report: str | None,
    fail_if: Sequence[str],
    baseline: str | None,
    max_drop: float | None,
    manners: Manners,
) -> dict[str, Any]:
    """Score the rows of some tables together and give the scores."""
    if report:
        raise UsageMistake("--report: is of maps; the scores of tables are the JSON file")
    check_file(out, baseline, max_drop)
    if not is_places(truth):
        raise GeomlError(f"{truth}: the truth of a table is a table, NAME.csv, .parquet or .gpkg")
    arguments = {
        "label_column": column,
        "metric": metric,
        "areas": list(areas),
        "lonlat": list(lonlat),
        "blocks": blocks,
        "bootstrap": draws,
        "seed": seed,
        "include_trained": include_trained,
    }
    sources = [Input(one, "answers", digest_file(Path(one))) for one in inputs]
    sources.append(Input(truth, "truth", digest_file(Path(truth))))
    if manners.dry_run:
        plan(manners, [f"score {', '.join(inputs)} on {truth}, write {out or 'to stdout alone'}"])
        return {}

    def work(check: Callable[[], None]) -> dict[str, Any]:
        known = open_points(truth, lonlat).frame()
        name = metric.partition(":")[0]
        if name == "recall-area":
            found = ranked_cells(inputs, known, areas)
            return _document(found, middles(known), blocks, draws, seed, {})
        said, known, left = _paired(inputs, known, truth, include_trained, strict)
        places = middles(known)
        if name == "great-circle":
            part = registry.load("metrics", "great-circle")
            there = middles(said)
            seen = np.isfinite(there).all(axis=1)
            one = Compared(part, places, there, seen, ())
        else:
            _check_places(said, places)
            one = compared(said, known, column, metric)
        return _document(one, places, blocks, draws, seed, {"left_out": left})

    return deliver(
        work, out, arguments, sources, manners,
        fail_if=fail_if, baseline=baseline, max_drop=max_drop,
    )  # fmt: skip


class Compared:
    """Truth and answers as a metric takes them, row by row, and the names of its outputs."""

    def __init__(
        self,
        part: Any,
        truth: np.ndarray,
        guess: np.ndarray,
        valid: np.ndarray,
        names: Sequence[str],
        residuals: np.ndarray | None = None,
        stats: Callable[..., Stats] | None = None,
    ) -> None:
        self.part, self.truth, self.guess, self.valid = part, truth, guess, valid
        self.names, self.residuals = tuple(names), residuals
        self.stats = stats or part.stats

    def of(self, rows: np.ndarray) -> Stats:
        """Stats of some rows."""
        return self.stats(self.truth[rows], self.guess[rows], self.valid[rows], len(self.names))

    @property
    def used(self) -> np.ndarray:
        """Rows (n,) that count."""
        return np.asarray(self.valid.reshape(len(self.valid), -1).any(axis=1))


def _paired(
    inputs: Sequence[str],
    known: geopandas.GeoDataFrame,
    truth: str,
    include_trained: bool,
    strict: bool,
) -> tuple[geopandas.GeoDataFrame, geopandas.GeoDataFrame, dict[str, int]]:
    """Rows of answers and truth of one id, in the order of the answers; what the model saw is left out."""
    tables = [open_points(one).frame() for one in inputs]
    said = geopandas.GeoDataFrame(pandas.concat(tables, ignore_index=True), crs=tables[0].crs)
    for where, table in ((", ".join(inputs), said), (truth, known)):
        twice = table["id"][table["id"].duplicated()]
        if len(twice):
            raise GeomlError(f"{where}: several rows have the id {twice.iloc[0]}")
    left = {"trained": 0, "unanswered": int((~known["id"].isin(said["id"])).sum())}
    said = said[said["id"].isin(known["id"])]
    if "ground" in said and not include_trained:
        trained = said["ground"].isin(["train", "val"]).to_numpy()
        left["trained"] = int(trained.sum())
        if strict and left["trained"]:
            raise GeomlError(
                f"{left['trained']} row(s) of the truth lie on ground that the model trained on; leave --strict out"
                " to leave them out, or answer with --out-of-fold"
            )
        said = said[~trained]
    if not len(said):
        why = (
            "all lie on ground that the model trained on" if left["trained"] else "no id is in both"
        )
        raise NothingMatched(f"{truth}: nothing to score: {why}")
    for key, count in left.items():
        if count:
            log.warning("left out: %d row(s) %s", count, LEFT[key])
    at = pandas.Series(np.arange(len(known)), index=known["id"]).loc[said["id"]].to_numpy()
    return said.reset_index(drop=True), known.iloc[at].reset_index(drop=True), left


LEFT = {"trained": "on ground that the model trained on", "unanswered": "without an answer"}


def _check_places(said: geopandas.GeoDataFrame, places: np.ndarray) -> None:
    """Rows of one id are of one place."""
    km = great_circle_km(middles(said), places)
    if len(km) and np.nanmax(km) > APART_KM:
        row = int(np.nanargmax(km))
        raise GeomlError(
            f"row {said['id'].iloc[row]} of the answers lies {km[row]:.1f} km from that of the truth: are they of"
            " the same table?"
        )


def compared(
    said: geopandas.GeoDataFrame, known: geopandas.GeoDataFrame, column: str | None, metric: str
) -> Compared:
    """Classes, values, or what is present, of tables put side by side."""
    presence = [c for c in known if f"p_{c}" in said]
    name = metric.partition(":")[0]
    if presence and column is None:
        truth = known[presence].to_numpy(float)
        guess = said[[f"p_{c}" for c in presence]].to_numpy(float)
        part = registry.load("metrics", "ranking" if name == "segmentation" else name)
        if not getattr(part, "SCORES", False):
            guess = (guess > 0.5).astype(np.uint8)
        return Compared(part, np.nan_to_num(truth), guess, np.isfinite(truth), presence)
    if column is None:
        raise UsageMistake(
            "--label-column NAME: which column of the truth is held against the answers"
        )
    if "class" in said:
        return _classes(said, known, column, name)
    guesses = [c for c in said if c not in OWN and pandas.api.types.is_numeric_dtype(said[c])]
    told = column if column in guesses else guesses[0] if len(guesses) == 1 else None
    if told is None:
        raise GeomlError(f"the answers have no column {column!r}; they have {', '.join(guesses)}")
    truth = read_labels(known, column, "values").values[:, None]
    guess = said[told].to_numpy(float)[:, None]
    part = registry.load("metrics", "regression" if name == "segmentation" else name)
    valid = np.isfinite(truth) & np.isfinite(guess)
    left = np.where(valid, guess - truth, np.nan)[:, 0]
    return Compared(part, truth, guess, valid, (column,), left)


def _classes(
    said: geopandas.GeoDataFrame, known: geopandas.GeoDataFrame, column: str, name: str
) -> Compared:
    labels = read_labels(known, column, "classes")
    listed = [c.removeprefix("p_") for c in said if c.startswith("p_")]
    names = listed or sorted({*said["class"].astype(str)})
    strange = sorted(set(labels.names) - set(names))
    if strange:
        raise GeomlError(
            f"column {column}: holds classes that the answers do not know: {', '.join(strange[:10])};"
            f" they know {', '.join(names)}"
        )
    position = np.array([*(names.index(one) for one in labels.names), 0])
    guess = np.array([names.index(one) for one in said["class"].astype(str)])
    return Compared(
        registry.load("metrics", name), position[labels.values], guess, labels.known, names
    )


def _document(
    one: Compared,
    places: np.ndarray,
    blocks: int,
    draws: int,
    seed: int,
    more: dict[str, Any],
) -> dict[str, Any]:
    """scores.json: each metric with the 95 % interval of a bootstrap over blocks of ground."""
    used = np.flatnonzero(one.used)
    if not len(used):
        raise NothingMatched("nothing to score: no row has both a truth and an answer")
    lattice = lay_blocks(places[used], np.ones((len(used), 1)), blocks, (1,), seed)
    _, block = on_blocks(lattice, places[used])
    each = [one.of(used[block == b]) for b in np.unique(block)]
    stacked = {key: np.stack([stats[key] for stats in each]) for key in each[0]}
    total = {key: rows.sum(axis=0) for key, rows in stacked.items()}
    found, spans = one.part.score(total), bootstrap(stacked, one.part.score, draws, seed)
    metrics: dict[str, Any] = {}
    classes: dict[str, dict[str, Any]] = {name: {"support": len(used)} for name in one.names}
    entry = partial(_entry, n=len(used))
    for key, value in found.items():
        low, high = spans[key]
        if np.ndim(value) == 0:
            metrics[key] = entry(value, low, high)
            continue
        for i, name in enumerate(one.names):
            classes[name][key] = entry(value[i], low[i], high[i])
    if one.residuals is not None:
        metrics["residual_morans_i"] = entry(
            _clustered(one.residuals[used], places[used], block, seed), np.nan, np.nan
        )
    scored = {"n": len(used), "blocks": len(each), "bootstrap": draws, "seed": seed, **more}
    matrix = total["confusion"].tolist() if "confusion" in total else []
    return {
        "metrics": metrics,
        "classes": classes,
        "confusion": {"names": list(one.names) if matrix else [], "matrix": matrix},
        "scored": scored,
    }


def _clustered(residuals: np.ndarray, places: np.ndarray, block: np.ndarray, seed: int) -> float:
    """Moran's I of residuals: above 0 where a model errs alike in places that lie together."""
    rows = Probed(residuals[:, None].astype(np.float32), None, 0, block, block, places, seed)
    told = registry.make("probes", "morans-i", rows)
    return float(told.value)


def _entry(value: Any, low: Any, high: Any, n: int) -> dict[str, Any]:
    return {"value": number(value), "lo": number(low), "hi": number(high), "n": n}
