"""Look at files: what they are, whether they are whole, where they came from, a picture of one."""

import json
import logging
from typing import Any

from geoml_cli.errors import GeomlError, UsageMistake
from geoml_cli.formats.remote import is_remote
from geoml_cli.manners import Manners
from geoml_cli.stages import chain, told, whole
from geoml_cli.stages.inputs import expand
from geoml_cli.stages.portrait import portrait
from geoml_cli.stages.spelled import home

log = logging.getLogger("geoml")


def run(
    inputs: list[str],
    *,
    check: bool = False,
    why: bool = False,
    picture: str | None = None,
    manners: Manners = Manners(),
) -> list[dict[str, Any]]:
    """Print what was asked for of each input and give it; what is damaged or unreadable is raised at the end."""
    names = [path for name in expand(inputs) for path in _paths(name)]
    if picture and len(names) > 1:
        raise UsageMistake(f"--picture is of one input, not of {len(names)}")
    plain = not (check or why or picture)
    found: list[dict[str, Any]] = []
    failed: list[str] = []
    told_steps: set[str] = set()  # told once, though several inputs come from them
    for name in names:
        try:
            one, lines = _asked(name, plain, check, why, picture, manners, told_steps)
        except GeomlError as error:
            if len(names) == 1:
                raise
            log.error("%s", error)
            failed.append(name)
            continue
        found.append(one)
        if not (manners.json or manners.ndjson):
            gap = [""] if (plain or why) and len(found) > 1 and lines else []
            print("\n".join([*gap, *lines]))
        elif manners.ndjson:
            print(json.dumps(one, sort_keys=True, allow_nan=False))
    if manners.json:
        print(json.dumps(found, indent=1, sort_keys=True, allow_nan=False))
    _judge(found, failed)
    return found


def _paths(name: str | dict[str, Any]) -> list[str]:
    """Paths of one thing that was named; of an item on stdin its assets."""
    return (
        [asset["href"] for asset in name["assets"].values()] if isinstance(name, dict) else [name]
    )


def _asked(
    name: str,
    plain: bool,
    check: bool,
    why: bool,
    picture: str | None,
    manners: Manners,
    told_steps: set[str],
) -> tuple[dict[str, Any], list[str]]:
    """What was asked for of one input, as data and as lines for people."""
    one: dict[str, Any] = {"path": name}
    lines: list[str] = []
    if plain:
        one = portrait(name)
        lines.append(told.block(one))
    if why:
        steps = chain.why(name)
        one["why"] = [step.to_dict() for step in steps]
        lines += chain.told([step for step in steps if step.out not in told_steps])
        told_steps |= {step.out for step in steps}
    if check:
        one["damage"] = whole.look(name)
        one["stamped"] = not is_remote(name) and home(name) is not None
        fine = (
            "whole" if one["stamped"] else "reads to its end; it has no stamp to check it against"
        )
        lines += one["damage"] or [f"{name}: {fine}"]
    if picture:
        from geoml_cli.stages.picture import draw

        draw(name, picture, manners.force)
        one["picture"] = picture
        lines.append(picture)
    return one, lines


def _judge(found: list[dict[str, Any]], failed: list[str]) -> None:
    """Raise what makes the status 1: damage, under --check staleness too, and what could not be read."""
    damaged = [one["path"] for one in found if one.get("damage")]
    stale = [
        one["path"]
        for one in found
        if "damage" in one and any(s["stale"] for s in one.get("why", []))
    ]
    say: list[tuple[list[str], str]] = [
        (failed, "could not be looked at"),
        (damaged, "damaged"),
        (stale, "stale; the commands above make it again"),
    ]
    reasons = [f"{', '.join(names[:5])}: {what}" for names, what in say if names]
    if reasons:
        raise GeomlError("; ".join(reasons))
