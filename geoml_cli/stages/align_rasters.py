"""Move rasters onto a reference."""

from collections.abc import Sequence
from typing import Any

from geoml_cli.errors import GeomlError
from geoml_cli.manners import Manners


def run(
    moving: Sequence[Any],
    reference: str,
    out: str,
    manners: Manners,
    *,
    confidence: float | None = None,
    aligner: str | None = None,
    transform: str = "shift",
    band: str | None = None,
    mask: Sequence[str] = (),
    max_shift: float = 32.0,
    resampling: str = "cubic",
    geotransform_only: bool = False,
    device: str = "auto",
    co: Sequence[str] = (),
) -> None:
    """Align rasters, or scenes, to a raster."""
    raise GeomlError(f"{moving[0]}: rasters cannot be aligned yet")
