"""What is behind the assets that a fetch wants: their versions, and how much there is of them."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from threading import Event

import shapely

from geoml_cli.errors import GeomlError, SomeFailed
from geoml_cli.formats.cut import Cut
from geoml_cli.formats.digest import digest_file
from geoml_cli.formats.jsonfile import sha256_of
from geoml_cli.formats.stamp import Input
from geoml_cli.formats.web import Access, is_http, unsigned
from geoml_cli.geo.query import Query
from geoml_cli.geo.snap import needed
from geoml_cli.stages.catalog import Hit, Trouble, content_of
from geoml_cli.stages.inputs import digest_source
from geoml_cli.stages.keep import lay
from geoml_cli.stages.wants import HEADS, Want, digested, layers_of


def digest_all(wants: list[Want], trouble: Trouble, jobs: int, access: Access) -> list[Want]:
    """The wants with the digests of what is behind them, masks included; without those that fail."""
    todo, halted = [*layers_of(wants), *wants], Event()

    def pause(wait_s: float) -> None:
        if halted.wait(wait_s):
            raise GeomlError("the run ends")  # nobody hears it

    patient = replace(access, pause=pause)
    with ThreadPoolExecutor(min(3 * jobs, 48)) as pool:  # hardly any bytes: all is waiting
        keep = [n < HEADS for n in range(len(todo))]
        try:
            found = list(pool.map(digested, todo, [patient] * len(todo), keep))
        except BaseException:
            halted.set()
            pool.shutdown(cancel_futures=True)
            raise
    for want, error in zip(todo, found, strict=True):
        if isinstance(error, GeomlError):
            trouble(error, want.hit.item["id"])
    known = {want.member: want for want in found if isinstance(want, Want)}
    good = []
    for want in wants:
        have = known.get(want.member)
        if have and (not want.mask or want.mask.member in known):
            good.append(replace(have, mask=known[want.mask.member]) if want.mask else have)
    if not good:
        raise SomeFailed(f"nothing is fetched: all {len(trouble.names)} inputs failed")
    return good


def inputs_of(
    catalog: str,
    asked: Query,
    hits: list[Hit],
    wants: list[Want],
    intersects: str | None,
    like: str | None,
) -> list[Input]:
    """What decides a fetch: local catalog files, what items from elsewhere say, area, grid, assets."""
    local = dict.fromkeys(name for name in asked.files if not is_http(name))
    found = [Input(name, "catalog", digest_file(name)) for name in local]
    if len(local) < len(set(asked.files)) or not local:
        keys = [{want.source_key for want in wants if want.hit is hit} for hit in hits]
        said = [content_of(hit.item, chosen) for hit, chosen in zip(hits, keys, strict=True)]
        found.append(Input(unsigned(catalog), "items", sha256_of(sorted(said))))
    if intersects == "-":
        assert asked.area is not None
        shape = shapely.to_wkb(shapely.normalize(asked.area), hex=True)
        found.append(Input("-", "area", sha256_of(shape)))
    elif intersects:
        from geoml_cli.formats.vectors import digest_vectors

        found.append(Input(intersects, "area", digest_vectors(intersects)))
    if like:
        found.append(Input(like, "grid", digest_source(like)))
    read = wants + layers_of(wants)
    return found + [Input(unsigned(w.asset["href"]), "asset", w.digest) for w in read]


def say_plan(
    wants: list[Want], area: shapely.Geometry | None, out: str, jobs: int, access: Access
) -> Iterator[str]:
    """What a fetch would read and write, in lines: scenes, pixels, bytes."""
    if any(want.whole for want in wants):
        size = sum(want.head.size for want in wants if want.head)
        yield f"copy {len(wants)} files, {size} bytes over the network, to {out}"
        return

    def look(want: Want) -> tuple[Cut | None, int | None]:
        cut = lay(want, area, access)
        if not cut:
            return None, 0
        with cut.reader as reader:
            window = needed(cut.grid, cut.raster.grid, 0)
            return cut, reader.stored_bytes(window) if window else 0

    with ThreadPoolExecutor(jobs) as pool:
        found = list(pool.map(look, wants))
    laid = [(want, cut, stored) for want, (cut, stored) in zip(wants, found, strict=True) if cut]
    pixels = sum(cut.grid.height * cut.grid.width for _, cut, _ in laid)
    size = sum(cut.layout.nbytes for _, cut, _ in laid)
    known = [stored for _, _, stored in laid if stored is not None]
    scenes = len({id(want.hit) for want, _, _ in laid})
    yield (
        f"write {scenes} scenes, {len(laid)} assets, {pixels} pixels,"
        f" {size} bytes before compression, to {out}"
    )
    least = "" if len(known) == len(laid) else "at least "
    yield f"read {least}{sum(known)} bytes of blocks"
    for want, cut, _ in laid:
        grid = cut.grid
        yield f"read {want.name}: {grid.height} x {grid.width} px, {len(cut.raster.bands)} bands"
