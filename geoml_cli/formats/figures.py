"""Pictures for a page: maps with marks and bars with intervals, as SVG that needs no other file."""

import base64
import io
from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np

RIGHT, WRONG, OUT = "right", "wrong", "out"
RIGHT_COLOR, WRONG_COLOR = "#2a7f9e", "#c2152b"  # apart to the colour-blind too
MOST_MARKS = 3000


@dataclass(frozen=True)
class Mark:
    """A point of truth on a picture: x, y in its pixels; right, wrong or out (left out); what it says."""

    x: float
    y: float
    kind: str
    text: str


@dataclass(frozen=True)
class Picture:
    """A map as an image (h, w, 4) uint8; `aspect` is how much taller than wide its pixels are on the ground."""

    title: str
    image: np.ndarray
    aspect: float
    marks: tuple[Mark, ...] = ()
    agreement: np.ndarray | None = None  # (h, w, 4) uint8: where it is right and wrong


def png(image: np.ndarray) -> bytes:
    """PNG of an image (h, w, 4) uint8; equal images give equal bytes."""
    from matplotlib.image import imsave

    buffer = io.BytesIO()
    imsave(buffer, image, format="png", metadata={"Software": None})  # type: ignore[dict-item]
    return buffer.getvalue()


def draw_map(image: np.ndarray, aspect: float, label: str, marks: tuple[Mark, ...] = ()) -> str:
    """An SVG of an image, stretched to the ground's proportions, with marks on it."""
    height, width = image.shape[0] * aspect, image.shape[1]
    href = base64.b64encode(png(image)).decode()
    size = max(width, height) * (0.011 if len(marks) <= 300 else 0.006)
    shown = marks[:: -(-len(marks) // MOST_MARKS)] if marks else ()
    return "\n".join(
        [
            f'<svg class="map" viewBox="0 0 {width:g} {height:g}" role="img" aria-label="{escape(label)}">',
            f'<image width="{width:g}" height="{height:g}" preserveAspectRatio="none"'
            f' href="data:image/png;base64,{href}"/>',
            *(
                draw_mark(mark, aspect, size)
                for mark in sorted(shown, key=lambda m: m.kind == WRONG)
            ),
            "</svg>",
        ]
    )


def draw_mark(mark: Mark, aspect: float, size: float) -> str:
    """A dot where right, a cross where wrong, a faint ring where left out: told apart without colour too."""
    x, y = mark.x, mark.y * aspect
    says = f"<title>{escape(mark.text)}</title>"
    if mark.kind == WRONG:
        arms = f"M{x - size:.2f} {y - size:.2f}l{2 * size:.2f} {2 * size:.2f}m0 {-2 * size:.2f}l{-2 * size:.2f} {2 * size:.2f}"
        thick = size * 0.62
        return (
            f'<g>{says}<path d="{arms}" stroke="#fff" stroke-width="{thick * 2:.2f}" stroke-linecap="round" fill="none"/>'
            f'<path d="{arms}" stroke="{WRONG_COLOR}" stroke-width="{thick:.2f}" stroke-linecap="round" fill="none"/></g>'
        )
    if mark.kind == OUT:
        ring = f'fill="none" stroke="#fff" stroke-opacity=".75" stroke-width="{size * 0.4:.2f}"'
        return f'<circle cx="{x:.2f}" cy="{y:.2f}" r="{size * 0.6:.2f}" {ring}>{says}</circle>'
    dot = f'fill="#fff" stroke="#111" stroke-width="{size * 0.38:.2f}"'
    return f'<circle cx="{x:.2f}" cy="{y:.2f}" r="{size * 0.72:.2f}" {dot}>{says}</circle>'


def draw_bar(entry: Mapping[str, Any], color: str) -> str:
    """A bar from 0 to 1 with the interval as a whisker; nothing where the value is undefined."""
    value, low, high = entry["value"], entry["lo"], entry["hi"]
    if value is None:
        return ""
    parts = ['<svg class="bar" viewBox="0 0 100 12" preserveAspectRatio="none" aria-hidden="true">']
    parts.append('<rect class="track" width="100" height="12"/>')
    parts.append(f'<rect width="{100 * max(0.0, value):.2f}" height="12" fill="{escape(color)}"/>')
    if low is not None:
        left, right = 100 * max(0.0, low), 100 * min(1.0, high)
        for name in ("halo", "whisker"):
            parts.append(
                f'<path class="{name}" d="M{left:.2f} 6H{right:.2f}M{left:.2f} 2v8M{right:.2f} 2v8"/>'
            )
    return "".join([*parts, "</svg>"])
