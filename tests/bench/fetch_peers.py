"""Other ways to read windows of many scenes: python fetch_peers.py WAY ITEMS COL ROW WIDTH HEIGHT SUMS.

Writes the sum of each window, scene by scene and band by band, to the file SUMS.
"""

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from rasterio.windows import Window

KEYS = ("blue", "green", "red", "nir")
JOBS = 16
GDAL = {"GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR", "VSI_CACHE": False}


def loop(items: list[dict[str, Any]], window: Window, folder: Path | None) -> list[int]:
    """One window after the other; into GeoTIFFs in `folder`, tiled and compressed, if there is one."""
    cube = np.zeros((len(items), len(KEYS), window.height, window.width), "uint16")
    with rasterio.Env(**GDAL):
        for n, item in enumerate(items):
            for k, key in enumerate(KEYS):
                with rasterio.open(item["assets"][key]["href"]) as dataset:
                    cube[n, k] = dataset.read(1, window=window)
                    place = dataset.window_transform(window)
                    kept = {"crs": dataset.crs, "transform": place, "nodata": dataset.nodata}
                if folder:
                    with rasterio.open(
                        folder / f"{n}-{key}.tif", "w", driver="GTiff", count=1, dtype="uint16",
                        height=window.height, width=window.width, compress="deflate", predictor=2,
                        tiled=True, blockxsize=512, blockysize=512, **kept,
                    ) as out:  # fmt: skip
                        out.write(cube[n, k], 1)
    return [int(band.sum(dtype="int64")) for scene in cube for band in scene]


def odc(items: list[dict[str, Any]], window: Window, chunks: bool) -> list[int]:
    """odc.stac.load into memory."""
    import odc.stac
    import pystac
    from affine import Affine
    from odc.geo.geobox import GeoBox

    place = Affine(10, 0, 5e5, 0, -10, 5e6) @ Affine.translation(window.col_off, window.row_off)
    box = GeoBox((window.height, window.width), place, "EPSG:32633")
    odc.stac.configure_rio(cloud_defaults=True)
    found = [pystac.Item.from_dict(item) for item in items]
    how: dict[str, Any] = {"bands": list(KEYS), "geobox": box, "groupby": "id"}
    if chunks:
        import dask

        cube = odc.stac.load(found, **how, chunks={})
        with dask.config.set(scheduler="threads", num_workers=JOBS):
            cube = cube.compute()
    else:
        cube = odc.stac.load(found, **how, pool=JOBS)
    cube = cube.sortby("time")
    sums = [cube[key].values.sum(axis=(1, 2), dtype="int64") for key in KEYS]
    return [int(v) for v in np.stack(sums, axis=1).ravel()]


def stack(items: list[dict[str, Any]], window: Window) -> list[int]:
    """stackstac into memory."""
    import dask
    import pandas
    import stackstac

    # stackstac 0.5.0 passes a word that pandas 3 has dropped and pandas 2 does not heed
    plain = pandas.to_datetime
    pandas.to_datetime = lambda *a, infer_datetime_format=None, **more: plain(*a, **more)
    left, top = 5e5 + 10 * window.col_off, 5e6 - 10 * window.row_off
    bounds = (left, top - 10 * window.height, left + 10 * window.width, top)
    cube = stackstac.stack(
        items, assets=list(KEYS), epsg=32633, resolution=10, bounds=bounds, snap_bounds=False,
        dtype=np.dtype("uint16"), fill_value=np.uint16(0), rescale=False, xy_coords=False,
    )  # fmt: skip
    with dask.config.set(scheduler="threads", num_workers=JOBS):
        values = cube.compute().values
    return [int(v) for v in values.sum(axis=(2, 3), dtype="int64").ravel()]


def main(way: str, catalog: str, where: list[int], sums: str) -> None:
    """Go one way."""
    items = json.loads(Path(catalog).read_text())["features"]
    window = Window(*where)
    with tempfile.TemporaryDirectory(dir=Path(sums).parent) as name:
        ways = {
            "loop": lambda: loop(items, window, None),
            "loop-tif": lambda: loop(items, window, Path(name)),
            "odc": lambda: odc(items, window, False),
            "odc-dask": lambda: odc(items, window, True),
            "stackstac": lambda: stack(items, window),
        }
        Path(sums).write_text(json.dumps(ways[way]()))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], list(map(int, sys.argv[3:7])), sys.argv[7])
