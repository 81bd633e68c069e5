"""Fit one member of a model on its share of the ground."""

import logging
from typing import Any

import numpy as np
import torch

from geoml_cli import registry
from geoml_cli.core import network as networks
from geoml_cli.core import tune
from geoml_cli.core.device import place
from geoml_cli.core.loop import Loop, Recipe, optimizer_of
from geoml_cli.core.ranks import Ranks
from geoml_cli.errors import GeomlError
from geoml_cli.stages.base import checkpoint_of
from geoml_cli.stages.feed import Feed, class_weights, share_of
from geoml_cli.stages.held import Held, blocks_of
from geoml_cli.stages.order import Fitted, Order, Place
from geoml_cli.stages.places_model import model_of
from geoml_cli.stages.table_tiles import TableTiles
from geoml_cli.stages.train import length_of

log = logging.getLogger("geoml")
READERS = 2  # threads that read tiles while an accelerator computes


def check_part(feed: Feed, objective: torch.nn.Module) -> None:
    """Every member needs labelled ground to train on, of at least two classes, or of things and what they are told from."""
    member, names = feed.part.member, feed.aim.names
    per = "row" if isinstance(feed.tiles, TableTiles) else feed.aim.per
    what = "valid pixel" if feed.aim.fills else f"labelled {per}"
    if not len(feed.rows):
        raise GeomlError(
            f"member {member}: no {what} is left to train on; a smaller --buffer or fewer folds"
        )
    if feed.aim.kind == "classes" and (feed.counts > 0).sum() < 2:
        only = names[int(feed.counts.argmax())]
        raise GeomlError(
            f"member {member}: only {only} is left to train on; fewer folds or another --seed of tile"
        )
    if feed.tells_none and not feed.counts.any():
        raise GeomlError(
            f"member {member}: nothing is present where it trains; fewer folds or another --seed"
        )
    for name, n in zip(names, feed.counts, strict=True):
        if not n:
            log.warning("member %d: no training %s of %s", member, per, name)
    held = feed.held("val")
    if feed.part.val is not None and not len(held):
        raise GeomlError(
            f"member {member}: its validation ground has no {what}; another --seed of tile"
        )
    if feed.tells_none and len(held) and not (feed.targets(held, "val") > 0.5).any():
        raise GeomlError(
            f"member {member}: nothing is present on its validation ground; fewer folds or another --seed"
        )
    if (
        any(getattr(one, "wants_background", False) for one in objective.modules())
        and feed.each[feed.rows].any(axis=1).all()
    ):
        raise GeomlError(
            f"member {member}: no row that names nothing is left as background; add some, or take fewer folds"
        )


def fit_one(order: Order, part: Any, members: int, where: Place) -> Fitted:
    """Fit one member, taken up where a stopped run left it, and score its test ground."""
    given, ranks, device = order.given, where.ranks, where.device
    feed = feed_of(order, part)
    objective = networks.objective(str(order.parts["objective"]))
    check_part(feed, objective)
    epochs, an_epoch, between = length_of(len(feed.rows), given)  # type: ignore[arg-type]
    share_size(given["batch"], ranks)
    seed = given["seed"] * 101 + part.member
    torch.manual_seed(seed)
    network, before = network_of(order, feed)
    network = place(ranks.check(network), device)  # type: ignore[assignment]
    if given["location_weights"] and given["tune"] != "all":
        for sensor in network.sensors:
            sensor.location.know(torch.from_numpy(feed.centres))  # type: ignore[operator, union-attr]
    groups = tune.groups(network, given["lr"], given["weight_decay"], given["layer_decay"])
    recipe = Recipe(
        epochs=epochs,
        score_every=between,
        seed=seed,
        micro=given["micro_batch"] or 0,
        save_every_s=given["checkpoint_every_s"],
        **{k: given[k] for k in SAME},
    )
    folder = where.part / "checkpoints" / str(part.member)
    loop = Loop(
        network, objective, optimizer_of(given["optimizer"], groups), recipe, device, folder, ranks,
        lambda rows: ", ".join(feed.tiles.index["id"].iloc[list(rows)]),
    )  # fmt: skip
    micro = given["micro_batch"] or given["batch"]
    hide = getattr(objective, "hide", None) if order.aim.fills else None
    held = Held(feed, registry.load("metrics", order.metric), device, ranks, given["tta"], hide)

    def loss(network: Any, batch: Any) -> Any:
        """As at the last step: an objective that changes as training goes on is no measure."""
        return objective(network, batch, epochs * an_epoch)

    watched = loss if given["watch"] == "loss" else None
    score = held.score("val", micro, order.task.watch, watched) if len(feed.held("val")) else None
    bar = _bar(where, f"member {part.member + 1}/{members}", epochs)

    def note(row: dict[str, Any]) -> None:
        row |= {"member": part.member}
        where.note(row)
        bar.update(row["epoch"] - bar.n)
        bar.set_postfix({k: f"{row[k]:.3f}" for k in ("loss", "watch") if k in row})

    def batches(epoch: int, start: int) -> Any:
        whole = feed.order(epoch, given["seed"], given["sampling"])
        return feed.epoch(
            _own(whole, given["batch"], ranks), share_size(given["batch"], ranks), start, readers
        )

    readers = 0 if device.torch.type == "cpu" else READERS
    progress = loop.fit(batches, an_epoch, score, note, where.check)
    bar.close()
    log.info(
        "member %d of %d: %d epochs, %s",
        *(part.member + 1, members, progress.epoch),
        f"best validation score {progress.best:.4f}" if score else "no validation ground",
    )
    if len(feed.held("test")):
        blocks = held.blocks(network, "test", micro, blocks_of(feed))
    else:
        blocks = {}
    for sensor in network.sensors:
        if sensor.location is not None:
            sensor.location.forget()  # type: ignore[operator, union-attr]
    tensors = tune.changed(network, before) if before else dict(network.state_dict())
    return Fitted(feed, network, tensors, progress, blocks)


