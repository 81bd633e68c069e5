"""The commands behind a file: its record, those of what it was made of, and so on to the sources."""

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from geoml_cli.errors import GeomlError
from geoml_cli.formats.digest import digest_file
from geoml_cli.formats.stamp import read_record
from geoml_cli.formats.vectors import digest_vectors
from geoml_cli.stages.inputs import digest_source
from geoml_cli.stages.spelled import command_of, folded, home, is_local, place_of, shown

UNCHANGED, CHANGED, MISSING, UNSEEN = "unchanged", "changed", "missing", "not looked at"


@dataclass(frozen=True)
class Source:
    """One input of a step: its path from here, its part, how it is now, whether it is stale itself."""

    path: str
    role: str
    state: str
    stale: bool = False


@dataclass(frozen=True)
class Step:
    """One command: what it wrote, how it was called, what it read."""

    out: str
    verb: str
    words: list[str]
    sources: list[Source]

    @property
    def stale(self) -> bool:
        """Whether the command would do something if it ran again."""
        return any(s.stale or s.state in (CHANGED, MISSING) for s in self.sources)

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON values."""
        inputs = [
            {"path": s.path, "role": s.role, "state": s.state, "stale": s.stale}
            for s in self.sources
        ]
        return {
            "path": self.out,
            "verb": self.verb,
            "command": self.words,
            "stale": self.stale,
            "inputs": inputs,
        }


def why(path: str) -> list[Step]:
    """The chain behind an artifact or a member of one, oldest command first, each once."""
    owner = home(path)
    if owner is None:
        if is_local(path) and not os.path.exists(path):
            raise GeomlError(f"{path}: no such file or folder")
        read_record(path)  # a damaged one says what is wrong
        raise GeomlError(f"{path}: not known what made it: it holds no record of geoml's")
    steps: dict[str, Step] = {}
    _walk(owner, steps, ())
    return list(steps.values())


def _walk(owner: Path, steps: dict[str, Step], above: tuple[str, ...]) -> Step | None:
    """Add the step that made `owner` after those that made its inputs."""
    key = os.path.realpath(owner)
    if key in steps or key in above:
        return steps.get(key)
    record = read_record(owner)
    assert record
    sources = [_source(one, owner, steps, (*above, key)) for one in record["inputs"]]
    steps[key] = Step(shown(str(owner)), record["verb"], command_of(str(owner)), sources)
    return steps[key]


def _source(
    one: dict[str, str], owner: Path, steps: dict[str, Step], above: tuple[str, ...]
) -> Source:
    if not is_local(one["path"]):
        return Source(one["path"], one["role"], UNSEEN)
    place = place_of(one["path"], owner)
    state, below = _state(place, one["digest"]), None
    if state != MISSING:
        with suppress(GeomlError):  # a damaged one counts as changed, by its digest
            parent = home(place)
            below = _walk(parent, steps, above) if parent else None
    return Source(shown(place), one["role"], state, bool(below and below.stale))


def changed_inputs(owner: Path, record: dict[str, Any]) -> list[str]:
    """Inputs of an artifact that are gone, or no longer what they were; those that can be told."""
    places = [(place_of(one["path"], owner), one) for one in record["inputs"]]
    files = [(place, one) for place, one in places if is_local(one["path"])]
    return [
        shown(place)
        for place, one in files
        if not os.path.isdir(place) and _state(place, one["digest"]) != UNCHANGED
    ]


def _state(path: str, digest: str) -> str:
    if not os.path.exists(path):
        return MISSING
    with suppress(OSError):
        for look in (digest_file, digest_vectors, digest_source):
            with suppress(GeomlError):
                if look(path) == digest:
                    return UNCHANGED
    return CHANGED


def told(steps: list[Step], width: int = 100) -> list[str]:
    """The chain as a shell script with remarks; long commands go on after a backslash."""
    lines: list[str] = []
    for step in steps:
        reasons = [
            f"{s.path} is {s.state if s.state != UNCHANGED else 'stale'}"
            for s in step.sources
            if s.stale or s.state in (CHANGED, MISSING)
        ]
        says = f"stale: {'; '.join(reasons)}" if reasons else "up to date"
        lines += [""] if lines else []
        lines += [f"# {step.out}: {says}", *folded(step.words, width)]
        lines += [f"#   {s.state:<13} {s.role:<8} {s.path}" for s in step.sources]
    return lines
