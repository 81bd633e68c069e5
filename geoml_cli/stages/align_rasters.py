"""Move rasters onto a reference, or a series onto itself; what is not sure stays and is said."""

import logging
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from geoml_cli import registry
from geoml_cli.errors import GeomlError, UsageMistake
from geoml_cli.formats import items as stac
from geoml_cli.formats.cog import check_options
from geoml_cli.formats.commit import write_text
from geoml_cli.formats.jsonfile import canonical, dumps, read_json
from geoml_cli.formats.raster import Raster, describe
from geoml_cli.formats.stamp import Input
from geoml_cli.geo.grid import Grid
from geoml_cli.manners import Manners
from geoml_cli.stages.align_measure import MODELS, How, Motion, check_asked
from geoml_cli.stages.align_sides import (
    Side,
    Sight,
    choose_bands,
    ground_of,
    overlap,
    side_of,
)
from geoml_cli.stages.inputs import Scene, check_local, digest_source, read_scenes, scene_inputs
from geoml_cli.stages.job import Job, plan

log = logging.getLogger("geoml")
SURE = 0.95
STILL_PX = 0.05  # an image that is no further off is where it belongs
SERIES = ("first", "joint")
UNDATED = ("1900-01-01T00:00:00Z", "2100-01-01T00:00:00Z")  # what STAC is told of no date
PARTS = ("ties", "estimate", "checkerboard")


def run(
    moving: Sequence[Any],
    reference: str,
    out: str,
    manners: Manners,
    *,
    confidence: float | None = None,
    aligner: str | None = None,
    transform: str = "shift",
    band: str | None = None,
    mask: Sequence[str] = (),
    max_shift: float = 32.0,
    resampling: str = "cubic",
    geotransform_only: bool = False,
    like: str | None = None,
    device: str = "auto",
    co: Sequence[str] = (),
) -> None:
    """Align rasters, or scenes; see `geoml align --help` for what each argument means."""
    name = aligner or ("local" if transform == "field" else "phase")
    sure = SURE if confidence is None else confidence
    how = How(name, transform, max_shift, sure)
    _check(how, reference, geotransform_only, like)
    check_options(co)
    scenes = read_scenes(list(moving))
    sources = scene_inputs(list(moving), scenes)
    others: list[Scene] = []
    if reference not in SERIES:
        check_local([reference])
        others = read_scenes([reference])
        sources += scene_inputs([reference], others, "to")
    elif len(scenes) < 2:
        raise UsageMistake(f"--to {reference}: is for a series; give several images")
    masks = [describe(path) for path in mask]
    sources += [Input(path, "mask", digest_source(path)) for path in mask]
    sources += [Input(like, "like", digest_source(like))] if like else []
    single = out.lower().endswith((".tif", ".tiff"))
    if single and (len(scenes) > 1 or len(scenes[0].rasters) > 1):
        raise UsageMistake(f"-o {out}: is one file; for several name a folder")
    arguments = {
        "to": reference if reference in SERIES else None,
        "confidence": sure,
        "aligner": name,
        "transform": transform,
        "band": band,
        "max_shift": max_shift,
        "resampling": resampling,
        "geotransform_only": geotransform_only,
        "co": list(co),
    }
    made = Making(scenes, others, masks, how, band, device)
    made.resampling, made.only_grid, made.co = resampling, geotransform_only, tuple(co)
    made.series = reference if reference in SERIES else None
    made.like = describe(like).grid if like else None
    if manners.dry_run:
        plan(manners, made.say(out))
        return
    stamp = None if single else stac.NAME
    with Job("align", out, "scenes", stamp, arguments, sources, manners) as job:
        if not job.done:
            made.make(job)
            if single:
                job.commit_file(job.part / f"{made.names[0]}.tif")
            else:
                job.commit(made.document(job))
    report(job, single)


