"""Files of embeddings put together: shares of one run, files of several, those of other makers."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import geopandas
import numpy as np

from geoml_cli.core.reduction import fit, parse_reduction, to_plain
from geoml_cli.errors import GeomlError, UsageMistake
from geoml_cli.formats.digest import digest_file
from geoml_cli.formats.embeddings import ROWS, Embeddings, open_embeddings, scale_of
from geoml_cli.formats.jsonfile import sha256_of
from geoml_cli.formats.stamp import Input
from geoml_cli.manners import Manners
from geoml_cli.stages.embed_write import said_of, write_parts
from geoml_cli.stages.job import Job, plan
from geoml_cli.stages.similar import check_space


def join(
    files: Sequence[str],
    out: str,
    *,
    merge: bool,
    dtype: str,
    reduce: str | None,
    seed: int,
    manners: Manners,
) -> None:
    """Write the rows of all files in their order as one; reduced, or in another type, if asked."""
    opened = [open_embeddings(path) for path in files]
    check_space(opened)
    if not out.lower().endswith((".parquet", ".geoparquet", ".gpkg")):
        raise UsageMistake(f"-o {out}: rows are a table; name NAME.parquet or NAME.gpkg")
    if merge and any("shard" not in one.about_record for one in opened):
        raise GeomlError(
            f"{files[0]}: is no share; --merge takes what `geoml embed --shard i/n` wrote"
        )
    if merge:
        opened = _in_order(opened)
    arguments = {"dtype": dtype, "reduce": reduce, "seed": seed}
    inputs = [Input(one.path, "embeddings", digest_file(Path(one.path))) for one in opened]
    if manners.dry_run:
        plan(
            manners,
            [f"put {sum(one.count for one in opened)} rows together and write them to {out}"],
        )
        return
    with Job("embed", out, "embeddings", None, arguments, inputs, manners) as job:
        if not job.done:

            def parts() -> Iterator[tuple[geopandas.GeoDataFrame, np.ndarray]]:
                for one in opened:
                    table = one.table()
                    start = 0
                    for block in one.blocks(ROWS):
                        yield table.iloc[start : start + len(block)].reset_index(drop=True), block
                        start += len(block)

            about: dict[str, Any] = dict(opened[0].about)
            about.setdefault("space", opened[0].space or f"foreign:{opened[0].column}")
            shrink: Any = lambda z: z  # noqa: E731
            if reduce:
                kind, count = parse_reduction(reduce)
                if about.get("reduction"):
                    raise GeomlError(f"{files[0]}: is reduced already")
                shrink = fit(kind, count, (z for _, z in parts()), seed)
                about["reduction"] = to_plain(shrink)
                about["space"] = sha256_of([about["space"], about["reduction"]])
            scale = scale_of(shrink(z) for _, z in parts()) if dtype == "int8" else None
            about |= {"dtype": dtype, "scale": scale}
            built = job.part / f"table{Path(out).suffix.lower()}"
            write_parts(
                built, parts, shrink, dtype, scale or 1.0, job.record | {"embedding": about}
            )
            job.commit_file(built)
    job.report([job.named], [said_of(job)])


def _in_order(opened: Sequence[Embeddings]) -> list[Embeddings]:
    """Shares 1/n to n/n, all of one run."""
    found = sorted(opened, key=lambda one: int(one.about_record["shard"].split("/")[0]))
    said = [one.about_record["shard"] for one in found]
    of = said[0].split("/")[1]
    if said != [f"{k}/{of}" for k in range(1, int(of) + 1)]:
        raise GeomlError(
            f"shares {', '.join(said)}: --merge wants each of 1/{of} to {of}/{of} once"
        )
    return found
