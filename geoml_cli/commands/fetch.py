"""`geoml fetch`."""

from typing import Annotated, Optional

import typer

from geoml_cli import options
from geoml_cli.manners import Manners


@options.with_manners
def command(
    catalog: Annotated[
        str,
        typer.Argument(
            metavar="CATALOG",
            help="catalog.json, collection.json, item.json, items.json, lines of items; path, URL or -.",
        ),
    ],
    out: options.Out,
    manners: Manners,
    source: Annotated[
        Optional[str],
        typer.Option(
            metavar="NAME", help="What reads the catalog; told by its content if not given."
        ),
    ] = None,
    collection: Annotated[
        Optional[list[str]],
        typer.Option(
            "--collection", metavar="NAME", help="Scenes of this collection; may be repeated."
        ),
    ] = None,
    bbox: options.Bbox = None,
    intersects: Annotated[
        Optional[str],
        typer.Option(metavar="FILE", help="Vector file; all its shapes are the area."),
    ] = None,
    datetime: Annotated[
        Optional[str],
        typer.Option(
            metavar="RANGE", help="2023, 2023-05, 2023-05-01, a time, A/B, ../B or A/..; UTC."
        ),
    ] = None,
    assets: Annotated[
        Optional[str],
        typer.Option(
            metavar="A,B,...", help="Keys of the assets to keep; all rasters if not given."
        ),
    ] = None,
    limit: Annotated[
        Optional[int], typer.Option(min=1, metavar="N", help="Take the first N scenes that match.")
    ] = None,
) -> None:
    """Find scenes in a STAC catalog and keep the pixels of an area.

    Every raster of every scene that matches is cut to the pixels that cover the area, on its own
    grid: nothing is resampled. With --bbox and --intersects the area is what both have in common;
    without either, scenes are kept whole. What is masked out in a source is nodata in the copy.
    A --datetime range includes its last year, month, day or second. Run again after a stop or a
    failure, the command goes on from the last block.

        geoml fetch catalog.json --collection landsat-c2-l2 \\
          --bbox 12.1,47.7,12.4,47.9 --datetime 2023 -o scenes/
        geoml fetch https://example.org/catalog.json --intersects fields.gpkg \\
          -j 8 -o scenes/
        cat items.json | geoml fetch - --assets red,nir --datetime 2023-05/2023-09 \\
          -o scenes/
    """
    from geoml_cli.stages.fetch import run

    run(
        catalog,
        out,
        source=source,
        collections=tuple(collection or ()),
        bbox=bbox,
        intersects=intersects,
        datetime=datetime,
        assets=assets,
        limit=limit,
        manners=manners,
    )
