"""Score images that were filled against the images themselves: gaps alone, block by block of ground."""

import logging
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from geoml_cli import registry
from geoml_cli.core.scoring import Stats, bootstrap, merge
from geoml_cli.errors import GeomlError, NothingMatched, UsageMistake
from geoml_cli.formats.commit import write_text
from geoml_cli.formats.digest import digest_file
from geoml_cli.formats.figures import Picture
from geoml_cli.formats.jsonfile import dumps
from geoml_cli.formats.raster import Raster, Reader, physical
from geoml_cli.formats.report_images import write_images
from geoml_cli.formats.scores import number, read_scores, table
from geoml_cli.formats.stamp import Input
from geoml_cli.geo.grid import Grid, Window
from geoml_cli.geo.snap import shift_between
from geoml_cli.geo.windows import blocks
from geoml_cli.manners import Manners
from geoml_cli.stages.gates import check_classes, drops, failures, judge, parse_gate
from geoml_cli.stages.ground import Ground
from geoml_cli.stages.inputs import check_local, expand, read_scenes, scene_inputs
from geoml_cli.stages.job import Job, plan
from geoml_cli.stages.maps import GROUND
from geoml_cli.stages.stack import Stack, StackReader, stack_of

log = logging.getLogger("geoml")
PIECE, RIM = 512, 5  # px read at a time, and more of them around: what structure is compared over
DRAWN = 420  # px along a picture's longer side


@dataclass(frozen=True)
class Pair:
    """Images that were filled, where they are (a band a date; None: not told), and the truth on their grid."""

    id: str
    raster: Raster
    gaps: Raster | None
    truth: Stack
    ground: Path | None

    @property
    def grid(self) -> Grid:
        """The grid of both."""
        return self.raster.grid


def pairs_of(inputs: list[str], truth: str) -> tuple[list[Pair], list[Any]]:
    """Open images and truth and put them together: by id, or the one truth with all."""
    named = expand(inputs)
    check_local([*named, truth])
    scenes, others = read_scenes(named), read_scenes([truth], loose=True)
    by_id = {scene.id: scene for scene in others}
    found = []
    for scene in scenes:
        other = others[0] if len(others) == 1 else by_id.get(scene.id)
        if other is None:
            raise GeomlError(f"{truth}: holds no {scene.id}; it has {', '.join(sorted(by_id))}")
        raster = scene.rasters.get("map") or next(iter(scene.rasters.values()))
        home = Path(raster.path).parent / GROUND
        pair = Pair(
            scene.id,
            raster,
            scene.rasters.get("filled"),
            _fitting(stack_of(other), raster),
            home if home.is_file() else None,
        )
        found.append(pair)
    sources = scene_inputs(named, scenes, "map") + scene_inputs([truth], others, "truth")
    return found, sources


def _fitting(truth: Stack, raster: Raster) -> Stack:
    """The truth in the bands of what was filled, on its pixels."""
    where, names = truth.rasters[0].path, [band.name for band in raster.bands]
    have = [band.name for band in truth.bands]
    if set(names) <= set(have):
        truth = truth.pick(names)
    elif len(names) != len(have):
        raise GeomlError(
            f"{where}: has bands {', '.join(have)}; {raster.path} has {', '.join(names)}"
        )
    if shift_between(truth.grid, raster.grid) is None:
        raise GeomlError(
            f"{where}: its pixels are not those of {raster.path}; predict with --like {where}"
        )
    return truth.on(raster.grid)


@dataclass
class Seen:
    """What came of a comparison."""

    blocks: dict[int, Stats]
    trained: int
    peak: np.ndarray
    pictures: list[Picture]


def compare(pairs: Sequence[Pair], metric: Any, side: int, trained_too: bool, check: Any) -> Seen:
    """Stats of blocks, `side` x `side` a pair; the range of values is that of the truth."""
    count = len(pairs[0].raster.bands)
    if any(len(one.raster.bands) != count for one in pairs):
        raise GeomlError(f"{pairs[0].raster.path}: the other images have other bands")
    peak = np.ptp([_span(one, check) for one in pairs], axis=(0, 1))
    seen = Seen({}, 0, np.where(peak > 0, peak, 1.0), [])
    for n, one in enumerate(pairs):
        ground = None if trained_too or one.ground is None else Ground(one.ground, one.grid)
        with Reader(one.raster) as reader, StackReader(one.truth) as truth:
            gaps = Reader(one.gaps) if one.gaps else None
            for number_, window in _pieces(one.grid, side):
                check()
                stats = _stats(one, window, reader, truth, gaps, ground, metric, seen)
                key = n * side * side + number_
                held = seen.blocks.get(key)
                seen.blocks[key] = stats if held is None else merge(held, stats)
            if gaps:
                gaps.close()
    return seen


