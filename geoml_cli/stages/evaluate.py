"""Score class maps against reference data: open both, compare, write the scores and a report."""

import logging
import os
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from geoml_cli import registry
from geoml_cli.core.scoring import Scores, Stats
from geoml_cli.errors import GeomlError, TryLater, UsageMistake
from geoml_cli.formats.commit import write_text
from geoml_cli.formats.digest import digest_file
from geoml_cli.formats.embeddings import is_embeddings
from geoml_cli.formats.jsonfile import canonical, dumps
from geoml_cli.formats.points import is_places
from geoml_cli.formats.report import MARK, write_report
from geoml_cli.formats.scores import read_scores, table
from geoml_cli.formats.stamp import record
from geoml_cli.manners import Manners, now
from geoml_cli.stages.answer import Question, answer, chain, pose, refuse_trained, warn
from geoml_cli.stages.gates import check_classes, drops, failures, judge, parse_gate
from geoml_cli.stages.job import Job, plan
from geoml_cli.stages.pictures import pictures

log = logging.getLogger("geoml")


def run(
    inputs: list[str],
    truth: str | None = None,
    out: str | None = None,
    *,
    label_column: str | None = None,
    layer: str | None = None,
    report: str | None = None,
    task: str | None = None,
    before: str | None = None,
    metric: str = "segmentation",
    probe: Sequence[str] = (),
    areas: Sequence[float] = (),
    lonlat: Sequence[str] = (),
    folds: int = 5,
    blocks: int = 8,
    draws: int = 1000,
    seed: int = 0,
    strict: bool = False,
    include_trained: bool = False,
    fail_if: Sequence[str] = (),
    baseline: str | None = None,
    max_drop: float | None = None,
    manners: Manners = Manners(),
) -> dict[str, Any]:
    """Score maps and give the scores; see `geoml evaluate --help` for what each argument means."""
    if task == "alignment":
        from geoml_cli.stages.evaluate_alignment import evaluate_alignment

        return evaluate_alignment(
            inputs,
            truth,
            out,
            before=before,
            layer=layer,
            blocks=blocks,
            draws=draws,
            seed=seed,
            report=report,
            fail_if=fail_if,
            baseline=baseline,
            max_drop=max_drop,
            manners=manners,
        )
    if before:
        raise UsageMistake("--before: goes with --task alignment")
    if inputs and all(is_embeddings(one) for one in inputs):
        from geoml_cli.stages.probe import probe_files

        return probe_files(
            inputs,
            out,
            truth=truth,
            column=label_column,
            probes=probe,
            folds=folds,
            blocks=blocks,
            draws=draws,
            seed=seed,
            report=report,
            fail_if=fail_if,
            baseline=baseline,
            max_drop=max_drop,
            manners=manners,
        )
    if inputs and truth is not None and all(is_places(one) for one in inputs):
        from geoml_cli.stages.evaluate_table import evaluate_tables

        return evaluate_tables(
            inputs,
            truth,
            out,
            column=label_column,
            metric=metric,
            areas=areas,
            lonlat=lonlat,
            blocks=blocks,
            draws=draws,
            seed=seed,
            strict=strict,
            include_trained=include_trained,
            report=report,
            fail_if=fail_if,
            baseline=baseline,
            max_drop=max_drop,
            manners=manners,
        )
    if areas or lonlat:
        raise UsageMistake("--areas and --lonlat: are of tables of answers, not of maps")
    if probe:
        raise UsageMistake("--probe: is for embeddings, NAME.parquet of `geoml embed`")
    if truth is None:
        raise UsageMistake("--truth FILE: name what the maps are held against")
    beside = check_outputs(out, report, strict and include_trained, baseline, max_drop)
    if registry.constant("metrics", metric.partition(":")[0], "OF") == "images":
        from geoml_cli.stages.evaluate_images import evaluate_images

        return evaluate_images(
            inputs,
            truth,
            out,
            metric=metric,
            report=report,
            beside=beside,
            blocks=blocks,
            draws=draws,
            seed=seed,
            include_trained=include_trained,
            fail_if=fail_if,
            baseline=baseline,
            max_drop=max_drop,
            manners=manners,
        )
    stats, score = load_metric(metric)
    gates = [parse_gate(text, *names_of(stats, score)) for text in fail_if]
    old = read_scores(baseline) if baseline else None
    arguments = {
        "label_column": label_column,
        "layer": layer,
        "metric": metric,
        "blocks": blocks,
        "bootstrap": draws,
        "seed": seed,
        "include_trained": include_trained,
        "report": beside,
    }
    question = pose(inputs, truth, arguments)
    check_classes(gates, [c.name for c in question.classes])
    if manners.dry_run:
        plan(manners, say_plan(question, out, report))
        return {}
    if out is None:
        scores, _ = answer(question, stats, score, _clock(manners))
        refuse_trained(scores, strict)
        warn(scores["scored"], question.maps)
        scores["geoml"] = record("evaluate", "scores", arguments, question.inputs)
        sys.stdout.write(canonical(scores).decode() + "\n" if manners.ndjson else dumps(scores))
        sys.stdout.flush()
    else:
        scores = write(question, stats, score, out, report, strict, manners)
    show(scores, manners)
    lines = failures(gates, scores)
    judge(lines + (drops(old, scores, max_drop or 0.0, str(baseline)) if old else []))
    return scores


