"""Map rasters with a model: check the contract, stream blocks, translate, describe."""

import logging
import re
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from geoml_cli.errors import GeomlError, UsageMistake
from geoml_cli.formats import items as stac
from geoml_cli.formats.bands import Band
from geoml_cli.formats.cog import Journal, Layout, drop_journal
from geoml_cli.formats.digest import digest_file
from geoml_cli.formats.jsonfile import canonical
from geoml_cli.formats.model import GROUND, NAME, Model, read_model
from geoml_cli.formats.raster import describe
from geoml_cli.formats.stamp import Input
from geoml_cli.geo.classes import IGNORE
from geoml_cli.manners import Manners
from geoml_cli.stages.carried import network_spec
from geoml_cli.stages.inputs import Scene, check_local, expand, read_scenes, scene_inputs
from geoml_cli.stages.job import Job, plan
from geoml_cli.stages.networks import aim_of, load_networks
from geoml_cli.stages.stack import Stack, stack_of
from geoml_cli.stages.stream import batched, compute, read_ahead, undone

SYNC_S = 2.0  # what a kill may cost
CLASSIFICATION = "https://stac-extensions.github.io/classification/v2.0.0/schema.json"
log = logging.getLogger("geoml")


@dataclass(frozen=True)
class Target:
    """One map to make."""

    name: str  # of the file, without suffix
    scene: Scene
    stack: Stack


def run(
    inputs: list[str],
    out: str,
    *,
    model: str,
    out_of_fold: bool = False,
    trust_code: bool = False,
    window: int = 512,
    batch: int = 4,
    precision: str = "auto",
    device: str = "auto",
    manners: Manners = Manners(),
) -> None:
    """Write maps; see `geoml predict --help` for what each argument means."""
    named = expand(inputs)
    check_local(named)
    found = read_model(model)
    refuse_kind(found, model)
    if found.head["halo"] is None:
        raise GeomlError(
            f"{model}: its network sees the whole image at once; maps from windows would have seams"
        )
    if out_of_fold and not found.head["folds"]:
        raise GeomlError(f"{model}: trained without --folds; there is no out-of-fold member to ask")
    if out_of_fold and (split := found.split) and split.grids_only:
        raise GeomlError(
            f"{model}: its tiles were dealt at random, so no ground belongs to one fold and no map can be"
            " out of fold; cut the tiles with --split blocks:8 --folds 5 instead"
        )
    spec = network_spec(found, trust_code)
    targets = [Target(_file_name(s.id), s, match(stack_of(s), found)) for s in read_scenes(named)]
    single = out.lower().endswith((".tif", ".tiff"))
    if single and len(targets) > 1:
        raise UsageMistake(f"-o {out}: one file for {len(targets)} inputs; name a folder")
    arguments = {
        "out_of_fold": out_of_fold,
        "window": window,
        "batch": batch,
        "precision": precision,
    }
    stamp = found.folder / NAME
    sources = [
        *scene_inputs(named, [t.scene for t in targets]),
        Input(str(stamp), "model", digest_file(stamp)),
    ]
    if manners.dry_run:
        plan(manners, say_plan(targets, window, batch, found, out))
        return
    with Job(
        "predict", out, "predictions", None if single else stac.NAME, arguments, sources, manners
    ) as job:
        if not job.done:
            maps = map_all(job, targets, found, spec, arguments, device)
            if single:
                job.commit_file(maps[0][1])
            else:
                shutil.copyfile(found.folder / GROUND, job.part / GROUND)
                job.commit(describe_maps(job, maps, found, out_of_fold))
    if single:
        job.report([job.named])
        return
    document = stac.read_collection(job.out)
    paths = [f"{job.named}/{item['assets']['map']['href'][2:]}" for item in document["features"]]
    job.report(paths, stac.anchor(document["features"], job.named))


