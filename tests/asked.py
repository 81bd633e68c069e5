"""The same questions for every STAC API, and the answers that a brute-force search gives."""

from datetime import datetime
from typing import Any

import shapely
import sought

from geoml_cli import registry
from geoml_cli.geo.bounds import cut
from geoml_cli.geo.query import Query, matches

RING = shapely.Point(20, 10).buffer(35, quad_segs=400)  # 1601 vertices
SLANTED = shapely.Polygon([(170, -20), (186, 10), (184, 40), (168, 5)])
QUESTIONS: dict[str, dict[str, Any]] = {
    "all": {},
    "collection": {"collections": ("beta",)},
    "ids": {"ids": ("s003", "s107", "s299", "nothing")},
    "times": {"times": ("2023-04-01T00:00:00+00:00", "2023-06-30T23:59:59.999999+00:00")},
    "box": {"area": shapely.box(-20, -30, 60, 45)},
    "polygon": {"area": shapely.Polygon([(-70, -50), (40, -20), (10, 50), (-30, 0)])},
    "many vertices": {"area": RING},
    "antimeridian box": {"area": shapely.box(176, -40, 181.2, 30)},
    "antimeridian polygon": {"area": SLANTED},
    "just west of it": {"area": shapely.box(179.7, -60, 179.95, 60)},
    "just east of it": {"area": shapely.box(-179.99, -60, -179.5, 60)},
    "cloud": {"max_cloud": 5},
    "half a percent": {"max_cloud": 4.5},
    "filter": {"gsd": 10},
    "filter and cloud": {"gsd": 30, "max_cloud": 20},
    "everything": {
        "area": shapely.box(150, -60, 185, 60),
        "times": ("2023-02-01T00:00:00+00:00", "2023-11-30T00:00:00+00:00"),
        "collections": ("alpha", "beta"),
        "max_cloud": 33,
        "gsd": 10,
    },
}


def query_of(href: str, question: dict[str, Any], **more: Any) -> Query:
    """The question as a Query."""
    said = dict(question)
    if "area" in said:
        said["area"] = cut(said["area"])
    if times := said.pop("times", None):
        said["start"], said["end"] = (datetime.fromisoformat(text) for text in times)
    if gsd := said.pop("gsd", None):
        said["filter"] = {"op": "=", "args": [{"property": "gsd"}, gsd]}
    return Query(href, **said, **more)


def answer(
    href: str, items: list[dict[str, Any]], question: dict[str, Any], **more: Any
) -> tuple[list[str], list[str], list[str]]:
    """Ids of what the server sends, of what matches of that, and of what ought to be found."""
    query = query_of(href, question, **more)
    found = list(registry.load("sources", "stac").search(query))
    chosen = sorted(item["id"] for item in found if matches(query, item))
    return sorted(item["id"] for item in found), chosen, sought.expected(items, **question)
