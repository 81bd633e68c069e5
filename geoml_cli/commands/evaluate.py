"""`geoml evaluate`."""

from typing import Annotated, Literal, Optional

import typer

from geoml_cli import options
from geoml_cli.manners import Manners


@options.with_manners
def command(
    inputs: Annotated[
        list[str],
        typer.Argument(
            metavar="MAPS...",
            help="Predictions folders, class rasters, items.json, tables, embeddings; - reads stdin.",
        ),
    ],
    manners: Manners,
    truth: Annotated[
        Optional[str],
        typer.Option(metavar="FILE", help="Points, polygons or a class raster, in any CRS."),
    ] = None,
    out: Annotated[
        Optional[str],
        typer.Option(
            "-o", "--out", metavar="FILE.json", help="Where to write; stdout if not given."
        ),
    ] = None,
    label_column: options.LabelColumn = None,
    layer: Annotated[
        Optional[str], typer.Option(metavar="NAME", help="Layer of the truth file.")
    ] = None,
    report: Annotated[
        Optional[str],
        typer.Option(
            metavar="FILE.html", help="Write a self-contained page too, beside the scores."
        ),
    ] = None,
    task: Annotated[
        Optional[Literal["alignment"]],
        typer.Option(help="alignment: score shapes of `geoml align` by where they belong."),
    ] = None,
    before: Annotated[
        Optional[str],
        typer.Option(metavar="FILE", help="Of an alignment: the shapes as they were."),
    ] = None,
    metric: Annotated[
        str, typer.Option(metavar="NAME", help="What to compute; see `geoml list metrics`.")
    ] = "segmentation",
    probe: Annotated[
        list[str],
        typer.Option(
            metavar="NAME",
            help="Of embeddings: knn:k=20, linear, ...; may be repeated. All that fit.",
        ),
    ] = [],  # noqa: B006
    areas: Annotated[
        Optional[str],
        typer.Option(metavar="KM2,...", help="Of recall-area: at which areas, 10,100,1000."),
    ] = None,
    lonlat: options.LonLat = None,
    folds: Annotated[
        int,
        typer.Option(
            min=2, max=31, metavar="N", help="Of embeddings: shares the blocks are dealt to."
        ),
    ] = 5,
    blocks: Annotated[
        int,
        typer.Option(
            min=1, max=255, metavar="N", help="Redraw N x N blocks of ground for the intervals."
        ),
    ] = 8,
    bootstrap: Annotated[
        int, typer.Option(min=0, metavar="N", help="Number of redraws; 0: no intervals.")
    ] = 1000,
    seed: options.Seed = 0,
    strict: Annotated[
        bool, typer.Option("--strict", help="Refuse truth on ground that the model trained on.")
    ] = False,
    include_trained: Annotated[
        bool,
        typer.Option(
            "--include-trained", help="Score truth on ground that the model trained on too."
        ),
    ] = False,
    fail_if: Annotated[
        Optional[list[str]],
        typer.Option(
            "--fail-if",
            metavar="GATE",
            help="Exit 1 if 'miou<0.6' or 'iou.water<0.5'; may be repeated.",
        ),
    ] = None,
    baseline: Annotated[
        Optional[str],
        typer.Option(metavar="FILE.json", help="Earlier scores: exit 1 if a metric got lower."),
    ] = None,
    max_drop: Annotated[
        Optional[float],
        typer.Option("--max-drop", min=0, metavar="X", help="By how much it may; 0 if not given."),
    ] = None,
) -> None:
    """Score maps against reference data.

    Accuracy, mean IoU, kappa and the scores of each class, with 95 % intervals from
    redrawing blocks of ground. A point is one sample, the pixel that holds it; of polygons
    every pixel whose centre they hold is one, of a class raster every map pixel. Truth is
    reprojected to the map. Where maps overlap a place counts once, on the first map in
    order of id that has data there. Truth on ground that the model trained or validated on
    is left out, and what is left out is counted; of out-of-fold maps all counts.

    Embeddings are scored by probes: labels of a column told by kNN and by a linear model, taught on
    other blocks of ground; retrieval; effective rank; Moran's I.

    Images that were filled (--metric reconstruction) are scored against the images themselves, where they were
    filled: PSNR, SSIM, RMSE.

    Shapes that were moved (--task alignment) are scored by where they belong: how far they are off,
    their overlap before and after, how uneven their offsets were, and what a global, an affine and a
    quadratic transform fitted to the truth would have left. Rows are matched by id, or by order.

    Tables of answers are held against a table of truth, row by row of an id: classes, values (with
    Moran's I of what is left over), or things present against columns of 0 and 1. `great-circle` says
    how far places are from the true ones; `recall-area` in how many km2 of ranked cells the truth lies.

    Classes are matched by name, or by id where the truth has no names of the maps'. Without
    -o the scores go to stdout. Gates are looked at even if the scores are up to date.

        geoml evaluate maps/ --truth check.gpkg --label-column class \\
          -o scores.json --report report.html
        geoml evaluate e.parquet --label-column class --probe knn -o scores.json
        geoml evaluate filled/ --truth clear.tif --metric reconstruction -o scores.json
        geoml evaluate moved.parquet --truth right.gpkg --task alignment
        geoml evaluate answers.parquet --truth stations.csv --label-column temperature
        geoml evaluate guessed.csv --truth photos.csv --metric great-circle -o scores.json
        geoml evaluate map.tif --truth reference.tif | jq .metrics.miou.value
        geoml evaluate maps/ --truth check.gpkg --label-column class -o scores.json \\
          --fail-if 'miou<0.6' --baseline last.json --max-drop 0.01
    """
    from geoml_cli.stages.evaluate import run

    run(
        inputs,
        truth,
        out,
        label_column=label_column,
        layer=layer,
        report=report,
        task=task,
        before=before,
        metric=metric,
        probe=probe,
        areas=options.numbers(areas, "--areas"),
        lonlat=options.pair(lonlat),
        folds=folds,
        blocks=blocks,
        draws=bootstrap,
        seed=seed,
        strict=strict,
        include_trained=include_trained,
        fail_if=fail_if or [],
        baseline=baseline,
        max_drop=max_drop,
        manners=manners,
    )
