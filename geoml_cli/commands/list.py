"""`geoml list`."""

from typing import Annotated, Any, Optional

import typer

from geoml_cli import options
from geoml_cli.manners import Manners


@options.looking
def command(
    manners: Manners,
    room: Annotated[
        Optional[str], typer.Argument(metavar="ROOM", help="encoders, heads, metrics, ...")
    ] = None,
) -> None:
    """Name the parts there are: encoders, heads, metrics, ...

    Without a room the rooms are named. A part is one file; its options ride on its name,
    as in `--encoder unet:width=32`, and are told by --json.

        geoml list encoders
        geoml list objectives --json
    """
    import json

    from geoml_cli import registry

    rows = [_room(name) for name in registry.ENTRY] if room is None else _parts(room)
    if manners.json:
        print(json.dumps(rows, indent=2, sort_keys=True))
        return
    for row in rows:
        name_about = f"{row['name']}\t{row['about']}"
        print(json.dumps(row, sort_keys=True) if manners.ndjson else name_about)


def _room(name: str) -> dict[str, Any]:
    from geoml_cli import registry

    return {"name": name, "about": registry.about_room(name), "parts": registry.names(name)}


def _parts(asked: str) -> list[dict[str, Any]]:
    from geoml_cli import registry

    room = registry.find_room(asked)
    return [
        {
            "name": name,
            "about": registry.about(room, name),
            "options": {k: o._asdict() for k, o in registry.options(room, name).items()},
        }
        for name in registry.names(room)
    ]
