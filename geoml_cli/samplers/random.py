"""Windows anywhere in the scenes, every position with the same chance."""

import numpy as np

from geoml_cli.errors import UsageMistake
from geoml_cli.geo.field import Field, Pick, choose


def draw(
    field: Field,
    rng: np.random.Generator,
    *,
    count: int | None = None,
    like: str | None = None,
) -> list[Pick]:
    """Draw `count` windows, with replacement, uniformly from all that lie wholly inside a scene.

    Without a count there are as many as windows side by side would need, which is also
    TorchGeo's. `like=torchgeo` draws as its RandomGeoSampler does: the scene by its area in CRS
    units, then steps up from its lower-left corner, never the last one that there is room for.
    """
    if like not in (None, "torchgeo"):
        raise UsageMistake(f"random:like={like}: like is torchgeo")
    many, positions = field.how_many(count), field.positions
    if not positions.total:
        return []
    if like:
        return field.picks(_as_torchgeo(field, rng, many))
    return field.picks(rng.integers(0, positions.total, many))


def _as_torchgeo(field: Field, rng: np.random.Generator, count: int) -> np.ndarray:
    positions = field.positions
    areas = [abs(g.transform.determinant) * g.height * g.width for g in field.grids]
    places = choose(rng, np.where(positions.fits, areas, 0.0), count)
    room = positions.room[places]  # (count, 2)
    up, right = rng.integers(0, np.maximum(room - 1, 1)).T
    return positions.join(places, room[:, 0] - 1 - up, right)
