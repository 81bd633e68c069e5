"""What a command offers, as plain data: `--help`, man pages and completions are made of it.

`describe` is the one place that looks inside Typer's parameters.
"""

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from geoml_cli.options import FILES, SHARED

WORDS = {"int": "N", "float": "NUMBER", "str": "TEXT"}  # for a value that has no metavar
MOST = 6  # so many choices are spelled out in the place of a value


class Given(NamedTuple):
    """An option or an argument of a command."""

    name: str  # of the Python parameter, without a trailing underscore
    flags: tuple[str, ...]  # short one first; none for an argument
    value: str  # what stands for its value, e.g. PX; empty for a switch
    help: str
    default: str
    limits: str
    choices: tuple[str, ...]
    required: bool
    many: bool
    shared: bool  # one of the options that every command takes
    parameter: str = ""  # the Python parameter itself

    @property
    def note(self) -> str:
        """What the help line leaves out, e.g. `required`; may be empty."""
        default = f"default: {self.default}" if self.default else ""
        often = (
            "may be repeated" if self.many and self.flags and "repeated" not in self.help else ""
        )
        required = "required" if self.required and self.flags else ""
        return "; ".join(filter(None, [default, self.limits, often, required]))


def describe(param: Any) -> Given:
    """Read one Typer parameter."""
    is_option = param.param_type_name == "option"
    name = param.name.rstrip("_")
    kind = param.type_descriptor
    choices = tuple(str(choice) for choice in kind.choices or ())
    plain = re.sub(r"^list\[(.*)\]$", r"\1", param.bare_type())
    fallback = "|".join(choices) if 0 < len(choices) <= MOST else WORDS.get(plain, "VALUE")
    switch = is_option and param.is_flag
    many = param.nargs == -1 or bool(getattr(param, "multiple", False))
    flags = (*param.opts, *param.secondary_opts) if is_option else ()
    return Given(
        name=name,
        flags=tuple(sorted(flags, key=lambda flag: flag.startswith("--"))),
        value="" if switch else (param.metavar or fallback).removesuffix("..." if many else ""),
        help=param.help or "",
        default="" if switch or param.default in (None, "", [], ()) else _spell(param.default),
        limits=""
        if param.max is None
        else f"{'up' if param.min is None else param.min} to {param.max}",
        choices=choices,
        required=param.required,
        many=many,
        shared=is_option and (param.name in {**SHARED, **FILES} or param.name == "help"),
        parameter=param.name,
    )


def _spell(default: Any) -> str:
    """A default value as a user would type it."""
    return ",".join(map(str, default)) if isinstance(default, list | tuple) else str(default)


def usage(surface: Sequence[Given]) -> str:
    """Arguments, required options, `[OPTIONS]`: what follows the command's name."""
    pieces = []
    for given in surface:
        if given.flags and given.required:
            pieces.append(f"{given.flags[0]} {given.value}")
        elif not given.flags:
            word = given.value + "..." * given.many
            pieces.append(word if given.required else f"[{word}]")
    return " ".join([*pieces, "[OPTIONS]"])


class Block(NamedTuple):
    """A paragraph of a docstring, or an indented example whose lines stay as they are."""

    text: str
    example: bool


def blocks(doc: str) -> list[Block]:
    """Paragraphs and examples of a cleaned docstring, in order."""
    found = []
    for part in re.split(r"\n\s*\n", doc.strip("\n")):
        lines = part.split("\n")
        if all(line.startswith("    ") for line in lines):
            found.append(Block("\n".join(line[4:].rstrip() for line in lines), True))
        else:
            found.append(Block(" ".join(part.split()), False))
    return found
