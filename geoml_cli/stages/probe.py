"""Score embeddings by probes: labels told on other ground, retrieval, spread, place."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from geoml_cli import registry
from geoml_cli.core import device as devices
from geoml_cli.core.probing import Probed, Told
from geoml_cli.core.scoring import Scores, Stats, Tally, bootstrap
from geoml_cli.errors import GeomlError, UsageMistake
from geoml_cli.formats.digest import digest_file
from geoml_cli.formats.embeddings import open_embeddings
from geoml_cli.formats.scores import number
from geoml_cli.formats.stamp import Input
from geoml_cli.geo.rows import on_blocks
from geoml_cli.manners import Manners
from geoml_cli.stages.deliver import check_file, deliver
from geoml_cli.stages.job import plan
from geoml_cli.stages.labelled_rows import Labels, lay_rows, read_labels
from geoml_cli.stages.similar import check_space, joined

log = logging.getLogger("geoml")
METRICS = {"classes": "segmentation", "values": "regression"}


def probe_files(
    files: Sequence[str],
    out: str | None,
    *,
    truth: str | None,
    column: str | None,
    probes: Sequence[str],
    folds: int,
    blocks: int,
    draws: int,
    seed: int,
    report: str | None,
    fail_if: Sequence[str],
    baseline: str | None,
    max_drop: float | None,
    manners: Manners,
) -> dict[str, Any]:
    """Score the rows of some files together and give the scores."""
    if truth:
        raise UsageMistake(
            f"--truth {truth}: labels of embeddings are a column of theirs; bring them with"
            f" `geoml embed ... --at {truth}`"
        )
    if report:
        raise UsageMistake("--report: is of maps; the scores of embeddings are the JSON file")
    check_file(out, baseline, max_drop)
    opened = [open_embeddings(path) for path in files]
    check_space(opened)
    table = joined(opened)
    labels = read_labels(table, column) if column else None
    wanted = fitting(probes, labels)
    arguments = {
        "label_column": column,
        "probe": list(wanted),
        "folds": folds,
        "blocks": blocks,
        "bootstrap": draws,
        "seed": seed,
    }
    inputs = [Input(path, "embeddings", digest_file(Path(path))) for path in files]
    if manners.dry_run:
        plan(
            manners,
            [
                f"probe {len(table)} rows with {', '.join(wanted)}",
                f"write {out or 'to stdout alone'}",
            ],
        )
        return {}

    def work(check: Any) -> dict[str, Any]:
        z = np.concatenate([one.vectors() for one in opened])
        lattice, places = lay_rows(table, labels, blocks, (1,) * folds, seed)
        fold, block = on_blocks(lattice, places)
        used = devices.pick("auto").torch
        rows = Probed(
            z, labels.values if labels else None, len(labels.names) if labels else 0,
            fold, block, places, seed, used, check,
        )  # fmt: skip
        scores: dict[str, Any] = {
            "metrics": {},
            "classes": {},
            "confusion": {"names": [], "matrix": []},
        }
        for spec in wanted:
            found: Told = registry.make("probes", spec, rows)
            _add(scores, spec, found, rows, labels, draws, seed)
        known = labels.known if labels else np.ones(len(z), bool)
        scores["scored"] = {
            "n": int(known.sum()),
            "rows": len(z),
            "dimensions": int(z.shape[1]),
            "folds": [int((fold[known] == k).sum()) for k in range(folds)],
            "blocks": int(len(np.unique(block[known]))),
            "bootstrap": draws,
            "seed": seed,
            "side": "out of fold",
            "split": lattice.to_dict(),
        }
        return scores

    return deliver(
        work, out, arguments, inputs, manners,
        fail_if=fail_if, baseline=baseline, max_drop=max_drop,
    )  # fmt: skip


def fitting(probes: Sequence[str], labels: Labels | None) -> list[str]:
    """The probes that were named, or all that what is known of the rows is enough for."""
    have = None if labels is None else "classes" if labels.names else "values"
    if not probes:
        each = registry.names("probes")
        wants = {name: registry.constant("probes", name, "LABELS") or () for name in each}
        return [name for name in each if not wants[name] or have in wants[name]]
    for spec in probes:
        name, _ = registry.parse("probes", spec)
        takes = registry.constant("probes", name, "LABELS") or ()
        if takes and have is None:
            raise UsageMistake(
                f"--probe {spec}: wants labels; name their column with --label-column"
            )
        if takes and have not in takes:
            raise GeomlError(f"--probe {spec}: is for {' and '.join(takes)}; the labels are {have}")
    if len(set(probes)) < len(probes):
        raise UsageMistake("--probe: one is named twice")
    return list(probes)


def _add(
    scores: dict[str, Any],
    spec: str,
    found: Told,
    rows: Probed,
    labels: Labels | None,
    draws: int,
    seed: int,
) -> None:
    """Put what a probe found into the scores, with 95 % intervals from redrawing blocks of ground."""
    name = spec.partition(":")[0].replace("-", "_")
    if any(key.startswith(f"{name}_") or key == name for key in scores["metrics"]):
        name = spec.replace("-", "_").replace(":", "_").replace("=", "").replace(",", "_")
    metrics = scores["metrics"]
    if found.value is not None:
        metrics[name] = _entry(found.value, np.nan, np.nan, len(rows.z))
    elif found.each is not None:
        key = f"{name}_{found.about.get('metric', 'mean')}"
        metrics[key] = _mean(found.each, rows.block, draws, seed)
    else:
        assert found.guess is not None and labels is not None
        _told(scores, name, found.guess, rows, labels, draws, seed)


def _entry(value: Any, low: Any, high: Any, n: int) -> dict[str, Any]:
    return {"value": number(value), "lo": number(low), "hi": number(high), "n": n}


def _mean(each: np.ndarray, block: np.ndarray, draws: int, seed: int) -> dict[str, Any]:
    """The mean of numbers (n,), NaN where there is none."""
    some = np.isfinite(each)
    if not some.any():
        return _entry(np.nan, np.nan, np.nan, 0)
    numbers = [some & (block == b) for b in np.unique(block[some])]
    stacked = {
        "sum": np.array([each[mine].sum() for mine in numbers]),
        "n": np.array([mine.sum() for mine in numbers], float),
    }

    def mean(stats: Stats) -> Scores:
        return {"mean": float(stats["sum"] / stats["n"]) if stats["n"] else float("nan")}

    low, high = bootstrap(stacked, mean, draws, seed)["mean"]
    return _entry(each[some].mean(), low, high, int(some.sum()))


def _told(
    scores: dict[str, Any],
    name: str,
    guess: np.ndarray,
    rows: Probed,
    labels: Labels,
    draws: int,
    seed: int,
) -> None:
    """Scores of labels that were told, against those that are known."""
    kind = "classes" if labels.names else "values"
    part = registry.load("metrics", METRICS[kind])
    told = labels.known & (guess >= 0 if labels.names else np.isfinite(guess))
    stacked = _stacked(part, kind, rows, guess, told, len(labels.names))
    said = part.score({k: v.sum(axis=0) for k, v in stacked.items()})
    spans = bootstrap(stacked, part.score, draws, seed)
    for key, value in said.items():
        low, high = spans[key]
        if np.ndim(value) == 0:
            scores["metrics"][f"{name}_{key}"] = _entry(value, low, high, int(told.sum()))
            continue
        for i, one in enumerate(labels.names):
            support = int((labels.values == i).sum())
            row = scores["classes"].setdefault(one, {"support": support})
            row[f"{name}_{key}"] = _entry(value[i], low[i], high[i], support)


def _stacked(
    part: Any, kind: str, rows: Probed, guess: np.ndarray, told: np.ndarray, classes: int
) -> Stats:
    """Stats of a metric for each block of ground, (blocks, ...)."""
    assert rows.labels is not None
    if kind == "classes":
        tally = Tally(part.stats, classes)
        tally.add(rows.block[told], rows.labels[told], guess[told])
        return tally.stacked()
    each = []
    for block in np.unique(rows.block[told]):
        mine = np.flatnonzero(told & (rows.block == block))
        y, g = rows.labels[mine][:, None], guess[mine][:, None]
        each.append(part.stats(y.astype(float), g.astype(float), np.ones(y.shape, bool), 1))
    return {key: np.stack([one[key] for one in each]) for key in each[0]}
