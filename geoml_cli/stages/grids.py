"""The grid that pixels are to be put on, as options give it."""

from geoml_cli.errors import UsageMistake
from geoml_cli.formats.raster import describe
from geoml_cli.geo.grid import crs_name
from geoml_cli.geo.snap import Target


def target_of(crs: str | None, resolution: float | None, like: str | None) -> Target | None:
    """What --crs, --resolution and --like mean together; None where each scene keeps its own grid."""
    if like:
        if crs or resolution:
            raise UsageMistake("--like: gives the grid; no --crs or --resolution beside it")
        return Target(like=describe(like).grid)
    if crs and not resolution:
        raise UsageMistake(f"--crs {crs}: give the size of a pixel in it too, --resolution")
    if resolution is None:
        return None
    if not 0 < resolution < float("inf"):
        raise UsageMistake(f"--resolution {resolution}: the size of a pixel, more than 0")
    return Target(crs_name(crs) if crs else None, resolution)
