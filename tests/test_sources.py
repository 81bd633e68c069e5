"""Sources that are APIs: complete, exact, patient, and silent about signatures."""

import json
import logging
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import apis
import asked
import pytest
import shapely
import sought
from apis import EARTH, PLANETARY, Ask, Reply
from hypothesis import given
from hypothesis import strategies as st
from tenacity import wait_none

from geoml_cli import registry
from geoml_cli.errors import GeomlError, Status, Unreachable
from geoml_cli.formats import web
from geoml_cli.geo.query import Query
from geoml_cli.geo.superset import plain

ITEMS = sought.items()
FILTER = "https://api.stacspec.org/v1.0.0-rc.2/item-search#filter"
QUERY = "https://api.stacspec.org/v1.0.0/item-search#query"
SORT = "https://api.stacspec.org/v1.1.0/item-search#sort"
recorded = pytest.mark.skipif(
    not apis.RECORDED.is_dir(), reason=f"no recorded exchanges in {apis.RECORDED}"
)


@pytest.fixture(autouse=True)
def at_once(monkeypatch):
    """Failed requests are sent again at once, unless the server says when."""
    monkeypatch.setattr(web, "BACK_OFF", wait_none())
    log = logging.getLogger("geoml")  # a command run before may have led it to its own stderr
    monkeypatch.setattr(log, "propagate", True)
    monkeypatch.setattr(log, "handlers", [])


def search(href: str, source: str = "stac", **more: Any) -> list[dict[str, Any]]:
    return list(registry.load("sources", source).search(Query(href, **more)))


def ids_of(items: list[dict[str, Any]]) -> list[str]:
    return [item["id"] for item in items]


@pytest.fixture(scope="module")
def rustac(tmp_path_factory):
    file = tmp_path_factory.mktemp("rustac") / "items.json"
    file.write_text(json.dumps({"type": "FeatureCollection", "features": ITEMS}))
    with apis.rustac_api(file) as url:
        yield url


@pytest.mark.parametrize("name", asked.QUESTIONS)
def test_rustac_and_ours_together_find_what_brute_force_finds(rustac, name):
    sent, chosen, right = asked.answer(rustac, ITEMS, asked.QUESTIONS[name])
    assert chosen == right and 0 < len(right) <= len(ITEMS)
    assert len(set(sent)) == len(sent)
    if name in ("collection", "ids", "times", "box", "polygon", "antimeridian box"):
        assert len(sent) < len(ITEMS)  # the server did its part
    if name in ("collection", "ids"):
        assert sent == right


@pytest.mark.parametrize("limit", [None, 1, 7, 300])
def test_pages_of_any_size_bring_every_item_once(rustac, limit):
    assert sorted(ids_of(search(rustac, limit=limit))) == sorted(ids_of(ITEMS))


def test_a_collection_misspelt_is_named_with_its_neighbours(rustac):
    with pytest.raises(GeomlError, match=r"no collection alpa; did you mean alpha\?"):
        search(rustac, collections=("beta", "alpa"))
    with pytest.raises(GeomlError, match="no collection 17; it has alpha, beta$"):
        search(rustac, collections=("17",))


def test_items_come_ready_to_be_opened(rustac, tmp_path):
    item = ITEMS[0] | {"assets": {"a": {"href": "./a.tif"}, "b": {"href": "s3://bucket/b.tif"}}}
    (tmp_path / "one.json").write_text(json.dumps(item))
    with apis.rustac_api(tmp_path / "one.json") as url:
        [found] = search(url)
        own = f"{url}/collections/{item['collection']}/items"
    assert found["assets"]["a"]["href"] == f"{own}/a.tif"
    assert found["assets"]["b"]["href"] == "s3://bucket/b.tif"
    source = registry.load("sources", "stac")
    assert source.open(found["assets"]["a"]) == f"{own}/a.tif"


def said_by(caplog) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "geoml"]


