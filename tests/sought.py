"""Items all over the world, and which of them are looked for: told by other means than the program's."""

import random
from datetime import datetime
from typing import Any

import shapely
from shapely.affinity import translate

CLOUDS = (None, 0, 4.5, 5, 19.99, 20, 33, 100)


def items(count: int = 300, seed: int = 7) -> list[dict[str, Any]]:
    """Scenes of collections alpha and beta; every fifth crosses the antimeridian, drawn in three ways."""
    rng = random.Random(seed)
    return [_item(i, rng) for i in range(count)]


def _item(i: int, rng: random.Random) -> dict[str, Any]:
    west, south = rng.uniform(-179, 177), rng.uniform(-60, 58)
    if i % 5 == 0:
        west = rng.uniform(178.6, 179.6)
    box = shapely.box(west, south, west + 1.5, south + 1.2)
    said: dict[str, Any] = {"platform": rng.choice(["one", "two"]), "gsd": rng.choice([10, 30])}
    cloud = rng.choice(CLOUDS)
    said |= {} if cloud is None else {"eo:cloud_cover": cloud}
    day = f"2023-{rng.randint(1, 12):02}-{rng.randint(1, 28):02}T{rng.randint(0, 23):02}:10:00Z"
    said["datetime"] = day
    if i % 11 == 0:
        said |= {"start_datetime": day, "end_datetime": "2023-12-30T00:00:00Z"}
    shape, bounds = _drawn(box, i)
    return {
        "type": "Feature",
        "stac_version": "1.0.0",
        "stac_extensions": [],
        "id": f"s{i:03}",
        "collection": rng.choice(["alpha", "beta"]),
        "geometry": shapely.geometry.mapping(shape),
        "bbox": bounds,
        "properties": said,
        "links": [],
        "assets": {"red": {"href": "https://example.org/red.tif", "type": "image/tiff"}},
    }


def _drawn(box: shapely.Polygon, i: int) -> tuple[shapely.Geometry, list[float]]:
    """An outline as RFC 7946 wants it, or to beyond 180 degrees, or round the world."""
    west, south, east, north = box.bounds
    if east <= 180:
        return box, list(box.bounds)
    bounds = [west, south, east - 360, north]
    if i % 3 == 0:
        halves = [shapely.box(west, south, 180, north), shapely.box(-180, south, east - 360, north)]
        return shapely.MultiPolygon(halves), bounds
    if i % 3 == 1:
        return box, list(box.bounds)
    ring = [(x if x <= 180 else x - 360, y) for x, y in box.exterior.coords]
    return shapely.Polygon(ring), bounds


def expected(
    found: list[dict[str, Any]],
    area: shapely.Geometry | None = None,
    times: tuple[str, str] | None = None,
    collections: tuple[str, ...] = (),
    ids: tuple[str, ...] = (),
    max_cloud: float | None = None,
    gsd: int | None = None,
) -> list[str]:
    """Ids of the items looked for; `area` may run beyond 180 degrees."""
    return sorted(
        item["id"]
        for item in found
        if (not collections or item["collection"] in collections)
        and (not ids or item["id"] in ids)
        and (gsd is None or item["properties"]["gsd"] == gsd)
        and (max_cloud is None or item["properties"].get("eo:cloud_cover", 101) <= max_cloud)
        and (area is None or _meet(area, item))
        and (times is None or _during(times, item["properties"]))
    )


def _meet(area: shapely.Geometry, item: dict[str, Any]) -> bool:
    west, south, *_ = item["bbox"]
    ground = shapely.box(west, south, west + 1.5, south + 1.2)
    return any(area.intersects(translate(ground, turn)) for turn in (-360, 0, 360))


def _during(times: tuple[str, str], said: dict[str, Any]) -> bool:
    first, last = (datetime.fromisoformat(text) for text in times)
    start = datetime.fromisoformat(said.get("start_datetime", said["datetime"]))
    end = datetime.fromisoformat(said.get("end_datetime", said["datetime"]))
    return start <= last and end >= first
