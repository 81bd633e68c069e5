"""`geoml help`."""

from typing import Annotated, Optional

import typer

TOPICS = ("exit-codes", "artifacts", "pipes")
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
    topic: Annotated[Optional[str], typer.Argument(metavar="[COMMAND|TOPIC]", help="A command, exit-codes, artifacts or pipes.")] = None,
) -> None:
    """Explain a command or a topic, such as exit-codes.

    geoml help exit-codes
    geoml help tile
    """
    from geoml_cli.cli import COMMANDS, dispatch
    from geoml_cli.errors import MEANING, UsageMistake

    if topic is None:
        dispatch(["--help"])
        print("\nTopics: " + ", ".join(TOPICS))
    elif topic in COMMANDS:
        dispatch([topic, "--help"])
    elif topic == "exit-codes":
        for status, meaning in MEANING.items():
            print(f"{status.value:4}  {meaning}")
    elif topic == "artifacts":
        print(ARTIFACTS)
    elif topic == "pipes":
        print(PIPES)
    else:
        raise UsageMistake(f"no topic called {topic}; there are {', '.join([*TOPICS, *COMMANDS])}")
