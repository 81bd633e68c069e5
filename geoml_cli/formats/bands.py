"""A band described once, everywhere alike."""

import math
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
        """As plain JSON values; unknown ones are left out, NaN is the word nan."""
        plain = {k: v for k, v in asdict(self).items() if v is not None}
        if self.nodata is not None and math.isnan(self.nodata):
            plain["nodata"] = "nan"
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


def bands_of_asset(asset: dict[str, Any]) -> list[dict[str, Any]]:
    """What a STAC asset says of its bands (1.1 `bands`, or `eo:bands` and `raster:bands`), as Band fields."""
    new, eo, raster = (asset.get(k) or [] for k in ("bands", "eo:bands", "raster:bands"))
    rows = []
    for i in range(max(len(new), len(eo), len(raster))):
        said: dict[str, Any] = {}
        for part in (raster, eo, new):
            said |= part[i] if i < len(part) else {}
        micrometres = said.get("eo:center_wavelength", said.get("center_wavelength"))
        row = {
            "name": said.get("name"),
            "common_name": said.get("eo:common_name", said.get("common_name")),
            "wavelength_nm": round(micrometres * 1000, 6) if micrometres else None,
            "gsd_m": said.get("gsd", said.get("spatial_resolution")),
            "unit": said.get("unit"),
            "scale": said.get("raster:scale", said.get("scale")),
            "offset": said.get("raster:offset", said.get("offset")),
            "nodata": said.get("nodata", asset.get("nodata")),
        }
        rows.append({k: v for k, v in row.items() if v is not None})
    return rows


def same_state(a: Band, b: Band) -> bool:
    """Whether stored values of two bands mean the same."""
    return (a.scale, a.offset) == (b.scale, b.offset) and (
        a.unit is None or b.unit is None or a.unit == b.unit
    )
