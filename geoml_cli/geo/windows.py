"""Where windows start along an axis, and blocks that cover a grid once."""

from collections.abc import Iterator

from geoml_cli.geo.grid import Window

EDGES = ("shift", "pad", "drop")


def starts(length: int, size: int, stride: int, edge: str = "shift") -> list[int]:
    """First pixels of windows along one axis, ascending.

    `edge` says what happens to the last one when it sticks out: `shift` moves it back
    inside, `pad` lets it (what lies outside is masked), `drop` leaves it out. Where the whole
    axis is shorter than a window, `shift` and `pad` give one that sticks out, `drop` none.
    """
    if length < size:
        return [] if edge == "drop" else [0]
    firsts = list(range(0, length - size + 1, stride))
    following = len(firsts) * stride
    # with a stride beyond the size, all that is left may be a gap between windows
    if edge == "drop" or firsts[-1] + size == length or following >= length:
        return firsts
    return [*firsts, following if edge == "pad" else length - size]


def blocks(height: int, width: int, size: tuple[int, int]) -> Iterator[Window]:
    """Blocks of (height, width) `size` that cover a grid exactly once, row by row, cut at its rim."""
    for row in range(0, height, size[0]):
        for col in range(0, width, size[1]):
            yield Window(row, col, min(size[0], height - row), min(size[1], width - col))
