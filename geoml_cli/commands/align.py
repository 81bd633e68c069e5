"""`geoml align`."""

from typing import Annotated, Literal, Optional

import typer

from geoml_cli import options
from geoml_cli.manners import Manners


@options.with_manners
def command(
    inputs: options.Inputs,
    out: options.Out,
    manners: Manners,
    to: Annotated[
        str,
        typer.Option(metavar="REFERENCE", help="What to align to; of a series: first or joint."),
    ],
    confidence: Annotated[
        Optional[float],
        typer.Option(min=0, max=1, metavar="P", help="Nothing less sure than this is moved."),
    ] = None,
    aligner: Annotated[
        Optional[str],
        typer.Option(metavar="NAME", help="Of rasters: phase, ecc, features, local:step=40."),
    ] = None,
    transform: Annotated[
        Literal["shift", "similarity", "affine", "projective", "field"],
        typer.Option(help="How rasters may be moved."),
    ] = "shift",
    band: Annotated[
        Optional[str],
        typer.Option(metavar="NAME[,NAME]", help="Band to compare; the reference's, the other's."),
    ] = None,
    mask: Annotated[
        Optional[list[str]],
        typer.Option(metavar="FILE", help="Raster, not 0 where to look away; repeatable."),
    ] = None,
    max_shift: Annotated[
        float, typer.Option(min=1, metavar="PX", help="Look no further than this.")
    ] = 32.0,
    resampling: Annotated[
        Literal["nearest", "bilinear", "cubic"], typer.Option(help="How pixels are moved, once.")
    ] = "cubic",
    geotransform_only: Annotated[
        bool, typer.Option("--geotransform-only", help="Move the grid, not a pixel.")
    ] = False,
    adjustments: Annotated[
        Optional[str],
        typer.Option(metavar="FILE", help="Of vectors: arrows drawn by people, to be used."),
    ] = None,
    reach: Annotated[
        Optional[float],
        typer.Option(
            min=1, metavar="PX", help="Of vectors: how far off; 2.5 times their size if not given."
        ),
    ] = None,
    road_width: Annotated[
        Optional[float],
        typer.Option(min=0.1, metavar="M", help="Of lines: how wide the roads are; 8 m."),
    ] = None,
    layer: Annotated[
        Optional[str], typer.Option(metavar="NAME", help="Layer of the vector file.")
    ] = None,
    device: options.Device = "auto",
    co: Annotated[
        Optional[list[str]],
        typer.Option(metavar="KEY=VALUE", help="Option of GDAL's COG driver; repeatable."),
    ] = None,
) -> None:
    """Move rasters onto a reference, and polygons onto imagery.

    What is moved is said with how sure it is, and what is less sure than --confidence stays.

        geoml align moving.tif --to reference.tif -o aligned/
        geoml align buildings.gpkg --to ortho.tif -o aligned.parquet
    """
    from geoml_cli.stages.align import run

    run(
        inputs,
        out,
        to=to,
        confidence=confidence,
        aligner=aligner,
        transform=transform,
        band=band,
        mask=mask or (),
        max_shift=max_shift,
        resampling=resampling,
        geotransform_only=geotransform_only,
        adjustments=adjustments,
        reach=reach,
        road_width=road_width,
        layer=layer,
        device=device,
        co=co or (),
        manners=manners,
    )
