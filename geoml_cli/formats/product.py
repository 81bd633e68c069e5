"""What is known of a collection: its bands and masks in a table of data/collections, and bands by name."""

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from functools import cache
from importlib.resources import files
from typing import Any

from geoml_cli.errors import GeomlError
from geoml_cli.formats.bands import bands_of_asset, said_of
from geoml_cli.formats.items import is_raster_asset
from geoml_cli.geo.query import collection_of

FIELDS = ("name", "common_name", "wavelength_nm", "gsd_m", "unit", "nodata")
OURS = "geoml:"  # prefix of what our copies say of themselves: of those, the item is right, not the table


@dataclass(frozen=True)
class Row:
    """A band of a table; stored values become physical by `scale` and `offset`.

    `fixed`: they hold whatever the catalog says. `shifted`: the preset's `shift` says the offset.
    """

    name: str
    assets: tuple[str, ...]  # in order of preference
    index: int | None = None  # from 1, in an asset of several bands
    also: tuple[str, ...] = ()  # other names
    common_name: str | None = None
    wavelength_nm: float | dict[str, float] | None = None  # by instrument, where that matters
    gsd_m: float | None = None
    unit: str | None = None
    nodata: float | None = None
    scale: float = 1.0
    offset: float = 0.0
    fixed: bool = False
    shifted: bool = False
    categorical: bool = False

    def called(self, name: str) -> bool:
        """Whether `name` means this band in any of the catalogs that the table speaks for."""
        return name in (self.name, *self.also, *(self.assets if self.index is None else ()))

    def asset_in(self, item: dict[str, Any]) -> str | None:
        """Key of the asset of an item that holds the band."""
        return next((key for key in self.assets if key in item["assets"]), None)


@dataclass(frozen=True)
class Layer:
    """A mask layer of a table: names of conditions and the class values or bits that mean them."""

    name: str
    assets: tuple[str, ...]
    kind: str  # "classes" or "bits"
    names: dict[str, Any]


@dataclass(frozen=True)
class Preset:
    """What is known of the collection of an item; `names` and `default` are bands that the item has."""

    title: str
    source: str
    collections: tuple[str, ...]
    default: tuple[str, ...]
    rows: tuple[Row, ...] = field(repr=False)
    layers: tuple[Layer, ...] = field(repr=False)
    shift: dict[str, Any] = field(
        repr=False
    )  # offset since a processing baseline; see sentinel-2-l2a
    collection: str = ""
    names: tuple[str, ...] = ()

    def row_of(self, asset: str, index: int | None) -> Row | None:
        """The table's row for band `index` of an asset, or for the whole asset."""
        whole = (row for row in self.rows if asset in row.assets)
        return next((row for row in whole if row.index in (index, None)), None)


@dataclass(frozen=True)
class Pick:
    """One band of an item: the asset's key, the band in it (from 1; None: the whole), Band fields."""

    asset: str
    index: int | None
    name: str
    said: dict[str, Any]
    categorical: bool = False


@cache
def tables() -> dict[str, Preset]:
    """Every table, by the ids of the collections it speaks for."""
    folder = files("geoml_cli") / "data" / "collections"
    texts = [file for file in folder.iterdir() if file.name.endswith(".toml")]
    found = [_preset(tomllib.loads(file.read_text(encoding="utf-8"))) for file in texts]
    return {name: preset for preset in found for name in preset.collections}


def _preset(table: dict[str, Any]) -> Preset:
    lists = ("assets", "also")
    rows = []
    for name, row in table["bands"].items():
        words: dict[str, Any] = {k: tuple(v) if k in lists else v for k, v in row.items()}
        rows.append(Row(name, **words))
    layers = [
        Layer(name, tuple(layer["assets"]), layer["kind"], layer["names"])
        for name, layer in table.get("masks", {}).items()
    ]
    return Preset(
        table["title"],
        table["source"],
        tuple(table["collections"]),
        tuple(table["default"]),
        rows=tuple(rows),
        layers=tuple(layers),
        shift=table.get("shift", {}),
    )


