"""Scores: one JSON file of metrics with intervals, per class, and what was scored on what."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from geoml_cli.errors import GeomlError
from geoml_cli.formats.jsonfile import read_json
from geoml_cli.formats.stamp import read_record

Interval = tuple[np.ndarray, np.ndarray]


def number(value: float) -> float | None:
    """A finite number, or None for what is undefined."""
    return float(value) if math.isfinite(value) else None


def scores_of(
    names: Sequence[str],
    scores: Mapping[str, float | np.ndarray],
    intervals: Mapping[str, Interval],
    confusion: np.ndarray,
    scored: dict[str, Any],
) -> dict[str, Any]:
    """The document without its record; numbers (no axis) are metrics, (classes,) go to the classes."""
    true, guessed = confusion.sum(axis=1), confusion.sum(axis=0)
    either = true + guessed - np.diag(confusion)
    bear = {"precision": guessed, "recall": true}  # samples that bear on a score of a class
    classes: dict[str, dict[str, Any]] = {n: {"support": int(true[i])} for i, n in enumerate(names)}
    metrics = {}
    for key, value in scores.items():
        low, high = intervals[key]
        if np.ndim(value) == 0:
            metrics[key] = _entry(value, low, high, int(confusion.sum()))
            continue
        for i, name in enumerate(names):
            classes[name][key] = _entry(value[i], low[i], high[i], int(bear.get(key, either)[i]))  # type: ignore[index]
    return {
        "metrics": metrics,
        "classes": classes,
        "confusion": {"names": list(names), "matrix": confusion.tolist()},
        "scored": scored,
    }


def _entry(value: Any, low: Any, high: Any, n: int) -> dict[str, Any]:
    return {"value": number(value), "lo": number(low), "hi": number(high), "n": n}


def read_scores(path: str | Path) -> dict[str, Any]:
    """Read a scores file."""
    if not Path(path).is_file():
        raise GeomlError(f"{path}: no such file; `geoml evaluate -o {path}` writes one")
    found = read_json(path)
    if not isinstance(found, dict) or not {"metrics", "classes", "confusion", "scored"} <= set(
        found
    ):
        raise GeomlError(f"{path}: not a scores file; `geoml evaluate -o FILE.json` writes one")
    read_record(path)  # refuses a later format
    return found


def value_of(scores: Mapping[str, Any], name: str) -> float | None:
    """A score by name: `miou`, or `iou.water` for one class; None where it is undefined or missing."""
    if name in scores["metrics"]:
        entry = scores["metrics"][name]
    else:
        key, _, one = name.partition(".")
        entry = scores["classes"].get(one, {}).get(key)
    return entry["value"] if isinstance(entry, dict) else None


def say(entry: Mapping[str, Any]) -> str:
    """A score with its interval, for people."""
    if entry["value"] is None:
        return "undefined"
    if entry["lo"] is None:
        return f"{entry['value']:.3f}"
    return f"{entry['value']:.3f} [{entry['lo']:.3f}, {entry['hi']:.3f}]"


def table(scores: Mapping[str, Any]) -> str:
    """A small table for a terminal."""
    width = max(12, *(len(key) + 2 for key in scores["metrics"]))
    lines = [
        f"{key:<{width}}{say(entry):<26}n={entry['n']}" for key, entry in scores["metrics"].items()
    ]
    if not scores["classes"]:
        return "\n".join(lines)
    keys = [k for k, v in next(iter(scores["classes"].values())).items() if isinstance(v, dict)]
    wide = max(5, *(len(name) for name in scores["classes"]))
    lines.append("  ".join(["class".ljust(wide), *(k.rjust(9) for k in keys), "support".rjust(9)]))
    for name, row in scores["classes"].items():
        cells = ["-" if row[k]["value"] is None else f"{row[k]['value']:.3f}" for k in keys]
        lines.append(
            "  ".join(
                [name.ljust(wide), *(c.rjust(9) for c in cells), str(row["support"]).rjust(9)]
            )
        )
    return "\n".join(lines)
