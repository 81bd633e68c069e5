"""Polygons moved onto imagery: real drone images and footprints, displaced as footprints are in the field.

Offsets are those that Manzini et al. (2024) measured for buildings over drone imagery: a mean, a smooth part
and each building's own, with their circular variance and variation of length; the base level is scaled to
their overlap of .65. Everything was developed on seeds from 100 up, nearly all of it on the block NE; seeds
0 to 9 are reported. The images (hotosm/fAIr-utilities, RAMP sample 2) are not part of the project.
"""

import json
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import rasterio
import shapely
from affine import Affine

from bench.sets import DATA
from geoml_cli.core.edge_votes import edge_maps, sample_normals, vote
from geoml_cli.formats.raster import describe
from geoml_cli.formats.reduced import read_reduced
from geoml_cli.geo.grid import Window
from geoml_cli.geo.offsets import circular_variance, fit, iou, middles, variation
from geoml_cli.geo.overlaps import translate
from geoml_cli.stages.align_shapes import Source
from geoml_cli.stages.align_things import Polygons
from geoml_cli.stages.align_vectors import move

FOLDER = DATA / "g_aerial_buildings/fair_ramp_sample2"
BLOCKS = {"NE": (1238448, 1046528, 12, 8), "SW": (1238424, 1046544, 4, 4)}  # x, y, tiles wide, high
ZOOM, TILE = 21, 256
LEVELS = (15, 33, 82, 0)  # 15: scaled to IoU .65, else the mean offset in pixels
SEEDS = range(10)
OWN, MEAN, REACH, HUMAN = 0.35, 1.4, 0.30, 0.365
MAJOR_M = 6378137.0


def mosaic(name: str, folder: Path) -> str:
    """Put a block's tiles together as a COG."""
    x0, y0, wide, high = BLOCKS[name]
    image = np.zeros((3, high * TILE, wide * TILE), np.uint8)
    for x in range(wide):
        for y in range(high):
            with rasterio.open(FOLDER / f"OAM-{x0 + x}-{y0 + y}-{ZOOM}.png") as tile:
                image[:, y * TILE : (y + 1) * TILE, x * TILE : (x + 1) * TILE] = tile.read()[:3]
    pixel = 2 * np.pi * MAJOR_M / (2**ZOOM * TILE)
    west, north = x0 * TILE * pixel - np.pi * MAJOR_M, np.pi * MAJOR_M - y0 * TILE * pixel
    kind = {"driver": "COG", "count": 3, "dtype": "uint8", "crs": "EPSG:3857"}
    place = {"transform": Affine(pixel, 0, west, 0, -pixel, north)}
    path = str(folder / f"{name}.tif")
    with rasterio.open(path, "w", height=high * TILE, width=wide * TILE, **kind, **place) as out:
        out.write(image)
    return path


def footprints(name: str) -> np.ndarray:
    """Footprints (n,) in pixels: those of 900 px or more that lie on the block to 95 %."""
    x0, y0, wide, high = BLOCKS[name]
    world, box = 2**ZOOM * TILE, shapely.box(0, 0, wide * TILE, high * TILE)

    def pixels(lonlat: np.ndarray) -> np.ndarray:
        x = (lonlat[:, 0] + 180) / 360 * world - x0 * TILE
        north = np.arcsinh(np.tan(np.radians(lonlat[:, 1]))) / np.pi
        return np.stack([x, (1 - north) / 2 * world - y0 * TILE], 1)

    features = json.loads((FOLDER / "labels.geojson").read_text())["features"]
    every = [shapely.make_valid(shapely.geometry.shape(f["geometry"])) for f in features]
    every = [shapely.make_valid(shapely.transform(one, pixels)) for one in every]
    area = np.array([shapely.intersection(one, box).area for one in every])
    whole = shapely.area(every)
    return np.array(every, object)[(area >= 0.95 * whole) & (area >= 900)]


