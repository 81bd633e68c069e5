"""What is moved onto imagery, in the pixels of an ortho: polygons that move whole, vertices of roads."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import shapely

from geoml_cli.geo.outlines import EVERY_PX, Outline, outline_of, sides_of
from geoml_cli.geo.overlaps import part, translate
from geoml_cli.geo.touching import bodies, move_sheet

ALONG = 6.0  # widths of a road that a vertex is held against the image for


@dataclass(frozen=True)
class Polygons:
    """Polygons (n,) of which those that touch are one thing."""

    shapes: np.ndarray
    body: np.ndarray  # (n,) number of the thing that a polygon is part of
    sheet: np.ndarray  # (n,) bool: in a coverage too large to move whole

    @classmethod
    def of(cls, shapes: np.ndarray) -> "Polygons":
        """Find out what touches."""
        return cls(shapes, *bodies(shapes))

    @property
    def count(self) -> int:
        """Number of things."""
        return int(self.body.max()) + 1

    @cached_property
    def members(self) -> list[np.ndarray]:
        """Numbers of the polygons of each thing."""
        order = np.argsort(self.body, kind="stable")
        return np.split(order, np.cumsum(np.bincount(self.body, minlength=self.count))[:-1])

    @cached_property
    def xy(self) -> np.ndarray:
        """Middle of each thing (things, 2)."""
        middle = shapely.get_coordinates(shapely.centroid(self.shapes))
        total = np.zeros((self.count, 2))
        np.add.at(total, self.body, middle)
        return total / np.bincount(self.body)[:, None]

    @cached_property
    def size(self) -> np.ndarray:
        """Side of a square as large as each thing's polygons on average (things,)."""
        total = np.zeros(self.count)
        np.add.at(total, self.body, shapely.area(self.shapes))
        return np.sqrt(np.maximum(total / np.bincount(self.body), 1e-9))

    def bounds(self) -> np.ndarray:
        """West, north, east, south (things, 4)."""
        box = shapely.bounds(self.shapes)
        out = np.full((self.count, 4), np.inf) * [1, 1, -1, -1]
        np.minimum.at(out[:, :2], self.body, box[:, :2])
        np.maximum.at(out[:, 2:], self.body, box[:, 2:])
        return out

    def outline(self, thing: int, factor: int) -> Outline:
        """The outline of a thing, for an image reduced by a factor."""
        each = [outline_of(self.shapes[i], EVERY_PX * factor) for i in self.members[thing]]
        return Outline(*(np.concatenate(one) for one in zip(*each, strict=True)))

    def settle(self, shift: np.ndarray, weight: np.ndarray, room: np.ndarray) -> np.ndarray:
        """Shifts (things, 2) under which nothing overlaps that did not, within the room of each."""
        return part(self.shapes, self.body, shift, weight, room)

    def moved(self, shift: np.ndarray, weight: np.ndarray) -> np.ndarray:
        """The polygons, moved."""
        each = shift[self.body]
        out = translate(self.shapes, each)
        if self.sheet.any():
            heavy = weight[self.body][self.sheet]
            out[self.sheet] = move_sheet(self.shapes[self.sheet], each[self.sheet], heavy)
        still = (each == 0).all(1) & ~self.sheet
        out[still] = self.shapes[still]
        return out


@dataclass(frozen=True)
class Roads:
    """Lines (n,) whose vertices are things; vertices at one place are one."""

    shapes: np.ndarray
    width: float

    @cached_property
    def _lines(self) -> list[np.ndarray]:
        return [shapely.get_coordinates(one) for one in shapely.get_parts(self.shapes)]

    @cached_property
    def _places(self) -> tuple[np.ndarray, np.ndarray]:
        every = np.concatenate(self._lines)
        found, where = np.unique(np.round(every, 3), axis=0, return_inverse=True)
        return found, where.ravel()

    @property
    def count(self) -> int:
        """Number of things."""
        return len(self._places[0])

    @property
    def xy(self) -> np.ndarray:
        """Where each thing is (things, 2)."""
        return self._places[0]

    @property
    def size(self) -> np.ndarray:
        """What a thing's displacement is measured by: three widths (things,)."""
        return np.full(self.count, 3 * self.width)

    def bounds(self) -> np.ndarray:
        """West, north, east, south (things, 4)."""
        far = self.width * (ALONG + 0.5)
        return np.concatenate([self.xy - far, self.xy + far], axis=1)

    @cached_property
    def _vertices(self) -> list[list[tuple[int, int]]]:
        out: list[list[tuple[int, int]]] = [[] for _ in range(self.count)]
        k = 0
        for i, line in enumerate(self._lines):
            for j in range(len(line)):
                out[self._places[1][k]].append((i, j))
                k += 1
        return out

    def outline(self, thing: int, factor: int) -> Outline:
        """Both rims of the roads by a thing, for an image reduced by a factor."""
        far = ALONG * self.width
        each = [
            sides_of(self._lines[i], j, self.width, far, EVERY_PX * factor)
            for i, j in self._vertices[thing]
        ]
        return Outline(*(np.concatenate(one) for one in zip(*each, strict=True)))

    def mean(self, values: np.ndarray) -> np.ndarray:
        """Means over each line's vertices (n, ...) of values of things."""
        each = values[self._places[1]]
        owner = shapely.get_coordinates(self.shapes, return_index=True)[1]
        total = np.zeros((len(self.shapes), *values.shape[1:]))
        np.add.at(total, owner, each)
        count = np.bincount(owner, minlength=len(self.shapes))
        return total / count.reshape(-1, *[1] * (values.ndim - 1))

    def settle(self, shift: np.ndarray, weight: np.ndarray, room: np.ndarray) -> np.ndarray:
        """Roads may cross: the shifts as they are."""
        return shift

    def moved(self, shift: np.ndarray, weight: np.ndarray) -> np.ndarray:
        """The lines, moved vertex by vertex."""
        each = shift[self._places[1]]
        xy = shapely.get_coordinates(self.shapes)
        return np.asarray(shapely.set_coordinates(self.shapes.copy(), xy + each))


Things = Polygons | Roads
