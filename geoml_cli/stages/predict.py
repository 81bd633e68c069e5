"""Map rasters with a model: open and check all, stream windows through the networks, translate, describe."""

import logging
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from geoml_cli.errors import GeomlError, UsageMistake
from geoml_cli.formats import items as stac
from geoml_cli.formats.cog import check_options
from geoml_cli.formats.jsonfile import canonical
from geoml_cli.formats.model import GROUND
from geoml_cli.manners import Manners
from geoml_cli.stages.inputs import expand
from geoml_cli.stages.job import Job, plan
from geoml_cli.stages.making import MAP, Making, stem
from geoml_cli.stages.merge import share
from geoml_cli.stages.models import Opened, as_pixels, open_model
from geoml_cli.stages.networks import aim_of

log = logging.getLogger("geoml")
VECTORS = (".parquet", ".geoparquet", ".gpkg")


@dataclass(frozen=True)
class How:
    """How maps are made, as it was given; all of it decides the bytes."""

    out_of_fold: bool = False
    window: int | None = None
    batch: int | None = None
    precision: str = "auto"
    tta: str | None = None
    probabilities: bool = False
    uncertainty: bool = False
    polygons: bool = False
    sieve: int = 0
    simplify: float = 0.0
    co: tuple[str, ...] = ()
    shard: str | None = None
    lonlat: tuple[str, ...] = ()

    def recorded(self) -> dict[str, Any]:
        """As plain JSON values; a share of a map is of the same map."""
        plain = {k: list(v) if isinstance(v, tuple) else v for k, v in vars(self).items()}
        return {k: v for k, v in plain.items() if k not in ("shard", "lonlat") or v}


def run(
    inputs: list[str],
    out: str,
    *,
    model: str | None = None,
    beside: Sequence[str] = (),
    frames: str | None = None,
    within: float | None = None,
    crs: str | None = None,
    resolution: float | None = None,
    like: str | None = None,
    aoi: str | None = None,
    bbox: str | None = None,
    lonlat: Sequence[str] = (),
    out_of_fold: bool = False,
    trust_code: bool = False,
    probabilities: bool = False,
    uncertainty: bool = False,
    polygons: str | None = None,
    sieve: int = 0,
    simplify: float = 0.0,
    window: int | None = None,
    batch: int | None = None,
    tta: str | None = None,
    precision: str = "auto",
    device: str = "auto",
    co: Sequence[str] = (),
    check_seams: bool = False,
    shard: str | None = None,
    merge: bool = False,
    manners: Manners = Manners(),
) -> None:
    """Write maps; see `geoml predict --help` for what each argument means."""
    how = How(
        out_of_fold,
        window,
        batch,
        precision,
        tta,
        probabilities,
        uncertainty,
        polygons is not None,
        sieve,
        simplify,
        tuple(co),
        shard,
        tuple(lonlat),
    )
    check_options(co)
    if merge:
        from geoml_cli.stages.merge_maps import merge_maps

        merge_maps(inputs, out, polygons, sieve, simplify, manners)
        return
    if model is None:
        raise UsageMistake("--model: name a model folder, an .onnx file or pkg:PACKAGE/FILE")
    opened = open_model(model, trust_code)
    given = expand(inputs) if inputs else []
    from geoml_cli.stages.targets import Wish, targets_of, tile_sets

    a_table = bool(tile_sets(given)) and opened.head["aim"]["per"] == "tile"
    _check(how, opened, out, polygons, a_table)
    if a_table:
        from geoml_cli.stages.tile_answers import answer_tiles

        answer_tiles(tile_sets(given), opened, out, how, device, manners)
        return
    if opened.head["window"] == 1 and opened.head["aim"]["per"] == "tile":
        opened = as_pixels(opened)
    wish = Wish(given, beside, frames, within, crs, resolution, like, aoi, window, bbox)
    targets, sources = targets_of(wish, opened)
    named = {"frames": frames, "within": within, "crs": crs, "resolution": resolution}
    named |= {"bbox": bbox} if bbox else {}
    arguments = {**named, **how.recorded()}
    sources = [*sources, *opened.inputs]
    single = out.lower().endswith((".tif", ".tiff"))
    if single and (len(targets) > 1 or probabilities or uncertainty or shard):
        raise UsageMistake(f"-o {out}: is one file; for several name a folder")
    if shard:
        from geoml_cli.stages.merge_maps import shares_of

        targets = shares_of(targets, share(shard))
    run_ = Run(opened, how, targets, device)
    if manners.dry_run:
        plan(manners, run_.say(out))
        return
    vectors = [Path(polygons)] if polygons else []
    stamp = None if single else stac.NAME
    with Job(
        "predict", out, "predictions", stamp, arguments, sources, manners, beside=vectors
    ) as job:
        if not job.done:
            run_.make(job, check_seams)
            if polygons:
                run_.draw(job, Path(polygons))
            if single:
                job.commit_file(job.part / f"{run_.made[0].name}.tif")
            else:
                job.commit(run_.document(job))
    written = [polygons] if polygons else []
    if single:
        job.report([job.named, *written])
        return
    document = stac.read_collection(job.out)
    paths = [f"{job.named}/{item['assets'][MAP]['href'][2:]}" for item in document["features"]]
    job.report([*paths, *written], stac.anchor(document["features"], job.named))


