"""`geoml train`."""

from typing import Annotated, Literal, Optional

import typer

from geoml_cli import options
from geoml_cli.manners import Manners


@options.with_manners
def command(
    tiles: Annotated[str, typer.Argument(metavar="TILES", help="Folder that `geoml tile` wrote.")],
    out: options.Out,
    manners: Manners,
    task: Annotated[str, typer.Option(metavar="NAME", help="What is learnt.")] = "segment",
    encoder: Annotated[
        str, typer.Option(metavar="NAME", help="Encoder, with options: unet:width=32.")
    ] = "unet",
    head: Annotated[
        Optional[str], typer.Option(metavar="NAME", help="Head; the task's own if not given.")
    ] = None,
    objective: Annotated[
        Optional[str], typer.Option(metavar="NAME", help="Objective, or several joined by +.")
    ] = None,
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the training tiles.")] = 60,
    batch: Annotated[int, typer.Option(min=1, metavar="N", help="Tiles a step.")] = 8,
    micro_batch: Annotated[
        Optional[int],
        typer.Option(
            min=1, metavar="N", help="Tiles on the device at a time; as --batch if not given."
        ),
    ] = None,
    lr: Annotated[float, typer.Option(min=0, help="Peak learning rate.")] = 2e-3,
    weight_decay: Annotated[
        float, typer.Option(min=0, help="Of AdamW; biases and norms are spared.")
    ] = 0.05,
    patience: Annotated[
        int,
        typer.Option(
            min=0, metavar="N", help="Epochs without a better validation score; 0 never stops."
        ),
    ] = 20,
    class_weights: Annotated[
        Literal["none", "sqrt", "balanced"], typer.Option(help="Weigh rare classes up.")
    ] = "sqrt",
    augment: Annotated[
        Literal["dihedral", "none"], typer.Option(help="Turn and flip tiles.")
    ] = "dihedral",
    precision: Annotated[
        Literal["auto", "32", "bf16"], typer.Option(help="Of forward passes; auto is bf16 on CUDA.")
    ] = "auto",
    device: options.Device = "auto",
    seed: options.Seed = 0,
) -> None:
    """Fit a model on labelled tiles.

    The network with the best score on the validation ground is kept. Tiles cut with
    --folds K give K networks: the k-th never saw fold k, and validated on the next one.
    A stopped run goes on from its last epoch to the same weights.

        geoml train tiles/ --encoder unet -o model/
        geoml train tiles/ --encoder unet:width=48,depth=4 \\
          --objective cross-entropy+dice --epochs 100 -o model/
    """
    from geoml_cli.stages.train import run

    run(
        tiles,
        out,
        task=task,
        encoder=encoder,
        head=head,
        objective=objective,
        epochs=epochs,
        batch=batch,
        micro_batch=micro_batch,
        lr=lr,
        weight_decay=weight_decay,
        patience=patience,
        class_weights=class_weights,
        augment=augment,
        precision=precision,
        device=device,
        seed=seed,
        manners=manners,
    )