def test_conditions_go_to_servers_that_know_them_and_the_rest_is_said_once(caplog):
    caplog.set_level(logging.INFO, "geoml")
    clear = {"op": "<=", "args": [{"property": "eo:cloud_cover"}, 20]}
    ten = {"op": "=", "args": [{"property": "gsd"}, 10]}
    more = {"max_cloud": 20, "filter": ten, "sort": (("datetime", True), ("id", False))}
    cases: dict[tuple[str, ...], tuple[dict[str, Any], str | None]] = {
        (): ({}, "no filter and sort; --filter and --max-cloud and --sort are applied here"),
        (FILTER,): ({}, "no filter and sort; --filter and --max-cloud and --sort are applied here"),
        (FILTER, apis.CQL2): (
            {"filter": {"op": "and", "args": [ten, clear]}, "filter-lang": "cql2-json"},
            "no sort; --sort is applied here",
        ),
        (QUERY, SORT): (
            {
                "query": {"eo:cloud_cover": {"lte": 20}},
                "sortby": [
                    {"field": "properties.datetime", "direction": "desc"},
                    {"field": "id", "direction": "asc"},
                ],
            },
            "no filter; --filter is applied here",
        ),
    }
    for conforms, (sent, said) in cases.items():
        caplog.clear()
        with apis.small_api(ITEMS[:30], *conforms) as server:
            assert len(search(server.url, **more)) == 30
            first, *others = server.bodies()
        assert len(others) == 2  # 30 items by 10
        assert {k: v for k, v in first.items() if k != "limit"} == sent
        assert said_by(caplog) == [f"{server.url}: knows {said}"]
    caplog.clear()
    with apis.small_api(ITEMS[:30], FILTER, apis.CQL2) as server:
        search(server.url, max_cloud=20)
        assert server.bodies()[0]["filter"] == clear and not said_by(caplog)


def test_areas_go_as_a_box_or_a_shape_and_never_as_west_beyond_east():
    with apis.small_api(ITEMS[:1]) as server:
        for question in ("box", "polygon", "many vertices", "antimeridian box"):
            list(
                registry.load("sources", "stac").search(
                    asked.query_of(server.url, asked.QUESTIONS[question])
                )
            )
        box, polygon, many, far = server.bodies()
    assert box["bbox"] == [-20, -30, 60, 45] and "intersects" not in box
    drawn = shapely.geometry.shape(polygon["intersects"])
    assert drawn.equals(asked.QUESTIONS["polygon"]["area"]) and "bbox" not in polygon
    hull = shapely.geometry.box(*many["bbox"])
    assert hull.covers(asked.RING)
    both = shapely.geometry.shape(far["intersects"])
    assert both.covers(shapely.box(176, -40, 180, 30))
    assert both.covers(shapely.box(-180, -40, -178.8, 30))
    assert both.area < 180 * 90 and "bbox" not in far


@given(
    st.floats(-180, 177),
    st.floats(-88, 80),
    st.floats(0.1, 90),
    st.floats(0.1, 8),
    st.integers(5, 900),
    st.sampled_from([50, 500]),
)
def test_what_is_sent_is_never_smaller_than_the_area(west, south, width, height, count, most):
    ring = shapely.Point(0, 0).buffer(0.5, quad_segs=count)
    shape = shapely.affinity.scale(ring, width, height, origin=(0, 0))
    shape = shapely.affinity.translate(shape, west + width / 2, min(south + height / 2, 85))
    area = asked.cut(shape)
    sent = plain(area, most)
    assert shapely.covers(shapely.buffer(sent, 1e-9), area)
    assert shapely.get_num_coordinates(sent) <= most
    west, south, east, north = sent.bounds
    assert -180 <= west < east <= 180 and -90 <= south < north <= 90


def test_get_is_used_where_post_is_not_offered():
    text = "http://www.opengis.net/spec/cql2/1.0/conf/cql2-text"
    with apis.small_api(ITEMS[:35], FILTER, text, method="GET") as server:
        found = search(server.url, collections=("alpha", "beta"), max_cloud=20)
        assert ids_of(found) == ids_of(ITEMS[:35])
        assert {ask.method for ask in server.log} == {"GET"}
        sent = server.bodies()[0]
    assert sent["collections"] == "alpha,beta" and sent["filter-lang"] == "cql2-text"
    assert sent["filter"].replace('"', "").replace("(", "").startswith("eo:cloud_cover <= 20")


# what goes wrong, for a while and for good


def failing(*fates: Reply, on: Callable[[Ask], bool]) -> Callable[[Ask], Reply | None]:
    """Fates of the requests that `on` is true of, one after another; then all is well."""
    left = list(fates)
    return lambda ask: left.pop(0) if left and on(ask) else None