def displacements(shapes: np.ndarray, long: int, seed: int, level: int) -> np.ndarray:
    """Offsets (n, 2) px: s (mean + smooth sqrt(1 - OWN^2) + OWN own), s by the level."""
    if level == 0:
        return np.zeros((len(shapes), 2))
    rng, xy = np.random.default_rng(seed), middles(shapes)
    turn = rng.uniform(0, 2 * np.pi)
    apart = ((xy[:, None] - xy[None]) ** 2).sum(-1)
    alike = np.exp(-apart / 2 / (REACH * long) ** 2) + 1e-8 * np.eye(len(xy))
    smooth = np.linalg.cholesky(alike) @ rng.standard_normal((len(xy), 2))
    own = rng.standard_normal((len(xy), 2))
    mean = MEAN * np.array([np.cos(turn), np.sin(turn)])
    unit = mean + (smooth - smooth.mean(0)) * np.sqrt(1 - OWN**2) + OWN * own
    if level != LEVELS[0]:
        return unit * level / np.hypot(*unit.T).mean()
    low, high = 0.0, 60.0
    for _ in range(30):
        middle = (low + high) / 2
        more = iou(shapes, translate(shapes, middle * unit)).mean() > 0.65
        low, high = (middle, high) if more else (low, middle)
    return unit * low


def score(
    shapes: np.ndarray, moved: np.ndarray, shift: np.ndarray, needed: np.ndarray
) -> list[float]:
    """Error of shifts (mean, median, 90th percentile) px, IoU, and its share above .5 and .8."""
    error = np.hypot(*(shift - needed).T)
    over = iou(shapes, translate(moved, shift))
    spread = (error.mean(), np.median(error), np.quantile(error, 0.9))
    return [*spread, over.mean(), (over > 0.5).mean(), (over > 0.8).mean()]


