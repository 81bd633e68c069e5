"""The edge of the program: a command line in; an exit status and at most one line on stderr out.

Nothing is imported above that is not needed to report a failure: `geoml --help` and a
misspelt command never load Typer, and Ctrl-C while Typer or torch loads stays one line.
"""

import errno
import os
import signal
import sys
from collections.abc import Sequence
from types import FrameType
from typing import NoReturn

from geoml_cli import __doc__ as summary
from geoml_cli import __version__
from geoml_cli.commands import COMMANDS, TOPICS
from geoml_cli.errors import GeomlError, Status, UsageMistake

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
ROOT_OPTIONS = {"--version": "Print the version.", "-h, --help": "Show this message and exit."}


def overview() -> str:
    """The page that `geoml --help` prints."""

    def table(title: str, rows: dict[str, str]) -> str:
        wide = max(map(len, rows)) + 2
        return "\n".join([f"{title}:", *(f"  {name:{wide}}{line}" for name, line in rows.items())])

    return "\n\n".join(
        [
            "Usage: geoml COMMAND [ARGS]...",
            f"  {summary}",
            table("Options", ROOT_OPTIONS),
            table("Commands", COMMANDS),
            table("Topics of `geoml help`", TOPICS),
        ]
    )


def dispatch(argv: Sequence[str]) -> int:
    """Run one command line; what goes wrong is raised."""
    words = list(argv)
    if words[:1] == ["help"]:  # `geoml help tile` is `geoml tile --help`
        if len(words) == 1:
            words = ["--help"]
        elif words[1] in COMMANDS:
            words = [words[1], "--help"]
    if words and words[0] in COMMANDS:
        from geoml_cli.program import execute

        return execute(words[0], words[1:])
    if not words:
        print(overview(), file=sys.stderr)
        return Status.USAGE
    if words[0] in ("-h", "--help"):
        print(overview())
    elif words[0] == "--version":
        print(f"geoml {__version__}")
    else:
        raise UsageMistake(unknown(words))
    return Status.DONE


def unknown(words: Sequence[str]) -> str:
    """Say that the first word is no command, and which one it may have been meant to be."""
    from difflib import get_close_matches

    if words[0].startswith("-"):
        verb = next((word for word in words if word in COMMANDS), "COMMAND")
        near = get_close_matches(words[0], ["--version", "--help"], 1)
        hint = (
            f"did you mean {near[0]}?"
            if near
            else f"options come after it: geoml {verb} {words[0]}"
        )
        return f"a command comes first, not {words[0]}; {hint}"
    near = get_close_matches(words[0].lower(), COMMANDS, 1)
    return f"no command called {words[0]}; " + (
        f"did you mean {near[0]}?" if near else "see `geoml --help`"
    )


def run(argv: Sequence[str]) -> int:
    """Run one command line; a failure becomes one line on stderr and a status."""
    try:
        status = dispatch(argv)
        sys.stdout.flush()
        return status
    except BrokenPipeError:
        status, message = Status.SIGPIPE, ""
    except KeyboardInterrupt as stop:
        by_term = stop.args == (signal.SIGTERM,)
        status, message = (Status.SIGTERM if by_term else Status.SIGINT), "stopped"
    except Exception as error:
        if "--debug" in argv:
            import traceback

            traceback.print_exc()
        status, message = explain(error)
    _forget_stdout()
    if message:
        verb = f"{argv[0]}: " if argv and argv[0] in COMMANDS else ""
        tell(f"{verb}{message}", status, argv)
    return status


def explain(error: Exception) -> tuple[int, str]:
    """Status and message of a failure."""
    if isinstance(error, GeomlError):
        return error.status, str(error)
    if isinstance(error, MemoryError):
        return Status.FAILED, "out of memory; lower --batch or --window"
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        return Status.FAILED, f"{where}{SAY.get(error.errno or 0, error.strerror or error)}"
    what = f"{type(error).__name__}: {error}"
    return Status.FAILED, f"a fault in geoml itself ({what}); --debug shows where, please report it"


def tell(message: str, status: int, argv: Sequence[str]) -> None:
    """Put one line on stderr, as JSON where the command line asks for that."""
    message = " ".join(message.split())
    line = f"geoml: {message}"
    if "--log-format=json" in "=".join(argv):  # finds `--log-format json` too
        from geoml_cli.log import json_line

        line = json_line("error", message, status=int(status))
    try:
        print(line, file=sys.stderr, flush=True)
    except OSError:  # nobody reads stderr either: the status has to do
        pass


def _forget_stdout() -> None:
    """Flush stdout, or drop what cannot be written: Python would complain of it at exit."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _terminate(signum: int, _: FrameType | None) -> None:
    """Unwind on SIGTERM as on Ctrl-C; while a job runs, it asks the job to stop instead."""
    raise KeyboardInterrupt(signum)


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Enter from the console script."""
    for name in ("stdout", "stderr"):  # None where the caller has closed it, as `>&-` does
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))
    signal.signal(signal.SIGTERM, _terminate)
    # GDAL's default is 5 % of the machine's memory: of no use to a stream, and it would grow with the raster
    os.environ.setdefault("GDAL_CACHEMAX", "128")  # MB
    # idle torch threads sleep rather than spin: on a machine that has other work too, that is 3 times faster
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    sys.exit(run(sys.argv[1:] if argv is None else argv))
