"""Which assets of the scenes that were found to keep, and what is to be done to their pixels."""

import os
import posixpath
from dataclasses import dataclass, field, replace
from itertools import chain, count
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from geoml_cli import __version__
from geoml_cli.errors import GeomlError
from geoml_cli.formats.bands import bands_of_asset
from geoml_cli.formats.copies import item_without_files, safe_name
from geoml_cli.formats.cut import Way
from geoml_cli.formats.digest import digest_file
from geoml_cli.formats.items import assets_of, is_raster_asset, member_of
from geoml_cli.formats.jsonfile import sha256_of
from geoml_cli.formats.presets import (
    MaskRule,
    Pick,
    Preset,
    Scaling,
    find_band,
    mask_of,
    preset_of,
    scaling_of,
)
from geoml_cli.formats.remote import Head, read_head
from geoml_cli.formats.web import Access, is_http, unsigned
from geoml_cli.geo.snap import Target
from geoml_cli.stages.catalog import Hit, Trouble
from geoml_cli.stages.inputs import digest_source

MASKS = ".masks"  # in a part folder: layers that are only looked through
HEADS = 4096  # beginnings of files kept from the look at their version until they are read


@dataclass(frozen=True)
class Wish:
    """What the user wants of every scene."""

    bands: tuple[str, ...] = ()
    mask: tuple[str, ...] = ()
    raw: bool = False
    whole: bool = False
    target: Target | None = None
    resampling: str | None = None


@dataclass(frozen=True)
class Want:
    """One asset to keep, and the file in the folder that will hold it."""

    hit: Hit
    source_key: str  # of the asset in the catalog's item
    key: str  # of the asset in ours
    member: str
    way: Way = Way()
    rules: tuple[Scaling, ...] = ()
    whole: bool = False
    mask: "Want | None" = None  # the layer it is looked at through
    rule: MaskRule | None = None  # of a mask layer
    near: Target | None = None  # the grid that what it hides is put on
    digest: str = ""
    head: Head | None = field(default=None, compare=False)

    @property
    def asset(self) -> dict[str, Any]:
        """What the catalog says of it."""
        return self.hit.item["assets"][self.source_key]

    @property
    def name(self) -> str:
        """Its name for people."""
        return f"{self.hit.item['id']}/{self.source_key}"

    @property
    def when(self) -> str | None:
        """The item's time."""
        return (self.hit.item.get("properties") or {}).get("datetime")

    @property
    def path(self) -> str:
        """Where it is read from: a path, or a URL without the signature that its source adds."""
        href, opened = self.asset["href"], self.hit.source.open(self.asset)
        return href if is_http(href) else opened

    def access(self, access: Access) -> Access:
        """How its bytes are reached: signed by the source it comes from, right before each read."""
        source, asset = self.hit.source, self.asset
        return replace(access, sign=lambda _, fresh: source.open(asset, fresh))

    def fingerprint(self, where: str | None) -> str:
        """sha256 of all that decides the bytes of the copy; `where` stands for the area."""
        way = self.way
        said = [self.key, self.digest, bands_of_asset(self.asset), self.when, self.whole]
        done = [way.said, way.indexes, way.names, way.scaling, way.categorical, way.raw]
        grid = [repr(way.target), way.resampling] if way.target else None
        mask = self.mask and [self.mask.digest, repr(self.mask.rule)]
        return sha256_of([__version__, where, said, done, grid, mask])


def wanted(
    hits: list[Hit], wish: Wish, trouble: Trouble, before: list[dict[str, Any]]
) -> list[Want]:
    """The assets to keep: those named, or those a preset names, or all that are rasters.

    Each gets a file of its own; bands that share an asset share it. `before` are items whose
    files stay in the folder.
    """
    wants: list[Want] = []
    used = {member_of(asset).partition("/")[0].lower() for asset in assets_of(before)}
    for hit in hits:
        item = hit.item
        try:
            item_without_files(item, Path())  # so that what cannot be described is not fetched
            folder = _free(safe_name(item["id"]), used)
            wants += _of_item(hit, wish, folder, trouble)
            used.add(folder.lower())
        except GeomlError as error:
            trouble(error, item["id"])
    return wants


def _free(name: str, used: set[str]) -> str:
    """A folder's name that is not used yet: an id is unique in its collection only."""
    names = chain([name], (f"{name}-{n}" for n in count(2)))
    return next(one for one in names if one.lower() not in used)


