"""`geoml embed`."""

from typing import Annotated, Literal, Optional

import typer

from geoml_cli import options
from geoml_cli.manners import Manners


@options.with_manners
def command(
    inputs: options.Inputs,
    out: options.Out,
    manners: Manners,
    model: Annotated[
        Optional[str], typer.Option(metavar="MODEL", help="Folder of `geoml train`.")
    ] = None,
    encoder: Annotated[
        Optional[str],
        typer.Option(metavar="NAME", help="Encoder on its own: band-stats, resnet:depth=50."),
    ] = None,
    encoder_weights: Annotated[
        Optional[str],
        typer.Option(metavar="PATH", help="Checkpoint of it; random weights if not given."),
    ] = None,
    location_encoder: Annotated[
        Optional[str],
        typer.Option(metavar="NAME", help="Embed places by it: satclip, spherical-harmonics, ..."),
    ] = None,
    lonlat: options.LonLat = None,
    as_: Annotated[
        Optional[str],
        typer.Option("--as", metavar="FILE", help="Embed as this file was: comparable with it."),
    ] = None,
    at: Annotated[
        Optional[str],
        typer.Option(metavar="FILE", help="Polygons or points: one row each, in their order."),
    ] = None,
    pool: Annotated[
        Optional[str],
        typer.Option(metavar="KIND", help="Tiles become one vector by mean, cls or attention."),
    ] = None,
    level: Annotated[
        Optional[int],
        typer.Option(min=1, metavar="N", help="Feature map, 1 the finest; the last if not given."),
    ] = None,
    member: Annotated[
        int, typer.Option(min=0, metavar="N", help="Network of an ensemble, counted from 0.")
    ] = 0,
    window: Annotated[
        Optional[int],
        typer.Option(min=1, metavar="PX", help="Side of a raster's tiles; the model's, or 224."),
    ] = None,
    dtype: Annotated[
        Literal["float32", "float16", "int8"], typer.Option(help="int8 has one scale a file.")
    ] = "float32",
    reduce: Annotated[
        Optional[str],
        typer.Option(metavar="KIND:N", help="To N dimensions: pca:64 or random:64."),
    ] = None,
    beside: Annotated[
        Optional[list[str]],
        typer.Option("--with", metavar="NAME=INPUT", help="Scenes of another sensor; repeatable."),
    ] = None,
    frames: Annotated[
        Optional[str],
        typer.Option(
            metavar="WHICH", help="Dates that the model sees: N, all, monthly, or DATE,DATE,..."
        ),
    ] = None,
    within: Annotated[
        Optional[float],
        typer.Option(min=0, metavar="DAYS", help="Take no frame further from its date."),
    ] = None,
    crs: options.Crs = None,
    resolution: options.Resolution = None,
    like: options.Like = None,
    aoi: Annotated[
        Optional[str],
        typer.Option(metavar="FILE", help="Embed only the ground within these polygons."),
    ] = None,
    search: Annotated[
        Optional[str],
        typer.Option(
            metavar="FILE|ID",
            help="Of embeddings: the rows most like a file's, or the row of an id.",
        ),
    ] = None,
    top: Annotated[int, typer.Option(min=1, metavar="N", help="How many --search finds.")] = 10,
    near_duplicates: Annotated[
        Optional[float],
        typer.Option(min=-1, max=1, metavar="COS", help="Rows at least so alike, in groups."),
    ] = None,
    cluster: Annotated[
        Optional[int], typer.Option(min=2, metavar="K", help="Rows in K groups, by k-means.")
    ] = None,
    outliers: Annotated[
        Optional[int],
        typer.Option(min=1, metavar="N", help="The N rows least like their neighbours."),
    ] = None,
    coverage: Annotated[
        Optional[int],
        typer.Option(min=1, metavar="N", help="N rows to label next: each far from those before."),
    ] = None,
    balance: Annotated[
        Optional[str],
        typer.Option(
            metavar="COLUMN", help="--coverage takes rows like the rare classes of this column."
        ),
    ] = None,
    batch: Annotated[
        Optional[int], typer.Option(min=1, metavar="N", help="Windows on the device at a time.")
    ] = None,
    precision: Annotated[
        Literal["auto", "32", "bf16"], typer.Option(help="Of forward passes; auto is bf16 on CUDA.")
    ] = "auto",
    device: options.Device = "auto",
    seed: options.Seed = 0,
    co: Annotated[
        Optional[list[str]],
        typer.Option(metavar="KEY=VALUE", help="Option of GDAL's COG driver; repeatable."),
    ] = None,
    shard: Annotated[
        Optional[str],
        typer.Option(metavar="I/N", help="Embed the I-th of N shares of the rows, for --merge."),
    ] = None,
    merge: Annotated[
        bool, typer.Option("--merge", help="Put the files of all shares together.")
    ] = False,
    trust_code: Annotated[
        bool, typer.Option("--trust-code", help="Run parts that the model folder carries as code.")
    ] = False,
) -> None:
    """Turn imagery into vectors, and ask vectors for what is alike.

    Of a tile set every tile becomes a row, of rasters every window; with --at every polygon or
    point: one GeoParquet (or GeoPackage), ids and order the input's. A folder or NAME.tif gets a
    vector a patch instead: a COG with a band a dimension. By a trained model, or by an encoder
    alone, whose bands are normalised by what the input shows; band-stats and spectral-indices
    learn nothing and are the baselines to beat.

    A table of places (points, or columns lon and lat) becomes a vector a row by --location-encoder, or
    by GeoCLIP, whose weights are fetched once from its package; its image side takes CLIP features.

    Embeddings (also AlphaEarth and Tessera rasters with --at, and GeoParquet of others) can be
    searched, grouped and thinned out; nearness is the cosine, exact, over all rows.

        geoml embed tiles/ --model model/ -o e.parquet
        geoml embed scenes/ --encoder band-stats --window 64 -o e.parquet
        geoml embed scenes/ --model model/ --at fields.gpkg -o fields.parquet
        geoml embed scenes/ --model model/ --reduce pca:16 --dtype int8 -o patches/
        geoml embed scene.tif --as e.parquet --at place.geojson -o query.parquet
        geoml embed cities.parquet --model pkg:geoclip -o cities-geoclip.parquet
        geoml embed stations.csv --location-encoder spherical-harmonics -o s.parquet
        geoml embed e.parquet --search query.parquet --top 20 -o found.parquet
        geoml embed e.parquet --coverage 50 -o label-next.gpkg
    """
    from geoml_cli.stages.embed import run

    run(
        inputs,
        out,
        model=model,
        encoder=encoder,
        encoder_weights=encoder_weights,
        location_encoder=location_encoder,
        lonlat=options.pair(lonlat),
        like_file=as_,
        at=at,
        pool=pool,
        level=level,
        member=member,
        window=window,
        dtype=dtype,
        reduce=reduce,
        beside=beside or (),
        frames=frames,
        within=within,
        crs=crs,
        resolution=resolution,
        like=like,
        aoi=aoi,
        search=search,
        top=top,
        near_duplicates=near_duplicates,
        cluster=cluster,
        outliers=outliers,
        coverage=coverage,
        balance=balance,
        batch=batch,
        precision=precision,
        device=device,
        seed=seed,
        co=co or (),
        shard=shard,
        merge=merge,
        trust_code=trust_code,
        manners=manners,
    )
