"""Windows over a grid, and the lattice they lie on."""

from collections.abc import Iterator

from geoml_cli.geo.grid import Window


def starts(length: int, size: int, stride: int, edge: str = "pad") -> list[int]:
    """First pixels of windows along one axis.

    `edge` says what happens to the last one when it sticks out: `pad` lets it (what lies
    outside is masked), `shift` moves it back inside, `drop` leaves it out. Where the whole
    axis is shorter than a window, only `pad` gives one.
    """
    if length <= 0:
        return []
    firsts = list(range(0, min(max(length - size, 0) + stride, length), stride))
    while len(firsts) > 1 and firsts[-2] + size >= length:
        firsts.pop()
    if firsts[-1] + size <= length or edge == "pad":
        return firsts
    if edge == "drop" or length < size:
        return firsts[:-1]
    return [*firsts[:-1], length - size]


def lay(height: int, width: int, size: int, stride: int, edge: str = "pad") -> list[Window]:
    """Windows of `size` x `size` px, row by row, `stride` px apart."""
    return [
        Window(row, col, size, size)
        for row in starts(height, size, stride, edge)
        for col in starts(width, size, stride, edge)
    ]


def blocks(height: int, width: int, size: tuple[int, int]) -> Iterator[Window]:
    """Blocks of (height, width) `size` that cover a grid exactly once, row by row, cut at its rim."""
    for row in range(0, height, size[0]):
        for col in range(0, width, size[1]):
            yield Window(row, col, min(size[0], height - row), min(size[1], width - col))