def _check(how: How, reference: str, only_grid: bool, like: str | None) -> None:
    check_asked(how)
    name, _ = registry.parse("aligners", how.aligner)
    if how.transform not in MODELS:
        raise UsageMistake(f"--transform {how.transform}: write {', '.join(MODELS)}")
    if only_grid and how.transform in ("projective", "field"):
        raise UsageMistake(
            f"--geotransform-only: a grid can be moved, scaled and turned; not --transform {how.transform}"
        )
    if only_grid and like:
        raise UsageMistake("--geotransform-only: keeps the pixels; no --like beside it")
    if reference == "joint" and how.transform != "shift":
        raise UsageMistake("--to joint: finds shifts; for other transforms name a reference")
    if name == "local" and how.transform == "shift":
        log.warning(
            "--aligner local: one shift for all; --transform field lets it differ from place to place"
        )


class Making:
    """Scenes on their way to where they belong."""

    resampling = "cubic"
    only_grid = False
    co: tuple[str, ...] = ()
    series: str | None = None
    like: Grid | None = None

    def __init__(
        self,
        scenes: list[Scene],
        references: list[Scene],
        masks: list[Raster],
        how: How,
        band: str | None,
        device: str,
    ) -> None:
        self.scenes, self.references, self.masks = scenes, references, masks
        self.how, self.band, self.device = how, band, device
        self.names = _file_names(scenes)
        if self.series_like:
            order = sorted(range(len(scenes)), key=lambda i: scenes[i].datetime or "")
            self.scenes = [scenes[i] for i in order]
            self.names = [self.names[i] for i in order]

    @property
    def series_like(self) -> bool:
        """Whether the images are each other's reference."""
        return not self.references

    def say(self, out: str) -> Any:
        """Lines for --dry-run."""
        for scene in self.scenes:
            first = next(iter(scene.rasters.values()))
            yield (
                f"align {scene.id}, {first.grid.width} x {first.grid.height} px, by {self.how.aligner}"
                f" ({self.how.transform}, up to {self.how.reach:g} px)"
            )
        size = sum(
            len(r.bands) * r.grid.width * r.grid.height * np.dtype(r.dtype).itemsize
            for scene in self.scenes
            for r in scene.rasters.values()
        )
        yield f"write at most {size / 1e6:.1f} MB to {out}"

    def make(self, job: Job) -> None:
        """Align every scene; what an earlier run finished is kept."""
        from geoml_cli.core import device as devices

        picked = devices.pick(self.device, "32")
        log.info("aligning on %s", picked)
        motions = self._joint(job, picked.torch) if self.series == "joint" else None
        for i, (scene, name) in enumerate(zip(self.scenes, self.names, strict=True)):
            if (job.part / f"{name}_estimate.json").is_file():
                self._again(job, scene, name)
                continue
            ready = None if motions is None else (motions[i],)
            done = job.attempt(scene.id, partial(self._one, job, i, picked.torch, ready))
            if done is None:
                self._stay(job, scene, name, None, "not sure")

    def _again(self, job: Job, scene: Scene, name: str) -> None:
        if read_json(job.part / f"{name}_estimate.json").get("why") == "not sure":
            job.failed.append(scene.id)

    def _pair(self, i: int) -> tuple[Scene, Scene] | None:
        """The reference of a scene, and the scene; None for the one that all others are moved to."""
        scene = self.scenes[i]
        if self.series:
            return None if i == 0 else (self.scenes[0], scene)
        grid = next(iter(scene.rasters.values())).grid
        if len(self.references) == 1:
            return self.references[0], scene
        shared = [overlap(next(iter(r.rasters.values())).grid, grid) for r in self.references]
        return self.references[int(np.argmax(shared))], scene

    def _measure(
        self, reference: Scene, scene: Scene, device: Any, check: Callable[[], None]
    ) -> tuple[Motion, Side, Side, tuple[str, str]]:
        from geoml_cli.stages.align_measure import measure

        bands = choose_bands(reference, scene, self.band, check)
        a, b = side_of(reference, bands[0], self.masks), side_of(scene, bands[1], self.masks)
        try:
            ground = ground_of(a.raster.grid, b.raster.grid)
        except GeomlError as error:
            raise GeomlError(f"{b.raster.path}: {error}") from None
        with Sight(a, ground.reference) as left, Sight(b, ground.moving) as right:
            return measure(left, right, ground, self.how, device, check), a, b, bands

    def _joint(self, job: Job, device: Any) -> list[Motion | None]:
        from geoml_cli.stages.align_series import joint

        def pair(i: int, j: int) -> Motion:
            return self._measure(self.scenes[i], self.scenes[j], device, job.check)[0]

        return joint(len(self.scenes), pair, self.how.confidence)

    def _one(self, job: Job, i: int, device: Any, ready: tuple[Motion | None] | None) -> bool:
        """Measure and move one scene."""
        scene, name = self.scenes[i], self.names[i]
        pair = self._pair(i)
        if ready is not None:
            if ready[0] is None:
                raise GeomlError(
                    f"{scene.id}: no other image of the series could be aligned with it surely"
                )
            self._finish(job, i, ready[0], None, ("", ""))
            return True
        if pair is None:
            self._stay(job, scene, name, None, "reference")
            return True
        motion, a, b, bands = self._measure(*pair, device, job.check)
        found = motion.estimate
        if found.confidence < self.how.confidence:
            raise GeomlError(
                f"{b.raster.path}: not sure where it lies on {a.raster.path} (confidence {found.confidence:.2f},"
                f" {self.how.confidence:g} asked); nothing is moved. Try --aligner phase:of=gradient or"
                " phase:of=mutual for other sensors, --band, or a larger --max-shift"
            )
        self._finish(job, i, motion, (a, b), bands)
        return True

    def _finish(
        self,
        job: Job,
        i: int,
        motion: Motion,
        sides: tuple[Side, Side] | None,
        bands: tuple[str, str],
    ) -> None:
        from geoml_cli.stages import align_told

        scene, name = self.scenes[i], self.names[i]
        steps = motion.steps()
        std = np.sqrt(np.diag(motion.estimate.covariance))
        far = float(np.hypot(*steps.T).max())
        bend = motion.estimate.bend
        still = far < STILL_PX and (bend is None or float(np.abs(bend.knots).max()) < STILL_PX)
        said = align_told.told(motion, self.how, bands, not still, "" if not still else "in place")
        if motion.estimate.ties is not None:
            align_told.write_ties(
                job.part / f"{name}_ties.parquet", motion, motion.estimate.ties, job.record
            )
        if sides is not None:
            with (
                Sight(sides[0], motion.ground.reference) as a,
                Sight(sides[1], motion.ground.moving) as b,
            ):
                before, after = align_told.draw(
                    job.part / f"{name}_checkerboard.png", a, b, motion, job.check
                )
            said |= {"correlation": {"before": _rounded(before), "after": _rounded(after)}}
        log.info(
            "%s: off by %.3f px (+- %.3f), confidence %.3f",
            scene.id,
            np.hypot(*steps[0]),
            std.max(),
            said["confidence"],
        )
        if still and self.like is None:
            self._stay(job, scene, name, said, "in place")
            return
        self._move(job, scene, name, motion, said)

    def _move(
        self, job: Job, scene: Scene, name: str, motion: Motion, said: dict[str, Any]
    ) -> None:
        from geoml_cli.stages import align_write

        options = {k.upper(): v for k, v in (one.split("=", 1) for one in self.co)}
        tags = {"GEOML": canonical(job.record).decode()}
        grids = {}
        for key, raster in scene.rasters.items():
            path = job.part / f"{self._stem(scene, name, key)}.tif"
            flat = key in scene.categorical
            if self.only_grid:
                grid = align_write.regridded(raster.grid, motion, self.how.transform)
                if not path.is_file():
                    align_write.copied(raster, path, grid, tags, flat, job.check)
            else:
                grid = self.like or raster.grid
                how = "nearest" if flat else self.resampling
                if not path.is_file():
                    align_write.warp(raster, path, grid, motion, how, tags, options, job.check)
            grids[key] = grid.to_dict()
        self._note(job, scene, name, said)

    def _stay(
        self, job: Job, scene: Scene, name: str, said: dict[str, Any] | None, why: str
    ) -> None:
        """Write the pixels as they are."""
        from geoml_cli.stages import align_write

        tags = {"GEOML": canonical(job.record).decode()}
        for key, raster in scene.rasters.items():
            path = job.part / f"{self._stem(scene, name, key)}.tif"
            if not path.is_file():
                align_write.copied(
                    raster, path, raster.grid, tags, key in scene.categorical, job.check
                )
        self._note(job, scene, name, {**(said or {}), "moved": False, "why": why})

    def _stem(self, scene: Scene, name: str, key: str) -> str:
        return name if len(scene.rasters) == 1 else f"{name}_{key}"

    def _note(self, job: Job, scene: Scene, name: str, said: dict[str, Any]) -> None:
        """Write what is known of a scene; with it the scene is done."""
        write_text(job.part / f"{name}_estimate.json", dumps(said))

    def document(self, job: Job) -> dict[str, Any]:
        """items.json of the folder."""
        features = []
        for scene, name in zip(self.scenes, self.names, strict=True):
            said = read_json(job.part / f"{name}_estimate.json")
            kept = ("moved", "why", "confidence", "shift_px", "shift_m", "std_px")
            times = {"start_datetime": UNDATED[0], "end_datetime": UNDATED[1]}
            more = {k: v for k, v in scene.properties.items() if k != "datetime"}
            about = {"geoml:alignment": {k: said[k] for k in kept if k in said}}
            item = stac.item_of(
                scene.id, scene.datetime, {**({} if scene.datetime else times), **more, **about}
            )
            for key, raster in scene.rasters.items():
                path = job.part / f"{self._stem(scene, name, key)}.tif"
                stac.add_raster(item, key, _described(path, raster), job.part)
            for part in PARTS:
                found = sorted(job.part.glob(f"{name}_{part}.*"))
                for file in found:
                    role = ["overview"] if part == "checkerboard" else ["metadata"]
                    stac.add_file(item, part, file, job.part, roles=role)
            features.append(item)
        return stac.collection_of(features)


