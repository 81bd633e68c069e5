"""How stored values become physical ones, by each provider's rule, and whether pixels agree with it."""

import re
from dataclasses import dataclass
from typing import Any

import numpy as np

from geoml_cli.errors import GeomlError
from geoml_cli.formats.bands import bands_of_asset, said_of
from geoml_cli.formats.product import Preset, Row, is_ours

BASELINE = ("s2:processing_baseline", "sentinel:processing_baseline", "processing:version")
PRODUCT = ("s2:product_uri", "sentinel:product_id")
IN_NAME = re.compile(r"_N(\d\d)(\d\d)_")
UNTOUCHED = "-jp2"  # Earth Search: the provider's own file beside its COG
HOSTS = {
    "planetarycomputer": "Planetary Computer",
    "earth-search": "Earth Search",
    "sentinel-cogs": "Earth Search",
}
EDGE = {"blue": 1.4, "green": 1.4, "red": 1.2}  # of the darkest 1 %, in offsets; see contradiction
FEW, MANY = 1_000, 10_000  # pixels: below them their distribution proves nothing
SAMPLE = 1_000_000


@dataclass(frozen=True)
class Scaling:
    """Physical value = stored value * scale + offset, in `unit`; `rule` is why, for people."""

    scale: float
    offset: float
    unit: str | None
    rule: str


def scaling_of(
    item: dict[str, Any], asset_key: str, index: int | None, preset: Preset | None
) -> Scaling:
    """How values of a band (`index` from 1; None: the whole asset) become physical ones.

    The table of the preset where the catalog says nothing, or is known to be wrong; else the catalog.
    """
    asset = item["assets"][asset_key]
    said = said_of(bands_of_asset(asset), (index or 1) - 1)
    row = preset.row_of(asset_key, index) if preset else None
    if preset is None or row is None or is_ours(asset):
        where = (preset.collection if preset else None) or item.get("collection") or "this item"
        return _as_said(said, said.get("unit"), str(where))
    if row.shifted and preset.shift:
        return _shifted(item, asset_key, preset, row, said)
    if ("scale" in said or "offset" in said) and not row.fixed:
        return _as_said(said, row.unit or said.get("unit"), preset.collection)
    if (row.scale, row.offset) == (1, 0):
        return Scaling(1, 0, row.unit or said.get("unit"), f"{preset.collection}: values as stored")
    against = f" (the catalog says {_pair(said)})" if row.fixed and not _agrees(row, said) else ""
    rule = f"{preset.collection}: {_pair(vars(row))} by {preset.source}{against}"
    return Scaling(row.scale, row.offset, row.unit or said.get("unit"), rule)


def _as_said(said: dict[str, Any], unit: str | None, where: str) -> Scaling:
    if "scale" not in said and "offset" not in said:
        return Scaling(1, 0, unit, f"{where}: values as stored")
    rule = f"{where}: {_pair(said)} as the catalog says"
    return Scaling(said.get("scale", 1), said.get("offset", 0), unit, rule)


def _pair(words: dict[str, Any]) -> str:
    return f"scale {words.get('scale', 1):.9g}, offset {words.get('offset', 0):.9g}"


def _agrees(row: Row, said: dict[str, Any]) -> bool:
    return (said.get("scale", 1), said.get("offset", 0)) == (row.scale, row.offset)


def _shifted(
    item: dict[str, Any], key: str, preset: Preset, row: Row, said: dict[str, Any]
) -> Scaling:
    """The scale, and the offset if the pixels hold one: it came with a processing baseline.

    A provider may have taken it out of the pixels again and says so in a flag, while its scale and
    offset still speak of the original: the flag wins.
    """
    shift, baseline, scale = preset.shift, baseline_of(item), said.get("scale", row.scale)
    flag = next((name for name in shift["applied"] if _properties(item).get(name) is True), None)
    dn = round(shift["offset"] / row.scale)
    where = f"{preset.collection}: baseline {baseline or 'unknown'} on {_provider(item, key)}"

    def ruled(offset: float, why: str) -> Scaling:
        return Scaling(scale, offset, row.unit, f"{where}, {why}")

    if baseline and _number(baseline) < _number(shift["since"]):
        return ruled(0, f"before {shift['since']}, offset 0")
    if flag and not key.endswith(UNTOUCHED):
        return ruled(0, f"{-dn} already taken out of the pixels ({flag}), offset 0")
    if "offset" in said:
        return ruled(said["offset"], f"offset {said['offset'] / scale:.6g} as the catalog says")
    if baseline:
        return ruled(shift["offset"], f"offset {dn}")
    raise GeomlError(
        f"item {item.get('id')}: says no processing baseline, so whether {key} holds an offset of"
        f" {-dn} is unknown; keep its values as stored with --raw, or give it {BASELINE[0]}"
    )


