"""Fit a model on tiles: check, fit each member, score it on held ground, write the model folder."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from geoml_cli import registry
from geoml_cli.core.aim import Aim
from geoml_cli.core.depth import depth_of
from geoml_cli.core.ranks import Ranks
from geoml_cli.errors import GeomlError, UsageMistake
from geoml_cli.formats.digest import digest_file
from geoml_cli.formats.embeddings import is_embeddings
from geoml_cli.formats.points import is_places
from geoml_cli.formats.stamp import Input
from geoml_cli.formats.tileset import Tiles
from geoml_cli.manners import Manners
from geoml_cli.stages.carried import part_inputs, spelled
from geoml_cli.stages.codes import check_codes
from geoml_cli.stages.job import Job, plan
from geoml_cli.stages.row_splits import RowSplit
from geoml_cli.stages.sides import parts_of
from geoml_cli.stages.tiles import open_tiles

STEPS = 1000  # of a run whose length is not said
FEWEST, MOST = 20, 400  # epochs of such a run
LABELS = ("classes", "present", "values")  # what an objective takes that does not say
SCORES = 50  # times that it is scored on validation ground, at most
OFTEN = 10  # unless a run has a patience: as often in one patience, at least


def run(
    tiles: str,
    out: str,
    *,
    task: str | None = None,
    layer: Sequence[str] = (),
    label_column: str | None = None,
    split: str | None = None,
    split_by: str | None = None,
    folds: int | None = None,
    buffer: str | None = None,
    lonlat: Sequence[str] = (),
    features: Sequence[str] = (),
    log_target: bool = False,
    location_encoder: str | None = None,
    location_weights: str | None = None,
    location_join: str | None = None,
    location_dropout: float | None = None,
    sensor: Sequence[str] = (),
    encoder: str | None = None,
    head: str | None = None,
    objective: str | None = None,
    fuse: str = "middle",
    time: str = "stack",
    codes: Sequence[str] = (),
    encoder_weights: str | None = None,
    partial: bool = False,
    adapter: str | None = None,
    tune: str = "all",
    layer_decay: float = 1.0,
    epochs: int | None = None,
    steps: int | None = None,
    batch: int | None = None,
    micro_batch: int | None = None,
    optimizer: str = "adamw",
    lr: float = 2e-3,
    weight_decay: float = 0.05,
    schedule: str = "cosine",
    warmup: float = 0.1,
    clip: float = 1.0,
    ema: float = 0.99,
    patience: int = 0,
    watch: str = "score",
    keep: str = "best",
    class_weights: str = "sqrt",
    sampling: str = "shuffle",
    share: float = 1.0,
    augment: str = "dihedral",
    tta: str = "none",
    precision: str = "auto",
    layout: str = "auto",
    compile: bool = False,
    device: str = "auto",
    seed: int = 0,
    checkpoint_every_s: float = 600.0,
    tensorboard: str | None = None,
    manners: Manners = Manners(),
) -> None:
    """Write a model folder; see `geoml train --help` for what each argument means."""
    given = dict(locals())
    if epochs and steps:
        raise UsageMistake("give --epochs or --steps, not both")
    wish = RowSplit(split, split_by, folds or 0, buffer)
    found, usually = opened(tiles, label_column, wish, seed, task, features, lonlat)
    task, encoder = task or usually["task"], encoder or usually["encoder"]
    given |= {"task": task, "encoder": encoder, "batch": batch or usually["batch"]}
    location_encoder, place_inputs = _started(location_encoder, location_weights)
    given |= told_place(usually, location_encoder, location_join, location_dropout)
    kind = registry.make("tasks", task)
    try:
        aim = aim_of(found, kind, tuple(layer), chosen_sensors(found, sensor))
    except GeomlError as error:
        raise type(error)(f"{tiles}: {error}") from None
    usual = {**kind.defaults(aim), **usually}
    parts = {
        "encoder": encoder,
        "head": head or decoder_of(encoder, aim) or usual["head"],
        "objective": objective or usual["objective"],
        "adapter": adapter,
        "location_encoder": given["location_encoder"],
    }
    check_parts(parts, aim)
    if log_target and aim.kind != "values":
        raise UsageMistake(f"--log-target: is of values; these labels are {aim.kind}")
    augments = [] if augment == "none" else augment.split("+")
    for one in augments:
        registry.parse("augmentations", one)
    if depth_of(tune) is not None and adapter:
        raise UsageMistake(
            f"--adapter {adapter} is what is trained beside the head; leave --tune out"
        )
    check_codes(codes)
    sensors = chosen_sensors(found, sensor)
    arguments = {k: v for k, v in given.items() if k not in UNRECORDED}
    arguments |= {k: v and spelled(v) for k, v in parts.items()}
    arguments |= {"layer": list(layer), "sensor": list(sensor), "codes": list(codes)}
    arguments |= {"lonlat": list(lonlat), "features": list(features)}
    inputs = [
        Input(str(found.stamp), "tiles", digest_file(found.stamp)),
        *part_inputs([one for one in (*parts.values(), *augments) if one]),
        *base_inputs(encoder_weights),
        *place_inputs,
    ]
    if manners.dry_run:
        plan(manners, say_plan(found, out, parts, arguments))
        return
    from geoml_cli.stages.fitting import fit_all, follow
    from geoml_cli.stages.order import Order

    order = Order(found, aim, kind, usual["metric"], sensors, parts, given, arguments)
    ranks = Ranks()
    try:
        if not ranks.main:
            follow(order, ranks)
            return
        with Job("train", out, "model", "model.json", arguments, inputs, manners) as job:
            if not job.done or ranks.count > 1:
                fit_all(job, order, ranks)
    finally:
        ranks.leave()
    job.report([job.stamp])


def opened(
    path: str,
    column: str | None,
    wish: RowSplit,
    seed: int,
    task: str | None = None,
    features: Sequence[str] = (),
    lonlat: Sequence[str] = (),
) -> tuple[Tiles, dict[str, Any]]:
    """Tiles, or a table of embeddings or places as tiles of one pixel; and what is usual for them."""
    places = is_places(path)
    if not places and not is_embeddings(path):
        if column or wish != RowSplit():
            raise UsageMistake(
                "--label-column, --split, --split-by, --folds and --buffer are for tables; of tiles `geoml tile`"
                " says them"
            )
        return open_tiles(path), {"task": "segment", "encoder": "unet", "batch": 8}
    if not places and (features or lonlat):
        raise UsageMistake("--features and --lonlat: are of a table of places, not of embeddings")
    from geoml_cli.stages.table_tiles import labelled_table

    if column is None:
        raise UsageMistake(f"--label-column NAME: which column of {path} is learnt")
    wish.kind()
    named = (task or "").partition(":")[0]
    try:
        found = labelled_table(
            path, column, wish, seed, kind=LEARNT.get(named), bands=features, lonlat=lonlat
        )
    except GeomlError as error:
        told = str(error) if str(error).startswith((path, "--")) else f"{path}: {error}"
        raise type(error)(told) from None
    values = found.head["layers"][0]["kind"] == "values"
    usual = {"task": "regress" if values else "classify", "encoder": "identity", "batch": 256}
    if named == "presence" and (features or not places):  # of random places nothing else is known
        usual["objective"] = "presence-only:ground=rows"
    return found, usual | {"alone": places and not features}


LEARNT = {
    "regress": "values",
    "classify": "classes",
    "presence": "present",
}  # by a task, of a table
PLACE_ENCODER = (
    "spherical-harmonics:degrees=10,network=fcnet"  # of a table of places, where none is named
)
DROPOUT = 0.2  # share of the samples whose place is left out, where it is joined to what they show


def told_place(
    usually: Mapping[str, Any], encoder: str | None, join: str | None, dropout: float | None
) -> dict[str, Any]:
    """How a network is told where it is: the location encoder, its join and dropout."""
    if usually.get("alone"):
        if join or dropout is not None:
            raise UsageMistake(
                "--location-join and --location-dropout: there is nothing but the place to join; name --features"
            )
        return {
            "location_encoder": encoder or PLACE_ENCODER,
            "location_join": "alone",
            "location_dropout": 0.0,
        }
    if encoder is None:
        if join or dropout is not None:
            raise UsageMistake("--location-join and --location-dropout: go with --location-encoder")
        return {"location_encoder": None, "location_join": None, "location_dropout": None}
    dropout = DROPOUT if dropout is None else dropout
    return {
        "location_encoder": encoder,
        "location_join": join or "concat",
        "location_dropout": dropout,
    }


# what a run is given that changes no byte of the model, or that is recorded as an input
UNRECORDED = (
    *("tiles", "out", "manners", "device", "encoder_weights", "location_weights"),
    *("checkpoint_every_s", "tensorboard"),
)


def aim_of(tiles: Tiles, kind: Any, wanted: tuple[str, ...], sensors: Sequence[str]) -> Aim:
    """What the task learns from these tiles, or why it cannot."""
    if kind.learns == "images":
        found: Aim = kind.aim([s for s in tiles.head["sensors"] if s["name"] in sensors], wanted)
        return found
    if not tiles.head["layers"]:
        raise GeomlError("no labels; cut it with `geoml tile --labels FILE`")
    aim: Aim = kind.aim(tiles.head["layers"], wanted)
    if aim.kind == "classes" and len(aim.names) < 2:
        raise GeomlError(f"one class only ({', '.join(aim.names)}); there is nothing to tell apart")
    return aim


def check_parts(parts: dict[str, str | None], aim: Aim) -> None:
    """Every part and its options are there, and the objective takes such labels."""
    for room, spec in parts.items():
        for one in (spec or "").split("+") if room == "objective" else filter(None, [spec]):
            registry.parse(f"{room}s", one)
            if room != "objective":
                continue
            takes = registry.constant("objectives", one.partition(":")[0], "TARGETS")
            if aim.target not in (takes or LABELS):
                raise UsageMistake(
                    f"--objective {one}: is for {' and '.join(takes or LABELS)}; what is learnt here are {aim.target}"
                )
    widths = {width_of(one) for one in str(parts["objective"]).split("+")}
    if len(widths) > 1:
        raise UsageMistake(
            f"--objective {parts['objective']}: these want different numbers of outputs"
        )


def decoder_of(encoder: str, aim: Aim) -> str | None:
    """The head that makes images of what an encoder says, where it has one of its own and images are learnt."""
    name = encoder.partition(":")[0]
    return registry.constant("encoders", name, "DECODER") if aim.fills else None


def width_of(objective: str) -> int:
    """Outputs that an objective wants for each class or value."""
    first = objective.split("+")[0]  # of several all want as many
    return registry.constant("objectives", first.partition(":")[0], "OUTPUTS") or 1


def chosen_sensors(tiles: Tiles, wanted: Sequence[str]) -> list[str]:
    """Names of the sensors that the network sees, in the order of the tile set."""
    have = [one["name"] for one in tiles.head["sensors"]]
    for name in wanted:
        if name not in have:
            raise GeomlError(f"no sensor called {name}; the tiles have {', '.join(have)}")
    return [name for name in have if not wanted or name in wanted]


def _started(encoder: str | None, weights: str | None) -> tuple[str | None, list[Input]]:
    """The location encoder with the options that its checkpoint tells, and the checkpoint as an input."""
    if weights is None:
        return encoder, []
    from geoml_cli.stages.places_model import model_of

    found = model_of(encoder, weights)
    read = [one for one in found.inputs if one.role != "part"]  # parts are told with the others
    return found.spec, [replace(one, role="location_weights") for one in read]


def base_inputs(path: str | None) -> list[Input]:
    """The checkpoint that encoders start from, as an input."""
    if path is None:
        return []
    from geoml_cli.stages.base import checkpoint_of

    return [checkpoint_of(path).input]


def say_plan(
    tiles: Tiles, out: str, parts: dict[str, str | None], arguments: dict[str, Any]
) -> Iterator[str]:
    """Lines for --dry-run."""
    members = len(parts_of(tiles))
    names = ", ".join(f"{k} {v}" for k, v in parts.items() if v)
    yield f"fit {members} network(s) on {len(tiles.index)} tiles, to {out}: {names}"
    length = (
        f"{arguments['epochs']} epochs"
        if arguments["epochs"]
        else f"about {arguments['steps'] or STEPS} steps of {arguments['batch']} tiles"
    )
    yield f"each at most {length}; hold about {hold(tiles, arguments['batch']) / 1e6:.0f} MB of tiles"


def hold(tiles: Tiles, batch: int) -> int:
    """Bytes of the batches that wait at a time."""
    values = sum(len(s["bands"]) * s["frames"] for s in tiles.head["sensors"])
    return 3 * batch * tiles.size**2 * (4 * values + 12)


def length_of(rows: int, arguments: dict[str, Any]) -> tuple[int, int, int]:
    """Epochs, steps an epoch, and epochs between two scores of a run over some training tiles."""
    an_epoch = -(-rows // arguments["batch"])
    epochs = arguments["epochs"]
    if epochs is None and arguments["steps"]:
        epochs = -(-arguments["steps"] // an_epoch)
    if epochs is None:
        epochs = min(max(-(-STEPS // an_epoch), FEWEST), MOST)
    between = epochs // SCORES
    if arguments["patience"]:  # or it would be over before the second score
        between = min(between, arguments["patience"] // OFTEN)
    return epochs, an_epoch, max(1, between)
