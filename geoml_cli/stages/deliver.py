"""Scores to a file or to stdout, a table for the terminal, and the gates."""

import sys
from collections.abc import Callable, Sequence
from typing import Any

from geoml_cli.errors import UsageMistake
from geoml_cli.formats.commit import write_text
from geoml_cli.formats.jsonfile import canonical, dumps
from geoml_cli.formats.scores import read_scores
from geoml_cli.formats.stamp import Input, record
from geoml_cli.manners import Manners
from geoml_cli.stages.gates import drops, failures, judge, parse_gate
from geoml_cli.stages.job import Job


def check_file(out: str | None, baseline: str | None, max_drop: float | None) -> None:
    """Refuse what cannot be meant."""
    if out is not None and not out.endswith(".json"):
        raise UsageMistake(f"-o {out}: scores are one JSON file; name it scores.json")
    if max_drop is not None and not baseline:
        raise UsageMistake("--max-drop needs earlier scores to compare with: --baseline old.json")


def deliver(
    work: Callable[[Callable[[], None]], dict[str, Any]],
    out: str | None,
    arguments: dict[str, Any],
    inputs: list[Input],
    manners: Manners,
    *,
    fail_if: Sequence[str],
    baseline: str | None,
    max_drop: float | None,
) -> dict[str, Any]:
    """Scores that `work` gives, unless they are up to date; raises where a gate is not met."""
    from geoml_cli.stages.evaluate import show

    old = read_scores(baseline) if baseline else None
    if out is None:
        scores = work(lambda: None)
        scores["geoml"] = record("evaluate", "scores", arguments, inputs)
        sys.stdout.write(canonical(scores).decode() + "\n" if manners.ndjson else dumps(scores))
        sys.stdout.flush()
    else:
        with Job("evaluate", out, "scores", None, arguments, inputs, manners) as job:
            if job.done:
                scores = read_scores(job.out)
            else:
                scores = work(job.check)
                scores["geoml"] = job.record
                built = job.part / job.out.name
                write_text(built, dumps(scores))
                job.commit_file(built)
        job.report([out], [{"path": out, **scores}], metrics=scores["metrics"])
    show(scores, manners)
    gates = [parse_gate(text, list(scores["metrics"]), []) for text in fail_if]
    lines = failures(gates, scores)
    judge(lines + (drops(old, scores, max_drop or 0.0, str(baseline)) if old else []))
    return scores
