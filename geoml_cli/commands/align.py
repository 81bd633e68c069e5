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
        typer.Option(
            metavar="REFERENCE", help="Image to align to; first or joint: a series to itself."
        ),
    ],
    confidence: Annotated[
        Optional[float],
        typer.Option(min=0, max=1, metavar="P", help="Nothing less sure than this is moved."),
    ] = None,
    aligner: Annotated[
        Optional[str],
        typer.Option(
            metavar="NAME", help="phase, phase:of=gradient, ecc, features, local:step=40."
        ),
    ] = None,
    transform: Annotated[
        Literal["shift", "similarity", "affine", "projective", "field"],
        typer.Option(help="How rasters may be off."),
    ] = "shift",
    band: Annotated[
        Optional[str],
        typer.Option(
            metavar="NAME[,NAME]", help="Band to compare: of the reference, of the other."
        ),
    ] = None,
    mask: Annotated[
        Optional[list[str]],
        typer.Option(metavar="FILE", help="Raster that is not 0 where not to look; repeatable."),
    ] = None,
    max_shift: Annotated[
        float, typer.Option(min=1, metavar="PX", help="Look no further, px of the coarser image.")
    ] = 32.0,
    resampling: Annotated[
        Literal["nearest", "bilinear", "cubic"], typer.Option(help="Of pixels that are moved.")
    ] = "cubic",
    geotransform_only: Annotated[
        bool,
        typer.Option("--geotransform-only", help="Move the grid and leave every pixel as it is."),
    ] = False,
    like: options.Like = None,
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
        typer.Option(min=0.1, metavar="M", help="Of lines: look for the rims of roads so wide."),
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

    Rasters of any CRS, pixel size, type and extent: bands that both have are compared where both are
    seen (nodata, masks and an item's cloud layer are not), coarse to fine, and pixels are resampled
    once. Each gets its tie points, its estimate with covariance and a checkerboard of before and
    after beside it. What is less sure than --confidence (0.95 for rasters) is not moved: the status
    is 1 and nothing is written, or with --keep-going it is written as it is and the status is 3. An
    image that is in place stays as it is.

        geoml align moving.tif --to reference.tif -o aligned/
        geoml align scenes/ --to reference.tif --transform affine -o aligned/
        geoml align scenes/ --to joint --geotransform-only -o aligned/
        geoml align radar.tif --to optical.tif --aligner phase:of=gradient \\
          --band red,VV -o aligned/
        geoml align ortho.tif --to reference.tif --transform field \\
          --like reference.tif -o ortho-2.tif
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
        like=like,
        adjustments=adjustments,
        reach=reach,
        road_width=road_width,
        layer=layer,
        device=device,
        co=co or (),
        manners=manners,
    )
