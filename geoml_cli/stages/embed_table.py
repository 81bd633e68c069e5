"""A table of embeddings: rows computed in groups into a raw file, then written in passes over it."""

import logging
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
from tqdm import tqdm

from geoml_cli.core.batch import Batch
from geoml_cli.core.reduction import fit, parse_reduction, to_plain
from geoml_cli.errors import NothingMatched, UsageMistake
from geoml_cli.formats.bands import Band
from geoml_cli.formats.cog import Journal, Layout
from geoml_cli.formats.embeddings import (
    scale_of,
)
from geoml_cli.formats.stamp import Input
from geoml_cli.formats.vectors import read_vectors
from geoml_cli.geo.grid import Grid, Window
from geoml_cli.manners import Manners
from geoml_cli.stages.embed_run import LOOK, LOOKS, Run, Wanted, spread
from geoml_cli.stages.embed_write import said_of, write_parts
from geoml_cli.stages.embedder import (
    Embedder,
    Norms,
    Way,
    space_of,
)
from geoml_cli.stages.in_order import in_order
from geoml_cli.stages.inputs import scene_inputs
from geoml_cli.stages.job import Job
from geoml_cli.stages.merge import share
from geoml_cli.stages.rows import PlaceRows, Rows, TileRows, WindowRows, attributes
from geoml_cli.stages.targets import check_tiles
from geoml_cli.stages.tiles import open_tiles

log = logging.getLogger("geoml")
ROWS = 8192  # that are written at a time
AHEAD = 1  # groups that are read and wait, a reader
FLUSH = 0.1  # of the time, spent on flushing rows