def refuse_kind(model: Model, named: str) -> None:
    """Say what cannot be mapped yet."""
    aim, head = aim_of(model), model.head
    frames = max(one["frames"] for one in head["sensors"])
    why = None
    if (aim.kind, aim.per) != ("classes", "pixel"):
        why = f"its answers are {aim.kind} of a {aim.per}"
    elif frames > 1 or len(head["sensors"]) > 1:
        why = f"it sees {frames} dates" if frames > 1 else f"it sees {len(head['sensors'])} sensors"
    elif head["codes"]:
        why = f"it is told {' and '.join(head['codes'])}"
    if why:
        raise GeomlError(
            f"{named}: {why}; predict maps classes of pixels from one date of one sensor so far"
            " (the model's own scores on test ground are in its scores.json)"
        )


def match(stack: Stack, model: Model) -> Stack:
    """Bring a stack to the model's bands, or say why it cannot be mapped."""
    where = stack.rasters[0].path
    wanted = model.bands
    try:
        stack = stack.pick([band.name for band in wanted])
    except GeomlError as error:
        if not all(band.common_name for band in wanted):
            raise GeomlError(
                f"{error}; the model wants {', '.join(b.name for b in wanted)}"
            ) from None
        stack = stack.pick([str(band.common_name) for band in wanted])
    for ours, theirs in zip(wanted, stack.bands, strict=True):
        if ours.unit and theirs.unit and ours.unit != theirs.unit:
            raise GeomlError(
                f"{where}: band {theirs.name} is in {theirs.unit}, the model was trained on {ours.unit}"
            )
        plain = (theirs.scale, theirs.offset) == (1, 0) != (ours.scale, ours.offset)
        if plain and stack.dtype == model.head["dtype"]:
            raise GeomlError(
                f"{where}: band {theirs.name} has no scale and offset, the model was trained with"
                f" {ours.scale} and {ours.offset}: stored values do not mean the same"
            )
    gsd, trained = stack.grid.gsd_m(), model.head["gsd_m"]
    if not 0.9 < gsd / trained < 1.1:
        raise GeomlError(
            f"{where}: pixels of {gsd:.4g} m, the model was trained on {trained:.4g} m; resample first:"
            f" gdalwarp -tr {trained:.4g} {trained:.4g} (units of the CRS)"
        )
    if np.dtype(stack.dtype).kind != np.dtype(model.head["dtype"]).kind:
        log.warning(
            "%s: values are %s, the model was trained on %s; are they in the same units?",
            where,
            stack.dtype,
            model.head["dtype"],
        )
    return stack


def map_all(
    job: Job,
    targets: list[Target],
    model: Model,
    spec: dict[str, Any],
    arguments: dict[str, Any],
    device_name: str,
) -> list[tuple[Target, Path]]:
    """Map every target; the model is loaded once."""
    from geoml_cli.core import device as devices
    from geoml_cli.core.infer import Mapper

    device = devices.pick(device_name, arguments["precision"])
    log.info("predicting on %s", device)
    members = load_networks(model, spec)
    mapper = Mapper(members, aim_of(model), device, model.head["tta"] or "none")
    maps = []
    for target in targets:
        path = job.part / f"{target.name}.tif"
        if not path.is_file():
            done = job.attempt(
                target.stack.rasters[0].path,
                partial(map_one, job, target, model, mapper, arguments),
            )
            if done is None:
                drop_journal(job.part, target.name)
                continue
        maps.append((target, path))
    if not maps:
        raise GeomlError("no input could be mapped")
    return maps


