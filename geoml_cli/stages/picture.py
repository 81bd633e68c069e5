"""A picture of an artifact as a PNG: maps with legend and scale, contact sheets of tiles, curves of models."""

import io
import json
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pyproj import CRS
from rasterio.enums import Resampling

from geoml_cli.errors import GeomlError, UsageMistake
from geoml_cli.formats.commit import whole_file
from geoml_cli.formats.embeddings import is_embeddings
from geoml_cli.formats.items import read_items
from geoml_cli.formats.remote import is_remote
from geoml_cli.formats.stamp import read_record, stamp_in
from geoml_cli.stages import foreign
from geoml_cli.stages.any_raster import classes_in, grid_of, looked_at
from geoml_cli.stages.dense_files import is_dense
from geoml_cli.stages.sheets import COLORS, curves, limits, stretched

SIDE_PX = 1000  # of a map, at most
HUGE = 1e300  # values that nobody measures, and no picture can be made of
PANELS = 9  # maps of a folder, at most
MARK = b"geoml\0picture"  # a PNG text that says that it may be replaced
LENGTHS_M = [d * 10**e for e in range(7) for d in (1, 2, 5)]


def draw(path: str, out: str, force: bool = False) -> None:
    """Write a picture of what `path` is to the PNG `out`; equal content gives equal bytes."""
    if not out.lower().endswith(".png"):
        raise UsageMistake(f"--picture {out}: a picture is a PNG; name it map.png")
    if Path(out).exists() and not force and not _ours(out):
        raise GeomlError(
            f"{out}: exists and is no picture of geoml's; name another, or --force replaces it"
        )
    figure = figure_of(path)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    with whole_file(out) as temporary:
        temporary.write_bytes(_marked(buffer.getvalue()))


def _ours(path: str) -> bool:
    with open(path, "rb") as file:
        return MARK in file.read(200)


def _marked(png: bytes) -> bytes:
    """A PNG with our mark as a text chunk after its header."""
    body = b"tEXt" + MARK
    return (
        png[:33]
        + struct.pack(">I", len(MARK))
        + body
        + struct.pack(">I", zlib.crc32(body))
        + png[33:]
    )


def figure_of(path: str) -> Any:
    """A matplotlib Figure of an artifact or raster."""
    record = None if is_remote(path) else read_record(path)
    kind = record["kind"] if record else None
    stamp = stamp_in(path)
    if kind == "tiles":
        from geoml_cli.stages.split_picture import tiles_figure

        return tiles_figure(str(path))
    if is_embeddings(path):
        from geoml_cli.stages.embedding_picture import rows_figure

        return rows_figure(path)
    if kind == "model" and stamp:
        text = (stamp.parent / "history.jsonl").read_text(encoding="utf-8")
        return curves([json.loads(line) for line in text.splitlines()])
    if stamp and stamp.name == "items.json":
        return maps([(item["id"], *_chosen(item)) for item in read_items(stamp)])
    if kind == "scores":
        raise GeomlError(
            f"{path}: scores have a page, not a picture: geoml evaluate --report FILE.html"
        )
    if not is_remote(path) and foreign.portrait(path)["kind"] != "raster":
        raise GeomlError(f"{path}: a picture is made of rasters, scenes, maps, tiles and models")
    return maps([(Path(path).name, [path])])


def _chosen(item: dict[str, Any]) -> tuple[list[str]]:
    """The rasters of an item that make one picture: those that are red, green and blue, or the first."""
    rasters = {k: a for k, a in sorted(item["assets"].items()) if "tiff" in a.get("type", "tiff")}
    if not rasters:
        raise GeomlError(f"item {item['id']}: has no rasters")

    def color(key: str, asset: dict[str, Any]) -> set[str]:
        bands = asset.get("bands") or asset.get("eo:bands") or []
        said = {str(b.get("eo:common_name") or b.get("common_name")) for b in bands}
        return (said | {key}) & set(COLORS) if len(bands) <= 1 else set()

    found = {name: a["href"] for k, a in rasters.items() for name in color(k, a)}
    if len(found) == 3:
        return ([found[name] for name in COLORS],)
    return ([next(iter(rasters.values()))["href"]],)


