"""One share of a tile set's shards, and shares put together: the same bytes as one run."""

import os
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from geoml_cli.errors import GeomlError, UsageMistake
from geoml_cli.formats.jsonfile import read_json
from geoml_cli.formats.stamp import Input, damage, read_stamp
from geoml_cli.formats.tileset import NAME
from geoml_cli.manners import Manners
from geoml_cli.stages.cut import notes_of
from geoml_cli.stages.cut_plan import Shard
from geoml_cli.stages.finish import finish
from geoml_cli.stages.job import Job, plan
from geoml_cli.stages.spelled import place_of
from geoml_cli.stages.statistics import Tally


def share(text: str) -> tuple[int, int]:
    """`i/n` of --shard, from 1."""
    match = re.fullmatch(r"(\d+)/(\d+)", text.strip())
    if not match or not 1 <= int(match[1]) <= int(match[2]):
        raise UsageMistake(f"--shard {text!r}: write 2/4, the second of four")
    return int(match[1]), int(match[2])


def of_part(shards: Sequence[Shard], part: tuple[int, int] | None) -> list[Shard]:
    """Every n-th shard, from the i-th on."""
    return list(shards) if part is None else list(shards[part[0] - 1 :: part[1]])


def leave_part(job: Job, head: dict[str, Any], part: tuple[int, int], shards: int) -> None:
    """Commit a share: arrays and notes of its shards, for `--merge`."""
    job.commit(head | {"part": {"number": part[0], "of": part[1], "shards": shards}})


def merge_parts(folders: Sequence[str], out: str, manners: Manners) -> None:
    """Put shares together; the result is what one run would have written."""
    heads = {folder: _part_head(folder) for folder in folders}
    first_folder, first = next(iter(heads.items()))
    arguments = {k: v for k, v in first["geoml"]["arguments"].items() if k != "shard"}
    check_shares(heads)
    sources = [
        Input(place_of(one["path"], Path(first_folder)), one["role"], one["digest"])
        for one in first["geoml"]["inputs"]
    ]
    if manners.dry_run:
        plan(manners, [f"put {len(heads)} shares with {first['part']['shards']} shards into {out}"])
        return
    with Job("tile", out, "tiles", NAME, arguments, sources, manners) as job:
        if not job.done:
            for folder, head in heads.items():
                for member in head["geoml"]["members"]:
                    _bring(Path(folder) / member, job.part / member)
            done = [_read_back(job.part, n, first) for n in range(first["part"]["shards"])]
            finish(job, {k: v for k, v in first.items() if k not in ("part", "geoml")}, done)
    job.report([job.stamp])


def _part_head(folder: str) -> dict[str, Any]:
    _, head = read_stamp(folder, NAME, "tile")
    for line in damage(folder):
        raise GeomlError(f"{line}; run the `geoml tile --shard` that made it")
    if "part" not in head:
        raise GeomlError(
            f"{folder}: is no share; --merge takes what `geoml tile --shard i/n` wrote"
        )
    return head


def check_shares(heads: dict[str, dict[str, Any]]) -> None:
    """All shares are of one run, and none is missing."""
    first_folder, first = next(iter(heads.items()))
    for folder, head in heads.items():
        for key in ("arguments", "inputs"):
            a, b = (_plain(h["geoml"][key]) for h in (first, head))
            if a != b:
                raise GeomlError(
                    f"{folder}: made from other {key} than {first_folder}; make it again"
                )
    numbers = sorted(head["part"]["number"] for head in heads.values())
    wanted = list(range(1, first["part"]["of"] + 1))
    if numbers != wanted:
        missing = ", ".join(str(n) for n in wanted if n not in numbers) or "none"
        raise GeomlError(
            f"--merge: shares {', '.join(map(str, numbers))} of {len(wanted)}; missing: {missing}"
        )


def _plain(recorded: Any) -> Any:
    if isinstance(recorded, dict):
        return {k: v for k, v in recorded.items() if k != "shard"}
    return sorted((one["role"], one["digest"]) for one in recorded)


def _bring(source: Path, target: Path) -> None:
    """The file under another name: a link where the disk is the same."""
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def _read_back(
    folder: Path, number: int, head: dict[str, Any]
) -> tuple[list[dict[str, Any]], list[Tally]]:
    notes, counts = notes_of(folder, number)
    with np.load(counts) as arrays:
        tallies = [Tally.of_arrays(arrays, sensor["name"]) for sensor in head["sensors"]]
    return list(read_json(notes)), tallies
