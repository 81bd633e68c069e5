"""`geoml tile`."""

from typing import Annotated, Optional

import typer

from geoml_cli import options
from geoml_cli.manners import Manners

Each = Optional[
    list[str]
]  # a repeated option, each `[NAME=]VALUE`: of one layer or sensor, or of all


@options.with_manners
def command(
    inputs: options.Inputs,
    out: options.Out,
    manners: Manners,
    beside: Annotated[
        Each,
        typer.Option("--with", metavar="NAME=INPUT", help="Scenes of another sensor; repeatable."),
    ] = None,
    bands: Annotated[
        Each, typer.Option(metavar="[SENSOR=]A,B", help="Bands by name or common name.")
    ] = None,
    frames: Annotated[
        Optional[str],
        typer.Option(metavar="WHICH", help="Dates a tile: N, all, monthly, or DATE,DATE,..."),
    ] = None,
    within: Annotated[
        Optional[float],
        typer.Option(min=0, metavar="DAYS", help="Take no frame further from its date."),
    ] = None,
    crs: options.Crs = None,
    resolution: options.Resolution = None,
    like: options.Like = None,
    resampling: Annotated[
        str,
        typer.Option(metavar="HOW", help="nearest, bilinear, cubic, average or mode, of values."),
    ] = "bilinear",
    labels: Annotated[
        Each,
        typer.Option(
            metavar="[LAYER=]FILE", help="Vector file, raster, or folder of masks; repeatable."
        ),
    ] = None,
    label_column: Annotated[
        Each,
        typer.Option(metavar="[LAYER=]NAME", help="Column that holds the class or value."),
    ] = None,
    label_layer: Annotated[
        Each, typer.Option("--layer", metavar="[LAYER=]NAME", help="Layer inside the label file.")
    ] = None,
    label_kind: Annotated[
        Each, typer.Option(metavar="[LAYER=]KIND", help="classes or values.")
    ] = None,
    label_per: Annotated[
        Each,
        typer.Option(
            metavar="[LAYER=]WHAT",
            help="pixel; or one a tile: majority, present, centre, mean.",
        ),
    ] = None,
    label_buffer: Annotated[
        Each,
        typer.Option(metavar="[LAYER=]METRES", help="Widen lines and points by this much."),
    ] = None,
    label_area: Annotated[
        Each,
        typer.Option(metavar="[LAYER=]FILE", help="Labels hold inside these polygons only."),
    ] = None,
    background: Annotated[
        Each,
        typer.Option(metavar="[LAYER=]CLASS", help="Class of ground that no feature covers."),
    ] = None,
    classes: Annotated[
        Each,
        typer.Option(
            metavar="[LAYER=]FILE", help="CSV of value, name, color: merge, rename, leave out."
        ),
    ] = None,
    burn_order: Annotated[
        Each,
        typer.Option(metavar="[LAYER=]COLUMN", help="Features with larger values lie on top."),
    ] = None,
    all_touched: Annotated[
        bool,
        typer.Option("--all-touched", help="Burn every pixel a shape touches, not centres only."),
    ] = False,
    folder_classes: Annotated[
        bool,
        typer.Option("--folder-classes", help="The folder of an image is the class of its tiles."),
    ] = False,
    size: Annotated[
        str,
        typer.Option(metavar="SIZE", help="Side of a tile: 128 px, 1280m, or whole: each image."),
    ] = "128",
    stride: Annotated[
        Optional[str],
        typer.Option(metavar="SIZE", help="Step between tiles; as --size if not given."),
    ] = None,
    sampler: Annotated[str, typer.Option(metavar="NAME", help="How tiles are laid out.")] = "grid",
    split: Annotated[
        Optional[str],
        typer.Option(
            metavar="SPLIT",
            help="auto, blocks:8, blocks:5km, FILE, random or none; auto where there are labels.",
        ),
    ] = None,
    split_by: Annotated[
        Optional[str],
        typer.Option(metavar="COLUMN", help="Keep features with one value on one side."),
    ] = None,
    folds: Annotated[
        int,
        typer.Option(min=0, metavar="K", help="Deal the ground into K folds for cross-validation."),
    ] = 0,
    buffer: Annotated[
        str,
        typer.Option(metavar="SIZE", help="Width along other folds that must not train: 8 or 80m."),
    ] = "8",
    min_valid: Annotated[
        float, typer.Option(min=0, max=1, help="Drop tiles with a smaller share of valid pixels.")
    ] = 0.0,
    min_labelled: Annotated[
        Optional[int],
        typer.Option(
            min=0, metavar="PX", help="Drop tiles with fewer labelled pixels; 1 with --labels."
        ),
    ] = None,
    max_cloud: Annotated[
        Optional[float],
        typer.Option(min=0, max=1, help="Drop tiles with a larger share of cloud."),
    ] = None,
    where: Annotated[
        Optional[str],
        typer.Option(metavar="EXPR", help="Keep tiles of which this holds: 'valid > 0.9'."),
    ] = None,
    format: Annotated[
        str,
        typer.Option(metavar="FORMAT", help="npy arrays, gtiff files, or virtual: the index only."),
    ] = "npy",
    virtual: Annotated[
        bool, typer.Option("--virtual", help="Write the index only, as --format virtual.")
    ] = False,
    shard: Annotated[
        Optional[str], typer.Option(metavar="I/N", help="Cut the I-th of N shares, for --merge.")
    ] = None,
    merge: Annotated[
        bool, typer.Option("--merge", help="Put the shares named as INPUT together.")
    ] = False,
    seed: options.Seed = 0,
) -> None:
    """Cut scenes and their labels into tiles to train on.

    Tiles keep the scenes' own pixels and data type; bands of coarser assets, other sensors and
    a grid given by --crs, --resolution or --like are resampled. Labels in another CRS are
    reprojected. Where there are labels the ground is dealt out in 8 x 8 blocks, by what is
    labelled where: 70 % train, 15 % validation, 15 % test, or K folds; labelled pixels within
    the buffer of other folds' ground do not train. blocks:5km are cells of the globe: the same
    ground falls on the same side in every run.

        geoml tile scenes/ --labels fields.gpkg --label-column class \\
          --size 128 --split blocks:8 -o tiles/
        geoml tile s2/ --with sar=s1/ --with dem=dem.tif --frames monthly -o tiles/
        geoml tile chips/ --folder-classes --size whole -o tiles/
        geoml tile scene.tif --labels classes.tif --split blocks:8 --folds 5 -o tiles/
    """
    from geoml_cli.errors import UsageMistake
    from geoml_cli.stages.tile import run

    if virtual and format not in ("npy", "virtual"):
        raise UsageMistake(f"--virtual and --format {format}: give one")
    run(
        inputs,
        out,
        beside=beside or (),
        bands=bands or (),
        frames=frames,
        within=within,
        crs=crs,
        resolution=resolution,
        like=like,
        resampling=resampling,
        labels=labels or (),
        label_column=label_column or (),
        label_layer=label_layer or (),
        label_kind=label_kind or (),
        label_per=label_per or (),
        label_buffer=label_buffer or (),
        label_area=label_area or (),
        background=background or (),
        classes=classes or (),
        burn_order=burn_order or (),
        all_touched=all_touched,
        folder_classes=folder_classes,
        size=size,
        stride=stride,
        sampler=sampler,
        split=split,
        split_by=split_by,
        folds=folds,
        buffer=buffer,
        min_valid=min_valid,
        min_labelled=min_labelled,
        max_cloud=max_cloud,
        where=where,
        format="virtual" if virtual else format,
        shard=shard,
        merge=merge,
        seed=seed,
        manners=manners,
    )
