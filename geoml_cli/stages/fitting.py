"""Fit every member of a model, score it on its held ground, and put the folder together."""

import json
import logging
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from geoml_cli import registry
from geoml_cli.core import device as devices
from geoml_cli.core import network as networks
from geoml_cli.core.device import Device
from geoml_cli.core.ranks import Ranks
from geoml_cli.core.receptive import reach
from geoml_cli.core.scoring import Stats, merge
from geoml_cli.errors import GeomlError, Stopped
from geoml_cli.formats.jsonfile import dumps
from geoml_cli.formats.model import GROUND, ITEM, WEIGHTS, save_weights
from geoml_cli.formats.vectors import write_vectors
from geoml_cli.stages.carried import carry
from geoml_cli.stages.events import Events
from geoml_cli.stages.feed import parts_of
from geoml_cli.stages.held import document
from geoml_cli.stages.job import Job
from geoml_cli.stages.members import fit_one
from geoml_cli.stages.model_folder import contract, ground_table, item_of_model
from geoml_cli.stages.order import Fitted, Order, Place
from geoml_cli.stages.reconstructions import draw_reconstructions
from geoml_cli.stages.sheets import curves
from geoml_cli.stages.signals import Signals

log = logging.getLogger("geoml")
SCORES = "scores.json"
PICTURE = "reconstructions.png"


def fit_all(job: Job, order: Order, ranks: Ranks) -> None:
    """Fit every member and commit the model; in the process that writes."""
    device = ranks.join(_device(order))
    ranks.tell({"done": job.done, "part": str(job.part)})
    if job.done:
        return
    log.info("training on %s%s", device, f", {ranks.count} processes" if ranks.count > 1 else "")
    live = job.part / "history.jsonl"
    live.write_text("")
    log.info("follow %s", live)
    shares = parts_of(order.tiles)
    if order.tiles.split is None:
        log.warning(
            "the tiles have no split: nothing validates, the last epoch is kept, and no ground is left"
            " to score on; cut them with `geoml tile --split blocks:8`"
        )
    rows: list[dict[str, Any]] = []
    events = Events(order.given["tensorboard"])

    def note(row: dict[str, Any]) -> None:
        rows.append(row)
        with open(live, "a") as file:
            file.write(json.dumps(row, sort_keys=True) + "\n")
        events.add(row)

    check = _agreed(job.check, ranks)
    where = Place(device, ranks, job.part, check, note, job.manners.quiet)
    fitted = [fit_one(order, part, len(shares), where) for part in shares]
    events.close()
    network = fitted[0].network
    halo = reach(network)
    save_weights(job.part / WEIGHTS, [one.tensors for one in fitted])
    table = ground_table(order.tiles, shares)
    write_vectors(job.part / GROUND, table)
    carry([one for one in order.parts.values() if one], job.part)
    scores = test_scores(order, fitted)
    if scores:
        (job.part / SCORES).write_text(dumps(scores))
        log.info("test ground: %s", _said(scores))
    head = contract(order, fitted, halo, device.describe() | {"processes": ranks.count}, job.out)
    item = item_of_model(f"geoml-{job.record['fingerprint'][:12]}", head, table, network)
    (job.part / ITEM).write_text(dumps(item))
    curves(rows).savefig(job.part / "curves.png", metadata={"Software": None})
    objective = networks.objective(str(order.parts["objective"]))
    if order.aim.fills and hasattr(objective, "hide"):
        draw_reconstructions(job.part / PICTURE, order, fitted[0], objective, device)
    shutil.rmtree(job.part / "checkpoints")
    job.commit(head)


def follow(order: Order, ranks: Ranks) -> None:
    """Do a further process's share of `fit_all`; it writes nothing."""
    log.setLevel(logging.WARNING)
    device = ranks.join(_device(order))
    about = ranks.tell(None)
    if about["done"]:
        return
    with Signals() as signals:

        def stop() -> None:
            if signals.caught:
                raise Stopped(signals.caught)

        part, shares = Path(about["part"]), parts_of(order.tiles)
        where = Place(device, ranks, part, _agreed(stop, ranks), lambda row: None, True)
        for one in shares:
            fit_one(order, one, len(shares), where)


def _device(order: Order) -> Device:
    given = order.given
    return devices.pick(given["device"], given["precision"], given["layout"])


def _agreed(check: Callable[[], None], ranks: Ranks) -> Callable[[], None]:
    """Stop in all processes where one of them has to: they wait for each other in every step."""
    if ranks.count == 1:
        return check

    def agreed() -> None:
        error = None
        try:
            check()
        except GeomlError as found:
            error = found
        if ranks.total(float(error is not None)):
            raise error or Stopped(15)

    return agreed


def test_scores(order: Order, fitted: Sequence[Fitted]) -> dict[str, Any] | None:
    """Scores of all members, each on ground it never saw; None where nothing was held out."""
    total: dict[int, Stats] = {}
    for one in fitted:
        for block, stats in one.blocks.items():
            total[block] = merge(total[block], stats) if block in total else stats
    if not total:
        return None
    scored = {"side": "out of fold" if len(fitted) > 1 else "test", "seed": order.given["seed"]}
    metric = registry.load("metrics", order.metric)
    return document(order.aim, metric, total, scored, order.given["seed"])


def _said(scores: dict[str, Any]) -> str:
    """The numbers of scores in one line."""
    found = [
        f"{name} {one['value']:.4g}"
        for name, one in scores["metrics"].items()
        if one["value"] is not None
    ]
    return ", ".join(found)
