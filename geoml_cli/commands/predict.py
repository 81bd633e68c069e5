"""`geoml predict`."""

from typing import Annotated, Literal, Optional

import typer

from geoml_cli import options
from geoml_cli.manners import Manners


@options.with_manners
def command(
    out: options.Out,
    manners: Manners,
    inputs: Annotated[
        Optional[list[str]],
        typer.Argument(
            metavar="INPUT...",
            help="Files, folders of an earlier stage, tables of places, URLs; - reads stdin.",
        ),
    ] = None,
    model: Annotated[
        Optional[str],
        typer.Option(
            metavar="MODEL", help="Folder of `geoml train`, NAME.onnx, or pkg:PACKAGE/NAME.onnx."
        ),
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
    bbox: options.Bbox = None,
    lonlat: options.LonLat = None,
    aoi: Annotated[
        Optional[str],
        typer.Option(metavar="FILE", help="Map only the ground within these polygons."),
    ] = None,
    probabilities: Annotated[
        bool, typer.Option("--probabilities", help="Also write a COG with a band a class, 0 to 1.")
    ] = False,
    uncertainty: Annotated[
        bool,
        typer.Option(
            "--uncertainty", help="Also write how unsure the model is, and its votes apart."
        ),
    ] = False,
    polygons: Annotated[
        Optional[str],
        typer.Option(metavar="FILE", help="Also write vectors: NAME.parquet or NAME.gpkg."),
    ] = None,
    sieve: Annotated[
        int,
        typer.Option(min=0, metavar="PX", help="Polygons of fewer pixels join a neighbour."),
    ] = 0,
    simplify: Annotated[
        float,
        typer.Option(min=0, metavar="PX", help="Straighten polygons; shared edges stay shared."),
    ] = 0.0,
    out_of_fold: Annotated[
        bool,
        typer.Option(
            "--out-of-fold", help="Map each block of ground by the network that never saw it."
        ),
    ] = False,
    tta: Annotated[
        Optional[str],
        typer.Option(metavar="KIND", help="Ask about turned images too: none, flips, dihedral."),
    ] = None,
    window: Annotated[
        Optional[int],
        typer.Option(min=16, metavar="PX", help="Largest block computed at a time."),
    ] = None,
    batch: Annotated[
        Optional[int], typer.Option(min=1, metavar="N", help="Windows on the device at a time.")
    ] = None,
    precision: Annotated[
        Literal["auto", "32", "bf16"], typer.Option(help="Of forward passes; auto is bf16 on CUDA.")
    ] = "auto",
    device: options.Device = "auto",
    co: Annotated[
        Optional[list[str]],
        typer.Option(metavar="KEY=VALUE", help="Option of GDAL's COG driver; repeatable."),
    ] = None,
    check_seams: Annotated[
        bool,
        typer.Option("--check-seams", help="Compute where windows meet again, in other windows."),
    ] = False,
    shard: Annotated[
        Optional[str],
        typer.Option(metavar="I/N", help="Map the I-th of N shares, for --merge."),
    ] = None,
    merge: Annotated[
        bool, typer.Option("--merge", help="Put the folders of all shares together.")
    ] = False,
    trust_code: Annotated[
        bool, typer.Option("--trust-code", help="Run parts that the model folder carries as code.")
    ] = False,
) -> None:
    """Map rasters with a trained model and write COGs.

    Rasters and tile sets of any size, on their own grid or another. Pixels are brought to the
    model's size on the way in, and back on the way out. Windows overlap by the network's measured
    receptive field, so there are no seams; networks that see their whole window are blended.
    Bands are matched by name; a raster that the model cannot be right about is refused. After a
    kill the same command goes on. Answers for whole tiles of a tile set are a table; so are those
    of a model of places for a table of these, and without INPUT it maps a grid.

        geoml predict scenes/ --model model/ -o maps/
        geoml predict scene.tif --model model/ -o map.tif
        geoml predict scenes/ --model model/ --out-of-fold -o maps/
        geoml predict scenes/ --model model/ --probabilities \\
          --polygons fields.gpkg --sieve 20 --simplify 1 -o maps/
        geoml predict cities.csv --model climate/ -o answers.parquet
        geoml predict --bbox=-25,34,45,72 --resolution 0.25 --model climate/ -o map.tif
        geoml predict s2/ --with s1=s1/ --model model/ -o maps/
        geoml predict scenes/ --model model/ --shard 2/4 -o share-2/
        geoml predict share-*/ --merge -o maps/
        geoml predict scene.tif --model clouds.onnx -o clouds.tif
    """
    from geoml_cli.stages.predict import run

    run(
        inputs or [],
        out,
        model=model,
        beside=beside or (),
        frames=frames,
        within=within,
        crs=crs,
        resolution=resolution,
        like=like,
        aoi=aoi,
        bbox=bbox,
        lonlat=options.pair(lonlat),
        probabilities=probabilities,
        uncertainty=uncertainty,
        polygons=polygons,
        sieve=sieve,
        simplify=simplify,
        out_of_fold=out_of_fold,
        tta=tta,
        window=window,
        batch=batch,
        precision=precision,
        device=device,
        co=co or (),
        check_seams=check_seams,
        shard=shard,
        merge=merge,
        trust_code=trust_code,
        manners=manners,
    )