def check_outputs(
    out: str | None, report: str | None, both: bool, baseline: str | None, max_drop: float | None
) -> str | None:
    """Refuse what cannot be meant; give the report's path as seen from the scores."""
    if both:
        raise UsageMistake(
            "--strict refuses truth on trained ground, --include-trained scores it: give one"
        )
    if max_drop is not None and not baseline:
        raise UsageMistake("--max-drop needs earlier scores to compare with: --baseline old.json")
    if out is not None and not out.endswith(".json"):
        raise UsageMistake(f"-o {out}: scores are one JSON file; name it scores.json")
    if out and baseline and os.path.realpath(out) == os.path.realpath(baseline):
        raise UsageMistake(
            f"--baseline {baseline} is the file that -o replaces; keep the baseline elsewhere"
        )
    if report is None:
        return None
    if out is None:
        raise UsageMistake("--report goes with -o scores.json: the scores hold its checksum")
    beside = os.path.relpath(Path(report).absolute(), Path(out).absolute().parent)
    if beside.startswith("..") or beside == os.path.basename(out):
        raise UsageMistake(f"--report {report}: name a file beside {out}, which holds its checksum")
    return Path(beside).as_posix()


def load_metric(spec: str) -> tuple[Callable[..., Stats], Callable[[Stats], Scores]]:
    """The two functions of a metric, its options bound."""
    name, chosen = registry.parse("metrics", spec)
    part = registry.load("metrics", name)
    return part.stats, partial(part.score, **chosen)


def names_of(
    stats: Callable[..., Stats], score: Callable[[Stats], Scores]
) -> tuple[list[str], list[str]]:
    """Names of a metric's overall scores and of its scores per class."""
    none = np.zeros(0, np.int64)
    found = score(stats(none, none, none.astype(bool), 2))
    return [k for k, v in found.items() if np.ndim(v) == 0], [
        k for k, v in found.items() if np.ndim(v)
    ]


def say_plan(question: Question, out: str | None, report: str | None) -> list[str]:
    """Lines for --dry-run."""
    pixels = sum(m.grid.height * m.grid.width for m in question.maps)
    names = ", ".join(c.name for c in question.classes)
    return [
        f"read {len(question.maps)} map(s) of {pixels / 1e6:.1f} Mpx in all, classes {names}",
        f"score them on {question.truth}, block by block of 512 px",
        f"write {' and '.join(filter(None, (out, report))) or 'to stdout alone'}",
    ]


def write(
    question: Question,
    stats: Callable[..., Stats],
    score: Callable[[Stats], Scores],
    out: str,
    report: str | None,
    strict: bool,
    manners: Manners,
) -> dict[str, Any]:
    """Write the scores, and the report before them, unless they are up to date."""
    if report and not manners.force:
        refuse_foreign(Path(report))
    with Job("evaluate", out, "scores", None, question.arguments, question.inputs, manners) as job:
        if job.done:
            scores = read_scores(job.out)
            refuse_trained(scores, strict)
        else:
            scores, found = answer(question, stats, score, job.check, draw=bool(report))
            refuse_trained(scores, strict)
            warn(scores["scored"], question.maps)
            scores["geoml"] = job.record
            if report:
                Path(report).parent.mkdir(parents=True, exist_ok=True)
                write_report(
                    report,
                    scores,
                    question.classes,
                    pictures(found, question.classes),
                    chain(question),
                )
                scores["geoml"] |= {"members": {question.arguments["report"]: digest_file(report)}}
            built = job.part / job.out.name
            write_text(built, dumps(scores))
            job.commit_file(built)
    job.report(
        [out, *([report] if report else [])], [{"path": out, **scores}], metrics=scores["metrics"]
    )
    return scores


def refuse_foreign(report: Path) -> None:
    """A page that is not ours is not replaced."""
    if report.is_file() and MARK not in report.read_bytes()[:2000].decode(errors="replace"):
        raise GeomlError(
            f"{report}: exists and was not written by geoml; name another --report, or --force replaces it"
        )


def show(scores: dict[str, Any], manners: Manners) -> None:
    """A table for the person at the terminal."""
    if sys.stderr.isatty() and not manners.quiet and manners.log_format == "plain":
        print(table(scores), file=sys.stderr)


def _clock(manners: Manners) -> Callable[[], None]:
    """What a Job's `check` is, where there is no job: the deadline alone."""
    began = now()

    def check() -> None:
        if manners.deadline_s is not None and now() - began > manners.deadline_s:
            raise TryLater("deadline reached; give it more time, or fewer maps a run")

    return check
