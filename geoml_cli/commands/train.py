"""`geoml train`."""

from typing import Annotated, Literal, Optional

import typer

from geoml_cli import options
from geoml_cli.manners import Manners


@options.with_manners
def command(
    tiles: Annotated[
        str,
        typer.Argument(
            metavar="TILES",
            help="Folder of `geoml tile`, file of `geoml embed`, or table of places.",
        ),
    ],
    out: options.Out,
    manners: Manners,
    task: Annotated[
        Optional[str],
        typer.Option(
            metavar="NAME",
            help="segment, classify, regress, presence; of tables what the labels are.",
        ),
    ] = None,
    layer: Annotated[
        list[str],
        typer.Option(
            metavar="NAME", help="Label layer to learn; may be repeated. The first that fits."
        ),
    ] = [],  # noqa: B006
    label_column: Annotated[
        Optional[str],
        typer.Option(
            "--label-column", "--target", metavar="NAME", help="Of tables: the column to learn."
        ),
    ] = None,
    split: Annotated[
        Optional[str],
        typer.Option(
            metavar="SPLIT",
            help="Of tables: blocks:8, blocks:500km, cells:10, checkerboard:10 (degrees), random.",
        ),
    ] = None,
    split_by: Annotated[
        Optional[str],
        typer.Option(
            metavar="COLUMN",
            help="Of tables: keep rows of one value on one side; COLUMN=VALUE tests on these.",
        ),
    ] = None,
    folds: Annotated[
        Optional[int],
        typer.Option(
            min=3, max=31, metavar="N", help="Of tables: cross-validate, a network a fold."
        ),
    ] = None,
    buffer: Annotated[
        Optional[str],
        typer.Option(
            metavar="LENGTH", help="Of tables: train on nothing this near to held rows: 50km."
        ),
    ] = None,
    lonlat: options.LonLat = None,
    features: Annotated[
        Optional[str],
        typer.Option(metavar="NAME,...", help="Of places: columns of numbers to learn from too."),
    ] = None,
    log_target: Annotated[
        bool, typer.Option("--log-target", help="Learn the logarithm of 1 + value.")
    ] = False,
    location_encoder: Annotated[
        Optional[str],
        typer.Option(
            metavar="NAME",
            help="Tell the network where it is; of places it is all that it sees.",
        ),
    ] = None,
    location_weights: Annotated[
        Optional[str],
        typer.Option(
            metavar="NAME",
            help="Its checkpoint: a file, pkg:geoclip, a model of places. --tune head keeps it.",
        ),
    ] = None,
    location_join: Annotated[
        Optional[Literal["concat", "film"]],
        typer.Option(help="Place beside the features (usual), or scaling and shifting them."),
    ] = None,
    location_dropout: Annotated[
        Optional[float],
        typer.Option(
            min=0, max=1, help="Share of the samples whose place is left out in training; 0.2."
        ),
    ] = None,
    sensor: Annotated[
        list[str],
        typer.Option(metavar="NAME", help="Sensor to look at; may be repeated. All if not given."),
    ] = [],  # noqa: B006
    encoder: Annotated[
        Optional[str],
        typer.Option(metavar="NAME", help="Encoder, with options: unet:width=32. Usually unet."),
    ] = None,
    head: Annotated[
        Optional[str], typer.Option(metavar="NAME", help="Head; the task's own if not given.")
    ] = None,
    objective: Annotated[
        Optional[str],
        typer.Option(metavar="NAME", help="Objective, or several joined by +; the task's own."),
    ] = None,
    fuse: Annotated[
        Literal["middle", "late"],
        typer.Option(help="Join sensors by their features, or by their answers."),
    ] = "middle",
    time: Annotated[
        Literal["stack", "mean", "attention"],
        typer.Option(help="Join dates as further bands, or by averaging features of each."),
    ] = "stack",
    codes: Annotated[
        Optional[str],
        typer.Option(metavar="NAME,...", help="Tell the network of place, season, or both."),
    ] = None,
    encoder_weights: Annotated[
        Optional[str],
        typer.Option(
            metavar="NAME",
            help="Checkpoint to start from: a file, folder, name of `geoml list weights`, hf:, pkg:.",
        ),
    ] = None,
    partial: Annotated[
        bool,
        typer.Option("--partial", help="Take of the checkpoint what fits, and say what does not."),
    ] = False,
    adapter: Annotated[
        Optional[str],
        typer.Option(metavar="NAME", help="Adapter beside the frozen encoder: lora:rank=8."),
    ] = None,
    tune: Annotated[
        str,
        typer.Option(
            metavar="WHAT", help="What is trained: all, head, or last:N blocks and the head."
        ),
    ] = "all",
    layer_decay: Annotated[
        float,
        typer.Option(min=0, max=1, help="Share of the rate that each block deeper down gets."),
    ] = 1.0,
    epochs: Annotated[
        Optional[int],
        typer.Option(min=1, help="Passes over the training tiles; about 1000 steps if not given."),
    ] = None,
    steps: Annotated[
        Optional[int], typer.Option(min=1, help="The same in batches, rounded up to whole epochs.")
    ] = None,
    batch: Annotated[
        Optional[int],
        typer.Option(min=1, metavar="N", help="Tiles a step: 8, or 256 rows of a table."),
    ] = None,
    micro_batch: Annotated[
        Optional[int],
        typer.Option(
            min=1, metavar="N", help="Tiles on the device at a time; as many as fit if not given."
        ),
    ] = None,
    optimizer: Annotated[
        Literal["adamw", "adam", "sgd"], typer.Option(help="SGD has Nesterov's momentum, 0.9.")
    ] = "adamw",
    lr: Annotated[float, typer.Option(min=0, help="Peak learning rate.")] = 2e-3,
    weight_decay: Annotated[
        float, typer.Option(min=0, help="Of weights; biases and norms are spared.")
    ] = 0.05,
    schedule: Annotated[
        Literal["cosine", "one-cycle", "poly", "constant"],
        typer.Option(help="How the rate goes after the warm-up."),
    ] = "cosine",
    warmup: Annotated[
        float, typer.Option(min=0, max=1, help="Share of the steps in which the rate rises.")
    ] = 0.1,
    clip: Annotated[
        float, typer.Option(min=0, help="Largest norm of the gradients; 0 lets them be.")
    ] = 1.0,
    ema: Annotated[
        float,
        typer.Option(min=0, max=1, help="Keep an average of the weights with this decay; 0: none."),
    ] = 0.99,
    patience: Annotated[
        int,
        typer.Option(
            min=0, metavar="N", help="Epochs without a better validation score; 0 never stops."
        ),
    ] = 0,
    watch: Annotated[
        Literal["score", "loss"],
        typer.Option(help="What of validation ground says which epoch is best."),
    ] = "score",
    keep: Annotated[
        Literal["best", "last"],
        typer.Option(help="Keep the weights that scored best, or the last."),
    ] = "best",
    class_weights: Annotated[
        Literal["none", "sqrt", "balanced"], typer.Option(help="Weigh rare classes up.")
    ] = "sqrt",
    sampling: Annotated[
        Literal["shuffle", "balanced"],
        typer.Option(help="Each tile once an epoch, or tiles of rare classes more often."),
    ] = "shuffle",
    share: Annotated[
        float,
        typer.Option(
            min=0, max=1, help="Train on this share of the labelled tiles; seeded, nested."
        ),
    ] = 1.0,
    augment: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="Augmentation, or several joined by +: dihedral+haze:p=0.3; or none.",
        ),
    ] = "dihedral",
    tta: Annotated[
        Literal["none", "flips", "dihedral"],
        typer.Option(help="Average the answers for turned images; the model keeps to it."),
    ] = "none",
    precision: Annotated[
        Literal["auto", "32", "bf16", "64"],
        typer.Option(help="Of forward passes; auto is bf16 on CUDA. 64: of all that is learnt."),
    ] = "auto",
    layout: Annotated[
        Literal["auto", "contiguous", "channels-last"],
        typer.Option(help="Of images in memory; auto is channels-last on CUDA."),
    ] = "auto",
    compile: Annotated[bool, typer.Option("--compile", help="Compile the network first.")] = False,
    device: options.Device = "auto",
    seed: options.Seed = 0,
    checkpoint_every: Annotated[
        str, typer.Option(metavar="TIME", help="Save what is needed to go on, every 90s, 10m, 1h.")
    ] = "10m",
    tensorboard: Annotated[
        Optional[str],
        typer.Option(metavar="FOLDER", help="Write losses and scores as TensorBoard events too."),
    ] = None,
) -> None:
    """Fit a model on labelled tiles.

    Classes or values of pixels or whole tiles, from one date of one sensor or several; what the
    labels are says what can be learnt from them. The weights with the best score on the
    validation ground are kept, and scored once on the test ground (scores.json in the
    folder). Tiles cut with --folds K give K networks: the k-th never saw fold k, and
    validated on the next one. A stopped run goes on from its last checkpoint to the same
    weights. Under torchrun the tiles of a step are shared out over the processes.

    A table of places (GeoParquet, GeoPackage; CSV or Parquet with columns lon and lat) is learnt
    from by a location encoder; its rows are dealt to blocks of ground, so that what is scored is
    not beside what was learnt.

        geoml train tiles/ -o model/
        geoml train tiles/ --encoder unet:width=48,depth=4 \\
          --objective cross-entropy+dice --epochs 100 -o model/
        geoml train tiles/ --task regress --layer biomass --encoder resnet:depth=18 \\
          --encoder-weights resnet18.pth --tune head --head fcn -o biomass/
        geoml train stations.csv --target t_mean --location-encoder spherical-harmonics \\
          --folds 5 -o climate/
        torchrun --standalone --nproc-per-node 4 -m geoml_cli train tiles/ -o model/
    """
    given = dict(locals())
    from geoml_cli.stages.train import run

    named = given.pop("codes")
    given |= {"lonlat": options.pair(lonlat), "features": options.listed(features)}
    every = options.length_of_time(given.pop("checkpoint_every"), "--checkpoint-every")
    run(**given, codes=named.split(",") if named else (), checkpoint_every_s=every)
