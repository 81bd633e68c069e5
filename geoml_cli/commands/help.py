"""`geoml help`."""

from typing import Annotated

import typer

ARTIFACTS = """\
scenes       items.json (STAC ItemCollection) + one COG per asset
tiles        tileset.json + index.parquet + shards of numpy arrays
model        model.json + weights.safetensors + ground.parquet
predictions  items.json + one COG per input
scores       one JSON file, and an HTML report

The file named first is the stamp: it is written last, holds the sha256 of every other
member, and is what a Makefile names as its target."""
PIPES = """\
Inputs are paths, folders that an earlier verb wrote, URLs, or - for stdin: paths one a
line, or JSON (STAC items, one a line or a collection), told apart by the first character.
stdout is data: the paths written, one a line; --ndjson prints one record a line, --json
one summary. stderr is for people."""


def command(
    topic: Annotated[
        str, typer.Argument(metavar="TOPIC", help="A command, exit-codes, artifacts or pipes.")
    ],
) -> None:
    """Explain a command or a topic, such as exit-codes.

    A topic is what all commands have in common; the page of a command is that of
    `geoml COMMAND --help`.

        geoml help exit-codes
        geoml help tile
    """
    from difflib import get_close_matches

    from geoml_cli.commands import COMMANDS, TOPICS
    from geoml_cli.errors import MEANING, UsageMistake

    if topic == "exit-codes":
        for status, meaning in MEANING.items():
            print(f"{status.value:4}  {meaning}")
    elif topic in ("artifacts", "pipes"):
        print(ARTIFACTS if topic == "artifacts" else PIPES)
    else:
        known = [*TOPICS, *COMMANDS]
        near = get_close_matches(topic, known, 1)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(known)}"
        raise UsageMistake(f"no topic called {topic}; {hint}")
