"""Draw embedded places, three principal components as colours: python picture.py EMBEDDINGS OUT."""

import sys

import geopandas
import matplotlib
import numpy as np
import pyarrow.parquet
from sklearn.decomposition import PCA

matplotlib.use("Agg")
from matplotlib import pyplot  # noqa: E402

path, out = sys.argv[1:]
places = geopandas.read_parquet(path, columns=["geometry"]).geometry
vectors = np.stack(pyarrow.parquet.read_table(path, columns=["embedding"])["embedding"].to_numpy())
vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
three = PCA(3, random_state=0).fit_transform(vectors)
low, high = np.percentile(three, [2, 98], axis=0)
figure, axes = pyplot.subplots(figsize=(16, 6.8), layout="constrained")
axes.scatter(places.x, places.y, s=2, c=np.clip((three - low) / (high - low), 0, 1), linewidths=0)
axes.set(xlim=(-180, 180), ylim=(-60, 80), aspect="equal", facecolor="black")
axes.set_title("Cities by GeoCLIP: like colours, like places", loc="left")
axes.set(xlabel="longitude", ylabel="latitude")
figure.savefig(out, dpi=100, metadata={"Software": None})
