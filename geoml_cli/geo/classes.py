"""Classes: id, name and colour; 255 is the id of what is not labelled."""

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.resources import files
from typing import Any

IGNORE = 255


@dataclass(frozen=True)
class Class:
    """One class of a legend."""

    id: int
    name: str
    color: str  # "#rrggbb"

    @property
    def rgb(self) -> tuple[int, int, int]:
        """Colour as 0..255 values."""
        r, g, b = bytes.fromhex(self.color[1:])
        return r, g, b

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON values."""
        return asdict(self)


def legend(names: Sequence[str], colors: Mapping[str, str] | None = None) -> list[Class]:
    """Classes 0, 1, ... in the order of names; colours from the table of common names, else a palette."""
    table = tomllib.loads((files("geoml_cli") / "data" / "colors.toml").read_text())
    known = table["names"] | dict(colors or {})
    taken = {known.get(n) for n in names}
    spare = [c for c in table["palette"] if c not in taken] or table["palette"]
    out = []
    for i, name in enumerate(names):
        color = known.get(name) or known.get(name.lower().replace("_", " "))
        out.append(Class(i, name, color or spare[i % len(spare)]))
    return out


def read_classes(plain: Sequence[Mapping[str, Any]]) -> list[Class]:
    """Read a list of `to_dict`."""
    return [Class(int(c["id"]), str(c["name"]), str(c["color"])) for c in plain]
