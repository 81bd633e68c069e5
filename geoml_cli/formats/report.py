"""Scores as one HTML page that needs no other file and no script."""

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from geoml_cli.formats.commit import write_text
from geoml_cli.formats.figures import (
    OUT,
    RIGHT,
    RIGHT_COLOR,
    WRONG,
    WRONG_COLOR,
    Mark,
    Picture,
    draw_map,
    draw_mark,
)
from geoml_cli.formats.report_style import STYLE
from geoml_cli.formats.report_tables import TITLES, matrix, pairs, per_class, swatch
from geoml_cli.geo.classes import Class

MARK = '<meta name="generator" content="geoml evaluate">'  # in every page of ours
FEW_BLOCKS = 10
LEFT_OUT = {
    "outside": "beside the maps",
    "nodata": "on nodata of the map",
    "trained": "on ground that the model trained on",
    "conflicting": "under overlapping polygons of different classes",
    "unlabelled": "without a class",
}
SAMPLES = {
    "points": "check points",
    "polygons": "pixels inside polygons",
    "raster": "pixels of the reference raster",
}


def write_report(
    path: str | Path,
    scores: Mapping[str, Any],
    classes: Sequence[Class],
    pictures: Sequence[Picture],
    records: Sequence[Mapping[str, Any]],
) -> None:
    """Write the page; `records` are those of the commands that made the maps."""
    scored = scores["scored"]
    title = f"{_listed([m['id'] for m in scored['maps']])} scored on {scored['truth']['name']}"
    parts = [
        f"<h1>{escape(title)}</h1>",
        '<p class="soft">How well a class map agrees with reference data, which has errors of its own.</p>',
        headline(scores),
        maps(pictures, classes, scored),
        matrix(scores["confusion"], classes),
        per_class(scores["classes"], classes),
        what(scores),
        how(scores, records),
    ]
    body = "\n".join(parts)
    write_text(
        path,
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n{MARK}\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n{body}\n</main>\n</body>\n</html>\n",
    )


def headline(scores: Mapping[str, Any]) -> str:
    """The score in large, its interval, the sentence that says what it means, and what to beware of."""
    metrics, scored = scores["metrics"], scores["scored"]
    first = "accuracy" if "accuracy" in metrics else next(iter(metrics))
    others = [name for name in metrics if name != first]
    cards = [_card(first, metrics[first], "big")] + [
        _card(name, metrics[name], "mid") for name in sorted(others)
    ]
    right = sum(row[i] for i, row in enumerate(scores["confusion"]["matrix"]))
    says = f"The map is right on {right:,} of {scored['n']:,} {SAMPLES[scored['truth']['kind']]}."
    return "\n".join(
        [
            f'<section><div class="top">{"".join(cards)}</div>',
            f'<p style="margin-top:16px">{says} Intervals hold 95 % of what {scored["bootstrap"]:,} redraws'
            f" of the {scored['blocks']['with_truth']} blocks of ground with truth give.</p>"
            if metrics[first]["lo"] is not None
            else f'<p style="margin-top:16px">{says}</p>',
            *(
                f'<div class="note {kind}">{text}</div>'
                for kind, text in notes(scored, metrics[first])
            ),
            "</section>",
        ]
    )


def _card(name: str, entry: Mapping[str, Any], size: str) -> str:
    value, low, high = entry["value"], entry["lo"], entry["hi"]
    if value is None:
        shown, spread = "undefined", ""
    elif name == "accuracy":
        shown, spread = (
            f"{100 * value:.1f}&thinsp;%",
            "" if low is None else f"{100 * low:.1f} to {100 * high:.1f} %",
        )
    else:
        shown, spread = f"{value:.3f}", "" if low is None else f"{low:.3f} to {high:.3f}"
    under = f"95 % interval {spread}" if spread else "no interval"
    title = escape(TITLES.get(name, name))
    return f'<div><div class="name">{title}</div><div class="{size}">{shown}</div><div class="name">{under}, n = {entry["n"]:,}</div></div>'


