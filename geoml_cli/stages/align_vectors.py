"""Move polygons and lines onto the imagery that they were drawn for."""

from collections.abc import Sequence

from geoml_cli.errors import GeomlError
from geoml_cli.manners import Manners


def run(
    moving: Sequence[str],
    reference: str,
    out: str,
    manners: Manners,
    *,
    adjustments: str | None = None,
    confidence: float | None = None,
) -> None:
    """Align vector files, or CRASAR's JSON, to a raster."""
    raise GeomlError(f"{moving[0]}: vectors cannot be aligned yet")
