"""A question put and answered: which maps on which truth; what they score, what is left out."""

import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import geopandas

from geoml_cli.core.scoring import Scores, Stats, Tally, bootstrap
from geoml_cli.errors import GeomlError, NothingMatched
from geoml_cli.formats.digest import digest_file
from geoml_cli.formats.items import NAME
from geoml_cli.formats.report import FEW_BLOCKS, LEFT_OUT
from geoml_cli.formats.scores import scores_of
from geoml_cli.formats.stamp import Input
from geoml_cli.formats.vectors import digest_vectors
from geoml_cli.geo.classes import Class
from geoml_cli.stages.agreement import Agreement, Comparison
from geoml_cli.stages.inputs import check_local, digest_source, expand, read_scenes, scene_inputs
from geoml_cli.stages.maps import ClassMap, read_maps
from geoml_cli.stages.reference import open_vectors, vectors_or_none
from geoml_cli.stages.truth import Truth
from geoml_cli.stages.truth_raster import ClassRaster

log = logging.getLogger("geoml")
INSTEAD = (
    "cut the tiles with `geoml tile --split blocks:8 --folds 5` and map with `geoml predict --out-of-fold`,"
    " or bring truth from other ground (--include-trained scores it all the same)"
)


@dataclass(frozen=True)
class Question:
    """What is scored on what, opened and checked."""

    maps: list[ClassMap]
    classes: list[Class]
    truth: str
    table: geopandas.GeoDataFrame | None  # of a vector truth
    arguments: dict[str, Any]
    inputs: list[Input]

    def open_truth(self) -> Truth:
        """The truth, in the classes of the maps."""
        if self.table is None:
            return ClassRaster(self.truth, self.classes)
        return open_vectors(self.truth, self.table, self.arguments["label_column"], self.classes)


def pose(inputs: list[str], truth: str, arguments: dict[str, Any]) -> Question:
    """Open maps and truth and say what is wrong with them, before any pixel is read."""
    named = expand(inputs)
    check_local([*named, truth])
    vectors = vectors_or_none(truth, arguments["label_column"], arguments["layer"])
    scenes = read_scenes(named)
    maps, classes = read_maps(scenes)
    sources = scene_inputs(named, scenes, "map")
    stamps = {i.path for i in sources}
    for ground in sorted({m.ground for m in maps if m.ground}):
        if str(ground.with_name(NAME)) not in stamps:  # maps named one by one: it decides too
            sources.append(Input(str(ground), "ground", digest_file(ground)))
    digest = digest_source(truth) if vectors is None else digest_vectors(truth)
    sources.append(Input(truth, "truth", digest))
    return Question(maps, classes, truth, vectors, arguments, sources)


def answer(
    question: Question,
    stats: Callable[..., Stats],
    score: Callable[[Stats], Scores],
    check: Callable[[], None],
    draw: bool = False,
) -> tuple[dict[str, Any], Agreement]:
    """Compare and score; the document is without its record."""
    given, truth = question.arguments, question.open_truth()
    tally = Tally(stats, len(question.classes))
    comparison = Comparison(
        question.maps,
        question.classes,
        truth,
        tally,
        given["blocks"],
        given["include_trained"],
        draw,
        check,
    )
    found = comparison.run()
    refuse_unknown(question, truth)
    left_out = truth.left_out()
    refuse_nothing(question, found, left_out)
    stacked = tally.stacked()
    count = len(tally.blocks)
    total = {key: rows.sum(axis=0) for key, rows in stacked.items()}
    scored = {
        "maps": [{"id": one.id, "n": found.n[one.id]} for one in question.maps],
        "truth": {"name": os.path.basename(question.truth), "kind": truth.kind},
        "n": sum(found.n.values()),
        "left_out": left_out,
        "repeated": truth.repeated,
        "blocks": {"a_side": given["blocks"], "with_truth": count},
        "bootstrap": given["bootstrap"],
        "seed": given["seed"],
        "out_of_fold": all(m.out_of_fold for m in question.maps),
        "ground_known": all(m.ground_known for m in question.maps),
        "included_trained": given["include_trained"],
        "on_trained_ground": found.on_trained,
    }
    names = [c.name for c in question.classes]
    intervals = bootstrap(stacked, score, given["bootstrap"], given["seed"])
    return scores_of(names, score(total), intervals, total["confusion"], scored), found


