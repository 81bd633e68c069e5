"""What a search that runs again and again has brought already: `--since last`."""

import os
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import shapely

from geoml_cli.errors import GeomlError
from geoml_cli.formats.commit import write_text
from geoml_cli.formats.jsonfile import dumps, read_json, sha256_of
from geoml_cli.geo.query import Query, collection_of, times_of

FORMAT = 1
LATE = timedelta(days=45)  # scenes may be published this long after they were taken


@dataclass
class Cursor:
    """Scenes that were brought, by collection and id, with the word by which a new version is told."""

    path: Path
    search: str  # sha256 of what is searched for, times aside
    seen: dict[str, str] = field(default_factory=dict)
    newest: str | None = None

    def skip(self, item: dict[str, Any]) -> bool:
        """Whether an item was brought, and is as it was."""
        return self.seen.get(key_of(item)) == _version(item)

    def narrowed(self, asked: Query) -> Query:
        """The search, without times so long ago that nothing new is published of them."""
        if not self.newest:
            return asked
        since = datetime.fromisoformat(self.newest) - LATE
        return replace(asked, start=max(asked.start, since) if asked.start else since)

    def note(self, items: list[dict[str, Any]]) -> None:
        """Remember items that have been brought."""
        for item in items:
            self.seen[key_of(item)] = _version(item)
            when = times_of(item)[1]
            if when and (self.newest is None or when.isoformat() > self.newest):
                self.newest = when.isoformat()

    def forget(self, item: dict[str, Any]) -> None:
        """Let an item be brought again."""
        self.seen.pop(key_of(item), None)

    def save(self) -> None:
        """Write the file, whole or not at all."""
        plain = {"format": FORMAT, "search": self.search, "newest": self.newest, "seen": self.seen}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_text(self.path, dumps({"geoml:cursor": plain}))


def cursor_of(path: str, catalog: str, asked: Query) -> Cursor:
    """The cursor in a file, or a new one where there is none; one of another search is refused."""
    shape = asked.area and shapely.to_wkb(shapely.normalize(asked.area), hex=True)
    told = [sorted(asked.collections), shape, sorted(asked.ids), asked.max_cloud, asked.filter]
    search = sha256_of([catalog if catalog != "-" else None, *told])
    fresh = Cursor(Path(path), search)
    if not os.path.exists(path):
        return fresh
    try:
        said = read_json(Path(path))["geoml:cursor"]
        found = Cursor(Path(path), said["search"], dict(said["seen"]), said["newest"])
    except (GeomlError, KeyError, TypeError, ValueError):
        raise GeomlError(f"{path}: no cursor, or a damaged one; remove it to begin anew") from None
    if found.search != search:
        raise GeomlError(
            f"{path}: keeps track of another search; name another --cursor, or remove it to begin anew"
        )
    return found


def key_of(item: dict[str, Any]) -> str:
    """What tells a scene from others: its collection and id."""
    return f"{collection_of(item) or ''}/{item['id']}"


def _version(item: dict[str, Any]) -> str:
    """What changes when an item is published anew: its time of change, else what it says."""
    said = item.get("properties") or {}
    word = said.get("updated") or said.get("s2:generation_time") or said.get("created")
    return str(word) if word else sha256_of([said, sorted(item["assets"])])[:16]
