"""`geoml list`."""

from typing import Annotated, Any, Optional

import typer

from geoml_cli import options
from geoml_cli.manners import Manners

WEIGHTS = "Published checkpoints: size, licence, bands."


@options.looking
def command(
    manners: Manners,
    room: Annotated[
        Optional[str], typer.Argument(metavar="ROOM", help="encoders, heads, metrics, ...")
    ] = None,
) -> None:
    """Name the parts there are: encoders, heads, metrics, ...

    `weights` are checkpoints that others published, for --encoder-weights, with their size, licence and
    bands. Without a room the rooms are named. A part is one file; its options ride on its name,
    as in `--encoder unet:width=32`, and are told by --json.

        geoml list encoders
        geoml list objectives --json
        geoml list weights
    """
    import json

    from geoml_cli import registry

    if room is None:
        known = {"name": "weights", "about": WEIGHTS, "parts": sorted(registry.weights())}
        rows = [*(_room(name) for name in registry.ENTRY), known]
    else:
        rows = _weights() if room == "weights" else _parts(room)
    if manners.json:
        print(json.dumps(rows, indent=2, sort_keys=True))
        return
    for row in rows:
        name_about = f"{row['name']}\t{row['about']}"
        print(json.dumps(row, sort_keys=True) if manners.ndjson else name_about)


def _weights() -> list[dict[str, Any]]:
    from geoml_cli import registry

    known = sorted(registry.weights().items())
    return [{"name": name, **about, "about": _told(about)} for name, about in known]


def _told(about: dict[str, Any]) -> str:
    size = f"{about['megabytes']} MB, " if "megabytes" in about else ""
    if "location_encoder" in about:
        return f"{about['about']}; {size}{about['licence']}, --location-encoder {about['location_encoder']}"
    bands = ",".join(about["bands"])
    return (
        f"{about['about']}; {size}{about['licence']}, {about['frames']} x {bands},"
        f" {about['gsd_m']} m, --encoder {about['encoder']}"
    )


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
