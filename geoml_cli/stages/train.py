"""Fit a model on tiles: check, fit each member, measure the halo, write the model folder."""

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from geoml_cli import registry
from geoml_cli.errors import GeomlError, UsageMistake
from geoml_cli.formats.digest import digest_file
from geoml_cli.formats.jsonfile import dumps
from geoml_cli.formats.stamp import Input
from geoml_cli.formats.tileset import NAME as TILESET
from geoml_cli.formats.tileset import Tiles
from geoml_cli.formats.vectors import write_geoparquet
from geoml_cli.manners import Manners
from geoml_cli.stages.carried import carry, part_inputs, spelled
from geoml_cli.stages.job import Job, plan
from geoml_cli.stages.model_folder import contract, draw_curves, ground_table, item_of_model
from geoml_cli.stages.tiles import open_tiles

log = logging.getLogger("geoml")
READERS = 2  # threads that read tiles while an accelerator computes
WEIGHTINGS = ("none", "sqrt", "balanced")


def run(
    tiles: str,
    out: str,
    *,
    task: str = "segment",
    encoder: str = "unet",
    head: str | None = None,
    objective: str | None = None,
    epochs: int = 60,
    batch: int = 8,
    micro_batch: int | None = None,
    lr: float = 2e-3,
    weight_decay: float = 0.05,
    patience: int = 20,
    class_weights: str = "sqrt",
    augment: str = "dihedral",
    precision: str = "auto",
    device: str = "auto",
    seed: int = 0,
    manners: Manners = Manners(),
) -> None:
    """Write a model folder; see `geoml train --help` for what each argument means."""
    kind = registry.make("tasks", task)
    head, objective = head or kind.head, objective or kind.objective
    for room, spec in [
        ("encoders", encoder),
        ("heads", head),
        *(("objectives", o) for o in objective.split("+")),
    ]:
        registry.parse(room, spec)
    if class_weights not in WEIGHTINGS:
        raise UsageMistake(f"--class-weights {class_weights}: write {', '.join(WEIGHTINGS)}")
    if augment not in ("dihedral", "none"):
        raise UsageMistake(f"--augment {augment}: write dihedral or none")
    found = open_tiles(tiles)
    check_tiles(found, tiles)
    arguments = {
        "task": task,
        "encoder": spelled(encoder),
        "head": spelled(head),
        "objective": spelled(objective),
        "epochs": epochs,
        "batch": batch,
        "micro_batch": micro_batch or batch,
        "lr": lr,
        "weight_decay": weight_decay,
        "patience": patience,
        "class_weights": class_weights,
        "augment": augment,
        "precision": precision,
        "seed": seed,
    }
    stamp = found.folder / TILESET
    parts = {"encoder": encoder, "head": head, "objective": objective}
    inputs = [Input(str(stamp), "tiles", digest_file(stamp)), *part_inputs([*parts.values()])]
    if manners.dry_run:
        members = max(found.folds, 1)
        plan(
            manners,
            [
                f"fit {members} network(s) on {len(found.index)} tiles, at most {epochs} epochs each, to {out}"
            ],
        )
        return
    with Job("train", out, "model", "model.json", arguments, inputs, manners) as job:
        if not job.done:
            fit_all(job, found, kind, arguments, parts, device, precision)
    job.report([job.stamp])


def check_tiles(tiles: Tiles, named: str) -> None:
    """Say what makes training on these tiles pointless."""
    if not tiles.head["layers"]:
        raise GeomlError(f"{named}: no labels; cut it with `geoml tile --labels FILE`")
    layer = tiles.head["layers"][0]
    if layer["kind"] != "classes":
        raise GeomlError(f"{named}: {layer['name']} holds values; this task wants classes")
    frames, sensors = tiles.head["sensors"][0]["frames"], tiles.head["sensors"]
    if frames > 1 or len(sensors) > 1:
        more = f"{frames} dates" if frames > 1 else f"{len(sensors)} sensors"
        raise GeomlError(
            f"{named}: its tiles are of {more}; networks here take one date of one sensor so far"
        )
    if layer["per"] != "pixel":
        raise GeomlError(
            f"{named}: {layer['name']} is one label a tile; this task wants one a pixel"
        )
    counts = np.sum(tiles.index[f"counts_{layer['name']}"].to_list(), axis=0)
    present = [c.name for c, n in zip(tiles.classes, counts, strict=True) if n]
    if len(present) < 2:
        raise GeomlError(
            f"{named}: one class only ({', '.join(present)}); there is nothing to tell apart"
        )


def fit_all(
    job: Job,
    tiles: Tiles,
    task: Any,
    arguments: dict[str, Any],
    parts: dict[str, str],
    device_name: str,
    precision: str,
) -> None:
    """Fit every member and commit the model."""
    from geoml_cli.core import device as devices
    from geoml_cli.core.receptive import reach
    from geoml_cli.formats.model import GROUND, ITEM, WEIGHTS, save_weights
    from geoml_cli.stages.feed import Feed, parts_of

    device = devices.pick(device_name, precision)
    log.info("training on %s", device)
    live = job.part / "history.jsonl"
    live.write_text("")
    log.info("follow %s", live)
    states, norms, bests, rows = [], [], [], []
    shares = parts_of(tiles)
    network = None
    if tiles.split is None:
        log.warning(
            "the tiles have no split: nothing validates, the last epoch is kept, and no ground is left"
            " to score on; cut them with `geoml tile --split blocks:8`"
        )
    for part in shares:
        feed = Feed(tiles, part)
        check_part(feed, tiles, part.member)
        network, norm, progress = fit_one(
            job, feed, task, arguments | parts, device, live, len(shares)
        )
        states.append(network.state_dict())
        norms.append(norm)
        bests.append(
            {"member": part.member, "epoch": _epoch(progress), "watch": _finite(progress.best)}
        )
        rows += progress.history
        log.info(
            "member %d of %d: %d epochs, best validation score %s",
            *(part.member + 1, len(shares), progress.epoch, bests[-1]["watch"]),
        )
    assert network is not None
    halo = reach(network, 1)
    save_weights(job.part / WEIGHTS, states)
    table = ground_table(tiles, shares)
    write_geoparquet(job.part / GROUND, table)
    carry([*parts.values()], job.part)
    head = contract(tiles, arguments, network, halo, norms, bests, device.describe())
    item = item_of_model(f"geoml-{job.record['fingerprint'][:12]}", head, table, network)
    (job.part / ITEM).write_text(dumps(item))
    draw_curves(job.part / "curves.png", rows)
    shutil.rmtree(job.part / "checkpoints")
    job.commit(head)


