"""Tell apart what is to be aligned: vectors onto imagery, or rasters onto rasters."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from geoml_cli.errors import UsageMistake
from geoml_cli.manners import Manners
from geoml_cli.stages.inputs import JSON_SUFFIXES, check_local, expand

VECTORS = (".gpkg", ".parquet", ".geoparquet", ".shp", ".fgb", ".gml", ".kml", ".gdb")


def run(
    inputs: list[str],
    out: str,
    *,
    to: str,
    confidence: float | None = None,
    aligner: str | None = None,
    transform: str = "shift",
    band: str | None = None,
    mask: Sequence[str] = (),
    max_shift: float = 32.0,
    resampling: str = "cubic",
    geotransform_only: bool = False,
    like: str | None = None,
    adjustments: str | None = None,
    reach: float | None = None,
    road_width: float | None = None,
    layer: str | None = None,
    device: str = "auto",
    co: Sequence[str] = (),
    manners: Manners = Manners(),
) -> None:
    """Align; see `geoml align --help` for what each argument means."""
    given = expand(inputs)
    check_local(given)
    vectors = [isinstance(one, str) and is_vector(one) for one in given]
    if any(vectors):
        if not all(vectors):
            raise UsageMistake("vectors and rasters in one run; align them one after the other")
        from geoml_cli.stages import align_vectors

        align_vectors.run(
            [str(one) for one in given],
            to,
            out,
            manners,
            adjustments=adjustments,
            confidence=confidence,
            reach=reach,
            road_width=road_width,
            layer=layer,
        )
        return
    of_vectors = {"adjustments": adjustments, "reach": reach, "road-width": road_width}
    for name, value in {**of_vectors, "layer": layer}.items():
        if value is not None:
            raise UsageMistake(f"--{name}: is for vectors")
    from geoml_cli.stages import align_rasters

    align_rasters.run(
        given,
        to,
        out,
        manners,
        confidence=confidence,
        aligner=aligner,
        transform=transform,
        band=band,
        mask=mask,
        max_shift=max_shift,
        resampling=resampling,
        geotransform_only=geotransform_only,
        like=like,
        device=device,
        co=co,
    )


def is_vector(name: str) -> bool:
    """Whether a file holds shapes: a vector file, or a JSON that is of no STAC items."""
    path = Path(name)
    if path.suffix.lower() in VECTORS:
        return True
    if path.suffix.lower() not in JSON_SUFFIXES or not path.is_file():
        return False
    try:
        found: Any = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError):
        return False  # read_scenes says what is wrong with it
    first = found.get("features", [found]) if isinstance(found, dict) else found
    return not (first and isinstance(first[0], dict) and "assets" in first[0])
