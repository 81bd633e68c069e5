"""What a run of `predict` writes of each map: layouts of its COGs, and their STAC Items."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from geoml_cli.core.aim import Aim
from geoml_cli.core.infer import SCALE, Answers
from geoml_cli.formats import items as stac
from geoml_cli.formats.bands import Band
from geoml_cli.formats.cog import Layout
from geoml_cli.formats.raster import describe
from geoml_cli.geo.classes import IGNORE, Class
from geoml_cli.geo.grid import Grid
from geoml_cli.stages.making import MAP, stem
from geoml_cli.stages.models import Opened

CLASSIFICATION = "https://stac-extensions.github.io/classification/v2.0.0/schema.json"


@dataclass(frozen=True)
class Made:
    """A map that is made: its file name without suffix, its Item's id and time."""

    name: str
    id: str
    times: Mapping[str, Any]


def layouts_of(
    grid: Grid, answers: Answers, opened: Opened, tags: Mapping[str, str]
) -> dict[str, Layout]:
    """The COG of each asset: the map, then what was asked for beside it."""
    aim = answers.aim
    units = {one["name"]: one.get("unit") for one in opened.head["values"]}
    found = {}
    if aim.kind == "classes":
        classes = opened.model.classes
        names = {f"CLASS_{c.id}": c.name for c in classes}
        found[MAP] = Layout(
            grid,
            (Band("class", nodata=IGNORE),),
            "uint8",
            categorical=True,
            colors={c.id: c.rgb for c in classes},
            tags={**names, **tags},
        )
    elif aim.kind == "present":
        bands = tuple(Band(name, nodata=IGNORE) for name in aim.names)
        found[MAP] = Layout(grid, bands, "uint8", categorical=True, tags=tags)
    else:
        nan = float("nan")
        bands = tuple(Band(name, unit=units.get(name), nodata=nan) for name in aim.names)
        found[MAP] = Layout(grid, bands, "float32", tags=tags)
    if aim.fills:
        bands = tuple(Band(name, nodata=IGNORE) for name in dates_of(opened.head["sensors"]))
        found["filled"] = Layout(grid, bands, "uint8", categorical=True, tags=tags)
    if answers.probabilities:
        found["probabilities"] = _shares(grid, [f"p_{name}" for name in aim.names], tags)
    if answers.uncertainty and aim.kind == "values":
        names_of = [(f"{name}_std", units.get(name)) for name in aim.names]
        bands = tuple(Band(name, unit=unit, nodata=float("nan")) for name, unit in names_of)
        found["uncertainty"] = Layout(grid, bands, "float32", tags=tags)
    elif answers.uncertainty:
        found["uncertainty"] = _shares(grid, doubts(aim), tags)
    return found


def dates_of(sensors: Sequence[Mapping[str, Any]]) -> list[str]:
    """Names of the bands that say where a date of a sensor is filled: `filled`, or with sensor and date."""
    many = sum(one["frames"] for one in sensors) > 1
    return [
        f"filled-{one['name']}-{t + 1}" if many else "filled"
        for one in sensors
        for t in range(one["frames"])
    ]


def doubts(aim: Aim) -> list[str]:
    """Names of the bands of uncertainty: entropy (0 sure, 1 no idea) and how far votes lie apart."""
    if aim.kind == "classes":
        return ["entropy", "std"]
    return [f"{name}_entropy" for name in aim.names] + [f"{name}_std" for name in aim.names]


def _shares(grid: Grid, names: Sequence[str], tags: Mapping[str, str]) -> Layout:
    """Shares 0..1 as bytes: value * 0.004."""
    bands = tuple(Band(name, scale=1 / SCALE, nodata=IGNORE) for name in names)
    return Layout(grid, bands, "uint8", tags=tags)


def describe_maps(
    folder: Path, made: Sequence[Made], assets: Sequence[str], classes: Sequence[Class]
) -> list[dict[str, Any]]:
    """STAC Items of maps that lie in a folder."""
    features = []
    for one in made:
        times = dict(one.times)
        item = stac.item_of(one.id, times.pop("datetime"), times)
        for asset in assets:
            more: dict[str, Any] = {}
            if asset == MAP and classes:
                item["stac_extensions"].append(CLASSIFICATION)
                more["classification:classes"] = [
                    {"value": c.id, "name": c.name, "color_hint": c.color[1:].upper()}
                    for c in classes
                ]
            raster = describe(str(folder / f"{stem(one.name, asset)}.tif"), picture=True)
            stac.add_raster(item, asset, raster, folder, **more)
        features.append(item)
    return features
