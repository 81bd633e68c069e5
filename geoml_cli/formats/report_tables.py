"""Tables of the report: the confusion matrix, the scores of each class."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from geoml_cli.formats.figures import draw_bar
from geoml_cli.geo.classes import Class

TITLES = {
    "accuracy": "overall accuracy",
    "miou": "mean IoU",
    "kappa": "Cohen's kappa",
    "iou": "IoU",
    "f1": "F1",
    "precision": "user's accuracy (precision)",
    "recall": "producer's accuracy (recall)",
}


def matrix(confusion: Mapping[str, Any], classes: Sequence[Class]) -> str:
    """The confusion matrix with its sums; shades are shares of the row."""
    names, rows = confusion["names"], confusion["matrix"]
    colors = [c.color for c in classes]
    head = "".join(
        f'<th scope="col">{swatch(c)}<br>{escape(n)}</th>'
        for n, c in zip(names, colors, strict=True)
    )
    lines = []
    for i, row in enumerate(rows):
        cells = "".join(_cell(count, sum(row), i == j) for j, count in enumerate(row))
        lines.append(
            f'<tr><th scope="row">{swatch(colors[i])}{escape(names[i])}</th>{cells}<td class="sum">{sum(row):,}</td></tr>'
        )
    sums = "".join(f"<td>{sum(column):,}</td>" for column in zip(*rows, strict=True))
    total = sum(map(sum, rows))
    return (
        '<section><h2>Confusion matrix</h2><p class="soft">Rows are what the truth says, columns what the map says;'
        ' counts of samples, shaded by their share of the row.</p><div class="scroll"><table class="matrix">'
        f'<thead><tr><th scope="col" class="left">truth \\ map</th>{head}<th scope="col">all</th></tr></thead><tbody>{"".join(lines)}'
        f'<tr class="sums"><th scope="row">all</th>{sums}<td class="sum">{total:,}</td></tr></tbody></table></div></section>'
    )


def _cell(count: int, whole: int, hit: bool) -> str:
    share = count / whole if whole else 0
    paint = "31,140,110" if hit else "200,30,55"
    shade = f' style="background:rgba({paint},{0.08 + 0.5 * share:.2f})"' if count else ""
    return f"<td{' class=hit' if hit else ''}{shade}>{f'{count:,}' if count else '·'}</td>"


def per_class(rows: Mapping[str, Any], classes: Sequence[Class]) -> str:
    """Scores of each class as numbers, intervals and bars."""
    keys = [k for k, v in next(iter(rows.values())).items() if isinstance(v, dict)]
    keys = [k for k in TITLES if k in keys] + sorted(set(keys) - set(TITLES))
    head = "".join(f'<th scope="col">{escape(TITLES.get(k, k))}</th>' for k in keys)
    lines = []
    for one in classes:
        cells = "".join(
            f"<td>{_number(rows[one.name][k])}{draw_bar(rows[one.name][k], one.color)}</td>"
            for k in keys
        )
        lines.append(
            f'<tr><th scope="row">{swatch(one.color)}{escape(one.name)}</th><td class="few">{rows[one.name]["support"]:,}</td>{cells}</tr>'
        )
    return (
        '<section><h2>Class by class</h2><p class="soft">User\'s accuracy: of what the map calls the class, how much is.'
        " Producer's accuracy: of what is the class, how much the map calls so. Bars run from 0 to 1, whiskers are the"
        f' 95 % intervals.</p><div class="scroll"><table class="classes"><thead><tr><th scope="col" class="left">class</th>'
        f'<th scope="col">truth, n</th>{head}</tr></thead><tbody>{"".join(lines)}</tbody></table></div></section>'
    )


def _number(entry: Mapping[str, Any]) -> str:
    if entry["value"] is None:
        return '<span class="soft">undefined</span>'
    spread = (
        ""
        if entry["lo"] is None
        else f' <span class="interval">{entry["lo"]:.2f}–{entry["hi"]:.2f}</span>'
    )
    return f"{entry['value']:.3f}{spread}"


def pairs(rows: Mapping[str, str]) -> str:
    """Names and what they are, both HTML already."""
    return (
        "<dl>" + "".join(f"<dt>{key}</dt><dd>{value}</dd>" for key, value in rows.items()) + "</dl>"
    )


def swatch(color: str) -> str:
    """A small square of a colour."""
    return f'<span class="swatch" style="background:{escape(color)}"></span>'