def second_page(ask: Ask) -> bool:
    return ask.path == "/search" and bool((ask.body or {}).get("token"))


PASSING = {
    "503": Reply({}, 503),
    "502 as a web page": Reply(b"<html>bad gateway", 502),
    "429": Reply({}, 429),
    "reset": Reply(fate="drop"),
    "short body": Reply({"type": "FeatureCollection", "features": ITEMS[:9]}, fate="half"),
    "a web page": Reply(b"<!doctype html>sorry", headers={"Content-Type": "text/html"}),
}


@pytest.mark.parametrize("name", PASSING)
@pytest.mark.parametrize("place", ["landing", "first page", "second page"])
def test_what_passes_is_waited_for(name, place):
    if (name, place) == ("a web page", "landing"):
        pytest.skip("that is a wrong address")
    on = {
        "landing": lambda ask: ask.path == "/",
        "first page": lambda ask: ask.path == "/search",
        "second page": second_page,
    }[place]
    fate = failing(PASSING[name], PASSING[name], on=on)
    with apis.small_api(ITEMS[:35], fate=fate) as server:
        assert ids_of(search(server.url)) == ids_of(ITEMS[:35])


def test_a_server_that_says_when_is_asked_then():
    fate = failing(Reply({}, 429, {"Retry-After": "1"}), on=second_page)
    with apis.small_api(ITEMS[:15], fate=fate) as server:
        began = time.monotonic()
        assert len(search(server.url)) == 15
        assert 1 <= time.monotonic() - began < 5
    fate = failing(*[Reply({}, 429, {"Retry-After": "9999"})] * 2, on=second_page)
    with (
        apis.small_api(ITEMS[:15], fate=fate) as server,
        pytest.raises(Unreachable, match="9999 s"),
    ):
        search(server.url)


@pytest.mark.parametrize("name", PASSING)
def test_what_does_not_pass_is_for_later_and_never_an_end(name):
    fate = failing(*[PASSING[name]] * 99, on=second_page)
    with apis.small_api(ITEMS[:35], fate=fate) as server:
        with pytest.raises(Unreachable) as caught:
            search(f"{server.url}?key=hush")
        assert caught.value.status == Status.LATER
        assert len(server.bodies()) == 1 + web.PLAIN.tries
    said = str(caught.value)
    assert said.startswith(f"{server.url}/search: ") and "\n" not in said and "hush" not in said


