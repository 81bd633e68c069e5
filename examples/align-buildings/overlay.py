"""Draw footprints over the ortho, before (orange) and after (cyan) they were aligned."""

import sys

import geopandas
import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import rasterio
from rasterio.plot import plotting_extent


def main(ortho: str, before: str, after: str, out: str) -> None:
    """Two pictures side by side."""
    with rasterio.open(ortho) as dataset:
        image, extent = np.moveaxis(dataset.read([1, 2, 3]), 0, -1), plotting_extent(dataset)
        crs = dataset.crs
    figure, axes = plt.subplots(1, 2, figsize=(18, 7), layout="constrained")
    shown = ((before, "drawn", "orange"), (after, "aligned", "cyan"))
    for panel, (path, title, color) in zip(axes, shown, strict=True):
        read = geopandas.read_parquet if path.endswith(".parquet") else geopandas.read_file
        panel.imshow(image, extent=extent)
        read(path).to_crs(crs).boundary.plot(ax=panel, color=color, linewidth=1)
        panel.set(title=title, xticks=[], yticks=[])
    figure.savefig(out, dpi=90, metadata={"Software": None})


if __name__ == "__main__":
    main(*sys.argv[1:])
