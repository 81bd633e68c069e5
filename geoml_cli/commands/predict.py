"""`geoml predict`."""

from typing import Annotated, Literal

import typer

from geoml_cli import options
from geoml_cli.manners import Manners


@options.with_manners
def command(
    inputs: options.Inputs,
    model: Annotated[str, typer.Option(metavar="FOLDER", help="Folder that `geoml train` wrote.")],
    out: options.Out,
    manners: Manners,
    out_of_fold: Annotated[
        bool,
        typer.Option(
            "--out-of-fold", help="Map each block of ground by the network that never saw it."
        ),
    ] = False,
    trust_code: Annotated[
        bool, typer.Option("--trust-code", help="Run parts that the model folder carries as code.")
    ] = False,
    window: Annotated[
        int, typer.Option(min=16, metavar="PX", help="Largest block computed at a time.")
    ] = 512,
    batch: Annotated[
        int, typer.Option(min=1, metavar="N", help="Windows on the device at a time.")
    ] = 4,
    precision: Annotated[
        Literal["auto", "32", "bf16"], typer.Option(help="Of forward passes; auto is bf16 on CUDA.")
    ] = "auto",
    device: options.Device = "auto",
) -> None:
    """Map rasters with a trained model and write COGs.

    Rasters of any size, on their own grid. Windows overlap by the network's measured
    receptive field, so there are no seams. Bands are matched by name; a raster that the
    model cannot be right about is refused. After a kill the same command goes on.

        geoml predict scenes/ --model model/ -o maps/
        geoml predict scene.tif --model model/ -o map.tif
        geoml predict scenes/ --model model/ --out-of-fold -o maps/
    """
    from geoml_cli.stages.predict import run

    run(
        inputs,
        out,
        model=model,
        out_of_fold=out_of_fold,
        trust_code=trust_code,
        window=window,
        batch=batch,
        precision=precision,
        device=device,
        manners=manners,
    )
