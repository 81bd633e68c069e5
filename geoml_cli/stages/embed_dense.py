"""A COG of embeddings for each raster: one vector a patch, a band a dimension."""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from geoml_cli.core.reduction import fit, parse_reduction, to_plain
from geoml_cli.errors import GeomlError, UsageMistake
from geoml_cli.formats import items as stac
from geoml_cli.formats.bands import Band
from geoml_cli.formats.cog import Layout, drop_journal, write_cog
from geoml_cli.formats.embeddings import (
    dimension_names,
    scale_of,
)
from geoml_cli.formats.jsonfile import canonical
from geoml_cli.formats.stamp import Input
from geoml_cli.manners import Manners
from geoml_cli.stages import stream
from geoml_cli.stages.embed_run import LOOK, LOOKS, Run, Wanted, spread
from geoml_cli.stages.embedder import (
    Embedder,
    Way,
    space_of,
)
from geoml_cli.stages.job import Job
from geoml_cli.stages.making import MAP, Making
from geoml_cli.stages.products import Made, describe_maps
from geoml_cli.stages.targets import Target

log = logging.getLogger("geoml")
FITTED = 64  # groups that the reduction of dense embeddings is fitted on


class Dense(Run):
    """A COG of patches for each raster."""

    def __init__(self, way: Way, wanted: Wanted, extra: Sequence[Input]) -> None:
        super().__init__(way, wanted, extra)
        if wanted.at:
            raise UsageMistake("--at: gives a table; name -o NAME.parquet or NAME.gpkg")
        if wanted.dtype == "float16":
            raise UsageMistake(
                "--dtype float16: GeoTIFFs of GDAL 3.10 hold none; write float32 or int8"
            )
        self.source = self.source.dense()
        self.found, sources = self.targets(self.source, way.window)
        self.inputs += sources

    def say(self, out: str) -> Iterator[str]:
        """Lines for --dry-run."""
        for one in self.found:
            yield f"embed {one.path} in {len(one.lattice)} windows, to {one.out.width} x {one.out.height} patches"
        yield f"write to {out}"

    def make(self, out: str, manners: Manners) -> None:
        """Stream every raster through the network, and translate to COGs."""
        single = out.lower().endswith((".tif", ".tiff"))
        if single and len(self.found) > 1:
            raise UsageMistake(f"-o {out}: is one file; for several name a folder")
        made: list[Made] = []
        stamp = None if single else stac.NAME
        with Job("embed", out, "embeddings", stamp, self.arguments, self.inputs, manners) as job:
            if not job.done:
                self._all(job, made)
                if single:
                    job.commit_file(job.part / f"{made[0].name}.tif")
                else:
                    features = describe_maps(job.part, made, [MAP], [])
                    job.commit(stac.collection_of(features) | {"embedding": self.about})
        if single:
            job.report([job.named])
            return
        document = stac.read_collection(job.out)
        paths = [f"{job.named}/{item['assets'][MAP]['href'][2:]}" for item in document["features"]]
        job.report(paths, stac.anchor(document["features"], job.named))

    def _all(self, job: Job, made: list[Made]) -> None:
        sizes = [self.size(_pixels(t)) for t in self.found]
        courses = [stream.course_of(t) for t in self.found]
        head = self.source.head
        shown = [
            (k, group)
            for k, (c, size) in enumerate(zip(courses, sizes, strict=True))
            for group in c.groups(size)
        ]

        def batches(count: int) -> Iterator[tuple[int, Any]]:
            readers: dict[int, stream.GroupReader] = {}
            for k, group in spread(shown, count):
                if k not in readers:
                    readers[k] = stream.GroupReader(
                        self.found[k], courses[k], head["sensors"], head["codes"]
                    )
                read = readers[k].read(group[:LOOK])
                if read.batch is not None:
                    yield k, read
            for one in readers.values():
                one.close()

        embedder, norms = self.embedder(self.source, lambda: (r.batch for _, r in batches(LOOKS)))
        reduction = self.reduction()
        if self.wanted.reduce:
            kind, count = parse_reduction(self.wanted.reduce)
            reduction = fit(kind, count, self._patches(embedder, batches), self.way.seed)
        embedder.reduction = reduction
        plain = to_plain(reduction) if reduction else None
        self.about = self.source.about() | {
            "norms": norms or None,
            "reduction": plain,
            "dtype": self.wanted.dtype,
        }
        self.about["space"] = space_of(self.about, norms, plain)
        if reduction:
            width = len(reduction.components)
        else:
            width = embedder.width(head["sensors"], True)
        for target, course, size in zip(self.found, courses, sizes, strict=True):
            if not (job.part / f"{target.name}.tif").is_file():
                work = partial(self._one, job, target, course, size, embedder, width)
                if job.attempt(target.path, work) is None:
                    continue
            made.append(Made(target.name, target.id, target.times))
        if not made:
            raise GeomlError("no input could be embedded")

    def _patches(self, embedder: Embedder, batches: Any) -> Iterator[np.ndarray]:
        for k, read in batches(FITTED):
            laid, course = self.found[k].lattice, self.found[k]
            windows = [stream.course_of(course).windows[n] for n in read.busy]
            said = embedder.ask(read.batch, [laid.place(i) for i in windows], laid)
            for n, one in zip(read.busy, said, strict=True):
                yield one.cpu().numpy()[:, read.seen[n]].T

    def _one(
        self,
        job: Job,
        target: Target,
        course: stream.Course,
        size: int,
        embedder: Embedder,
        width: int,
    ) -> bool:
        """One raster; goes on after a kill from the last block on disk."""
        head, nan = self.source.head, float("nan")
        bands = tuple(Band(name, nodata=nan) for name in dimension_names(width))
        record = job.record | {"embedding": self.about}
        tags = {"GEOML": canonical(record).decode()}
        layout = Layout(target.out, bands, "float32", tags=tags)
        strips = None
        if target.lattice.fades:
            strips = stream.Strips(job.part / f"{target.name}.strips", target.lattice, width)
        if strips and strips.new:
            Making.drop(job.part, target.name, [MAP])
        making = Making(job.part, target.name, {MAP: layout}, course.blocks)
        reader = stream.GroupReader(target, course, head["sensors"], head["codes"])
        writer = stream.Writer(target, course, making, embedder, strips)  # type: ignore[arg-type]
        groups = stream.undone(course, making.done, size)
        try:
            for _ in stream.compute(groups, reader, embedder, writer, job.manners.jobs, job.check):  # type: ignore[arg-type]
                pass
        except BaseException:
            making.close()
            raise
        making.sync()
        making.close()
        journal = making.journals[MAP]
        options = dict(one.split("=", 1) for one in self.wanted.co)
        options = {"NUM_THREADS": "ALL_CPUS"} | {k.upper(): v for k, v in options.items()}
        raw = journal.raw
        if self.wanted.dtype == "int8":
            raw, layout = _quantised(raw, layout)
        write_cog(raw, job.part / f"{target.name}.tif", layout, options)
        raw.unlink()
        drop_journal(job.part, target.name)
        if strips:
            strips.path.unlink()
        return True


def _pixels(target: Target) -> int:
    laid = target.lattice
    return laid.rows.size * laid.cols.size * laid.step**2


def _quantised(raw: Path, layout: Layout) -> tuple[Path, Layout]:
    """The same as int8 with one scale; -128 is nodata."""
    shape = (len(layout.bands), layout.grid.height, layout.grid.width)
    values = np.memmap(raw, np.float32, "r", shape=shape)
    scale = scale_of(np.nan_to_num(band) for band in values)
    path = raw.with_suffix(".int8.raw")
    out = np.memmap(path, np.int8, "w+", shape=shape)
    for i, band in enumerate(values):
        stored = np.clip(np.rint(np.nan_to_num(band) / np.float32(scale)), -127, 127)
        out[i] = np.where(np.isnan(band), -128, stored).astype(np.int8)
    out.flush()
    bands = tuple(replace(band, scale=scale, nodata=-128) for band in layout.bands)
    return path, replace(layout, bands=bands, dtype="int8")