def _pieces(grid: Grid, side: int) -> Iterator[tuple[int, Window]]:
    """Windows of each of side x side blocks, with the block's number."""
    rows = np.linspace(0, grid.height, side + 1).astype(int)
    cols = np.linspace(0, grid.width, side + 1).astype(int)
    for i in range(side):
        for k in range(side):
            height, width = int(rows[i + 1] - rows[i]), int(cols[k + 1] - cols[k])
            for w in blocks(height, width, (PIECE, PIECE)):
                yield (
                    i * side + k,
                    Window(int(rows[i]) + w.row, int(cols[k]) + w.col, w.height, w.width),
                )


def _span(one: Pair, check: Any) -> np.ndarray:
    """Least and largest value of each band of the truth (2, bands)."""
    low, high = np.full(len(one.truth.bands), np.inf), np.full(len(one.truth.bands), -np.inf)
    with StackReader(one.truth) as reader:
        for window in blocks(one.grid.height, one.grid.width, (PIECE, PIECE)):
            check()
            values, valid = reader.read(window)
            if valid.any():
                x = physical(values, one.truth.bands)[:, valid]
                low, high = np.minimum(low, x.min(1)), np.maximum(high, x.max(1))
    if not np.isfinite(low).all():
        raise NothingMatched(
            f"{one.truth.rasters[0].path}: holds no valid pixel where the images are"
        )
    return np.stack([low, high])


