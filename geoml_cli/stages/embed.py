"""Embed tiles, windows of rasters, and places; or patches of rasters, as a COG with a band a dimension."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from geoml_cli.core.reduction import parse_reduction
from geoml_cli.errors import GeomlError, UsageMistake
from geoml_cli.formats.cog import check_options
from geoml_cli.formats.embeddings import is_embeddings, open_embeddings
from geoml_cli.formats.model import tells_places
from geoml_cli.formats.package import PKG
from geoml_cli.formats.stamp import Input, read_record
from geoml_cli.formats.vectors import GPKG, PARQUET, digest_vectors
from geoml_cli.manners import Manners
from geoml_cli.stages.inputs import check_local, expand
from geoml_cli.stages.job import plan
from geoml_cli.stages.spelled import place_of

log = logging.getLogger("geoml")
TABLES = (*PARQUET, GPKG)
DTYPES = ("float32", "float16", "int8")


def run(
    inputs: list[str],
    out: str,
    *,
    model: str | None = None,
    encoder: str | None = None,
    encoder_weights: str | None = None,
    location_encoder: str | None = None,
    lonlat: Sequence[str] = (),
    like_file: str | None = None,
    at: str | None = None,
    pool: str | None = None,
    level: int | None = None,
    member: int = 0,
    window: int | None = None,
    dtype: str = "float32",
    reduce: str | None = None,
    beside: Sequence[str] = (),
    frames: str | None = None,
    within: float | None = None,
    crs: str | None = None,
    resolution: float | None = None,
    like: str | None = None,
    aoi: str | None = None,
    search: str | None = None,
    top: int = 10,
    near_duplicates: float | None = None,
    cluster: int | None = None,
    outliers: int | None = None,
    coverage: int | None = None,
    balance: str | None = None,
    batch: int | None = None,
    precision: str = "auto",
    device: str = "auto",
    seed: int = 0,
    co: Sequence[str] = (),
    shard: str | None = None,
    merge: bool = False,
    trust_code: bool = False,
    manners: Manners = Manners(),
) -> None:
    """Write embeddings, or what they are asked; see `geoml embed --help` for what each argument means."""
    uses = {
        "search": search,
        "near_duplicates": near_duplicates,
        "cluster": cluster,
        "outliers": outliers,
        "coverage": coverage,
    }
    asked = [k for k, v in uses.items() if v is not None]
    if len(asked) > 1:
        raise UsageMistake(
            f"--{asked[0].replace('_', '-')} and --{asked[1].replace('_', '-')}: ask one at a time"
        )
    if balance and asked != ["coverage"]:
        raise UsageMistake("--balance says how --coverage chooses; give both")
    check_options(co)
    given = expand(inputs)
    check_local([one for one in given if not str(one).startswith(PKG)])
    files = [one for one in given if isinstance(one, str) and is_embeddings(one)]
    stored = (dtype, reduce, shard, batch, device, seed)
    if not asked and (location_encoder or _of_places(model, like_file)):
        if encoder or at or pool or level or member or window:
            raise UsageMistake(
                "places are embedded by --location-encoder or --model alone; leave --encoder, --at, --pool ... out"
            )
        from geoml_cli.stages.embed_places import run_places

        which = (model, location_encoder, encoder_weights, like_file)
        run_places(given, out, files, which, stored, lonlat, manners, trust_code)
        return
    if lonlat:
        raise UsageMistake("--lonlat: names columns of a table of places; give --location-encoder")
    if files and len(files) < len(given):
        raise UsageMistake(
            f"{files[0]}: embeddings and imagery in one run; embed the imagery first"
        )
    if asked:
        if not files:
            raise UsageMistake(
                f"--{asked[0].replace('_', '-')}: asks embeddings; run `geoml embed` on {given[0]} first"
            )
        from geoml_cli.stages.similar import answer

        answer(
            files,
            out,
            asked[0],
            uses[asked[0]],
            top=top,
            balance=balance,
            seed=seed,
            device=device,
            manners=manners,
        )
        return
    if files:
        from geoml_cli.stages.embed_files import join

        join(files, out, merge=merge, dtype=dtype, reduce=reduce, seed=seed, manners=manners)
        return
    if merge:
        raise UsageMistake("--merge: name the files of all shares, NAME.parquet")
    from geoml_cli.stages.dense_files import is_dense, sample

    if at and all(isinstance(one, str) and is_dense(one) for one in given):
        sample(given, at, out, dtype=dtype, manners=manners)  # type: ignore[arg-type]
        return
    from geoml_cli.stages.embedder import Way

    if dtype not in DTYPES:
        raise UsageMistake(f"--dtype {dtype}: write {', '.join(DTYPES)}")
    if reduce:
        parse_reduction(reduce)
    if like_file:
        if model or encoder or encoder_weights or reduce or pool or level or member:
            raise UsageMistake(
                f"--as {like_file}: says all of that itself; leave --model, --encoder, --reduce ... out"
            )
        way, extra = _as(like_file, window)
    else:
        if (model is None) == (encoder is None):
            raise UsageMistake(
                "name --model MODEL, --encoder NAME or --as FILE, one of them; for places --location-encoder NAME"
            )
        if encoder_weights and not encoder:
            raise UsageMistake("--encoder-weights: are of --encoder NAME")
        way = Way(model, encoder, encoder_weights, seed, pool, level, member, window)
        extra = []
    if pool and pool not in ("mean", "cls", "attention"):
        raise UsageMistake(f"--pool {pool}: write mean, cls or attention")
    from geoml_cli.stages.embed_dense import Dense
    from geoml_cli.stages.embed_run import Wanted
    from geoml_cli.stages.embed_table import Table

    wanted = Wanted(
        given, tuple(beside), frames, within, crs, resolution, like, aoi, at, dtype, reduce,
        batch, precision, device, tuple(co), shard, trust_code,
    )  # fmt: skip
    if at:
        extra = [*extra, Input(at, "at", digest_vectors(at))]
    table = out.lower().endswith(TABLES)
    if shard and not table:
        raise UsageMistake("--shard: is of rows; of rasters give each machine its own")
    if shard and not like_file and (reduce or dtype == "int8" or way.encoder):
        raise UsageMistake(
            "--shard: what is measured on the input (--encoder's normalisation, --reduce, int8) must be one for"
            " all shares: embed some of it first, and give that file with --as"
        )
    work: Any = (Table if table else Dense)(way, wanted, extra)
    if manners.dry_run:
        plan(manners, work.say(out))
        return
    work.make(out, manners)


def _of_places(model: str | None, like_file: str | None) -> bool:
    """Whether what is named makes vectors of places rather than of imagery; torch is not loaded for it."""
    if like_file:
        return is_embeddings(like_file) and bool(
            open_embeddings(like_file).about.get("location_encoder")
        )
    return model is not None and tells_places(model)


def _as(path: str, window: int | None) -> tuple[Any, list[Input]]:
    """The way that a file of ours was embedded in, and the file as an input."""
    from geoml_cli.formats.digest import digest_file
    from geoml_cli.formats.stamp import stamp_in
    from geoml_cli.stages.dense_files import about_of
    from geoml_cli.stages.embedder import Way

    record = read_record(path)
    about = open_embeddings(path).about if is_embeddings(path) else about_of(path)
    if record is None or not about.get("space"):
        raise GeomlError(f"{path}: not made by `geoml embed`; --as takes what that wrote")
    roles = {one["role"]: place_of(one["path"], Path(path)) for one in record["inputs"]}
    named = {k: roles.get(k) for k in ("model", "encoder_weights")}
    if about["model"] and not named["model"]:
        raise GeomlError(f"{path}: does not say where its model lies")
    model = named["model"] and str(Path(named["model"]).parent)
    way = Way(
        model if about["model"] else None,
        None if about["model"] else about["encoder"],
        named["encoder_weights"],
        about["seed"],
        about["pool"],
        about["level"],
        about["member"],
        window or about["window"],
        about["norms"],
        about["reduction"],
        about["sensors"],
    )
    file = stamp_in(path) or Path(path)
    return way, [Input(str(file), "as", digest_file(file))]