class Table(Run):
    """Rows into one file."""

    def __init__(self, way: Way, wanted: Wanted, extra: Sequence[Input]) -> None:
        super().__init__(way, wanted, extra)
        self.rows: list[Rows] = []
        if wanted.at:
            self.source = self.source.dense()
        head = self.source.head
        if self.sets and not wanted.at:
            side = head["window"]
            for k, path in enumerate(self.sets):
                tiles = open_tiles(path)
                check_tiles(path, tiles, head)
                side = tiles.size
                self.rows.append(TileRows(f"rows-{k}", tiles, head))
            self.inputs += scene_inputs(list(self.sets), [], "tiles")
            if way.window and way.window != side:
                raise UsageMistake(f"--window {way.window}: tiles are embedded whole, {side} px")
            self.window = side
            return
        found, sources = self.targets(self.source, way.window)
        self.inputs += sources
        self.window = head["window"]
        if wanted.at:
            places = read_vectors(wanted.at)
            ids = places["id"] if "id" in places else places.index
            places = attributes(places, list(ids))
            each = (PlaceRows(f"rows-{k}", t, places, head) for k, t in enumerate(found))
            self.rows = [one for one in each if one.count]
            if not self.rows:
                raise NothingMatched(f"{wanted.at}: none of the places lies on what was named")
            self.places = len(places)
        else:
            self.rows = [WindowRows(f"rows-{k}", t, head) for k, t in enumerate(found)]

    def say(self, out: str) -> Iterator[str]:
        """Lines for --dry-run."""
        count = sum(one.count for one in self.rows)
        yield f"embed {count} rows with {self.source.opened.name} and write them to {out}"
        pixels = self.window**2 * sum(
            len(s["bands"]) * s["frames"] for s in self.source.head["sensors"]
        )
        yield f"hold about {3 * self.size(self.window**2) * pixels * 5 / 1e6:.0f} MB of windows"

    def work(self, rows: Rows) -> list[range]:
        """Groups of some rows that are this share's."""
        size = self.size(self.window**2)
        groups = rows.groups(size)
        if not self.wanted.shard:
            return groups
        number, of = share(self.wanted.shard)
        cut = [len(groups) * k // of for k in (number - 1, number)]
        return groups[cut[0] : cut[1]]

    def make(self, out: str, manners: Manners) -> None:
        """Compute what is missing, then write the file in one pass."""
        with Job("embed", out, "embeddings", None, self.arguments, self.inputs, manners) as job:
            if not job.done:
                todo = [(one, self.work(one)) for one in self.rows]
                shown = [(one, group) for one, groups in todo for group in groups]

                def some() -> Iterator[Batch]:
                    for one, group in spread(shown, LOOKS):
                        batch = one.batch(one.read(group[:LOOK]))
                        if batch is not None:
                            yield batch

                embedder, norms = self.embedder(self.source, some)
                raws = [self._fill(job, one, groups, embedder) for one, groups in todo]
                built = job.part / f"table{Path(out).suffix.lower()}"
                self._write(job, built, todo, raws, norms)
                job.commit_file(built)
        for one in self.rows:
            one.close()
        job.report([job.named], [said_of(job)])

    def _fill(
        self, job: Job, rows: Rows, groups: Sequence[range], embedder: Embedder
    ) -> np.ndarray:
        """The raw file (count, D + extra) of some rows; goes on after a kill from the last group on disk."""
        width = self._width(embedder, rows, groups)
        if not groups:
            return np.zeros((0, width), np.float32)
        grid = Grid("", _plain(), rows.count, width)
        layout = Layout(grid, (Band("rows"),), "float32")
        journal = Journal(
            job.part, rows.name, layout, [Window(g.start, 0, len(g), width) for g in groups]
        )
        missing = [i for i, done in enumerate(journal.done) if not done]
        quiet = job.manners.quiet or not sys.stderr.isatty()
        bar = tqdm(total=rows.count, desc=rows.name, unit="row", disable=quiet, leave=False)
        flushed, cost = time.monotonic(), 0.0
        try:
            work = ((i, groups[i]) for i in missing)
            jobs = job.manners.jobs
            for i, read in in_order(
                lambda one: (one[0], rows.read(one[1])), work, jobs, jobs + AHEAD
            ):
                job.check()
                found = rows.compute(embedder, read)
                if found.shape[1] != width:
                    found = np.full((len(groups[i]), width), np.nan, np.float32)
                journal.write(i, found[None])
                bar.update(len(found))
                if time.monotonic() - flushed >= cost / FLUSH:
                    began = time.monotonic()
                    journal.sync()
                    flushed = time.monotonic()
                    cost = flushed - began
        finally:
            bar.close()
            journal.sync()
            journal.close()
        return np.memmap(journal.raw, np.float32, "r", shape=(rows.count, width))

    def _width(self, embedder: Embedder, rows: Rows, groups: Sequence[range]) -> int:
        channels = embedder.width(self.source.head["sensors"], self.wanted.at is not None)
        return channels + rows.extra

    def _write(
        self,
        job: Job,
        built: Path,
        todo: Sequence[tuple[Rows, list[range]]],
        raws: Sequence[np.ndarray],
        norms: Norms,
    ) -> None:
        """Reduce, scale and write, in passes over the raw files."""

        def parts() -> Iterator[tuple[geopandas.GeoDataFrame, np.ndarray]]:
            for (one, groups), raw in zip(todo, raws, strict=True):
                if groups and (groups[0].start, groups[-1].stop) != (0, one.count):
                    raw = _only(raw, groups[0].start, groups[-1].stop)
                elif not groups:
                    continue
                yield from one.finished(raw, ROWS)

        reduction = self.reduction()
        if self.wanted.reduce:
            kind, count = parse_reduction(self.wanted.reduce)
            reduction = fit(kind, count, (z for _, z in parts()), self.way.seed)
        shrink = reduction or (lambda z: z)
        scale = scale_of(shrink(z) for _, z in parts()) if self.wanted.dtype == "int8" else None
        plain = to_plain(reduction) if reduction else None
        about = self.source.about() | {"window": self.window}
        about |= {
            "norms": norms or None,
            "reduction": plain,
            "scale": scale,
            "dtype": self.wanted.dtype,
        }
        about["space"] = space_of(about, norms, plain)
        record = job.record | {"embedding": about}
        written = write_parts(built, parts, shrink, self.wanted.dtype, scale or 1.0, record)
        asked = getattr(self, "places", None)
        if asked and written < asked:
            log.warning(
                "%d of %d places hold no valid pixel; they have no row", asked - written, asked
            )


def _only(raw: np.ndarray, start: int, stop: int) -> np.ndarray:
    """A raw file of which only some rows count."""
    out = np.full(raw.shape, np.nan, np.float32)
    out[start:stop] = raw[start:stop]
    return out


def _plain() -> Any:
    from affine import Affine

    return Affine(1, 0, 0, 0, -1, 0)
