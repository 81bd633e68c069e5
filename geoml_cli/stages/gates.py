"""Gates: conditions on scores that turn into the exit status."""

import logging
import math
import operator
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from geoml_cli.errors import GeomlError, UsageMistake
from geoml_cli.formats.scores import value_of

log = logging.getLogger("geoml")
COMPARE = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "==": operator.eq,
    "!=": operator.ne,
}
FORM = re.compile(r"(.+?)\s*(<=|>=|==|!=|<|>)\s*([^<>=!]+)")


class Gate(NamedTuple):
    """The run fails if the score called `name` compares so with `limit`; or if it is undefined."""

    text: str
    name: str
    compare: str
    limit: float


def parse_gate(text: str, overall: Sequence[str], per_class: Sequence[str]) -> Gate:
    """Read `miou<0.6` or `iou.water<0.5`; names of classes are checked by `check_classes`."""
    match = FORM.fullmatch(text.strip())
    try:
        limit = float(match[3]) if match else math.nan
    except ValueError:
        limit = math.nan
    if not match or not math.isfinite(limit):
        raise UsageMistake(
            f"--fail-if {text!r}: write NAME<NUMBER, such as 'miou<0.6' or 'iou.water<0.5'"
        )
    name = match[1]
    key, dot, _ = name.partition(".")
    if not (name in overall or (dot and key in per_class)):
        known = ", ".join([*overall, *(f"{k}.CLASS" for k in per_class)])
        raise UsageMistake(f"--fail-if {text!r}: no metric called {name}; there are {known}")
    return Gate(text.strip(), name, match[2], limit)


def check_classes(gates: Sequence[Gate], names: Sequence[str]) -> None:
    """Refuse a gate on a class that the maps do not have."""
    for gate in gates:
        _, dot, one = gate.name.partition(".")
        if dot and one not in names:
            raise UsageMistake(
                f"--fail-if {gate.text!r}: the maps have no class {one}; they have {', '.join(names)}"
            )


def failures(gates: Sequence[Gate], scores: dict[str, Any]) -> list[str]:
    """A line for every gate that fails."""
    lines = []
    for gate in gates:
        value = value_of(scores, gate.name)
        if value is None or COMPARE[gate.compare](value, gate.limit):
            lines.append(f"gate {gate.text} failed: {gate.name} is {say(value)}")
    return lines


def drops(old: dict[str, Any], scores: dict[str, Any], most: float, where: str) -> list[str]:
    """A line for every overall metric that is lower than in an earlier scores file by more than `most`."""
    lines = []
    for name in sorted(set(old["metrics"]) & set(scores["metrics"])):
        before, after = value_of(old, name), value_of(scores, name)
        if before is None:
            continue
        # the allowance is meant in decimals: 0.9 - 0.89 must pass 0.01
        if after is None or before - after > most + 1e-12:
            lines.append(
                f"gate --max-drop {most:g} failed: {name} is {say(after)}, in {where} {say(before)}"
            )
    if _truth(old) != _truth(scores):
        log.warning("%s was scored against other truth: a drop may be no fault of the map", where)
    return lines


def _truth(scores: dict[str, Any]) -> list[str]:
    return [i["digest"] for i in scores.get("geoml", {}).get("inputs", []) if i["role"] == "truth"]


def say(value: float | None) -> str:
    """A score in a message: as few digits as tell it apart from a limit of six."""
    return "undefined" if value is None else f"{value:.6g}"


def judge(lines: list[str]) -> None:
    """Fail with one line if any gate did."""
    if lines:
        raise GeomlError("; ".join(lines))
