"""The classes of a layer of labels, and the class of each value in its files."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from geoml_cli.errors import GeomlError
from geoml_cli.formats.class_map import ClassMap
from geoml_cli.geo.classes import IGNORE, Class, legend, read_classes

MOST_NAMED = 10  # values in one message


@dataclass(frozen=True)
class Legend:
    """Classes, the id of each value (as text), and that of any other one; None: there is no other."""

    classes: tuple[Class, ...]
    ids: Mapping[str, int]
    rest: int | None

    def of(self, values: list[str]) -> np.ndarray:
        """Class ids (n,) uint8."""
        rest = IGNORE if self.rest is None else self.rest
        return np.array([self.ids.get(value, rest) for value in values], np.uint8)

    def named(self, name: str) -> int:
        """The id of a class."""
        return next(c.id for c in self.classes if c.name == name)

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON values."""
        classes = [c.to_dict() for c in self.classes]
        return {"classes": classes, "ids": [[v, i] for v, i in self.ids.items()], "rest": self.rest}


def lay_legend(
    path: str,
    names: Mapping[str, str],
    colors: Mapping[str, str],
    given: ClassMap | None,
    background: str | None,
) -> Legend:
    """The legend of a file: `names` are those of its values, in order, `colors` of some of them."""
    if given:
        ids, rest = given.ids(names)
        paint = {name: colors[v] for v, name in given.named.items() if name and v in colors}
        classes = given.classes(paint)
    else:
        order = list(dict.fromkeys(names.values()))
        classes = legend(order, {name: colors[v] for v, name in names.items() if v in colors})
        ids, rest = {v: order.index(name) for v, name in names.items()}, None
    if not classes:
        raise GeomlError(f"{path}: no feature or pixel has a class")
    drawn = {c.name: c.color for c in classes}
    if background is not None and background not in drawn:
        classes = legend([*drawn, background], drawn)
    if len(classes) > IGNORE:
        raise GeomlError(
            f"{path}: {len(classes)} classes; there is room for {IGNORE}: merge some with a class"
            " map, or take them as values"
        )
    return Legend(tuple(classes), ids, rest)


def same_legend(path: str, names: Mapping[str, str], known: Mapping[str, Any]) -> Legend:
    """The legend that `to_dict` told of; a value that it has no class for is refused."""
    found = Legend(tuple(read_classes(known["classes"])), dict(known["ids"]), known["rest"])
    strange = [v for v in names if v not in found.ids]
    if strange and found.rest is None:
        raise GeomlError(
            f"{path}: holds {', '.join(strange[:MOST_NAMED])}, which the tile set does not know;"
            " cut the tiles again"
        )
    return found


def in_order(names: set[str]) -> list[str]:
    """Names in order; numbers by what they are worth."""
    try:
        return sorted(names, key=lambda name: (float(name), name))
    except ValueError:
        return sorted(names)