# fields of the recipe that are arguments of the same name
SAME = ("warmup", "schedule", "clip", "ema", "augment", "patience", "keep", "compile")


def share_size(batch: int, ranks: Ranks) -> int:
    """Tiles of an effective batch that one process takes."""
    if batch % ranks.count:
        raise GeomlError(
            f"--batch {batch} cannot be shared out evenly over {ranks.count} processes; take a multiple"
        )
    return batch // ranks.count


def _own(order: np.ndarray, batch: int, ranks: Ranks) -> np.ndarray:
    """One process's tiles of every effective batch; short ones are filled up from the start."""
    if ranks.count == 1:
        return order
    size = share_size(batch, ranks)
    own = []
    for start in range(0, len(order), size * ranks.count):
        whole = order[start : start + size * ranks.count]
        own.append(np.resize(whole, max(len(whole), ranks.count))[ranks.number :: ranks.count])
    return np.concatenate(own)


def feed_of(order: Order, part: Any) -> Feed:
    """The tiles of a member, the share that is asked for, and what labels weigh."""
    given = order.given
    feed = Feed(order.tiles, part, order.aim, order.sensors, given["codes"], given["log_target"])
    feed.scale(str(order.parts["encoder"]))
    if given["share"] < 1 and len(feed.rows):
        feed.rows = share_of(feed, given["share"], given["seed"])
        feed.counts = feed.each[feed.rows].sum(axis=0)
    if order.aim.fills:
        feed.as_images()
    elif order.aim.kind == "values":
        feed.fit_values()
        if registry.parse("heads", str(order.parts["head"]))[1].get("positive"):
            feed.shift[:] = 0  # such a head's outputs begin at 0, as its values do
    elif order.aim.kind == "classes":
        feed.weights = class_weights(feed.counts, given["class_weights"])
    return feed


def network_of(order: Order, feed: Feed) -> tuple[networks.Network, dict[str, torch.Tensor]]:
    """The network as training finds it, and its state then where only what changes is to be stored."""
    given = order.given
    base = None
    if given["encoder_weights"]:
        base = checkpoint_of(given["encoder_weights"]).state()
    network = networks.build(order.spec, base)
    before = {}
    if base is not None and (given["tune"] != "all" or order.parts["adapter"]):
        kept = [f"sensors.{i}.encoder." for i in range(len(network.sensors))]
        before = {
            k: v.clone() for k, v in network.state_dict().items() if k.startswith(tuple(kept))
        }
    for sensor, (mean, std) in zip(network.sensors, feed.norms, strict=True):
        sensor.mean.copy_(torch.from_numpy(mean))  # type: ignore[operator]
        sensor.std.copy_(torch.from_numpy(std))  # type: ignore[operator]
    if order.aim.kind == "values":
        network.value_mean.copy_(torch.from_numpy(feed.shift))
        network.value_std.copy_(torch.from_numpy(feed.spread))
    tune.choose(network, given["tune"])
    if given["location_weights"]:
        start = model_of(order.parts["location_encoder"], given["location_weights"]).build()
        for sensor in network.sensors:
            encoder: Any = sensor.location.encoder  # type: ignore[union-attr]
            encoder.load_state_dict(start.state_dict())
            encoder.requires_grad_(given["tune"] == "all")
    return network, before


def _bar(where: Place, what: str, total: int) -> Any:
    import sys

    from tqdm import tqdm

    quiet = where.quiet or not sys.stderr.isatty()
    return tqdm(total=total, desc=what, unit="epoch", disable=quiet, leave=False)