def check_part(feed: Any, tiles: Tiles, member: int) -> None:
    """Every member needs labelled ground to train on, of at least two classes."""
    if not len(feed.rows):
        raise GeomlError(
            f"member {member}: no labelled pixel is left to train on; a smaller --buffer or fewer folds"
        )
    if (feed.counts > 0).sum() < 2:
        only = tiles.classes[int(feed.counts.argmax())].name
        raise GeomlError(
            f"member {member}: only {only} is left to train on; fewer folds or another --seed of tile"
        )
    for c, n in zip(tiles.classes, feed.counts, strict=True):
        if not n:
            log.warning("member %d: no training pixel of class %s", member, c.name)
    if feed.part.val is not None and not len(feed.val_rows):
        raise GeomlError(
            f"member {member}: its validation ground has no labelled pixel; another --seed of tile"
        )


def fit_one(
    job: Job, feed: Any, task: Any, arguments: dict[str, Any], device: Any, live: Path, members: int
) -> tuple[Any, tuple[list[float], list[float]], Any]:
    """Fit one member; taken up where a stopped run left it."""
    import torch

    from geoml_cli.core import network as networks
    from geoml_cli.core.loop import Recipe, fit
    from geoml_cli.stages.feed import class_weights as weigh

    member = feed.part.member
    recipe = Recipe(
        epochs=arguments["epochs"],
        batch=arguments["batch"],
        lr=arguments["lr"],
        weight_decay=arguments["weight_decay"],
        patience=arguments["patience"],
        augment=arguments["augment"],
        seed=arguments["seed"] * 101 + member,
    )
    torch.manual_seed(recipe.seed)
    network = networks.build(spec_of(feed.tiles, arguments, task))
    mean, std = feed.norm()
    network.mean.copy_(torch.from_numpy(mean))
    network.std.copy_(torch.from_numpy(std))
    weights = weigh(feed.counts, arguments["class_weights"])
    micro = arguments["micro_batch"]
    readers = 0 if device.torch.type == "cpu" else READERS
    bar = _bar(job, f"member {member + 1}/{members}", recipe.epochs)

    def note(row: dict[str, Any]) -> None:
        row |= {"member": member}
        with open(live, "a") as file:
            file.write(json.dumps(row, sort_keys=True) + "\n")
        bar.update(1)
        bar.set_postfix({k: f"{row[k]:.3f}" for k in ("loss", "watch") if k in row})

    score = scorer(feed, task, device, micro, weights) if len(feed.val_rows) else None
    progress = fit(
        network,
        networks.objective(arguments["objective"]),
        lambda epoch: feed.epoch(epoch, recipe.batch, micro, arguments["seed"], weights, readers),
        -(-len(feed.rows) // recipe.batch),
        score,
        recipe,
        device,
        job.part / "checkpoints" / str(member),
        note,
        job.check,
    )
    bar.close()
    return network, (mean.tolist(), std.tolist()), progress


def spec_of(tiles: Tiles, arguments: dict[str, Any], task: Any) -> dict[str, Any]:
    """Plain description of the network."""
    return {
        "encoder": arguments["encoder"],
        "head": arguments["head"],
        "bands": len(tiles.bands),
        "frames": 1,
        "outputs": task.outputs(len(tiles.classes)),
    }


def scorer(
    feed: Any, task: Any, device: Any, micro: int, weights: np.ndarray
) -> Callable[[Any], dict[str, float]]:
    """A function that scores a network on the validation pixels."""
    import torch

    metric = registry.load("metrics", task.metric)
    classes = len(feed.tiles.classes)

    @torch.no_grad()
    def score(model: Any) -> dict[str, float]:
        model.eval()
        total: dict[str, np.ndarray] = {}
        for batch in feed.validation(micro, weights):
            with device.autocast():
                guess = (
                    task.decode(task.spread(model(batch.to(device.torch)).float())).cpu().numpy()
                )
            truth = batch.target.numpy()
            found = metric.stats(truth, guess, truth < classes, classes)
            total = {k: total[k] + v if k in total else v for k, v in found.items()}
        scores = metric.score(total)
        plain = {k: v for k, v in scores.items() if np.ndim(v) == 0 and np.isfinite(v)}
        return {**{k: float(v) for k, v in plain.items()}, "watch": task.watch(scores)}

    return score


def _bar(job: Job, what: str, total: int) -> Any:
    import sys

    from tqdm import tqdm

    quiet = job.manners.quiet or not sys.stderr.isatty()
    return tqdm(total=total, desc=what, unit="epoch", disable=quiet, leave=False)


def _epoch(progress: Any) -> int:
    """The epoch whose weights are kept: the best scored, else the last."""
    return progress.best_epoch if progress.best_epoch > 0 else progress.epoch


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None