def refuse_unknown(question: Question, truth: Truth) -> None:
    """Classes that only the truth knows are no one's fault but the caller's to settle."""
    if not truth.unknown:
        return
    strange = sorted(truth.unknown)
    listed = ", ".join(strange[:10]) + (
        f" and {len(strange) - 10} more" if len(strange) > 10 else ""
    )
    hint = "rename or drop them in the truth"
    if truth.kind == "raster":
        hint = "name the classes in tags CLASS_id, or declare what is no class: gdal_edit.py -a_nodata ID"
    raise GeomlError(
        f"{question.truth}: holds classes that the maps do not know: {listed};"
        f" they know {', '.join(c.name for c in question.classes)}; {hint}"
    )


def refuse_nothing(question: Question, found: Agreement, left_out: dict[str, int | None]) -> None:
    """No sample was scored: say why and what to do."""
    if any(found.n.values()):
        return
    if left_out["trained"]:
        raise GeomlError(
            f"{question.truth}: all of it lies on ground that the model trained on; {INSTEAD}"
        )
    reasons = [f"{n} {LEFT_OUT[key]}" for key, n in left_out.items() if n]
    raise NothingMatched(
        f"{question.truth}: nothing to score: {', '.join(reasons) or 'no class lies on the maps'}"
    )


def refuse_trained(scores: dict[str, Any], strict: bool) -> None:
    """Under --strict truth on trained ground is an error, not left out."""
    count = scores["scored"]["left_out"]["trained"]
    if strict and count:
        raise GeomlError(
            f"{count} sample(s) of the truth lie on ground that the model trained on; {INSTEAD}"
        )
    if strict and not scores["scored"]["ground_known"]:
        raise GeomlError(
            "which ground the model trained on is not known; --strict wants maps in the folder of `geoml predict -o FOLDER`"
        )


def warn(scored: dict[str, Any], maps: list[ClassMap]) -> None:
    """Say what a reader of the scores must know."""
    lost = {k: n for k, n in scored["left_out"].items() if n}
    for key, count in lost.items():
        say = log.info if key == "trained" else log.warning
        say("left out: %d sample(s) %s", count, LEFT_OUT[key])
    if scored["repeated"]:
        log.info(
            "%d sample(s) lie on several maps; each counts on the first, in order of id, with data",
            scored["repeated"],
        )
    if scored["on_trained_ground"]:
        log.warning(
            "%d of %d samples lie on ground that the model trained on: the scores flatter it",
            scored["on_trained_ground"],
            scored["n"],
        )
    blind = [m.raster.path for m in maps if m.record and not m.ground_known]
    if blind:
        log.warning(
            "%s: which ground its model trained on is not known; its model is gone or changed; predict into a folder, which keeps it",
            blind[0],
        )
    count = scored["blocks"]["with_truth"]
    if scored["bootstrap"] and count == 1:
        log.warning(
            "all truth lies in one block: no intervals; raise --blocks or bring truth from more places"
        )
    elif scored["bootstrap"] and count < FEW_BLOCKS:
        log.warning("truth lies in %d blocks only: the intervals are rough", count)


def chain(question: Question) -> list[dict[str, Any]]:
    """Records of the commands that made the maps, each once, in order of the maps."""
    found: dict[str, dict[str, Any]] = {}
    for one in question.maps:
        if one.record:
            found.setdefault(one.record["fingerprint"], one.record)
    return list(found.values())