def _stats(
    one: Pair, window: Window, reader: Reader, truth: StackReader, gaps: Reader | None,
    ground: Ground | None, metric: Any, seen: Seen,
) -> Stats:  # fmt: skip
    """Stats of a window; what lies around it is looked at too."""
    top, left = max(window.row - RIM, 0), max(window.col - RIM, 0)
    bottom = min(window.row + window.height + RIM, one.grid.height)
    right = min(window.col + window.width + RIM, one.grid.width)
    wide = Window(top, left, bottom - top, right - left)
    guess, has = reader.read(wide)
    values, known = truth.read(wide)
    right_ones = physical(values, one.truth.bands)
    scored = np.zeros(guess.shape, bool)
    row, col = window.row - top, window.col - left
    here = slice(row, row + window.height), slice(col, col + window.width)
    scored[(slice(None), *here)] = (known & has)[here]
    if gaps is not None:
        told = gaps.read(wide)[0] == 1  # (dates, h, w)
        scored &= np.repeat(told, len(guess) // len(told), axis=0)
    if ground is not None:
        flat = ground.mask(wide)
        seen.trained += int((scored & flat).sum())
        scored &= ~flat
    found: Stats = metric.stats(
        right_ones[None], physical(guess, one.raster.bands)[None], scored[None], len(guess),
        seen.peak, np.broadcast_to(known & has, guess.shape)[None],
    )  # fmt: skip
    return found


def document(
    pairs: Sequence[Pair], seen: Seen, metric: Any, given: dict[str, Any]
) -> dict[str, Any]:
    """The scores without their record."""
    stacked = {
        key: np.stack([seen.blocks[b][key] for b in sorted(seen.blocks)])
        for key in next(iter(seen.blocks.values()))
    }
    held = stacked["n"].sum(axis=1) > 0
    stacked = {key: rows[held] for key, rows in stacked.items()}
    n = stacked["n"].sum(axis=0) if held.any() else np.zeros(1, int)
    if not n.sum():
        why = (
            "all gaps lie on ground that the model trained on"
            if seen.trained
            else "no gap has truth"
        )
        raise NothingMatched(
            f"{given['truth']}: nothing to score: {why} (--include-trained scores it)"
        )
    total = {key: rows.sum(axis=0) for key, rows in stacked.items()}
    scores = metric.score(total)
    spans = bootstrap(stacked, metric.score, given["bootstrap"], given["seed"])
    names = [band.name for band in pairs[0].raster.bands]
    classes: dict[str, dict[str, Any]] = {
        b: {"support": int(v)} for b, v in zip(names, n, strict=True)
    }
    metrics = {}
    for key, value in scores.items():
        low, high = spans[key]
        if np.ndim(value) == 0:
            metrics[key] = _entry(value, low, high, n.sum())
            continue
        for i, name in enumerate(names):
            classes[name][key.removesuffix("_each")] = _entry(value[i], low[i], high[i], n[i])
    scored = {
        "maps": [{"id": one.id} for one in pairs],
        "truth": {"name": os.path.basename(given["truth"].rstrip("/")), "kind": "images"},
        "n": int(n.sum()),
        "gaps_alone": all(one.gaps for one in pairs),
        "left_out": {"trained": seen.trained},
        "range": {name: float(v) for name, v in zip(names, seen.peak, strict=True)},
        "blocks": {"a_side": given["blocks"], "with_truth": int(held.sum())},
        "bootstrap": given["bootstrap"],
        "seed": given["seed"],
        "ground_known": all(one.ground for one in pairs),
    }
    none: dict[str, Any] = {"names": [], "matrix": []}
    return {"metrics": metrics, "classes": classes, "confusion": none, "scored": scored}


def _entry(value: Any, low: Any, high: Any, n: Any) -> dict[str, Any]:
    return {"value": number(value), "lo": number(low), "hi": number(high), "n": int(n)}


def pictures_of(pairs: Sequence[Pair]) -> list[list[Picture]]:
    """Truth, what was seen of it, and what was made of it: three pictures a pair, the first two pairs."""
    return [_pictures(one) for one in pairs[:2]]


def _pictures(one: Pair) -> list[Picture]:
    step = max(1, -(-max(one.grid.height, one.grid.width) // DRAWN))
    whole = Window(0, 0, one.grid.height, one.grid.width)
    with Reader(one.raster) as reader, StackReader(one.truth) as truth:
        guess, has = (x[..., ::step, ::step] for x in reader.read(whole))
        values, known = (x[..., ::step, ::step] for x in truth.read(whole))
    told = np.zeros(known.shape, bool)
    if one.gaps is not None:
        with Reader(one.gaps) as reader:
            told = reader.read(whole)[0][0, ::step, ::step] == 1
    common = [band.common_name or band.name for band in one.truth.bands]
    rgb = [common.index(c) for c in ("red", "green", "blue") if c in common]
    rgb = rgb if len(rgb) == 3 else [0, min(1, len(common) - 1), min(2, len(common) - 1)]
    right, filled = physical(values, one.truth.bands)[rgb], physical(guess, one.raster.bands)[rgb]
    low, high = (np.percentile(right[:, known], q, axis=1)[:, None, None] for q in (2, 98))

    def painted(x: np.ndarray, seen: np.ndarray) -> np.ndarray:
        scaled = np.clip((x - low) / np.maximum(high - low, 1e-9), 0, 1)
        out = np.concatenate([np.nan_to_num(scaled), seen[None].astype(float)])
        return (np.moveaxis(out, 0, -1) * 255).round().astype(np.uint8)

    return [
        Picture("the truth", painted(right, known), 1.0),
        Picture("what was seen", painted(right, known & ~told), 1.0),
        Picture("filled", painted(filled, has), 1.0),
    ]


def evaluate_images(
    inputs: list[str], truth: str, out: str | None, *, metric: str, report: str | None,
    beside: str | None, blocks: int, draws: int, seed: int, include_trained: bool,
    fail_if: Sequence[str], baseline: str | None, max_drop: float | None, manners: Manners,
) -> dict[str, Any]:  # fmt: skip
    """Score images; see `geoml evaluate --help`."""
    part = registry.load("metrics", metric)
    none = np.zeros((0, 1, 1, 1))
    told = part.score(part.stats(none, none, none.astype(bool), 1))
    names = [k for k in told if not k.endswith("_each")]
    gates = [parse_gate(text, names, names) for text in fail_if]
    old = read_scores(baseline) if baseline else None
    pairs, sources = pairs_of(inputs, truth)
    check_classes(gates, [band.name for band in pairs[0].raster.bands])
    for one in sorted({p.ground for p in pairs if p.ground}):
        sources.append(Input(str(one), "ground", digest_file(one)))
    arguments = {
        "metric": metric, "blocks": blocks, "bootstrap": draws, "seed": seed,
        "include_trained": include_trained, "report": beside,
    }  # fmt: skip
    if manners.dry_run:
        plan(manners, [f"score {len(pairs)} image(s) on {truth}", f"write {out or 'to stdout'}"])
        return {}
    if out is None:
        raise UsageMistake("-o scores.json: name a file for the scores of images")
    with Job("evaluate", out, "scores", None, arguments, sources, manners) as job:
        if job.done:
            scores = read_scores(job.out)
        else:
            seen = compare(pairs, part, blocks, include_trained, job.check)
            scores = document(pairs, seen, part, arguments | {"truth": truth})
            scores["geoml"] = job.record
            if report:
                Path(report).parent.mkdir(parents=True, exist_ok=True)
                write_images(report, scores, pictures_of(pairs))
                scores["geoml"] |= {"members": {beside: digest_file(report)}}
            built = job.part / job.out.name
            write_text(built, dumps(scores))
            job.commit_file(built)
    job.report(
        [out, *([report] if report else [])], [{"path": out, **scores}], metrics=scores["metrics"]
    )
    if scores["scored"]["left_out"]["trained"]:
        log.info(
            "left out: %d values on ground that the model trained on",
            scores["scored"]["left_out"]["trained"],
        )
    if sys.stderr.isatty() and not manners.quiet and manners.log_format == "plain":
        print(table(scores), file=sys.stderr)
    judge(
        failures(gates, scores)
        + (drops(old, scores, max_drop or 0.0, str(baseline)) if old else [])
    )
    return scores
