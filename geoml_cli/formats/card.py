"""The card of an ONNX file or a checkpoint: a small JSON beside it that says which bands go in and what comes out.

{"bands": ["blue", "green", {"name": "red", "wavelength_nm": 665}],
 "classes": ["background", {"name": "cloud", "color": "#ffffff"}],   or "values": [{"name": "height", "unit": "m"}]
 "mean": [...], "std": [...], "scale": 1, "outputs": "logits", "layout": "NCHW",
 "gsd_m": 30, "halo": 40, "stride": 8, "window": 256, "overlap": 52, "rim": "reflect"}

Of a checkpoint it also names the network, "encoder": "prithvi:size=100" and "head": "fcn:skips=0", the number of dates,
"frames": 3, and may say "fills": true in place of classes: it gives the images themselves.
"""

import tomllib
from collections.abc import Mapping
from importlib.resources import files
from typing import Any

from geoml_cli.errors import GeomlError
from geoml_cli.formats.bands import Band
from geoml_cli.geo.classes import legend

KINDS = {  # key: what it may be
    "bands": list,
    "classes": list,
    "values": list,
    "mean": list,
    "std": list,
    "scale": int | float,
    "encoder": str,
    "head": str,
    "frames": int,
    "fills": bool,
    "outputs": str,
    "layout": str,
    "gsd_m": int | float,
    "halo": int,
    "stride": int,
    "window": int,
    "overlap": int,
    "rim": str,
    "source": str,
    "licence": str,
}
CHOICES = {
    "outputs": ("logits", "probabilities"),
    "layout": ("NCHW", "NHWC"),
    "rim": ("reflect", "symmetric"),
}
USUAL = {
    "scale": 1,
    "outputs": "logits",
    "layout": "NCHW",
    "gsd_m": None,
    "halo": None,
    "stride": 1,
    "rim": "reflect",
    "frames": 1,
    "fills": False,
}
WINDOW, OVERLAP = 256, 48  # where nothing is said


def read_card(plain: Any, where: str) -> dict[str, Any]:
    """A card with every key in place; what is wrong with it is said in one line."""

    def wrong(what: str) -> GeomlError:
        return GeomlError(f"{where}: {what}; `geoml help models` shows what a card holds")

    if not isinstance(plain, Mapping):
        raise wrong("is no JSON object of bands and classes")
    for key, value in plain.items():
        if key not in KINDS:
            raise wrong(f"has an unknown key {key!r}; it may hold {', '.join(KINDS)}")
        if not isinstance(value, KINDS[key]) or isinstance(value, bool) != (KINDS[key] is bool):
            raise wrong(f"{key} is {value!r}")
        if key in CHOICES and value not in CHOICES[key]:
            raise wrong(f"{key} is {value!r}, not {' or '.join(CHOICES[key])}")
    if not plain.get("bands"):
        raise wrong("names no bands")
    if sum(bool(plain.get(key)) for key in ("classes", "values", "fills")) != 1:
        raise wrong("must name either classes or values")
    count = len(plain["bands"])
    for key in ("mean", "std"):
        given = plain.get(key)
        if given is not None and (
            len(given) != count or not all(isinstance(v, int | float) for v in given)
        ):
            raise wrong(f"{key} must be {count} numbers, one a band")
    if any(v <= 0 for v in plain.get("std", [])):
        raise wrong("std holds a number that is not above 0")
    for key, least in (("halo", 0), ("stride", 1), ("window", 1), ("overlap", 2), ("frames", 1)):
        if key in plain and plain[key] < least:
            raise wrong(f"{key} is {plain[key]}, less than {least}")
    found = USUAL | {"mean": [0] * count, "std": [1] * count} | dict(plain)
    for key in ("bands", "classes", "values"):
        found[key] = [_named(one, f"{where}: {key}") for one in found.get(key) or []]
    window = found.setdefault("window", None)
    found.setdefault("overlap", max(2, round((window or WINDOW) * OVERLAP / WINDOW)))
    if 2 * found["overlap"] > (window or WINDOW):
        raise wrong(
            f"windows of {window or WINDOW} px overlap by {found['overlap']}, more than half"
        )
    return found


def _named(one: Any, where: str) -> dict[str, Any]:
    plain = {"name": one} if isinstance(one, str) else one
    if not isinstance(plain, dict) or not isinstance(plain.get("name"), str) or not plain["name"]:
        raise GeomlError(f"{where}: {one!r} has no name; write a name, or an object with one")
    return plain


def contract_of(card: Mapping[str, Any], window: int | None, binary: bool) -> dict[str, Any]:
    """A card in the words of model.json; `window` px are those of a graph that takes no others."""
    bands = [Band.from_dict(one).to_dict() for one in card["bands"]]
    paint = {one["name"]: one["color"] for one in card["classes"] if "color" in one}
    names = [one["name"] for one in card["classes"] or card["values"]]
    size = window or card["window"] or WINDOW
    finite = card["halo"] is not None and window is None
    frames = card["frames"]
    if card["fills"]:
        names = [
            b["name"] + (f"-{t + 1}" if frames > 1 else "") for t in range(frames) for b in bands
        ]
    sensor = {"name": "image", "bands": bands, "dtype": None, "gsd_m": card["gsd_m"]}
    sensor["frames"] = frames
    return {
        "aim": {
            "kind": "classes" if card["classes"] else "values",
            "per": "pixel",
            "names": names,
            "binary": binary,
            "fills": card["fills"],
        },
        "sensors": [sensor],
        "bands": bands,
        "dtype": None,
        "gsd_m": card["gsd_m"],
        "codes": [],
        "classes": [c.to_dict() for c in legend(names, paint)] if card["classes"] else [],
        "values": [{"name": v["name"], "unit": v.get("unit")} for v in card["values"]]
        if not card["fills"]
        else [{"name": name, "unit": None} for name in names],
        "members": 1,
        "stride": card["stride"],
        "window": size,
        "fixed": window is not None,
        "halo": card["halo"] if finite else None,
        "blend": None
        if finite
        else {"window": size, "overlap": card["overlap"], "rim": card["rim"]},
        "frames": None,
        "tta": None,
        "folds": 0,
        "split": None,
        "base": None,
    }


def known_card(package: str, file: str) -> dict[str, Any] | None:
    """What geoml itself knows of a file of a package."""
    table = files("geoml_cli") / "data" / "models" / f"{package}.toml"
    if not table.is_file():
        return None
    said = tomllib.loads(table.read_text(encoding="utf-8"))
    own = said["files"].get(file)
    return None if own is None else said["all"] | own
