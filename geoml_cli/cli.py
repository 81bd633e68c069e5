"""The `geoml` program: a table of commands; a command is imported only when it runs."""

import errno
import os
import sys
from collections.abc import Sequence
from difflib import get_close_matches
from importlib import import_module
from typing import Any, NoReturn

import typer
from typer._click.exceptions import ClickException, NoArgsIsHelpError
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command

from geoml_cli import __doc__ as summary
from geoml_cli import __version__
from geoml_cli.errors import GeomlError, Status

COMMANDS = {
    "fetch": "Find scenes in a STAC catalog and keep the pixels of an area.",
    "tile": "Cut scenes and their labels into tiles to train on.",
    "train": "Fit a model on labelled tiles.",
    "predict": "Map rasters with a trained model and write COGs.",
    "evaluate": "Score maps against reference data.",
    "list": "Name the parts there are: encoders, heads, metrics, ...",
    "info": "Describe an artifact or a raster, check it, say where it came from.",
    "help": "Explain a command or a topic, such as exit-codes.",
}
PLAIN: dict[str, Any] = {
    "add_completion": False,
    "rich_markup_mode": None,
    "pretty_exceptions_enable": False,
}
SAY = {
    errno.ENOSPC: "no space left on the disk; free some and run the same command again to go on",
    errno.EDQUOT: "the disk quota is used up; free some and run the same command again to go on",
    errno.EACCES: "permission denied; check who may read or write it",
    errno.EPERM: "operation not permitted; check who may read or write it",
    errno.EROFS: "the file system is read-only; write elsewhere with -o",
    errno.ENOENT: "no such file or folder",
    errno.ENOTDIR: "a part of this path is a file, not a folder",
    errno.EISDIR: "is a folder where a file is needed",
}


def program(name: str) -> TyperCommand:
    """The Typer command called `name`; imports that command's module."""
    one = typer.Typer(**PLAIN, context_settings={"help_option_names": ["-h", "--help"]})
    one.command(name, no_args_is_help=name not in ("list", "help"))(
        import_module(f"geoml_cli.commands.{name}").command
    )
    return get_command(one)  # type: ignore[return-value]


class Commands(TyperGroup):
    """The list that `geoml --help` prints; it imports no command."""

    def __init__(self, **settings: Any) -> None:
        settings["commands"] = {
            name: TyperCommand(name, help=line) for name, line in COMMANDS.items()
        }
        super().__init__(**settings)

    def list_commands(self, ctx: Any) -> list[str]:
        """Keep the order of the table: the order of the work."""
        return list(COMMANDS)


app = typer.Typer(
    cls=Commands, context_settings={"help_option_names": ["-h", "--help"]}, **PLAIN
)


def version(wanted: bool) -> None:
    """Print the version and stop."""
    if wanted:
        print(f"geoml {__version__}")
        raise typer.Exit()


@app.callback(help=summary)
def root(
    _: bool = typer.Option(
        False, "--version", callback=version, is_eager=True, help="Print the version."
    ),
) -> None:
    """Hold the options of `geoml` itself."""


def dispatch(argv: Sequence[str]) -> int:
    """Run one command line in plain mode: errors are raised, not printed."""
    if argv and argv[0] in COMMANDS:
        got = program(argv[0])(list(argv[1:]), prog_name=f"geoml {argv[0]}", standalone_mode=False)
    elif not argv or argv[0] in ("-h", "--help", "--version"):
        got = app(list(argv) or ["--help"], prog_name="geoml", standalone_mode=False)
    else:
        near = get_close_matches(argv[0], COMMANDS, 1)
        kind = "option" if argv[0].startswith("-") else "command"
        hint = f"did you mean {near[0]}?" if near else "see `geoml --help`"
        return die(f"no {kind} called {argv[0]}; {hint}", Status.USAGE)
    return got if isinstance(got, int) else 0


def die(message: str, status: int) -> int:
    """Put one line on stderr and hand the status back."""
    print(f"geoml: {' '.join(message.split())}", file=sys.stderr)
    return status


def run(argv: Sequence[str]) -> int:
    """Run one command line; a failure becomes one line on stderr and a status."""
    verb = argv[0] if argv and argv[0] in COMMANDS else ""
    try:
        status = dispatch(argv)
        sys.stdout.flush()
        return status
    except BrokenPipeError:
        # what is left in the buffer has no reader; without this Python complains at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return Status.SIGPIPE
    except KeyboardInterrupt:
        return die("stopped", Status.SIGINT)
    except NoArgsIsHelpError as error:
        print(error.format_message(), file=sys.stderr)
        return Status.USAGE
    except ClickException as error:
        return die(
            f"{verb}: {error.format_message().rstrip('.')}; see `geoml {verb} --help`", Status.USAGE
        )
    except (GeomlError, OSError, MemoryError) as error:
        if "--debug" in argv:
            raise
        return explain(verb, error)


def explain(verb: str, error: GeomlError | OSError | MemoryError) -> int:
    """Turn an expected failure into its line and its status."""
    if isinstance(error, GeomlError):
        return die(f"{verb}: {error}" if verb else str(error), error.status)
    if isinstance(error, MemoryError):
        return die(f"{verb}: out of memory; lower --batch or --window", Status.FAILED)
    where = f"{error.filename}: " if error.filename else ""
    return die(f"{verb}: {where}{SAY.get(error.errno or 0, error.strerror or error)}", Status.FAILED)


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Enter from the console script."""
    sys.exit(run(sys.argv[1:] if argv is None else argv))
