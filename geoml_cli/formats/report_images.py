"""Scores of images that were filled as one HTML page that needs no other file and no script."""

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from geoml_cli.formats.commit import write_text
from geoml_cli.formats.figures import Picture, draw_map
from geoml_cli.formats.report import MARK
from geoml_cli.formats.report_style import STYLE
from geoml_cli.formats.scores import say

TITLES = {"psnr": "PSNR, dB", "ssim": "SSIM", "rmse": "RMSE", "mae": "mean absolute error"}


def write_images(
    path: str | Path, scores: Mapping[str, Any], rows: Sequence[Sequence[Picture]]
) -> None:
    """Write the page: the scores in large, pictures a row for each image, a table of bands."""
    scored = scores["scored"]
    title = f"{', '.join(m['id'] for m in scored['maps'][:3])} scored on {scored['truth']['name']}"
    what = "the pixels that were filled" if scored["gaps_alone"] else "all pixels"
    cards = "".join(
        f'<div><div class="name">{TITLES.get(name, escape(name))}</div><div class="mid">'
        f"{'undefined' if one['value'] is None else format(one['value'], '.4g')}</div>"
        f'<div class="name">{escape(say(one))}, n = {one["n"]:,}</div></div>'
        for name, one in scores["metrics"].items()
    )
    figures = "".join(
        f"<figure>{draw_map(one.image, one.aspect, one.title)}<figcaption>{escape(one.title)}</figcaption></figure>"
        for row in rows
        for one in row
    )
    names = list(TITLES)
    heads = "".join(f"<th>{TITLES[name]}</th>" for name in names)
    lines = "".join(
        f"<tr><td>{escape(band)}</td>"
        + "".join(f"<td>{escape(say(row[name]))}</td>" for name in names if name in row)
        + f"<td>{scored['range'][band]:.4g}</td></tr>"
        for band, row in scores["classes"].items()
    )
    body = (
        f"<h1>{escape(title)}</h1>"
        f'<p class="soft">How near {what} are to the images themselves. PSNR and SSIM are of the range of the truth, band by'
        " band; intervals hold 95 % of what redraws of blocks of ground give.</p>"
        f'<section><div class="top">{cards}</div></section>'
        f'<section><h2>Images</h2><div class="maps">{figures}</div></section>'
        f"<section><h2>Bands</h2><table><tr><th>band</th>{heads}<th>range</th></tr>{lines}</table></section>"
    )
    write_text(
        path,
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n{MARK}\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n{body}\n</main>\n</body>\n</html>\n",
    )
