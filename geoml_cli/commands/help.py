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

MODELS = """\
--model takes a folder of `geoml train`, an ONNX file, one in a Python package, or a checkpoint of others:

NAME.onnx                with NAME.json, its card, beside it
pkg:PACKAGE/NAME.onnx    of an installed package, or pkg:FOLDER/NAME.whl/NAME.onnx of a wheel;
                         nothing of the package is run
prithvi-eo-2.0-300m      one of `geoml list weights`, fetched from where it is published
NAME.pth                 or .pt, .ckpt, .bin, .safetensors, with NAME.json, its card, beside it

A card says what goes in and what comes out. Only bands and classes (or values) must be there:

{"bands": ["blue", "green", {"name": "red", "wavelength_nm": 665}],
 "classes": ["clear", {"name": "cloud", "color": "#ffffff"}],
 "values": [{"name": "height", "unit": "m"}],    instead of classes
 "mean": [0.1, 0.1, 0.1], "std": [1, 1, 1],      (value * scale - mean) / std goes in
 "scale": 1,
 "outputs": "logits",                            or probabilities
 "layout": "NCHW",                               or NHWC
 "gsd_m": 30,                                    pixels are brought to this size
 "halo": 40, "stride": 8,                        pixels of context, if that many are enough;
 "window": 256, "overlap": 52,                   else windows of this size are blended
 "rim": "reflect"}                               or symmetric: what lies beyond the raster

Bands are found by name (`geoml info` of a raster tells them), whatever their order.

The card of a checkpoint names the network too: "encoder": "prithvi:size=100", "head": "fcn:skips=0", and
"frames": 3 where it sees that many dates; "fills": true in place of classes where it gives the images themselves."""


def command(
    topic: Annotated[
        str,
        typer.Argument(metavar="TOPIC", help="A command, exit-codes, artifacts, models or pipes."),
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
    elif topic in TOPICS:
        print({"artifacts": ARTIFACTS, "models": MODELS, "pipes": PIPES}[topic])
    else:
        known = [*TOPICS, *COMMANDS]
        near = get_close_matches(topic, known, 1)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(known)}"
        raise UsageMistake(f"no topic called {topic}; {hint}")
