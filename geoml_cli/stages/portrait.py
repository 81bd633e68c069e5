"""What an artifact of ours is, as plain data: bands, grid, classes, counts, scores, what made it."""

import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from pyproj.exceptions import CRSError

from geoml_cli.errors import GeomlError
from geoml_cli.formats import items as stac
from geoml_cli.formats.bands import bands_of_asset
from geoml_cli.formats.jsonfile import read_json
from geoml_cli.formats.remote import is_remote
from geoml_cli.formats.stamp import read_record, stamp_in
from geoml_cli.geo.grid import Grid
from geoml_cli.stages import foreign
from geoml_cli.stages.any_raster import told_grid
from geoml_cli.stages.spelled import command_of, home
from geoml_cli.stages.tile_portrait import tiles

UNDATED = "1900-01-01T00:00:00Z"  # where a span begins that stands for no date at all


def portrait(path: str) -> dict[str, Any]:
    """Describe an artifact, a member of one, or any raster, vector file or items that can be read."""
    if not is_remote(path) and Path(path).is_dir() and (Path(path) / ".part.json").is_file():
        raise GeomlError(f"{path}: unfinished; run the command that was making it again")
    record = None if is_remote(path) else read_record(path)
    kind = record["kind"] if record else None
    if kind in ARTIFACTS and not (kind == "predictions" and stamp_in(path) is None):
        stamp = stamp_in(path) or Path(path)
        try:
            found = ARTIFACTS[kind](read_json(stamp), stamp.parent)
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise GeomlError(f"{stamp}: damaged ({error!r}); make it again") from None
    elif (items := _items(path)) is not None:
        found = {"kind": "items", **told_items(items)}
    else:
        found = _strange(path)
        found["kind"] = kind or found["kind"]
    owner = None if is_remote(path) else home(path)
    if owner and Path(path).name not in (owner.name, *_stamp_name(owner)):
        found["member_of"] = os.path.relpath(owner)
    if record:
        found["made"] = {k: record[k] for k in ("verb", "version", "arguments", "fingerprint")}
        found["made"]["command"] = command_of(path)
        found["made"] |= {"failed": record["failed"]} if record.get("failed") else {}
    return {"path": path, **found}


def _strange(path: str) -> dict[str, Any]:
    """What a file opens as; a member of an artifact is known by that, whatever it is."""
    try:
        return foreign.portrait(path)
    except GeomlError:
        if is_remote(path) or not Path(path).is_file() or home(path) is None:
            raise
        return {"kind": "file", "bytes": os.path.getsize(path)}


def _stamp_name(owner: Path) -> list[str]:
    """The stamp of an artifact folder, which is the artifact by another name."""
    stamp = stamp_in(owner)
    return [stamp.name] if stamp else []


def _items(path: str) -> list[dict[str, Any]] | None:
    """STAC items that are not ours; None where a path holds none."""
    file = Path(path) / stac.NAME if Path(path).is_dir() else Path(path)
    if file.suffix.lower() not in (".json", ".ndjson", ".geojson") or not file.is_file():
        return None
    try:
        return stac.read_items(file)
    except GeomlError:
        return None


def told_items(items: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Items in short: what they say of themselves; no raster is opened."""
    rows = []
    for item in items:
        said = item.get("properties") or {}
        rows.append(
            {
                "id": item["id"],
                "datetime": _date(said),
                "bbox": item.get("bbox"),
                "assets": {key: _asset(asset) for key, asset in sorted(item["assets"].items())},
            }
        )
    dates = sorted(row["datetime"] for row in rows if row["datetime"])
    return {"count": len(rows), "dates": dates[:1] + dates[-1:], "items": rows}


def _date(said: dict[str, Any]) -> str | None:
    """The time of an item, or where its span begins; None for what may be of any time."""
    if said.get("datetime"):
        return str(said["datetime"])
    start = said.get("start_datetime")
    return None if start == UNDATED else start


def _asset(asset: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {"href": asset["href"], "bytes": asset.get("file:size")}
    bands = bands_of_asset(asset)
    if bands:
        found["bands"] = [{"name": f"B{i + 1}", **band} for i, band in enumerate(bands)]
    kinds = {band.get("data_type") for band in asset.get("bands") or [] if band.get("data_type")}
    found["dtype"] = kinds.pop() if len(kinds) == 1 else None
    crs = asset.get("proj:code") or asset.get("proj:wkt2")
    if crs and asset.get("proj:transform") and asset.get("proj:shape"):
        with suppress(ValueError, TypeError, CRSError):  # an item of others may say anything
            grid = Grid.from_dict(asset | {"proj:code": crs})
            found |= {"shape": [grid.height, grid.width], "grid": told_grid(grid)}
    return {k: v for k, v in found.items() if v is not None}


def scenes(head: dict[str, Any], folder: Path) -> dict[str, Any]:
    """A folder of items; of predictions the classes too, and whether each block was held out."""
    found = {"kind": head["geoml"]["kind"], **told_items(head["features"])}
    if "geoml:classes" in head:
        found["classes"] = head["geoml:classes"]
        found["out_of_fold"] = head.get("geoml:out_of_fold")
    return found


MODEL = (
    "task encoder head adapter aim sensors values codes base dtype gsd_m bands classes members window stride"
    " halo blend tta dates normalisation device best folds"
)


def model(head: dict[str, Any], folder: Path) -> dict[str, Any]:
    """A model: its contract, and how well each member did on its validation ground."""
    found = {"kind": "model", **{k: head.get(k) for k in MODEL.split()}}
    item = folder / "item.json"
    if item.is_file():
        found["parameters"] = read_json(item)["properties"].get("mlm:total_parameters")
    scored = folder / "scores.json"
    if scored.is_file():
        found["test"] = {k: read_json(scored)[k] for k in ("metrics", "scored")}
    return found


def scores(head: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Scores with their intervals, and what was scored on what."""
    found = {k: head[k] for k in ("metrics", "confusion", "scored")}
    return {"kind": "scores", "by_class": head["classes"], **found}


ARTIFACTS: dict[str, Callable[[dict[str, Any], Path], dict[str, Any]]] = {
    "scenes": scenes,
    "predictions": scenes,
    "tiles": tiles,
    "model": model,
    "scores": scores,
}
