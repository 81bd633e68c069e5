"""Write the five most alike places beyond 1,000 km of each query: python alike.py FOUND QUERIES OUT."""

import sys

import geopandas
from pyproj import Geod

FAR_M, EACH = 1_000_000, 5
found, queries, out = sys.argv[1:]
table = geopandas.read_parquet(found)
asked = geopandas.read_parquet(queries).set_index("id")
at = asked.loc[table["query"]]
xy = [at.geometry.x, at.geometry.y, table.geometry.x, table.geometry.y]
_, _, away_m = Geod(ellps="WGS84").inv(*(one.to_numpy() for one in xy))
table["km"] = (away_m / 1000).round()
table.insert(0, "of", at["name"].to_numpy())
kept = table[away_m > FAR_M].groupby("query", sort=False).head(EACH)
kept[["of", "name", "country", "similarity", "km"]].to_csv(out, index=False, float_format="%.4f")