def _check(how: How, opened: Opened, out: str, polygons: str | None, a_table: bool = False) -> None:
    """Refuse what does not go together, whatever the inputs hold."""
    from geoml_cli.core.tta import KINDS

    head, name = opened.head, opened.name
    aim = aim_of(opened.model)
    if how.out_of_fold and not head["folds"]:
        raise GeomlError(f"{name}: trained without --folds; there is no out-of-fold member to ask")
    split = opened.model.split
    if how.out_of_fold and not a_table and split and split.grids_only:
        raise GeomlError(
            f"{name}: its tiles were dealt at random, so no ground belongs to one fold and no map can be"
            " out of fold; cut the tiles with --split blocks:8 --folds 5 instead"
        )
    if how.window and head.get("fixed") and how.window != head["window"]:
        raise UsageMistake(
            f"--window {how.window}: {name} takes windows of {head['window']} px only"
        )
    if how.tta is not None and how.tta not in KINDS:
        raise UsageMistake(f"--tta {how.tta}: write {', '.join(KINDS)}")
    if how.probabilities and aim.kind == "values":
        raise UsageMistake("--probabilities: the model gives values; --uncertainty is for these")
    votes = len(KINDS[how.tta or head["tta"] or "none"]) * (
        1 if how.out_of_fold else head["members"]
    )
    wide = head["network"]["outputs"] > len(aim.names) if "network" in head else False
    if (
        how.uncertainty
        and votes == 1
        and not (aim.kind == "values" and wide)
        and aim.kind == "values"
    ):
        raise UsageMistake(
            "--uncertainty: one network, asked once, does not say how sure it is; give --tta flips,"
            " or train with --folds or --objective gaussian-nll"
        )
    if polygons:
        if not polygons.lower().endswith(VECTORS):
            raise UsageMistake(f"--polygons {polygons}: write NAME.parquet or NAME.gpkg")
        if aim.kind != "classes":
            raise UsageMistake(f"--polygons: are of classes; the model gives {aim.kind}")
        if how.shard:
            raise UsageMistake("--polygons: give it with --merge, when the shares are put together")
    elif how.sieve or how.simplify:
        raise UsageMistake("--sieve and --simplify are for --polygons FILE")


