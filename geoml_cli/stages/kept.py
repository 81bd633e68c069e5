"""Which tiles are kept: shares of valid, labelled and cloudy pixels, and expressions on the index."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas

from geoml_cli.errors import UsageMistake
from geoml_cli.stages.cut_plan import Plan


def kept_of(rows: list[dict[str, Any]], plan: Plan) -> list[int]:
    """Positions of the tiles that are kept."""
    wanted = plan.wanted
    kept = []
    for i, row in enumerate(rows):
        if plan.looks and (row["valid"] == 0 or row["valid"] < wanted.valid):
            continue
        if plan.layers and labelled(row, plan.layers) < wanted.labelled:
            continue
        if wanted.cloud is not None and (row["cloud"] is None or row["cloud"] > wanted.cloud):
            continue
        kept.append(i)
    if wanted.where is None or not kept:
        return kept
    frame = pandas.DataFrame([rows[i] | said_of(rows[i], plan) for i in kept])
    return [kept[i] for i in np.flatnonzero(asked(frame, wanted.where))]


def said_of(row: dict[str, Any], plan: Plan) -> dict[str, Any]:
    """Numbers of a tile that --where may name beside the columns of the index."""
    area = plan.size[0] * plan.size[1]
    said: dict[str, Any] = {"labelled": labelled(row, plan.layers) / area}
    for layer in plan.layers:
        counts = row.get(f"counts_{layer['name']}")
        for one, count in zip(layer.get("classes", ()), counts or (), strict=False):
            said[one["name"].replace(" ", "_")] = count / area
    return said


def try_where(plan: Plan, where: str) -> None:
    """Refuse an expression that cannot be worked out, before a pixel is read."""
    row: dict[str, Any] = {
        **{"id": "a", "scene": "a", "datetime": "2000-01-01T00:00:00Z", "shard": 0, "row": 0},
        **{"window_row": 0, "window_col": 0, "valid": 1.0, "cloud": 0.0, "fold": 0, "near": 1},
    }
    row |= {f"valid_{sensor['name']}": 1.0 for sensor in plan.sensors[1:]}
    for layer in plan.layers:
        if layer["per"] == "pixel":
            row[f"labelled_{layer['name']}"] = 1
            row[f"counts_{layer['name']}"] = [0] * len(layer.get("classes", ()))
        else:
            row[layer["name"]] = 0
    asked(pandas.DataFrame([row | said_of(row, plan)]), where)


def asked(frame: pandas.DataFrame, where: str) -> np.ndarray:
    """Rows (n,) bool for which the expression of --where holds."""
    try:
        found = frame.eval(where, engine="python")
    except Exception as error:  # whatever an expression of the user's may raise
        columns = ", ".join(sorted(c for c in frame.columns if c.isidentifier()))
        raise UsageMistake(f"--where {where!r}: {error}; a tile has {columns}") from None
    if str(getattr(found, "dtype", None)) != "bool" or len(found) != len(frame):
        raise UsageMistake(f"--where {where!r}: gives no yes or no; write valid > 0.9")
    return np.asarray(found)


def labelled(row: dict[str, Any], layers: Sequence[dict[str, Any]]) -> int:
    """Labelled pixels of a tile; a label of the whole tile counts as one."""
    found = 0
    for layer in layers:
        if layer["per"] == "pixel":
            found += row[f"labelled_{layer['name']}"]
        else:
            found += row[layer["name"]] not in (None, [])
    return found