def _described(path: Path, raster: Raster) -> Raster:
    """A written raster with what was known of its bands; its grid may be turned, which `describe` refuses."""
    import rasterio

    with rasterio.open(path) as dataset:
        grid = replace(
            raster.grid, transform=dataset.transform, height=dataset.height, width=dataset.width
        )
        if dataset.crs is not None:
            from geoml_cli.geo.grid import crs_name

            grid = replace(grid, crs=crs_name(dataset.crs.to_wkt()))
        nodata, dtype = dataset.nodatavals[0], dataset.dtypes[0]
    bands = tuple(replace(band, nodata=nodata) for band in raster.bands)
    return Raster(str(path), grid, bands, tuple(range(1, len(bands) + 1)), dtype)


def _rounded(value: float | None) -> float | None:
    return None if value is None or not np.isfinite(value) else round(value, 4)


def _file_names(scenes: Sequence[Scene]) -> list[str]:
    """One file name, without suffix, a scene."""
    names: list[str] = []
    for scene in scenes:
        safe = re.sub(r"[^\w.\-]+", "_", scene.id).strip("._")[:120] or "scene"
        again = sum(1 for name in names if name == safe or name.startswith(f"{safe}-"))
        names.append(safe if safe not in names else f"{safe}-{again + 1}")
    return names


def report(job: Job, single: bool) -> None:
    """Say what was written, and of each image whether it was moved."""
    if single:
        job.report([job.named])
        return
    features = stac.read_collection(job.out)["features"]
    paths = [
        f"{job.named}/{stac.member_of(asset)}"
        for item in features
        for asset in item["assets"].values()
        if stac.is_raster_asset(asset)
    ]
    said = {item["id"]: item["properties"]["geoml:alignment"] for item in features}
    job.report(paths, stac.anchor(features, job.named), images=said)
