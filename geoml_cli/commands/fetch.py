"""`geoml fetch`."""

from typing import Annotated, Literal, Optional

import typer

from geoml_cli import options
from geoml_cli.manners import Manners


@options.with_manners
def command(
    catalog: Annotated[
        str,
        typer.Argument(
            metavar="CATALOG",
            help="planetary-computer, earth-search, or a path or URL: STAC API, catalog, collection,"
            " item, items (.json, .ndjson, .parquet); - reads items, or paths, from stdin.",
        ),
    ],
    manners: Manners,
    out: Annotated[
        Optional[str],
        typer.Option("-o", "--out", metavar="PATH", help="Where to write: a folder."),
    ] = None,
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
        typer.Option(metavar="FILE", help="Vector file, or -; all its shapes are the area."),
    ] = None,
    datetime: Annotated[
        Optional[str],
        typer.Option(
            metavar="RANGE",
            help="2023, 2023-05, 2023-05-01, a time, A/B, ../B, A/.., P30D (the last 30 days); UTC.",
        ),
    ] = None,
    ids: Annotated[
        Optional[str], typer.Option(metavar="A,B,...", help="Scenes with these ids.")
    ] = None,
    max_cloud: Annotated[
        Optional[float],
        typer.Option(min=0, max=100, metavar="PERCENT", help="Scenes at most this cloudy."),
    ] = None,
    filter: Annotated[
        Optional[str],
        typer.Option(metavar="CQL2", help="Condition on properties, as CQL2 text or JSON."),
    ] = None,
    sort: Annotated[
        Optional[str],
        typer.Option(
            metavar="P,-Q,...", help="Rank scenes by properties; -datetime puts the newest first."
        ),
    ] = None,
    limit: Annotated[
        Optional[int], typer.Option(min=1, metavar="N", help="Take at most N scenes.")
    ] = None,
    latest: Annotated[
        Optional[int], typer.Option(min=1, metavar="N", help="Take the N newest scenes.")
    ] = None,
    per_month: Annotated[
        Optional[int],
        typer.Option(min=1, metavar="N", help="Take the N least cloudy scenes of each month."),
    ] = None,
    per_cell: Annotated[
        bool,
        typer.Option(
            "--per-cell",
            help="Choose for each grid cell by itself; alone: the least cloudy scene of each.",
        ),
    ] = False,
    cover: Annotated[
        bool,
        typer.Option("--cover", help="Take the least cloudy scenes until the area is covered."),
    ] = False,
    since: Annotated[
        Optional[Literal["last"]],
        typer.Option(help="Take what earlier runs have not brought; nothing new is status 0."),
    ] = None,
    cursor: Annotated[
        Optional[str],
        typer.Option(metavar="FILE", help="Where --since last keeps account; PATH.cursor.json."),
    ] = None,
    bands: Annotated[
        Optional[str],
        typer.Option(
            metavar="A,B,...",
            help="Bands by common name or asset key; the collection's usual ones, or all rasters.",
        ),
    ] = None,
    mask: Annotated[
        Optional[str],
        typer.Option(
            metavar="A,B,...", help="Hide clouds, shadows, snow, ... by the scene's mask layer."
        ),
    ] = None,
    raw: Annotated[
        bool, typer.Option("--raw", help="Keep stored numbers; scale and offset are tags.")
    ] = False,
    whole: Annotated[bool, typer.Option("--whole", help="Copy entire files, bit for bit.")] = False,
    crs: options.Crs = None,
    resolution: options.Resolution = None,
    like: options.Like = None,
    resampling: Annotated[
        Optional[str],
        typer.Option(
            metavar="HOW",
            help="nearest, bilinear, cubic, average or mode; bilinear, nearest for classes.",
        ),
    ] = None,
    items_only: Annotated[
        bool, typer.Option("--items-only", help="Print the items found, one a line; fetch nothing.")
    ] = False,
    matched: Annotated[
        bool, typer.Option("--matched", help="Print how many scenes match; fetch nothing.")
    ] = False,
    retries: Annotated[
        int, typer.Option(min=0, metavar="N", help="Ask a failing server again so often.")
    ] = 5,
    timeout: Annotated[
        float, typer.Option(min=1, metavar="SECONDS", help="Wait so long for an answer.")
    ] = 60,
) -> None:
    """Find scenes in a STAC catalog and keep the pixels of an area.

    Every band that is wanted, of every scene that matches, is cut to the pixels that cover the area,
    on its own grid: nothing is resampled unless a grid is asked for. With --bbox and --intersects
    the area is what both have in common; without either, scenes are kept whole. What is masked out
    is nodata in the copy. Scale and offset are applied, once, by the provider's rule, which each item
    tells (geoml:scaling); with --raw the stored numbers stay. Conditions that a server does not know
    are applied here. Run again after a stop or a failure, the command goes on from the last block;
    what is there and whole is not fetched again.

        geoml fetch planetary-computer --collection sentinel-2-l2a \\
          --bbox 12.1,47.7,12.4,47.9 --datetime P30D --max-cloud 30 \\
          --mask clouds,shadows -j 16 -o scenes/
        geoml fetch catalog.json --intersects fields.gpkg \\
          --bands red,nir --resolution 30 -o scenes/
        geoml fetch earth-search --collection sentinel-2-l2a \\
          --bbox 12.1,47.7,12.4,47.9 --per-month 1 --items-only |
          geoml fetch - --bands red -o scenes/
        geoml fetch earth-search --collection sentinel-2-l2a \\
          --bbox 12.1,47.7,12.4,47.9 --since last --deadline 2h -q -o scenes/
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
        ids=ids,
        max_cloud=max_cloud,
        filter=filter,
        sort=sort,
        limit=limit,
        latest=latest,
        per_month=per_month,
        per_cell=per_cell,
        cover=cover,
        since=since,
        cursor=cursor,
        bands=bands,
        mask=mask,
        raw=raw,
        whole=whole,
        crs=crs,
        resolution=resolution,
        like=like,
        resampling=resampling,
        items_only=items_only,
        matched=matched,
        retries=retries,
        timeout_s=timeout,
        manners=manners,
    )