def preset_of(item: dict[str, Any]) -> Preset | None:
    """What is known of an item's collection; None where nothing is, or none of its assets is known."""
    links = [
        link for link in item.get("links") or [] if link.get("rel") in ("collection", "parent")
    ]
    linked = [str(link.get("href", "")).partition("?")[0].rstrip("/") for link in links]
    ids = [collection_of(item), *(href.rpartition("/")[2] for href in linked)]
    known = next((name for name in ids if name in tables()), None)
    if known is None:
        return None
    preset = tables()[known]
    names = tuple(row.name for row in preset.rows if row.asset_in(item))
    default = tuple(name for name in preset.default if name in names)
    return replace(preset, collection=known, names=names, default=default) if names else None


def find_band(item: dict[str, Any], name: str, preset: Preset | None) -> Pick:
    """The band of an item that `name` means.

    An asset's key; or a name in the preset's table, which is a common name or what another catalog
    calls the asset; or the common name or name of the only band that has it.
    """
    if name in item["assets"]:
        return _pick(item, name, None, name, preset)
    row = next((row for row in preset.rows if row.called(name)), None) if preset else None
    key = row.asset_in(item) if row else None
    if row and key:
        return _pick(item, key, row.index, name, preset)
    found = _eo_bands(item, name) if row is None else []
    if len(found) == 1:
        return _pick(item, *found[0], name, preset)
    raise GeomlError(f"item {item.get('id')}: {_why_no_band(item, name, preset, found)}")


def _eo_bands(item: dict[str, Any], name: str) -> list[tuple[str, int | None]]:
    """Asset and band where the catalog's common name, or name, of a band is this one.

    A picture to look at repeats the bands it was made of: assets of that band alone come first.
    """
    alone: list[tuple[str, int | None]] = []
    among: list[tuple[str, int | None]] = []
    for key, asset in item["assets"].items():
        said = bands_of_asset(asset) if is_raster_asset(asset) else []
        at = [i for i, row in enumerate(said) if name in (row.get("common_name"), row.get("name"))]
        if len(said) == 1 and at:
            alone.append((key, None))
        else:
            among.extend((key, i + 1) for i in at)
    return alone or among


def _pick(
    item: dict[str, Any], key: str, index: int | None, name: str, preset: Preset | None
) -> Pick:
    asset = item["assets"][key]
    rows = bands_of_asset(asset)
    whole = index is None and len(rows) > 1  # what is said of one band is not true of all
    said = {} if whole else said_of(rows, (index or 1) - 1)
    row = preset.row_of(key, index) if preset else None
    known = _known(row, item) if row else {}
    both = known | said if is_ours(asset) else said | known
    words = {"name": key if whole or index is None else f"{key}-{index}", **both}
    gsd = (item.get("properties") or {}).get("gsd")
    if "gsd_m" not in words and isinstance(gsd, int | float):
        words["gsd_m"] = gsd
    plain = {k: v for k, v in words.items() if k in FIELDS}
    return Pick(key, index, name, plain, bool(row and row.categorical))


def is_ours(asset: dict[str, Any]) -> bool:
    """Whether an asset is a copy that geoml wrote: it says of itself all that is true of it."""
    return any(key.startswith(OURS) for key in asset)


def _known(row: Row, item: dict[str, Any]) -> dict[str, Any]:
    """Band fields from the table; a wavelength that differs by instrument is the item's."""
    words = {key: getattr(row, key) for key in FIELDS}
    if isinstance(row.wavelength_nm, dict):
        aboard = (item.get("properties") or {}).get("instruments") or []
        by_name = row.wavelength_nm.items()
        match = [nm for key, nm in by_name for one in aboard if str(one).lower().startswith(key)]
        words["wavelength_nm"] = match[0] if match else None
    return {k: v for k, v in words.items() if v is not None}


def _why_no_band(
    item: dict[str, Any],
    name: str,
    preset: Preset | None,
    found: Sequence[tuple[str, int | None]],
) -> str:
    if found:
        keys = ", ".join(f"{key} band {index}" if index else key for key, index in found)
        return f"several bands are called {name}: {keys}; name the asset"
    rasters = [key for key, asset in item["assets"].items() if is_raster_asset(asset)]
    names = list(dict.fromkeys([*(preset.names if preset else ()), *rasters]))
    near = get_close_matches(name, names, 3, 0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else f"it has {', '.join(names) or 'none'}"
    return f"no asset or band called {name}; {hint}"
