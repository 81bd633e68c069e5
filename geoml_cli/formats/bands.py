"""A band described once, everywhere alike."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any


@dataclass(frozen=True)
class Band:
    """One band: physical value = stored value * scale + offset, in `unit`."""

    name: str
    common_name: str | None = None
    wavelength_nm: float | None = None
    gsd_m: float | None = None
    unit: str | None = None
    scale: float = 1.0
    offset: float = 0.0
    nodata: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON values; unknown ones are left out, NaN and infinities are words."""
        plain = {k: v for k, v in asdict(self).items() if v is not None}
        if self.nodata is not None and not math.isfinite(self.nodata):
            plain["nodata"] = str(float(self.nodata))
        return plain

    @classmethod
    def from_dict(cls, plain: dict[str, Any]) -> "Band":
        """Read what `to_dict` gave; later additions are ignored."""
        known = {f.name for f in fields(cls)}
        found = {k: v for k, v in plain.items() if k in known}
        if found.get("nodata") is not None:
            found["nodata"] = float(found["nodata"])
        return cls(**found)

    def to_stac(self, dtype: str) -> dict[str, Any]:
        """As an entry of STAC 1.1 `bands`."""
        plain = self.to_dict()
        words: dict[str, Any] = {"name": self.name, "data_type": dtype}
        words |= {k: plain[k] for k in ("unit", "nodata") if k in plain}
        if self.common_name:
            words["eo:common_name"] = self.common_name
        if self.wavelength_nm:
            words["eo:center_wavelength"] = self.wavelength_nm / 1000
        if self.gsd_m:
            words["gsd"] = self.gsd_m
        if self.scale != 1:
            words["raster:scale"] = self.scale
        if self.offset != 0:
            words["raster:offset"] = self.offset
        return words


WORDS = ("nan", "inf", "-inf")  # for what is no number in JSON
# of an asset as a whole: true of each of its bands that does not say otherwise
SHARED = (
    *("gsd", "unit", "nodata", "raster:scale", "raster:offset"),
    *("eo:common_name", "eo:center_wavelength"),
)


def bands_of_asset(asset: dict[str, Any]) -> list[dict[str, Any]]:
    """What a STAC asset says of its bands (1.1 `bands`, or `eo:bands` and `raster:bands`), as Band fields.

    A single row without a name speaks for all bands, however many there are.
    """
    shared = {key: asset[key] for key in SHARED if key in asset}
    lists = [asset.get(key) for key in ("raster:bands", "eo:bands", "bands")]
    parts = [part for part in lists if isinstance(part, list)]
    count = max(map(len, parts), default=0)
    rows = []
    for i in range(count or bool(shared)):
        said = dict(shared)
        for part in parts:
            said |= part[i] if i < len(part) and isinstance(part[i], dict) else {}
        rows.append(_row(said))
    return rows


def said_of(said: Sequence[dict[str, Any]], n: int) -> dict[str, Any]:
    """What is said of band `n`, from 0."""
    if n < len(said):
        return said[n]
    return said[0] if len(said) == 1 and "name" not in said[0] else {}


def _row(said: dict[str, Any]) -> dict[str, Any]:
    """Band fields from STAC's words; what is no number where one is wanted counts as not said."""
    micrometres = _number(said, "eo:center_wavelength", "center_wavelength")
    row = {
        "name": said.get("name"),
        "common_name": said.get("eo:common_name", said.get("common_name")),
        "wavelength_nm": round(micrometres * 1000, 6) if micrometres else None,
        "gsd_m": _number(said, "gsd", "spatial_resolution"),
        "unit": said.get("unit"),
        "scale": _number(said, "raster:scale", "scale"),
        "offset": _number(said, "raster:offset", "offset"),
        "nodata": said["nodata"] if said.get("nodata") in WORDS else _number(said, "nodata"),
    }
    words = ("name", "common_name", "unit")
    plain = {k: str(v) if k in words else v for k, v in row.items() if v is not None}
    return {k: v for k, v in plain.items() if v != ""}


def _number(said: dict[str, Any], *keys: str) -> float | None:
    value = next((said[key] for key in keys if said.get(key) is not None), None)
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def same_state(a: Band, b: Band) -> bool:
    """Whether stored values of two bands mean the same."""
    return (a.scale, a.offset) == (b.scale, b.offset) and (
        a.unit is None or b.unit is None or a.unit == b.unit
    )