WRONG = {  # what comes back: (for which path, what, what is said)
    "a web page": ("/", Reply(b"<html>hi"), "a web page, not with JSON; check that it is the"),
    "no page": ("/", Reply({}, 404), "no STAC API there (HTTP 404)"),
    "a collection": (
        "/",
        Reply({"type": "Collection", "links": [{"rel": "root", "href": "../v1"}]}),
        "not the landing page of a STAC API that can be searched; give its landing page",
    ),
    "a list": ("/", Reply([1]), "JSON that is no object"),
    "half of it": ("/", Reply(b'{"type": "Cat'), "damaged JSON"),
    "401": ("/search", Reply({}, 401), "may not be read (HTTP 401)"),
    "403": ("/search", Reply({"detail": "who are you"}, 403), "may not be read (HTTP 403)"),
    "400": (
        "/search",
        Reply({"code": "BadRequest", "description": "no\n such  operator: zork " + "x" * 999}, 400),
        "refuses what is asked (HTTP 400): no such operator: zork xxx",
    ),
    "404": (
        "/search",
        Reply({"code": "NotFoundError"}, 404),
        "not there (HTTP 404): NotFoundError",
    ),
    "405": ("/search", Reply(b"<html>", 405), "(HTTP 405); check the conditions"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_said_at_once_in_one_line(name):
    path, reply, said = WRONG[name]
    with apis.small_api(ITEMS[:5], fate=lambda ask: reply if ask.path == path else None) as server:
        with pytest.raises(GeomlError) as caught:
            search(f"{server.url}/")
        assert caught.value.status == Status.FAILED
        assert len([ask for ask in server.log if ask.path == path]) == 1
    text = str(caught.value)
    assert said in text and text.startswith(server.url) and "\n" not in text and len(text) < 400


def test_nobody_there_is_for_later(monkeypatch):
    with pytest.raises(Unreachable, match="no answer over the network"):
        search(f"http://127.0.0.1:{apis.free_port()}/v1?key=hush")


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_search_that_is_sent_elsewhere_keeps_its_conditions(status):
    with apis.small_api(ITEMS[:25]) as there:
        to = {"Location": f"{there.url}/search"}
        fate = failing(Reply({}, status, to), on=lambda ask: ask.path == "/search")
        with apis.small_api([], fate=fate) as server:
            assert len(search(server.url, ids=("s001",))) == 25
        first = there.log[0]
    assert first.method == "POST" and first.body["ids"] == ["s001"]


def circle(items: list[dict[str, Any]], **more: Any) -> Callable[[Ask], Reply | None]:
    """Every page is the same one, and names a next one: the same, or always another."""
    fresh = iter(range(10**6))

    def fate(ask: Ask) -> Reply | None:
        if ask.path != "/search":
            return None
        token = next(fresh) if more.get("always_new") else 1
        link = {"rel": "next", "href": "/search", "method": "POST", "body": {"token": token}}
        page: dict[str, Any] = {"type": "FeatureCollection", "features": items, "links": [link]}
        return Reply(page | ({"numberMatched": more["matched"]} if "matched" in more else {}))

    return fate


@pytest.mark.parametrize("always_new", [False, True])
def test_pages_in_a_circle_end(always_new):
    with apis.small_api([], fate=circle(ITEMS[:4], always_new=always_new)) as server:
        with pytest.raises(GeomlError, match="go round in a circle after 4 features"):
            search(server.url)
        assert len(server.bodies()) < 20
        kept: list[GeomlError] = []
        assert len(search(server.url, trouble=kept.append)) == 4 and len(kept) == 1
    for end in (circle([], always_new=always_new), circle(ITEMS[:4], matched=4)):
        with apis.small_api([], fate=end) as server:  # nothing is missing
            assert len(search(server.url)) in (0, 4)


def test_an_empty_page_in_the_middle_is_no_end():
    link = {"rel": "next", "href": "/search", "method": "POST", "body": {"token": "10"}}
    empty = Reply({"type": "FeatureCollection", "features": [], "links": [link]})
    fate = failing(empty, on=lambda ask: ask.path == "/search")
    with apis.small_api(ITEMS[:25], fate=fate) as server:
        assert ids_of(search(server.url)) == ids_of(ITEMS[10:25])


def test_a_damaged_item_is_trouble_and_the_others_come():
    bad = {"type": "Feature", "id": "bad", "collection": "alpha", "assets": {"a": 5}}
    with apis.small_api([ITEMS[0], bad, ITEMS[1]]) as server:
        with pytest.raises(GeomlError, match="item bad: its asset a"):
            search(server.url)
        kept: list[GeomlError] = []
        assert ids_of(search(server.url, trouble=kept.append)) == ["s000", "s001"] and kept


def test_matched_is_a_number_only_where_it_is_exact():
    source = registry.load("sources", "stac")
    page = {"type": "FeatureCollection", "features": [], "links": [], "numberMatched": 41}

    def fate(ask: Ask) -> Reply | None:
        return Reply(page) if ask.path == "/search" else None

    with apis.small_api([], QUERY, fate=fate) as server:
        box = shapely.box(0, 0, 5, 5)
        assert source.matched(Query(server.url, area=box, max_cloud=5)) == 41
        assert server.bodies()[0]["limit"] == 1
        assert source.matched(Query(server.url, filter={"op": "isNull", "args": []})) is None
        assert source.matched(Query(server.url, area=shapely.box(179, 0, 180, 5))) is None
        del page["numberMatched"]
        page["context"] = {"matched": 7}
        assert source.matched(Query(server.url)) == 7


# the recorded catalogs


def response(name: str) -> Any:
    return json.loads((apis.RECORDED / "responses" / f"{name}.json").read_text())


@recorded
def test_the_planetary_computer_as_recorded():
    source = registry.load("sources", "planetary-computer")
    box = shapely.box(-73.21, 43.99, -73.12, 45.05)
    years = (datetime(2014, 1, 1, tzinfo=UTC), datetime(2020, 12, 31, 23, 59, 59, tzinfo=UTC))
    with apis.replay() as server:
        query = Query(f"{server.url}/{PLANETARY}", ("naip",), box, *years)
        found = list(source.search(query))
        assert server.bodies() == [
            {
                "limit": 250,
                "bbox": [-73.21, 43.99, -73.12, 45.05],
                "datetime": "2014-01-01T00:00:00Z/2020-12-31T23:59:59Z",
                "collections": ["naip"],
            }
        ]
    right = {f["id"]: f for f in response("014")["features"]}
    assert ids_of(found) == list(right) and len(found) == 162
    assert all(source.owns(item) for item in right.values())
    assert not any(source.owns(item) for item in ITEMS)


@recorded
def test_pages_of_earth_search_as_recorded():
    source = registry.load("sources", "earth-search")
    day = (datetime(2023, 10, 8, tzinfo=UTC), datetime(2023, 10, 8, 23, 59, 59, tzinfo=UTC))
    names = ("sentinel-2-l2a", "landsat-c2-l2")
    point = shapely.Point(-105.1019, 40.1672)
    with apis.replay() as server:
        query = Query(f"{server.url}/{EARTH}", names, point, *day)
        found = list(source.search(query))
        first, second = server.bodies()
        assert "next" not in first and second["next"].startswith("2023-10-08T17:37:26.656958Z")
        assert source.matched(query) == 2
    assert ids_of(found) == ["S2A_13TDE_20231008_0_L2A", "LC08_L2SP_033032_20231008_02_T1"]
    assert all(source.owns(item) for item in response("053")["features"])


@recorded
def test_a_page_that_fails_in_the_middle_is_not_the_end_of_the_recorded_ones():
    box = shapely.box(-73.21, 43.99, -73.12, 44.05)
    with apis.replay() as server, pytest.raises(Unreachable, match="HTTP 599"):
        search(f"{server.url}/{PLANETARY}", "planetary-computer", collections=("naip",), area=box)


@recorded
def test_what_earth_search_would_ignore_is_not_sent_as_a_filter(caplog):
    caplog.set_level(logging.INFO, "geoml")
    shown = [f["properties"].get("eo:cloud_cover") for f in response("004")["features"]]
    assert None in shown  # a filter of at most 40 was asked for, and was not understood
    ten = {"op": "=", "args": [{"property": "gsd"}, 10]}
    with apis.replay() as server, pytest.raises(Unreachable):  # never recorded
        search(f"{server.url}/{EARTH}", "earth-search", max_cloud=40, filter=ten)
    sent = server.bodies()[0]
    assert sent["query"] == {"eo:cloud_cover": {"lte": 40}} and "filter" not in sent
    assert said_by(caplog) == [f"{server.url}/{EARTH}: knows no filter; --filter is applied here"]
    with apis.replay() as server, pytest.raises(Unreachable):
        search(f"{server.url}/{PLANETARY}", "planetary-computer", max_cloud=40, filter=ten)
    assert [part["op"] for part in server.bodies()[0]["filter"]["args"]] == ["=", "<="]


@recorded
def test_a_misspelt_collection_of_a_recorded_catalog():
    with apis.replay() as server:
        with pytest.raises(GeomlError, match="no collection sentinel-2-l2; did you mean .*l2a"):
            search(f"{server.url}/{EARTH}", "earth-search", collections=("sentinel-2-l2",))


@recorded
def test_public_buckets_are_read_over_https():
    source = registry.load("sources", "earth-search")
    tile = "Copernicus_DSM_COG_10_S90_00_W180_00_DEM"
    dem = response("012")["features"][0]["assets"]["data"]
    assert dem["href"] == f"s3://copernicus-dem-30m/{tile}/{tile}.tif"
    https = f"https://copernicus-dem-30m.s3.eu-central-1.amazonaws.com/{tile}/{tile}.tif"
    assert source.open(dem) == https
    for asset in response("053")["features"][0]["assets"].values():
        assert source.open(asset) == asset["href"]  # https already, or paid for by who reads


# signatures

BLOB = "https://naipeuwest.blob.core.windows.net/naip/v002/a.tif"


@pytest.fixture
def signing(monkeypatch):
    """A function that sets the endpoint of tokens, for a package without memories."""
    from planetary_computer.sas import TOKEN_CACHE
    from planetary_computer.settings import Settings

    def at(server: apis.Web, key: str | None = None) -> Any:
        monkeypatch.setenv("PC_SDK_SAS_URL", server.url)
        monkeypatch.setenv("PC_SDK_SUBSCRIPTION_KEY", key or "")
        Settings.get.cache_clear()
        TOKEN_CACHE.clear()
        return registry.load("sources", "planetary-computer")

    yield at
    Settings.get.cache_clear()
    TOKEN_CACHE.clear()


def test_assets_are_signed_once_for_a_container_and_others_are_left_alone(signing):
    log: list[tuple[str, str | None]] = []
    with apis.sas(log=log) as server:
        source = signing(server, "my-key")
        assert source.open({"href": BLOB}).startswith(f"{BLOB}?st=2020&se=")
        assert source.open({"href": BLOB.replace("a.tif", "b.tif")}).endswith("sig=hush-1")
        assert source.open({"href": BLOB.replace("/naip/", "/hls2/")}).endswith("sig=hush-2")
        for href in ("/here/a.tif", "https://example.org/a.tif", f"{BLOB}?se=2020&sig=own"):
            assert source.open({"href": href}) == href
        public = "https://ai4edatasetspublicassets.blob.core.windows.net/assets/a.png"
        assert source.open({"href": public}) == public
    assert log == [("naipeuwest/naip", "my-key"), ("naipeuwest/hls2", "my-key")]


def test_our_signatures_are_those_of_the_package(signing):
    import planetary_computer

    with apis.sas() as server:
        source = signing(server)
        assert source.open({"href": BLOB}) == planetary_computer.sign_url(BLOB)
        assert len(server.log) == 1  # one cache for both


def test_old_and_refused_signatures_are_renewed(signing, monkeypatch):
    with apis.sas(minutes=10) as server:
        source = signing(server)
        assert source.open({"href": BLOB}).endswith("hush-1")
        assert source.open({"href": BLOB}, fresh=True).endswith("hush-2")
        assert source.open({"href": BLOB}).endswith("hush-2")
        signed = f"{BLOB}?snapshot=7&st=2020&se=2020&sp=r&sig=own"
        again = source.open({"href": signed}, fresh=True)
        assert again.startswith(f"{BLOB}?snapshot=7&st=2020&se=") and again.endswith("hush-3")
        assert "own" not in again
        from planetary_computer.sas import TOKEN_CACHE

        [token] = TOKEN_CACHE.values()
        token.expiry = datetime.now(UTC) + timedelta(seconds=50)  # too little for a read
        assert source.open({"href": BLOB}).endswith("hush-4")
    with apis.sas(minutes=0.1) as server:  # tokens that never live for long
        source = signing(server)
        assert [source.open({"href": BLOB})[-6:] for _ in range(3)] == [
            "hush-1",
            "hush-2",
            "hush-3",
        ]


def test_many_threads_renew_a_signature_once(signing):
    from concurrent.futures import ThreadPoolExecutor
    from threading import Barrier

    with apis.sas() as server:
        source = signing(server)
        gate = Barrier(8)
        plain_answer = server.answer

        def slowly(ask: Ask) -> Reply:
            time.sleep(0.2)
            return plain_answer(ask)

        server.answer = slowly

        def sign(_: int) -> str:
            gate.wait()
            return source.open({"href": BLOB}, fresh=True)

        with ThreadPoolExecutor(8) as pool:
            assert {href[-6:] for href in pool.map(sign, range(8))} == {"hush-1"}
        assert len(server.log) == 1


def test_an_endpoint_of_tokens_that_fails_is_asked_again_and_tells_no_secret(signing, caplog):
    caplog.set_level(logging.DEBUG)
    with apis.sas() as server:
        source = signing(server, "my-secret-key")
        server.fates = [503, 429, 500]
        assert source.open({"href": BLOB}).endswith("hush-1")
        errors = []
        for fates in ([503] * 6, [403], [404]):
            server.fates = fates
            with pytest.raises(GeomlError) as caught:
                source.open({"href": BLOB}, fresh=True)
            errors.append(caught.value)
        server.answer = lambda ask: Reply({"token": "sig=hush-9", "msft:expiry": "never"})
        with pytest.raises(Unreachable) as caught:
            source.open({"href": BLOB}, fresh=True)
        errors.append(caught.value)
    assert [error.status for error in errors] == [75, 1, 1, 75]
    assert all(f"{server.url}/naipeuwest/naip: " in str(error) for error in errors)
    said = " ".join([*map(str, errors), caplog.text])
    assert "hush" not in said and "my-secret-key" not in said


def test_assets_are_read_through_signatures_that_run_out(signing, monkeypatch, tmp_path):
    """The storage is this machine, reached as a proxy: it refuses all but the newest signature."""
    import served

    host = "http://naipeuwest.blob.core.windows.net"
    file = tmp_path / "http:/naipeuwest.blob.core.windows.net/naip/a.txt"
    file.parent.mkdir(parents=True)
    file.write_text("pixels")
    newest = ["hush-1"]

    def rule(path: str, span: str | None) -> int | None:
        return None if path.endswith(newest[0]) else 403

    with apis.sas() as server, served.serving(tmp_path, rule=rule) as storage:
        monkeypatch.setenv("http_proxy", storage.url)
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        source = signing(server)
        href = f"{host}/naip/a.txt"
        reach = web.Access(sign=lambda href, fresh: source.open({"href": href}, fresh))
        for newest[0] in ("hush-1", "hush-2", "hush-3"):
            with reach.get(href) as answer:
                assert answer.status_code == 200
                assert reach.body(answer, href) == b"pixels"
        assert len(server.log) == 3


# the command


def test_scenes_are_fetched_through_an_api_as_out_of_a_folder(tmp_path, monkeypatch):
    import served
    from test_fetch import AT, bytes_of, fetch

    monkeypatch.chdir(tmp_path)
    served.two_scenes(tmp_path / "cat")
    assert fetch("--bbox", AT, out="local") == 0
    items = []
    with served.serving(tmp_path / "cat") as files:
        for n in "ab":
            item = json.loads((tmp_path / f"cat/{n}/{n}1/item.json").read_text())
            for asset in item["assets"].values():
                asset["href"] = f"{files.url}/{n}/{n}1/{asset['href']}"
            items.append(item | {"links": []})
        served.put(tmp_path / "all.json", {"type": "FeatureCollection", "features": items})
        with apis.rustac_api(tmp_path / "all.json") as url:
            assert fetch("--bbox", AT, out="far", catalog=url) == 0
            assert fetch("--collection", "c", out="none", catalog=url) == 1
    local, far = bytes_of("local"), bytes_of("far")
    assert {name for name in local if ".tif" in name} == {name for name in far if ".tif" in name}
    assert all(far[name] == local[name] for name in local if ".tif" in name)


def test_scenes_of_the_planetary_computer_are_fetched_with_signatures_that_run_out(
    tmp_path, monkeypatch, signing, capfd
):
    """From a file of its items; the storage is this machine, reached as a proxy."""
    import served
    from test_fetch import AT, bytes_of, fetch

    monkeypatch.chdir(tmp_path)
    served.two_scenes(tmp_path / "cat")
    assert fetch("--bbox", AT, out="local") == 0
    item = json.loads((tmp_path / "cat/a/a1/item.json").read_text())
    host = "naipeuwest.blob.core.windows.net"
    for key, asset in item["assets"].items():
        asset["href"] = f"http://{host}/naip/{key}.tif"
    item["links"] = [{"rel": "collection", "href": f"https://{PLANETARY}/collections/naip"}]
    served.put(tmp_path / "items.json", item)
    store = tmp_path / "store/http:" / host
    store.mkdir(parents=True)
    (store / "naip").symlink_to(tmp_path / "cat/a/a1")
    seen: dict[str, int] = {}

    def rule(path: str, span: str | None) -> int | None:
        """Each signature is good for three requests."""
        name = path.partition("sig=")[2]
        seen[name] = seen.get(name, 0) + 1
        return None if name and seen[name] <= 3 else 403

    with apis.sas() as server, served.serving(tmp_path / "store", rule=rule) as storage:
        signing(server)
        monkeypatch.setenv("http_proxy", storage.url)
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        assert fetch("--bbox", AT, "-j", 1, "-v", "--debug", catalog="items.json", out="far") == 0
        assert len(server.log) > 1
    local, far = bytes_of("local"), bytes_of("far")
    for name in ("a1/red.tif", "a1/nir.tif"):
        assert far[name] == local[name]
    assert not any(b"hush" in data for data in far.values())
    assert "hush" not in "".join(capfd.readouterr())