def map_one(job: Job, target: Target, model: Model, mapper: Any, arguments: dict[str, Any]) -> Path:
    """Stream one raster through the model; goes on after a kill from the last block on disk."""
    from geoml_cli.core.infer import tiling

    grid = target.stack.grid
    lay = tiling(
        (grid.height, grid.width), arguments["window"], model.head["halo"], model.head["stride"]
    )
    journal = Journal(job.part, target.name, layout_of(job, target, model), (lay.height, lay.width))
    split = model.split if arguments["out_of_fold"] else None
    todo = undone(journal.done, arguments["batch"])
    flushed = time.monotonic()
    bar = _bar(job, target.name, len(journal.blocks), len(journal.blocks) - len(todo))
    try:
        for group in batched(
            read_ahead(target.stack, journal, todo, lay, job.manners.jobs, arguments["batch"]),
            arguments["batch"],
        ):
            job.check()
            for i, ids in compute(group, journal, grid, mapper, lay.halo, split):
                journal.write(i, ids)
            bar.update(len(group))
            if time.monotonic() - flushed > SYNC_S:
                journal.sync()
                flushed = time.monotonic()
    except BaseException:
        journal.sync()
        journal.close()
        raise
    finally:
        bar.close()
    path = job.part / f"{target.name}.tif"
    if all((journal.read(block) == IGNORE).all() for block in journal.blocks):
        log.warning("%s: holds no valid pixel; its map is all nodata", target.stack.rasters[0].path)
    journal.finish(path)
    return path


def layout_of(job: Job, target: Target, model: Model) -> Layout:
    """The COG of class ids: colour table, names and the record as tags."""
    tags = {f"CLASS_{c.id}": c.name for c in model.classes}
    tags["GEOML"] = canonical(job.record).decode()
    return Layout(
        target.stack.grid,
        (Band("class", nodata=IGNORE),),
        "uint8",
        categorical=True,
        colors={c.id: c.rgb for c in model.classes},
        tags=tags,
    )


def describe_maps(
    job: Job, maps: list[tuple[Target, Path]], model: Model, out_of_fold: bool
) -> dict[str, Any]:
    """items.json of a predictions folder."""
    features = []
    for target, path in maps:
        times = {
            k: v
            for k, v in target.scene.properties.items()
            if k in ("start_datetime", "end_datetime")
        }
        when = target.scene.datetime
        if when is None:  # STAC wants some time; an undated raster may be of any
            times = {
                "start_datetime": "1900-01-01T00:00:00Z",
                "end_datetime": "2100-01-01T00:00:00Z",
            }
        item = stac.item_of(target.scene.id, when, times)
        item["stac_extensions"].append(CLASSIFICATION)
        legend = [
            {"value": c.id, "name": c.name, "color_hint": c.color[1:].upper()}
            for c in model.classes
        ]
        stac.add_raster(
            item, "map", describe(str(path)), job.part, **{"classification:classes": legend}
        )
        features.append(item)
    document = stac.collection_of(features)
    return document | {
        "geoml:classes": [c.to_dict() for c in model.classes],
        "geoml:out_of_fold": out_of_fold,
        "geoml:model": {"fingerprint": model.head["geoml"]["fingerprint"]},
    }


def say_plan(
    targets: list[Target], window: int, batch: int, model: Model, out: str
) -> Iterator[str]:
    """Lines for --dry-run."""
    for target in targets:
        grid = target.stack.grid
        yield f"map {target.stack.rasters[0].path}, {grid.width} x {grid.height} px, with {model.members} network(s)"
    side = window + 2 * model.head["halo"]
    scratch = max(t.stack.grid.width * t.stack.grid.height for t in targets)
    total = sum(t.stack.grid.width * t.stack.grid.height for t in targets)
    memory = 3 * batch * side * side * len(model.bands) * 4
    yield f"hold about {memory / 1e6:.0f} MB of windows, {scratch / 1e6:.1f} MB of scratch on disk at a time"
    yield f"write at most {total / 1e6:.1f} MB to {out}"


def _file_name(name: str) -> str:
    safe = re.sub(r"[^\w.\-]+", "_", name).strip("._") or "map"
    return safe[:120]


def _bar(job: Job, what: str, total: int, done: int) -> Any:
    import sys

    from tqdm import tqdm

    quiet = job.manners.quiet or not sys.stderr.isatty()
    return tqdm(total=total, initial=done, desc=what, unit="block", disable=quiet, leave=False)