def _of_item(hit: Hit, wish: Wish, folder: str, trouble: Trouble) -> list[Want]:
    item, preset = hit.item, preset_of(hit.item)
    picks = _picks(item, wish.bands, preset, trouble)
    if not picks and not wish.bands:
        have = ", ".join(sorted(item["assets"])) or "none"
        raise GeomlError(f"item {item['id']}: has no raster assets; it has {have}")
    mask = None
    if wish.mask:
        rule = mask_of(item, preset, wish.mask)
        name = f"{MASKS}/{folder}.tif"
        way = Way(categorical=True, raw=True)
        mask = Want(hit, rule.asset, rule.asset, name, way, rule=rule, near=wish.target)
    groups: dict[str, list[Pick]] = {}
    for pick in picks:
        groups.setdefault(pick.asset if wish.whole or pick.index else pick.name, []).append(pick)
    return [_want(hit, wish, folder, group, preset, mask) for group in groups.values()]


def _picks(
    item: dict[str, Any], names: tuple[str, ...], preset: Preset | None, trouble: Trouble
) -> list[Pick]:
    """What the user names, or what is kept if nothing is named."""
    if not names and preset:
        names = preset.default
    if not names:
        keys = [key for key in sorted(item["assets"]) if is_raster_asset(item["assets"][key])]
        return [Pick(key, None, key, {}, False) for key in keys]
    found = []
    for name in names:
        try:
            found.append(find_band(item, name, preset))
        except GeomlError as error:
            trouble(error, item["id"])
    return found


def _want(
    hit: Hit,
    wish: Wish,
    folder: str,
    group: list[Pick],
    preset: Preset | None,
    mask: Want | None,
) -> Want:
    """One file for bands that lie in one asset."""
    item, first = hit.item, group[0]
    alone = len(group) == 1 and not wish.whole
    key = first.name if alone else first.asset
    if wish.whole:
        name = f"{safe_name(key)}{_suffix(item['assets'][first.asset])}"
        return Want(hit, first.asset, key, f"{folder}/{name}", whole=True)
    rules = _rules(item, group, preset, wish.raw)
    several = first.index is None and len(bands_of_asset(item["assets"][first.asset])) > 1
    way = Way(
        said=tuple(pick.said for pick in group) if preset and not several else _said(item, first),
        indexes=tuple(pick.index for pick in group if pick.index) or None,
        names=tuple(pick.name for pick in group) if wish.bands or preset else None,
        scaling=tuple((rule.scale, rule.offset, rule.unit) for rule in rules) or None,
        categorical=all(pick.categorical for pick in group),
        raw=wish.raw,
        target=wish.target,
        resampling=wish.resampling,
    )
    member = f"{folder}/{safe_name(key)}.tif"
    screen = None if mask and mask.source_key == first.asset else mask
    return Want(hit, first.asset, key, member, way, tuple(rules), mask=screen)


def _rules(
    item: dict[str, Any], group: list[Pick], preset: Preset | None, raw: bool
) -> list[Scaling]:
    """How stored values become physical ones; none where that is not known, which raw ones need not."""
    if not preset:
        return []
    try:
        return [scaling_of(item, pick.asset, pick.index, preset) for pick in group]
    except GeomlError:
        if raw:
            return []
        raise


def _said(item: dict[str, Any], pick: Pick) -> tuple[dict[str, Any], ...]:
    """What the catalog says of the bands of an asset, of those that are picked."""
    rows = bands_of_asset(item["assets"][pick.asset])
    return tuple(rows if pick.index is None else rows[pick.index - 1 : pick.index])


def _suffix(asset: dict[str, Any]) -> str:
    """The ending of an asset's file name."""
    return posixpath.splitext(urlsplit(asset["href"]).path)[1][:10].lower()


def layers_of(wants: list[Want]) -> list[Want]:
    """The mask layers that wants are looked at through, each once."""
    return list({want.mask.member: want.mask for want in wants if want.mask}.values())


def digested(want: Want, access: Access, keep_head: bool) -> Want | GeomlError:
    """The asset with the digest of what it holds, or why there is none."""
    try:
        path = want.path
        if is_http(path):
            head = read_head(path, want.access(access))
            found = sha256_of([unsigned(path), head.tag])
            return replace(want, digest=found, head=head if keep_head else None)
        if "://" not in path and not path.startswith("/vsi") and not os.path.exists(path):
            raise GeomlError(f"{path}: no such file; check the catalog that names it")
        one = want.whole and os.path.isfile(path)
        return replace(want, digest=(digest_file if one else digest_source)(path))
    except GeomlError as error:
        return error
