"""`geoml info`."""

from functools import partial
from typing import Annotated, Optional

import typer

from geoml_cli import options
from geoml_cli.manners import Manners


@partial(options.with_manners, names=(*options.LOOK, "force"))
def command(
    inputs: Annotated[
        list[str],
        typer.Argument(metavar="FILE...", help="Artifacts, rasters, vector files; - reads stdin."),
    ],
    manners: Manners,
    check: Annotated[
        bool, typer.Option("--check", help="Read every byte and say whether it is whole.")
    ] = False,
    why: Annotated[
        bool, typer.Option("--why", help="Show the commands behind it, and what has changed since.")
    ] = False,
    picture: Annotated[
        Optional[str],
        typer.Option(metavar="FILE.png", help="Draw it: a map, tiles with labels, curves."),
    ] = None,
) -> None:
    """Describe an artifact or a raster, check it, say where it came from.

    Scenes, tiles, models, maps and scores are told with the command that made them; any other
    raster or vector file by its bands, grid, classes and columns. --check reads everything
    again, compares it with the stamp and says what does not agree; the exit status is 1 if
    something does not. --why goes back through the records to the sources: a shell script,
    oldest command first, with what each read and whether that is unchanged; with --check a
    stale one has status 1 too.

        geoml info scene.tif fields.gpkg tiles/ model/
        geoml info maps/ --why
        geoml info maps/ --check && rsync -a maps/ server:maps/
        geoml info maps/ --picture map.png
        geoml info model/ --json | jq '.[0].best'
    """
    from geoml_cli.stages.info import run

    run(inputs, check=check, why=why, picture=picture, manners=manners)
