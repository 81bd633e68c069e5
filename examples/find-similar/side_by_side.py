"""Draw a tile and those found for it: side_by_side.py SCENE EMBEDDINGS FOUND PICTURE."""

import sys

import geopandas
import numpy as np
import rasterio
from matplotlib.figure import Figure
from rasterio.windows import from_bounds

scene, embeddings, found, picture = sys.argv[1:]
rows = geopandas.read_parquet(found)
tiles = geopandas.read_parquet(embeddings, columns=["id", "geometry"])
first = tiles[tiles["id"] == rows["query"][0]]
shown = [(f"{rows['query'][0]} (asked)", first.geometry.iloc[0])]
shown += [
    (f"{row.rank}. {row.id}  {row.similarity:.3f}", row.geometry) for row in rows.itertuples()
]

figure = Figure(figsize=(12, 6.6), dpi=100, layout="constrained")
with rasterio.open(scene) as data:
    low, high = np.percentile(data.read([4, 3, 2]), (2, 98), axis=(1, 2))
    shapes = geopandas.GeoSeries([shape for _, shape in shown], crs=tiles.crs).to_crs(data.crs)
    for i, ((name, _), shape) in enumerate(zip(shown, shapes, strict=True)):
        window = from_bounds(*shape.bounds, data.transform).round()
        image = np.moveaxis(data.read([4, 3, 2], window=window, boundless=True), 0, -1)
        axes = figure.add_subplot(3, 4, i + 1)
        axes.imshow(np.clip((image - low) / (high - low), 0, 1))
        axes.set_title(name, fontsize=9, weight="bold" if i == 0 else None)
        axes.axis("off")
figure.savefig(picture, metadata={"Software": None})
