"""`geoml tile`."""

from typing import Annotated, Optional

import typer

from geoml_cli import options
from geoml_cli.manners import Manners


@options.with_manners
def command(
    inputs: options.Inputs,
    out: options.Out,
    manners: Manners,
    labels: Annotated[
        Optional[str], typer.Option(metavar="FILE", help="Polygons, points or a class raster.")
    ] = None,
    label_column: options.LabelColumn = None,
    layer: Annotated[
        Optional[str], typer.Option(metavar="NAME", help="Layer of the label file.")
    ] = None,
    all_touched: Annotated[
        bool,
        typer.Option("--all-touched", help="Burn every pixel a shape touches, not centres only."),
    ] = False,
    bands: Annotated[
        Optional[str], typer.Option(metavar="A,B,...", help="Bands by name or common name.")
    ] = None,
    size: Annotated[
        int, typer.Option(min=1, metavar="PX", help="Height and width of a tile.")
    ] = 128,
    stride: Annotated[
        Optional[int],
        typer.Option(min=1, metavar="PX", help="Step between tiles; as --size if not given."),
    ] = None,
    sampler: Annotated[str, typer.Option(metavar="NAME", help="How tiles are laid out.")] = "grid",
    split: Annotated[
        str,
        typer.Option(metavar="SPLIT", help="blocks:N deals N x N blocks of ground out; or none."),
    ] = "none",
    folds: Annotated[
        int,
        typer.Option(min=0, metavar="K", help="Deal the blocks into K folds for cross-validation."),
    ] = 0,
    buffer: Annotated[
        int, typer.Option(min=0, metavar="PX", help="Width along other folds that must not train.")
    ] = 8,
    min_valid: Annotated[
        float, typer.Option(min=0, max=1, help="Drop tiles with a smaller share of valid pixels.")
    ] = 0.0,
    min_labelled: Annotated[
        Optional[int],
        typer.Option(
            min=0, metavar="PX", help="Drop tiles with fewer labelled pixels; 1 with --labels."
        ),
    ] = None,
    seed: options.Seed = 0,
) -> None:
    """Cut scenes and their labels into tiles to train on.

    Tiles keep the scenes' own pixels and data type. Labels in another CRS are reprojected.
    With --split blocks:8 the ground is dealt out in 8 x 8 blocks: 70 % train, 15 %
    validation, 15 % test, or K folds; labelled pixels within the buffer of other folds'
    ground do not train.

        geoml tile scenes/ --labels fields.gpkg --label-column class \\
          --size 128 --split blocks:8 -o tiles/
        geoml tile scene.tif --labels classes.tif --split blocks:8 --folds 5 -o tiles/
    """
    from geoml_cli.stages.tile import run

    run(
        inputs,
        out,
        labels=labels,
        label_column=label_column,
        label_layer=layer,
        all_touched=all_touched,
        bands=bands,
        size=size,
        stride=stride,
        sampler=sampler,
        split=split,
        folds=folds,
        buffer=buffer,
        min_valid=min_valid,
        min_labelled=min_labelled,
        seed=seed,
        manners=manners,
    )
