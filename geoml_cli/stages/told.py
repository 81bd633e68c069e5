"""A portrait as a block of lines for people."""

import shlex
from collections.abc import Iterator, Mapping
from typing import Any

from geoml_cli.formats.scores import say
from geoml_cli.stages.told_files import (
    LONG,
    MOST,
    Row,
    metres,
    say_array,
    say_band,
    say_bands,
    say_classes,
    say_raster,
    say_vector,
)
from geoml_cli.stages.told_tiles import say_tiles


def block(found: Mapping[str, Any]) -> str:
    """The lines of one portrait."""
    rows = [*_made(found), *KINDS.get(found["kind"], _any)(found)]
    wide = max((len(label) for label, _ in rows), default=0) + 2
    head = f"{found['path']}: {found['kind']}"
    if "member_of" in found:
        head += f", part of {found['member_of']}"
    return "\n".join([head, *(f"  {label:{wide}}{text}".rstrip() for label, text in rows)])


def _made(found: Mapping[str, Any]) -> Iterator[Row]:
    if "made" in found:
        made = found["made"]
        yield "made by", f"{shlex.join(made['command'])}  (geoml {made['version']})"
        if made.get("failed"):
            yield "lacks", f"{', '.join(made['failed'])}: failed, and left out under --keep-going"


def _items(found: Mapping[str, Any]) -> Iterator[Row]:
    what = "maps" if found["kind"] == "predictions" else "scenes"
    yield (
        what,
        ", ".join([str(found["count"]), " to ".join(dict.fromkeys(found["dates"]))]).rstrip(", "),
    )
    if found.get("out_of_fold"):
        yield "", "out of fold: each block of ground by the network that never saw it"
    yield from say_classes(found)
    for item in found["items"][:MOST]:
        yield "", f"{item['id']}  {item['datetime'] or 'undated'}"
        for key, asset in item["assets"].items():
            yield "", f"    {key}: {_asset(asset)}"
    yield from _more(found["count"])


def _more(count: int) -> Iterator[Row]:
    if count > MOST:
        yield "", f"... and {count - MOST} more; --json lists them all"


def _asset(asset: Mapping[str, Any]) -> str:
    words = [asset["href"].removeprefix("./")]
    if "shape" in asset:
        grid = asset["grid"]
        words.append("{1} x {0} px".format(*asset["shape"]))
        words.append(grid["crs"] if len(grid["crs"]) <= LONG else grid["crs_name"])
        words += [f"{metres(grid['gsd_m'])}"] if "gsd_m" in grid else []
    words += [asset["dtype"]] if asset.get("dtype") else []
    words += ["bands " + "; ".join(map(say_band, asset["bands"]))] if asset.get("bands") else []
    return ", ".join(words)


def _model(found: Mapping[str, Any]) -> Iterator[Row]:
    total = f", {found['parameters']:,} parameters in all" if found.get("parameters") else ""
    yield "network", f"{found['encoder']} + {found['head']}, task {found['task']}{total}"
    yield "members", f"{found['members']}{', one for each fold held out' if found['folds'] else ''}"
    sensors = found["sensors"]
    for one in sensors:
        dates = f", {one['frames']} dates" if one["frames"] > 1 else ""
        if dates or len(sensors) > 1:
            yield "sensor", f"{one['name']}{dates}"
        yield from say_bands(one["bands"])
    size = metres(found["gsd_m"]) if found["gsd_m"] else "no known size"
    yield "trained on", f"{found['dtype']} pixels of {size}"
    halo = "sees the whole window" if found["halo"] is None else f"halo {found['halo']} px"
    yield "windows", f"{found['window']} px, stride {found['stride']} px, {halo}"
    if found["tta"]:
        yield "answers", f"mean over turned images ({found['tta']})"
    yield from say_classes(found)
    for one in found["values"]:
        yield "value", f"{one['name']}{', ' + one['unit'] if one['unit'] else ''}"
    for i, best in enumerate(found["best"]):
        score = (
            f"validation score {best['watch']:.3f}"
            if best["watch"] is not None
            else "no validation"
        )
        yield ("" if i else "best"), f"member {best['member']}: {score} after epoch {best['epoch']}"
    for i, (key, entry) in enumerate(found.get("test", {}).get("metrics", {}).items()):
        side = found["test"]["scored"]["side"]
        yield ("" if i else side), f"{key:<12} {say(entry)}"
    device = found["device"]
    precision = f"precision {device['precision']}, torch {device['torch']}"
    yield "made on", f"{device['name']} ({device['kind']}), {precision}"


def _scores(found: Mapping[str, Any]) -> Iterator[Row]:
    scored = found["scored"]
    fold = ", out of fold" if scored.get("out_of_fold") else ""
    samples = f"{scored['n']} samples of {scored['truth']['name']}"
    yield "scored", f"{samples} on {len(scored['maps'])} map(s){fold}"
    left = [f"{n} {why}" for why, n in (scored.get("left_out") or {}).items() if n]
    if left:
        yield "left out", ", ".join(left)
    for i, (key, entry) in enumerate(found["metrics"].items()):
        yield ("" if i else "metrics"), f"{key:<12} {say(entry)}"
    wide = max(map(len, found["by_class"]))
    for i, (name, row) in enumerate(found["by_class"].items()):
        each = "  ".join(f"{k} {say(v)}" for k, v in row.items() if isinstance(v, Mapping))
        yield ("" if i else "classes"), f"{name:{wide}}  n={row['support']}  {each}"


def _any(found: Mapping[str, Any]) -> Iterator[Row]:
    """An artifact in one file, as what it opens as; any other member of one by its size."""
    if "bytes" in found:
        yield "size", f"{found['bytes']} bytes"
    for key, tell in (("items", _items), ("layers", say_vector), ("bands", say_raster)):
        if key in found:
            yield from tell(found)
            return


KINDS = {
    "scenes": _items,
    "items": _items,
    "tiles": say_tiles,
    "model": _model,
    "scores": _scores,
    "raster": say_raster,
    "vector": say_vector,
    "array": say_array,
}