class Run:
    """Targets on their way to maps."""

    def __init__(self, opened: Opened, how: How, targets: Sequence[Any], device: str) -> None:
        from geoml_cli.core.infer import Answers

        self.opened, self.how, self.targets, self.device = opened, how, targets, device
        self.aim = aim_of(opened.model)
        dates = sum(one["frames"] for one in opened.head["sensors"]) if self.aim.fills else 0
        self.answers = Answers(self.aim, how.probabilities or how.polygons, how.uncertainty, dates)
        self.made: list[Any] = []

    @property
    def assets(self) -> list[str]:
        """What the folder is to hold of each map."""
        kept = [MAP, "filled"] if self.aim.fills else [MAP]
        kept += ["probabilities"] if self.how.probabilities else []
        return kept + (["uncertainty"] if self.how.uncertainty else [])

    def layouts(self, grid: Any, record: Mapping[str, Any]) -> dict[str, Any]:
        """The COGs of a map on a grid."""
        from geoml_cli.stages.products import layouts_of

        tags = {"GEOML": canonical(record).decode()}
        return layouts_of(grid, self.answers, self.opened, tags)

    def batch(self, target: Any, kind: str = "cpu") -> int:
        """Windows that are computed at a time."""
        if self.how.batch:
            return self.how.batch
        pixels = target.lattice.rows.size * target.lattice.cols.size
        return int(np.clip((1 << (22 if kind == "cuda" else 20)) // pixels, 1, 256))

    def channels(self) -> int:
        """Channels that windows are blended over."""
        names = len(self.aim.names)
        count = names
        if self.aim.kind == "values" and "network" in self.opened.head:
            count = self.opened.head["network"]["outputs"]
        return count + (names if self.how.uncertainty else 0) + self.answers.dates

    def scratch(self, target: Any) -> int:
        """Bytes of disk that a map takes while it is made, besides the COGs themselves."""
        from geoml_cli.stages.strips import Strips

        size = sum(layout.nbytes for layout in self.layouts(target.out, {}).values())
        if target.lattice.fades:
            size += Strips.nbytes(target.lattice, self.channels())
        return size

    def say(self, out: str) -> Iterator[str]:
        """Lines for --dry-run."""
        sensors = self.opened.head["sensors"]
        depth = sum(len(one["bands"]) * one["frames"] for one in sensors)
        most = 0
        for target in self.targets:
            laid, grid = target.lattice, target.out
            yield (
                f"map {target.path}, {grid.width} x {grid.height} px, with {self.opened.head['members']} network(s)"
                f" in {len(laid)} windows of {laid.cols.size} x {laid.rows.size} px"
                f" ({laid.computed:.2f} pixels computed for each)"
            )
            most = max(most, self.batch(target) * laid.rows.size * laid.cols.size * depth * 5)
        scratch = max(self.scratch(target) for target in self.targets)
        total = sum(self.scratch(target) for target in self.targets)
        yield f"hold about {3 * most / 1e6:.0f} MB of windows, {scratch / 1e6:.1f} MB of scratch on disk at a time"
        yield f"write at most {total / 1e6:.1f} MB to {out}"

    def make(self, job: Job, check_seams: bool) -> None:
        """Map every target; the model is loaded once."""
        from geoml_cli.core import device as devices
        from geoml_cli.core.infer import Mapper
        from geoml_cli.stages.products import Made

        self._room(job)
        device = devices.pick(self.device, self.how.precision)
        log.info("predicting on %s", device)

        @cache
        def mapper() -> Any:
            tta = self.how.tta or self.opened.head["tta"] or "none"
            return Mapper(self.opened.load(), self.answers, device, tta)

        for target in self.targets:
            if not (job.part / f"{target.name}.tif").is_file():
                if job.attempt(target.path, partial(self._one, job, target, mapper)) is None:
                    Making.drop(job.part, target.name, list(self.layouts(target.out, {})))
                    (job.part / f"{target.name}.strips").unlink(missing_ok=True)
                    continue
            if check_seams:
                from geoml_cli.stages.seams import check

                check(target, self.opened.head, mapper())
            self.made.append(Made(target.name, target.id, target.times))
        if not self.made and self.targets:
            raise GeomlError("no input could be mapped")

    def _room(self, job: Job) -> None:
        """Refuse at once what the disk has no room for."""
        todo = [t for t in self.targets if not (job.part / f"{t.name}.tif").is_file()]
        held = sum(p.stat().st_size for p in job.part.iterdir() if p.suffix == ".raw")
        wanted = max((self.scratch(t) for t in todo), default=0) - held
        free = shutil.disk_usage(job.part).free
        if wanted > free:
            raise GeomlError(
                f"{job.named}: needs {wanted / 1e9:.2f} GB of scratch there, {free / 1e9:.2f} GB are free; make"
                " room, or take a part of it with --aoi or --shard"
            )

    def _one(self, job: Job, target: Any, ready: Callable[[], Any]) -> bool:
        """Stream one target through the model; goes on after a kill from the last block on disk."""
        from geoml_cli.stages import stream

        mapper = ready()
        kind = mapper.device.torch.type
        size = self.batch(target, kind)
        course = stream.course_of(target)
        strips = stream.strips_of(job.part, target, self.channels())
        layouts = self.layouts(target.out, job.record)
        if strips and strips.new:  # what was done stands on what is lost
            Making.drop(job.part, target.name, list(layouts))
        making = Making(job.part, target.name, layouts, course.blocks)
        head = self.opened.head
        split = self.opened.model.split if self.how.out_of_fold else None
        reader = stream.GroupReader(
            target, course, head["sensors"], head["codes"], split, pin=kind == "cuda"
        )
        writer = stream.Writer(target, course, making, mapper, strips)
        groups = stream.undone(course, making.done, size)
        missing = sum(len(group) for group in groups)
        bar = _bar(job, target.name, len(course.blocks), len(course.blocks) - missing)
        try:
            for done in stream.compute(groups, reader, mapper, writer, job.manners.jobs, job.check):
                bar.update(done)
        except BaseException:
            making.close()
            raise
        finally:
            bar.close()
        if making.empty:
            log.warning("%s: holds no valid pixel; its map is all nodata", target.path)
        given = {key.upper(): value for key, value in (one.split("=", 1) for one in self.how.co)}
        making.finish({"NUM_THREADS": "ALL_CPUS"} | given)  # changes no byte
        if strips:
            strips.path.unlink()
        return True

    def draw(self, job: Job, path: Path) -> None:
        """Write the polygons of the maps beside them; probabilities nobody asked to keep are dropped."""
        from geoml_cli.stages.drawing import draw_maps

        draw_maps(
            job,
            path,
            self.made,
            self.opened.model.classes,
            self.aim.per,
            self.how.sieve,
            self.how.simplify,
        )
        if not self.how.probabilities:
            for one in self.made:
                (job.part / f"{stem(one.name, 'probabilities')}.tif").unlink(missing_ok=True)

    def document(self, job: Job) -> dict[str, Any]:
        """items.json of the folder; the ground that the model saw goes with it."""
        from geoml_cli.stages.products import describe_maps

        if self.opened.ground is not None:
            shutil.copyfile(self.opened.ground, job.part / GROUND)
        shown = self.opened.model.classes if self.aim.kind == "classes" else []
        features = describe_maps(job.part, self.made, self.assets, shown)
        document = stac.collection_of(features) | {
            "geoml:classes": [c.to_dict() for c in shown],
            "geoml:out_of_fold": self.how.out_of_fold,
            "geoml:model": {"fingerprint": self.opened.head["geoml"]["fingerprint"]},
        }
        if self.how.shard:
            from geoml_cli.stages.merge_maps import said_of_share

            document["part"] = said_of_share(self, job)
        return document


def _bar(job: Job, what: str, total: int, done: int) -> Any:
    from tqdm import tqdm

    quiet = job.manners.quiet or not sys.stderr.isatty()
    return tqdm(total=total, initial=done, desc=what, unit="block", disable=quiet, leave=False)