def notes(scored: Mapping[str, Any], first: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    """What a reader must know before believing the number: kind of note and text."""
    blocks = scored["blocks"]["with_truth"]
    if scored["on_trained_ground"]:
        yield (
            "bad",
            f"{scored['on_trained_ground']:,} of the {scored['n']:,} samples lie on ground that the model trained on"
            " (--include-trained): the scores flatter the map.",
        )
    if scored["out_of_fold"]:
        yield (
            "",
            "Out of fold: each place was mapped by a network that had not trained on its block of ground.",
        )
    elif not scored["ground_known"]:
        yield (
            "warn",
            "Which ground the map's maker trained on is not recorded, so nothing was left out for it.",
        )
    if first["lo"] is None and scored["bootstrap"]:
        yield (
            "warn",
            "All truth lies in one block of ground, which says nothing of the spread: there is no interval.",
        )
    elif first["lo"] is not None and blocks < FEW_BLOCKS:
        yield (
            "warn",
            f"Truth lies in {blocks} blocks of ground only: the intervals are rough, and likely too narrow.",
        )


def maps(pictures: Sequence[Picture], classes: Sequence[Class], scored: Mapping[str, Any]) -> str:
    """The maps with their legend, and where they are right and wrong."""
    if not pictures:
        return ""
    marked = any(p.marks for p in pictures)
    figures = []
    for picture in pictures:
        title = escape(picture.title)
        figures.append(
            f"<figure>{draw_map(picture.image, picture.aspect, f'Map {picture.title}', picture.marks)}<figcaption>{title}</figcaption></figure>"
        )
        if picture.agreement is not None:
            svg = draw_map(
                picture.agreement, picture.aspect, f"Where {picture.title} is right and wrong"
            )
            figures.append(
                f"<figure>{svg}<figcaption>{title}: where truth is</figcaption></figure>"
            )
    keys = [f"<li>{swatch(c.color)}{escape(c.name)}</li>" for c in classes]
    if marked:
        keys += [f"<li>{_key(kind)}{text}</li>" for kind, text in _kinds(pictures)]
    else:
        keys += [f"<li>{swatch(RIGHT_COLOR)}right</li>", f"<li>{swatch(WRONG_COLOR)}wrong</li>"]
    more = len(scored["maps"]) - len(pictures)
    extra = (
        f'<p class="soft">The {len(pictures)} maps with most samples of {len(scored["maps"])}.</p>'
        if more
        else ""
    )
    single = " one" if len(figures) == 1 else ""
    return (
        f'<section><h2>The map and the truth on it</h2>{extra}<div class="maps{single}">{"".join(figures)}'
        f'<ul class="legend">{"".join(keys)}</ul></div></section>'
    )


def _kinds(pictures: Sequence[Picture]) -> list[tuple[str, str]]:
    there = {m.kind for p in pictures for m in p.marks}
    texts = ((RIGHT, "map is right"), (WRONG, "map is wrong"), (OUT, "left out"))
    return [(kind, text) for kind, text in texts if kind in there]


def _key(kind: str) -> str:
    return f'<svg viewBox="0 0 20 20" aria-hidden="true">{draw_mark(Mark(10, 10, kind, ""), 1, 5.5)}</svg>'


def what(scores: Mapping[str, Any]) -> str:
    """What was scored on what, and what was left out and why."""
    scored = scores["scored"]
    shown = [f"{escape(m['id'])} ({m['n']:,} samples)" for m in scored["maps"][:50]]
    lost = [f"{count:,} {LEFT_OUT[key]}" for key, count in scored["left_out"].items() if count]
    rows = {
        "maps": "<br>".join(shown)
        + (f"<br>and {len(scored['maps']) - 50} more" if len(scored["maps"]) > 50 else ""),
        "truth": f"{escape(scored['truth']['name'])} ({escape(scored['truth']['kind'])})",
        "samples": f"{scored['n']:,}; every one weighs the same",
        "left out": "<br>".join(lost) or "nothing",
        "blocks of ground": f"{scored['blocks']['a_side']} × {scored['blocks']['a_side']} over the truth on the maps,"
        f" {scored['blocks']['with_truth']} with truth",
    }
    if scored["repeated"]:
        rows["on several maps"] = (
            f"{scored['repeated']:,} samples, each scored on the first map, in order of id, with data"
        )
    return f"<section><h2>What was scored</h2>{pairs(rows)}</section>"


def how(scores: Mapping[str, Any], records: Sequence[Mapping[str, Any]]) -> str:
    """The commands behind the page: their arguments and inputs."""
    parts = []
    for one in [*records, scores["geoml"]]:
        given = {k: v for k, v in sorted(one["arguments"].items()) if v not in (None, False)}
        inputs = [
            f"{escape(i['role'])}: <code>{escape(i['path'])}</code>" for i in one["inputs"][:20]
        ]
        parts.append(
            f"<h2>geoml {escape(one['verb'])}</h2>"
            + pairs(
                {
                    "arguments": " ".join(
                        f"<code>{escape(k)}={escape(str(v))}</code>" for k, v in given.items()
                    )
                    or "none",
                    "inputs": "<br>".join(inputs) or "none",
                    "fingerprint": f"<code>{escape(one['fingerprint'][:16])}</code>, geoml {escape(one['version'])}",
                }
            )
        )
    gap = '<div style="height:16px"></div>'
    return f'<section>{gap.join(parts)}<p class="soft" style="margin-top:14px"><code>geoml info --why</code> on the scores follows the chain further.</p></section>'


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more maps" if len(names) > 3 else "")
