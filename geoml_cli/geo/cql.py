"""CQL2 filters (OGC 21-065r2) on items."""

import json
from functools import lru_cache
from typing import Any

import cql2

from geoml_cli.errors import UsageMistake


def parse_filter(text: str) -> dict[str, Any]:
    """Read `--filter`, CQL2 as text or as JSON; gives JSON."""
    try:
        expression = cql2.Expr(text)
        expression.validate()
        found = expression.to_json()
    except Exception as error:  # the library raises nothing narrower
        lines = [line.strip(" =|^-") for line in str(error).splitlines()]
        said = next((line for line in reversed(lines) if line), "not CQL2")
        raise UsageMistake(
            f"--filter {text!r}: {said}; write CQL2, such as \"platform = 'sentinel-2a'\""
        ) from None
    if not isinstance(found, dict):
        raise UsageMistake(
            f"--filter {text!r}: no condition; write CQL2, such as eo:snow_cover < 5"
        )
    return found


def passes(condition: dict[str, Any], item: dict[str, Any]) -> bool:
    """Whether an item meets a condition; what it does not say meets none, as in SQL."""
    try:
        return bool(_expression(json.dumps(condition, sort_keys=True)).matches(item))
    except Exception:  # the library's word for unknown: it cannot be reduced to yes or no
        return False


@lru_cache(16)
def _expression(text: str) -> "cql2.Expr":
    return cql2.Expr(text)