def maps(named: Sequence[tuple[str, list[str]]]) -> Any:
    """One panel a map; a legend where they are of classes."""
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    shown = named[:PANELS]
    wide = min(3, len(shown))
    high = -(-len(shown) // wide)
    figure = Figure(
        figsize=(1 + 7 * wide / min(wide, 2), 6.5 * high / min(wide, 2)),
        dpi=110,
        layout="constrained",
    )
    legend: dict[str, str] = {}
    for axes in figure.subplots(high, wide, squeeze=False).ravel():
        axes.axis("off")
    for axes, (name, paths) in zip(figure.axes, shown, strict=False):
        image, classes, grid = render(paths)
        legend |= {c["name"]: c["color"] for c in classes}
        drawn = axes.imshow(image, aspect=_aspect(grid, image.shape), interpolation="nearest")
        if image.ndim == 2:
            drawn.set(cmap="viridis", clim=limits(np.ma.compressed(image)))
            figure.colorbar(drawn, ax=axes, shrink=0.7, extend="both", label=grid["band"])
        axes.set_title(name, fontsize=10)
        _scale_bar(axes, grid, image.shape)
    if legend:
        patches = [
            Patch(facecolor=color, edgecolor="#444", label=name) for name, color in legend.items()
        ]
        figure.legend(
            handles=patches,
            loc="outside lower center",
            ncols=min(6, len(patches)),
            fontsize=9,
            frameon=False,
        )
    if len(named) > len(shown):
        figure.suptitle(f"{len(shown)} of {len(named)}", fontsize=9)
    return figure


def render(paths: Sequence[str]) -> tuple[np.ndarray, list[dict[str, Any]], dict[str, Any]]:
    """Image (h, w, 4) uint8 of a raster, or of three of one band each; its classes; where it lies.

    Of a raster of one band of floats the image is its values (h, w) in their unit, masked where there are none.
    """
    values, valid, classes, grid = [], [], [], {}
    for path in paths:
        with looked_at(path) as dataset:
            if not dataset.count:
                raise GeomlError(f"{path}: holds several rasters; name one of them")
            step = max(1, -(-max(dataset.shape) // SIDE_PX))
            shape = -(-dataset.height // step), -(-dataset.width // step)
            classes = classes_in(dataset)
            grid = grid_of(dataset) | {"shape": dataset.shape}
            measured = (
                len(paths) == 1 and dataset.count == 1 and dataset.dtypes[0].startswith("float")
            )
            if measured:
                grid["band"] = _label(dataset)
                scale, offset = dataset.scales[0], dataset.offsets[0]
            if len(paths) == 1 and is_dense(path):
                from geoml_cli.stages.embedding_picture import colored

                every = dataset.read(out_shape=(dataset.count, *shape), masked=True)
                filled = every.filled(0)
                seen = ~np.ma.getmaskarray(every).any(axis=0) & np.isfinite(filled).all(axis=0)
                return colored(np.where(seen, filled, 0), seen), [], grid
            bands = _color_bands(dataset) if len(paths) == 1 else [1]
            how = Resampling.nearest if classes else Resampling.average
            values += list(dataset.read(bands, out_shape=(len(bands), *shape), resampling=how))
            valid.append(
                (dataset.read_masks(bands, out_shape=(len(bands), *shape)) > 0).all(axis=0)
            )
    if len({v.shape for v in values}) > 1:  # bands of several resolutions: the first one's pixels
        values, valid = values[:1], valid[:1]
    seen = np.logical_and.reduce(valid)
    if classes:
        image = np.zeros((*seen.shape, 4), np.uint8)
        for one in classes:
            image[seen & (values[0] == one["id"])] = (*bytes.fromhex(one["color"][1:]), 255)
        return image, classes, grid
    if measured:
        told = values[0].astype(np.float64) * scale + offset
        return np.ma.masked_where(~seen | ~(np.abs(told) < HUGE), told), [], grid
    return stretched(np.stack(values), seen), [], grid


def _label(dataset: Any) -> str:
    """What the first band is and in which unit, as far as it says."""
    name, unit = dataset.descriptions[0] or "", dataset.units[0] or ""
    return f"{name} ({unit})" if name and unit else name or unit


def _color_bands(dataset: Any) -> list[int]:
    """GDAL numbers of the bands to show: red, green and blue by name, else the first three, else one."""
    names = [(d or "").lower() for d in dataset.descriptions]
    words = [c.name for c in dataset.colorinterp]
    for known in (names, words):
        if all(color in known for color in COLORS):
            return [known.index(color) + 1 for color in COLORS]
    data = [i + 1 for i, word in enumerate(words) if word != "alpha"]
    return data[:3] if len(data) >= 3 else data[:1]


def _aspect(grid: dict[str, Any], shape: tuple[int, ...]) -> float:
    """How much taller than wide a pixel of the picture is on the ground."""
    if not grid.get("crs"):
        return 1.0
    (across, down), (height, width) = grid["pixel"], grid["shape"]
    return float(down * height / shape[0] / (across * _narrowing(grid) * width / shape[1]))


def _narrowing(grid: dict[str, Any]) -> float:
    """How much shorter a step east is than one north of the same number."""
    if not CRS.from_user_input(grid["crs"]).is_geographic or "lonlat" not in grid:
        return 1.0
    return float(max(0.05, np.cos(np.radians((grid["lonlat"][1] + grid["lonlat"][3]) / 2))))


def _scale_bar(axes: Any, grid: dict[str, Any], shape: tuple[int, ...]) -> None:
    """A bar of a round length, about a quarter of the width."""
    if "gsd_m" not in grid or not grid["gsd_m"]:
        return
    narrow = _narrowing(grid)  # gsd_m is the mean of both axes
    across, down = grid["pixel"][0] * narrow, grid["pixel"][1]
    across = grid["shape"][1] * grid["gsd_m"] * 2 * across / (across + down)  # metres
    length = max((m for m in LENGTHS_M if m <= across / 3), default=None)
    if length is None:
        return
    text = f"{length // 1000} km" if length >= 1000 else f"{length} m"
    x, y = shape[1] * 0.03, shape[0] * 0.97
    for color, thick in (("white", 5), ("black", 2.5)):
        axes.plot(
            [x, x + shape[1] * length / across],
            [y, y],
            color=color,
            linewidth=thick,
            solid_capstyle="butt",
        )
    box = {"facecolor": "white", "alpha": 0.8, "edgecolor": "none", "pad": 1.5}
    axes.text(x, y - shape[0] * 0.02, text, fontsize=8, va="bottom", bbox=box)
