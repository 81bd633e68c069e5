"""Options that several commands share, each spelled once."""

import inspect
from collections.abc import Callable, Collection
from typing import Annotated, Any, Literal, Optional

import typer

from geoml_cli.errors import UsageMistake
from geoml_cli.manners import Manners, seconds


def length_of_time(text: str, option: str) -> float:
    """Parse a length of time, in seconds."""
    try:
        return seconds(text)
    except ValueError:
        raise UsageMistake(f"{option} {text}: no length of time; write 90s, 30m or 2h") from None


# str, not Path: Path("https://a") is https:/a
Inputs = Annotated[
    list[str],
    typer.Argument(
        metavar="INPUT...", help="Files, folders of an earlier stage, URLs; - reads stdin."
    ),
]
Out = Annotated[
    str,
    typer.Option("-o", "--out", metavar="PATH", help="Where to write: a folder, or NAME.SUFFIX."),
]
Seed = Annotated[int, typer.Option(min=0, help="Seed of every random choice.")]
Device = Annotated[str, typer.Option(metavar="DEVICE", help="auto, cpu, cuda, cuda:N or mps.")]
Crs = Annotated[
    Optional[str],
    typer.Option(metavar="CRS", help="Put pixels on a grid in this CRS, such as EPSG:32633."),
]
Resolution = Annotated[
    Optional[float],
    typer.Option(metavar="SIZE", help="Size of a pixel, in units of the CRS."),
]
Like = Annotated[
    Optional[str], typer.Option(metavar="FILE", help="Put pixels on the grid of this raster.")
]
Bbox = Annotated[
    Optional[str],
    typer.Option(metavar="W,S,E,N", help="Bounds in degrees; W > E crosses the antimeridian."),
]
LabelColumn = Annotated[
    Optional[str],
    typer.Option(metavar="NAME", help="Column of the vector file that holds the class."),
]
LonLat = Annotated[
    Optional[str],
    typer.Option(
        metavar="X,Y", help="Columns of longitude and latitude, in this order; lon,lat if there."
    ),
]


def listed(text: str | None) -> tuple[str, ...]:
    """Names written with commas between them."""
    return tuple(name.strip() for name in (text or "").split(",") if name.strip())


def numbers(text: str | None, option: str) -> tuple[float, ...]:
    """Numbers written with commas between them."""
    try:
        return tuple(float(one) for one in listed(text))
    except ValueError:
        raise UsageMistake(f"{option} {text}: numbers with commas between them") from None


def pair(lonlat: str | None) -> tuple[str, ...]:
    """The two names of --lonlat."""
    names = listed(lonlat)
    if lonlat is not None and len(names) != 2:
        raise UsageMistake(f"--lonlat {lonlat}: two columns, longitude first, as in lon,lat")
    return names


SHARED: dict[str, tuple[Any, Any]] = {  # name: (annotation, default)
    "jobs": (
        Annotated[
            int, typer.Option("-j", "--jobs", min=1, help="Readers and writers; changes no byte.")
        ],
        1,
    ),
    "force": (
        Annotated[bool, typer.Option("-f", "--force", help="Replace an output that is not ours.")],
        False,
    ),
    "dry_run": (
        Annotated[
            bool, typer.Option("-n", "--dry-run", help="Say what would be done; write nothing.")
        ],
        False,
    ),
    "json": (
        Annotated[bool, typer.Option("--json", help="Print one JSON summary on stdout.")],
        False,
    ),
    "ndjson": (
        Annotated[bool, typer.Option("--ndjson", help="Print one JSON record a line.")],
        False,
    ),
    "quiet": (
        Annotated[bool, typer.Option("-q", "--quiet", help="Warnings and errors only.")],
        False,
    ),
    "verbose": (
        Annotated[bool, typer.Option("-v", "--verbose", help="Say more on stderr.")],
        False,
    ),
    "log_format": (
        Annotated[Literal["plain", "json"], typer.Option(help="How stderr is written.")],
        "plain",
    ),
    "debug": (
        Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")],
        False,
    ),
    "keep_going": (
        Annotated[bool, typer.Option("--keep-going", help="Go on when an input fails; exit 3.")],
        False,
    ),
    "depfile": (
        Annotated[
            Optional[str],
            typer.Option(metavar="FILE", help="List what was read, in make's syntax."),
        ],
        None,
    ),
    "deadline": (
        Annotated[
            Optional[str],
            typer.Option(
                metavar="TIME", help="Finish the block, save and exit 75 after 90s, 30m, 2h."
            ),
        ],
        None,
    ),
}


FILES: dict[str, tuple[Any, Any]] = {  # seen to before a command runs, see config.py
    "config": (
        Annotated[
            Optional[str],
            typer.Option(metavar="FILE", help="Take options from a TOML file; flags win over it."),
        ],
        None,
    ),
    "print_config": (
        Annotated[
            bool,
            typer.Option("--print-config", help="Print all options in effect as TOML; do nothing."),
        ],
        False,
    ),
}
LOOK = ("json", "ndjson", "quiet", "verbose", "log_format", "debug")


def with_manners(
    command: Callable[..., None], names: Collection[str] = SHARED.keys()
) -> Callable[..., None]:
    """Give a command the shared options; it receives them packed as `manners`."""

    def run(**given: Any) -> None:
        from geoml_cli.log import start_log

        shared = {name: given.pop(name) for name in names}
        for name in FILES:
            given.pop(name)
        if "deadline" in shared:
            limit = shared.pop("deadline")
            shared["deadline_s"] = None if limit is None else length_of_time(limit, "--deadline")
        if shared["json"] and shared["ndjson"]:
            raise UsageMistake("give --json or --ndjson, not both")
        manners = Manners(**shared)
        start_log(manners)
        command(manners=manners, **given)

    own = [p for p in inspect.signature(command).parameters.values() if p.name != "manners"]
    extra = [
        inspect.Parameter(
            name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation
        )
        for name, (annotation, default) in {**SHARED, **FILES}.items()
        if name in names or name in FILES
    ]
    own = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in own]
    run.__signature__ = inspect.Signature(own + extra)  # type: ignore[attr-defined]
    run.__annotations__ = {p.name: p.annotation for p in own + extra}
    run.__doc__ = command.__doc__
    run.__name__ = "command"
    return run


def looking(command: Callable[..., None]) -> Callable[..., None]:
    """As `with_manners`, for a command that writes nothing: only what bears on its output."""
    return with_manners(command, LOOK)
