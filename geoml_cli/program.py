"""One verb as a Typer command: its help page, its run, and what it says of a wrong command line."""

import inspect
import sys
from collections.abc import Iterable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import typer
from typer._click.exceptions import (
    BadParameter,
    ClickException,
    MissingParameter,
    NoArgsIsHelpError,
    NoSuchOption,
)
from typer.core import TyperCommand
from typer.main import get_command

from geoml_cli.config import as_toml, named_file, read_config
from geoml_cli.errors import Status, UsageMistake
from geoml_cli.surface import Given, blocks, describe, usage

TIED = "\u00a0"  # a space that no line is broken at


class Verb(TyperCommand):
    """A command whose help page keeps examples as they are and puts its own options first."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write usage, text, arguments, own options, shared options."""
        surface = [describe(param) for param in self.get_params(ctx)]
        formatter.write_usage(ctx.command_path, usage(surface))
        for block in blocks(inspect.cleandoc(self.help or "")):
            formatter.write_paragraph()
            with formatter.indentation():
                if block.example:
                    formatter.write("".join(f"      {line}\n" for line in block.text.split("\n")))
                else:
                    formatter.write_text(block.text)
        for title, rows in sections(surface):
            with formatter.section(title):
                formatter.write_dl([row(given) for given in rows])
        formatter.buffer = [text.replace(TIED, " ") for text in formatter.buffer]


def sections(surface: Sequence[Given]) -> Iterable[tuple[str, list[Given]]]:
    """Split what a command offers under its headings; empty ones are left out."""
    common = sum(given.shared for given in surface) > 1  # --help alone needs no heading
    titled: dict[str, list[Given]] = {"Arguments": [], "Options": [], "Common options": []}
    for given in surface:
        own = "Common options" if given.shared and common else "Options"
        titled[own if given.flags else "Arguments"].append(given)
    return [(title, rows) for title, rows in titled.items() if rows]


def row(given: Given) -> tuple[str, str]:
    """Left and right column of a help page."""
    note = f"  [{given.note}]".replace(": ", f":{TIED}") if given.note else ""
    if not given.flags:
        return given.value + "..." * given.many, given.help + note
    return f"{', '.join(given.flags)} {given.value}".rstrip(), given.help + note


def program(name: str) -> Verb:
    """The command called `name`; imports that command's module."""
    one = typer.Typer(
        add_completion=False,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    one.command(name, cls=Verb, no_args_is_help=name != "list")(
        import_module(f"geoml_cli.commands.{name}").command
    )
    return get_command(one)  # type: ignore[return-value]


def verbs() -> Iterable[str]:
    """Names of all verbs."""
    return (path.stem for path in (Path(__file__).parent / "commands").glob("[a-z]*.py"))


def surface_of(verb: Verb) -> list[Given]:
    """All that a command offers, `--help` included."""
    with verb.make_context(verb.name, [], resilient_parsing=True) as ctx:
        return [describe(param) for param in verb.get_params(ctx)]


def execute(name: str, words: list[str]) -> int:
    """Run one verb. Typer's own `main` is passed by: it turns a closed pipe into status 1."""
    path, given = named_file(words), {}
    try:
        verb = program(name)
        if path is not None:
            given = read_config(path, name, list(verbs()), surface_of(verb))
        with verb.make_context(f"geoml {name}", words, default_map=given) as ctx:
            if ctx.params.get("print_config"):
                print(as_toml(surface_of(verb), ctx.params))
                return Status.DONE
            verb.invoke(ctx)
    except typer.Exit as done:
        return done.exit_code
    except NoArgsIsHelpError as page:
        print(page.format_message(), file=sys.stderr)
        return Status.USAGE
    except ClickException as error:
        param = getattr(error, "param", None)
        where = f"{path}: " if param is not None and param.name in given else ""
        raise UsageMistake(f"{where}{complaint(error)}; see `geoml {name} --help`") from error
    return Status.DONE


def complaint(error: ClickException) -> str:
    """What is wrong with a command line, in the words of the rest of the program."""
    if isinstance(error, NoSuchOption):
        near = f"; did you mean {error.possibilities[0]}?" if error.possibilities else ""
        return f"no option called {error.option_name}{near}"
    if isinstance(error, BadParameter) and error.param is not None:
        given = describe(error.param)
        name = "/".join(given.flags) or given.value
        if isinstance(error, MissingParameter):
            return f"{name} is missing"
        return f"{name}: {_plain(error.message)}"
    return _plain(error.format_message())


def _plain(message: str) -> str:
    """A message of Typer or pydantic without its capital, full stop and heading."""
    message = message.removeprefix("Value error, ").rstrip(".")
    return message[:1].lower() + message[1:]