def human(moved: np.ndarray, needed: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """What people do: true arrows for some buildings; every other takes that nearest to its corners."""
    rng = np.random.default_rng(1000 + seed)
    some = np.sort(rng.choice(len(moved), round(HUMAN * len(moved)), replace=False))
    starts = np.array([shapely.get_coordinates(one)[0] for one in moved[some]])
    far = shapely.distance(
        shapely.points(starts)[None], shapely.extract_unique_points(moved)[:, None]
    )
    far[some, np.arange(len(some))] = -1  # its own arrow begins at its own corner
    return needed[some][far.argmin(1)], np.stack([starts, starts + needed[some]], 1)


def by_votes(moved: np.ndarray, maps: np.ndarray, reach: float, long: int) -> dict[str, np.ndarray]:
    """The anchors from the image alone, on our edges: each on its own, all together, by neighbours."""
    things, radius = (
        Polygons(moved, np.arange(len(moved)), np.zeros(len(moved), bool)),
        int(reach / 2),
    )
    grids = []
    for i in range(len(moved)):
        points, normal, length = things.outline(i, 2)
        samples = sample_normals(points / 2 + PAD, normal, length)
        grids.append(vote(maps, samples, np.zeros(2, int), radius))
    votes = np.array(grids)
    ticks = (np.arange(2 * radius + 1) - radius) * 2.0

    def best(volume: np.ndarray) -> np.ndarray:
        row, col = np.unravel_index(volume.reshape(len(volume), -1).argmax(1), volume.shape[1:])
        return np.stack([ticks[col], ticks[row]], 1)

    xy = middles(moved)
    near = np.exp(-((xy[:, None] - xy[None]) ** 2).sum(-1) / 2 / (0.1 * long) ** 2)
    together = np.tensordot(near, votes, 1)
    found = {
        "(a) each by its own edges": best(votes),
        "(b) one vote of all": np.repeat(best(votes.sum(0)[None]), len(votes), 0),
        "(c) votes of neighbours": best(together),
    }
    from_x = np.exp(-((ticks - found["(c) votes of neighbours"][:, :1]) ** 2) / 128)
    from_y = np.exp(-((ticks - found["(c) votes of neighbours"][:, 1:]) ** 2) / 128)
    found["(d) = (c), then each within 8 px"] = best(votes * from_x[:, None] * from_y[:, :, None])
    return found


PAD = 140


def edges(path: str) -> np.ndarray:
    """Edges of a block at half its size, with nothing around it."""
    raster = describe(path)
    size = Window(-PAD, -PAD, raster.grid.height // 2 + 2 * PAD, raster.grid.width // 2 + 2 * PAD)
    with rasterio.open(path) as dataset:
        return edge_maps(*read_reduced(dataset, raster, size, 2))


def ours(
    path: str, moved: np.ndarray, arrows: np.ndarray, folder: Path
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Shifts, standard deviations and confidence of `geoml align`."""
    source = Source("footprints", moved, False, np.zeros(len(moved), bool))
    out, told, _ = move(source, describe(path), arrows, None, None, None, folder, lambda: None)
    return middles(out) - middles(moved), told["sd_px"], told["confidence"]


def block(name: str, folder: Path, seeds: range = SEEDS, levels: tuple[int, ...] = LEVELS) -> None:
    """Print the tables of one block."""
    path, shapes, long = mosaic(name, folder), footprints(name), max(BLOCKS[name][2:]) * TILE
    maps = edges(path)
    for level in levels:
        rows: dict[str, list[list[float]]] = {}
        sure, spent, told = [], 0.0, []
        for seed in seeds if level else seeds[:1]:
            needed = -displacements(shapes, long, seed, level)
            moved = translate(shapes, -needed)
            told.append(
                (circular_variance(needed), variation(np.hypot(*needed.T))) if level else (0, 0)
            )

            def note(key: str, shift: np.ndarray, n=needed, m=moved, r=rows) -> None:  # type: ignore[no-untyped-def]
                r.setdefault(key, []).append(score(shapes, m, shift, n))

            note("identity", np.zeros_like(needed))
            if level:
                for key, degree in (("global", 0), ("affine", 1), ("quadratic", 2)):
                    note(f"oracle: {key}", fit(middles(moved), needed, degree))
                by_people, arrows = human(moved, needed, seed)
                note("people: nearest of 36.5 % true arrows", by_people)
                for key, shift in by_votes(moved, maps, 3 * level, long).items():
                    note(key, shift)
            began = time.process_time()
            shift, sd, confidence = ours(path, moved, np.zeros((0, 2, 2)), folder)
            spent += time.process_time() - began
            note("geoml align", shift)
            error = np.hypot(*(shift - needed).T)
            close = error <= np.maximum(0.1 * np.sqrt(shapely.area(shapes)), 1)
            sure.append(np.stack([confidence, close, error / sd / np.sqrt(2)], 1))
            if level:
                note("geoml align, told the same arrows", ours(path, moved, arrows, folder)[0])
        variance, length = np.mean(told, axis=0)
        print(
            f"\n{name}, {len(shapes)} buildings, {level or 'no'} px; circular variance {variance:.2f}, variation of length {length:.2f}"
        )
        print("| | mean px | median | 90 % | IoU | > .5 | > .8 |\n|---|---|---|---|---|---|---|")
        for key, values in rows.items():
            m = np.mean(values, axis=0)
            print(
                f"| {key} | {m[0]:.1f} | {m[1]:.1f} | {m[2]:.1f} | {m[3]:.3f} | {m[4]:.2f} | {m[5]:.2f} |"
            )
        say_sure(np.concatenate(sure))
        print(f"{spent / len(told):.1f} s of CPU a run", flush=True)


def say_sure(sure: np.ndarray) -> None:
    """Hold confidence against how often shapes are right to within a tenth of their size."""
    edges_at = (0, 0.2, 0.5, 0.8, 0.95, 1.01)
    cells = []
    for low, high in zip(edges_at[:-1], edges_at[1:], strict=True):
        some = sure[(sure[:, 0] >= low) & (sure[:, 0] < high)]
        if len(some):
            cells.append(f"said {some[:, 0].mean():.2f} is {some[:, 1].mean():.2f} (n {len(some)})")
    print("confidence: " + ", ".join(cells))


def main() -> None:
    """Print the tables of both blocks."""
    if not FOLDER.is_dir():
        print(f"skipped: no {FOLDER}; GEOML_DATA names the folder of real sets", file=sys.stderr)
        return
    with TemporaryDirectory() as folder:
        for name in BLOCKS:
            block(name, Path(folder))


if __name__ == "__main__":
    main()
