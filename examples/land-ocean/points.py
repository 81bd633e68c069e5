"""Draw places anywhere on the sphere, and say of each whether it is land or ocean."""

import sys
from pathlib import Path

import geopandas
import numpy as np
import pyogrio

# 110 m countries of Natural Earth, which are in the public domain, as pyogrio's package carries them
COUNTRIES = "tests/fixtures/naturalearth_lowres/naturalearth_lowres.shp"
COUNT = 5000

land = geopandas.read_file(Path(pyogrio.__file__).parent / COUNTRIES).union_all()
x, y, z = np.random.default_rng(0).normal(size=(3, COUNT))
lon, lat = np.degrees([np.arctan2(y, x), np.arctan2(z, np.hypot(x, y))])
places = geopandas.GeoSeries(geopandas.points_from_xy(lon, lat), crs="OGC:CRS84")
kind = np.where(places.intersects(land), "land", "ocean")
table = geopandas.GeoDataFrame({"kind": kind}, geometry=places)
table.to_parquet(sys.argv[1])
