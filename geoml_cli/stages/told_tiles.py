"""A tile set in lines for people."""

from collections.abc import Iterator, Mapping
from typing import Any

from geoml_cli.stages.told_files import MOST, Row, metres, say_bands, say_classes

DAY = 10  # letters of a date


def say_tiles(found: Mapping[str, Any]) -> Iterator[Row]:
    """Size, sensors, split, labels by side, statistics, scenes."""
    size, form = found["size"], "" if found["format"] == "npy" else f", {found['format']}"
    yield "tiles", f"{found['count']} of {size} x {size} px, {found['stride']} px apart{form}"
    for sensor in found["sensors"]:
        yield from _sensor(sensor, alone=len(found["sensors"]) == 1)
    if found["dates"]:
        yield "dates", " to ".join(dict.fromkeys(d[:DAY] for d in found["dates"]))
    if "split" in found:
        yield from _split(found["split"], found["folds"])
    for layer in found["layers"]:
        yield from _layer(layer, found)
    for name, said in found.get("statistics", {}).items():
        yield from _statistics(name, said, found)
    for i, scene in enumerate(found["scenes"][:MOST]):
        height, width = scene["shape"]
        when, crs = scene["datetime"] or "undated", scene["grid"].get("crs_name", "no CRS")
        text = f"{scene['id']}  {when}, {width} x {height} px, {crs}"
        text += f", {scene['sensor']}" if len(found["sensors"]) > 1 and "sensor" in scene else ""
        yield ("" if i else "scenes"), text
    if len(found["scenes"]) > MOST:
        yield "", f"... and {len(found['scenes']) - MOST} more; --json lists them all"


def _sensor(sensor: Mapping[str, Any], alone: bool) -> Iterator[Row]:
    words = [sensor["dtype"]]
    if sensor["valid"] is not None:
        words.append(f"{100 * sensor['valid']:.1f} % of pixels valid")
    if sensor["gsd_m"]:  # pictures that lie nowhere have none
        words.append(f"{metres(sensor['gsd_m'])} on the ground")
    if sensor["frames"] > 1:
        words.append(f"{sensor['frames']} dates a tile")
    yield "values" if alone else sensor["name"], ", ".join(words)
    yield from say_bands(sensor["bands"])


def _split(split: Mapping[str, Any], folds: int) -> Iterator[Row]:
    sides = f"{folds} folds" if folds else ", ".join(split["folds"])
    how = {
        "blocks": lambda: "{} x {} blocks of ground".format(*split["blocks"]),
        "cells": lambda: f"cells of {split['size_m']:.4g} m on the globe",
        "regions": lambda: f"{split['shapes']} shapes",
        "random": lambda: "whole tiles at random",
    }[split["kind"]]()
    buffer = f"; buffer {split['buffer']:.4g} {split['unit']}" if split["buffer"] else ""
    yield "split", f"{how} into {sides}{buffer}"
    if "tiles" in split:
        counts = ", ".join(f"{n} {name}" for name, n in split["tiles"].items() if n)
        yield "", f"tiles: {counts}"
    if split.get("distance"):
        least, median = split["distance"]["min_m"], split["distance"]["median_m"]
        yield (
            "",
            f"test tile to nearest train tile: {_length(least)} at least, median {_length(median)}",
        )
    if split["buffer"]:
        yield "", "of tiles that meet, the pixels within the buffer do not train"
    elif split.get("touching"):
        yield "", f"{100 * split['touching']:.0f} % of test tiles touch ground of train tiles"


def _length(length_m: float) -> str:
    return f"{length_m / 1000:.4g} km" if length_m >= 10_000 else f"{length_m:.4g} m"


def _layer(layer: Mapping[str, Any], found: Mapping[str, Any]) -> Iterator[Row]:
    pixels = layer["per"] == "pixel"
    what = "one a pixel" if pixels else f"one a tile ({layer['per']})"
    if len(found["layers"]) > 1 or not pixels or layer["kind"] == "values":
        unit = f" in {layer['unit']}" if layer.get("unit") else ""
        amount = f"{layer['labelled']} {'px' if pixels else 'tiles'} labelled"
        yield "labels", f"{layer['name']}: {layer['kind']}{unit}, {what}; {amount}"
    if layer["kind"] == "values":
        by_fold = layer.get("labelled_by_fold", {})
        if by_fold:
            yield "", ", ".join(f"{name} {n}" for name, n in by_fold.items())
        return
    yield from say_classes(layer, "px" if pixels else "tiles")
    if len(layer["classes"]) and "count_by_fold" in layer["classes"][0]:
        yield from _shares(layer["classes"])
    if pixels and found["stride"] < found["size"]:
        yield "", "a pixel counts once in every tile that shows it"


def _shares(classes: list[Mapping[str, Any]]) -> Iterator[Row]:
    """What part of each side is of each class: columns as those of the counts."""
    folds = list(classes[0]["count_by_fold"])
    wide = max(len(c["name"]) for c in classes)
    totals = {f: sum(c["count_by_fold"][f] for c in classes) or 1 for f in folds}
    whole = sum(c["count"] for c in classes) or 1
    for i, one in enumerate(classes):
        text = f"{'':>3} {one['name']:{wide}}  {'':7}{_percent(one['count'] / whole):>14}"
        text += "".join(_percent(one["count_by_fold"][f] / totals[f]).rjust(11) for f in folds)
        yield ("" if i else "shares"), text


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _statistics(name: str, said: Mapping[str, Any], found: Mapping[str, Any]) -> Iterator[Row]:
    """Mean and deviation of each band over the ground that trains, of the first member."""
    part = said["parts"][0]
    bands = next(s["bands"] for s in found["sensors"] if s["name"] == name)
    label = "training" if len(found["sensors"]) == 1 else f"training {name}"
    for i, band in enumerate(bands[:MOST]):
        text = f"{band['name']}: mean {part['mean'][i]:.5g}, deviation {part['std'][i]:.5g}"
        if "percentiles" in said:
            low, high = (said["percentiles"][p][i] for p in ("2", "98"))
            text += f", 2 to 98 % {low:.5g} to {high:.5g}"
        yield ("" if i else label), text
    if len(said["parts"]) > 1:
        yield "", f"of member 0; --json has all {len(said['parts'])}"
