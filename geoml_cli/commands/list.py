"""`geoml list`."""

import json
from typing import Annotated, Optional

import typer


def command(
    room: Annotated[Optional[str], typer.Argument(metavar="[ROOM]", help="encoders, heads, metrics, ...")] = None,
    json_: Annotated[bool, typer.Option("--json", help="Print JSON, options included.")] = False,
) -> None:
    """Name the parts there are: encoders, heads, metrics, ...

    Without a room the rooms are named. A part is one file; its options ride on its name,
    as in `--encoder unet:width=32`.

        geoml list encoders
        geoml list objectives --json
    """
    from geoml_cli import registry
    from geoml_cli.errors import UsageMistake

    if room is None:
        for name in registry.ENTRY:
            print(name)
        return
    if room not in registry.ENTRY:
        raise UsageMistake(f"no room called {room}; there are {', '.join(registry.ENTRY)}")
    rows = [
        {
            "name": name,
            "about": registry.about(room, name),
            "options": {k: o._asdict() for k, o in registry.options(room, name).items()},
        }
        for name in registry.names(room)
    ]
    if json_:
        print(json.dumps(rows, indent=2, sort_keys=True))
        return
    for row in rows:
        print(f"{row['name']}\t{row['about']}")