def baseline_of(item: dict[str, Any]) -> str | None:
    """Processing baseline of a Sentinel-2 item, such as 05.09; from the product's name if need be."""
    said = _properties(item)
    for text in (said[name] for name in BASELINE if said.get(name)):
        if found := re.fullmatch(r"(\d{1,2})\.(\d{1,2})", str(text)):
            return f"{int(found[1]):02}.{found[2]:0<2}"
    for text in (*(said.get(name) for name in PRODUCT), item.get("id")):
        if found := IN_NAME.search(str(text or "") + "_"):
            return f"{found[1]}.{found[2]}"
    return None


def _number(baseline: str) -> tuple[int, ...]:
    return tuple(int(part) for part in baseline.split("."))


def _properties(item: dict[str, Any]) -> dict[str, Any]:
    return item.get("properties") or {}


def _provider(item: dict[str, Any], key: str) -> str:
    links = [str(link.get("href")) for link in item.get("links") or [] if isinstance(link, dict)]
    places = " ".join([*links, str(item["assets"][key].get("href"))])
    return next((name for part, name in HOSTS.items() if part in places), "another provider")


def contradiction(
    scaling: Scaling, item: dict[str, Any], preset: Preset | None, values: np.ndarray, name: str
) -> str | None:
    """One line where valid stored values of a band contradict the offset claimed, else None.

    `name` is that of the band or its asset, or ends in /NAME. Only for bands whose values hold an
    offset of 1000 from some baseline on (Sentinel-2).

    - Claimed to hold it: then 1000 is reflectance 0, and few pixels lie below, those of deep shadow
      or water that the correction overdid (866 is the lowest in six real scenes, all bands). It is
      contradicted where more than 5 % lie below 700 (reflectance below -0.03), which is where
      water, shadow and most vegetation are without it. Bright ground cannot tell: nothing is said.
    - Claimed to be free of it: then dark ground lies near 0. It is contradicted where, of at least
      10,000 pixels of a visible band, hardly one (0.1 %) lies below 970 and yet the darkest 1 %
      reach below an edge: 1400 in blue and green, 1200 in red, in which dry ground is never dark
      (a real steppe, free of it: 410 in blue, 667 in green, 1006 in red). Cloud or snow alone is
      brighter than that. What is left looks so by chance, and is why the line says `seem`.
    """
    last = name.rpartition("/")[2]
    row = next((row for row in preset.rows if row.called(last)), None) if preset else None
    if preset is None or row is None or not row.shifted or not np.isclose(scaling.scale, row.scale):
        return None
    flat = np.asarray(values).ravel()
    flat = flat[:: max(1, flat.size // SAMPLE)]
    dn = -round(preset.shift["offset"] / row.scale)
    where = f"item {item.get('id')}: {last}"
    if scaling.offset < 0 and flat.size >= FEW:
        share = float(np.mean(flat < 0.7 * dn))
        if share > 0.05:
            return (
                f"{where}: {share:.0%} of the pixels lie below {0.7 * dn:.0f}, so they seem to be free of"
                f" the offset of {dn} that is claimed ({scaling.rule})"
            )
    if scaling.offset == 0 and flat.size >= MANY and row.name in EDGE and _since(item, preset):
        darkest, dark = (float(v) for v in np.percentile(flat, (0.1, 1)))
        if darkest >= 0.97 * dn and dark < EDGE[row.name] * dn:
            return (
                f"{where}: hardly a pixel lies below {darkest:.0f}, so they seem to hold an offset"
                f" of {dn} that is said to be taken out ({scaling.rule})"
            )
    return None


def _since(item: dict[str, Any], preset: Preset) -> bool:
    """Whether the item's baseline is one that came with the offset, or not known."""
    baseline = baseline_of(item)
    return baseline is None or _number(baseline) >= _number(preset.shift["since"])
