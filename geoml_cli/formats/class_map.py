"""Class maps: a CSV that merges, renames, orders, colours and ignores the values of labels."""

import csv
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from geoml_cli.errors import GeomlError
from geoml_cli.geo.classes import IGNORE, Class, legend

REST = "*"  # the value that stands for all that no other row names
COLUMNS = ("value", "name", "color", "id")
WHOLE = re.compile(r"^(-?\d+)\.0+$")  # 3.0 is the class 3, as in a column of numbers
COLOR = re.compile(r"#[0-9a-fA-F]{6}")
MOST_NAMED = 10  # values in one message


@dataclass(frozen=True)
class ClassMap:
    """Names of classes in the order of their ids, colours that are set, and the class of each value."""

    path: str
    names: tuple[str, ...]
    colors: Mapping[str, str]
    named: Mapping[
        str, str | None
    ]  # value to class; None: ignored. `*` is the rest, if it is there

    @property
    def has_rest(self) -> bool:
        """Whether there is a row for all values that no other row names."""
        return REST in self.named

    def classes(self, paint: Mapping[str, str] | None = None) -> list[Class]:
        """The legend; `paint` are colours of classes that the map does not colour."""
        return legend(self.names, dict(paint or {}) | dict(self.colors))

    def ids(self, values: Iterable[str]) -> tuple[dict[str, int], int | None]:
        """Class id, or the ignore id, of each value, and of any other one (None: there is no rest).

        Values that no row names are refused all together.
        """
        position = {name: i for i, name in enumerate(self.names)}
        found = {v: IGNORE if n is None else position[n] for v, n in self.named.items()}
        rest = found.pop(REST, None)
        strange = [v for v in dict.fromkeys(values) if v not in found]
        if rest is None and strange:
            shown = ", ".join(strange[:MOST_NAMED]) + (
                f" and {len(strange) - MOST_NAMED} more" if len(strange) > MOST_NAMED else ""
            )
            raise GeomlError(
                f"{self.path}: does not name the values {shown}; give each a row (without a name it"
                " is ignored), or one row * for all of them"
            )
        return found, rest


def read_class_map(path: str) -> ClassMap:
    """Read a CSV with a column `value` and, where wanted, `name`, `color` and `id`."""
    rows = _rows(path)
    named: dict[str, str | None] = {}
    colors: dict[str, str] = {}
    ids: dict[str, int] = {}
    for line, row in rows:
        value, name, color, number = (row[c] for c in COLUMNS)
        value = WHOLE.sub(r"\1", value)
        where = f"{path}, line {line}: "
        if not value:
            raise GeomlError(f"{where}no value; write the value in the labels, or * for the rest")
        if value in named:
            raise GeomlError(f"{where}value {value} has a row already; one row a value")
        named[value] = name or None
        if color and not COLOR.fullmatch(color):
            raise GeomlError(f"{where}color {color!r}; write it as #rrggbb")
        if number and not number.isdigit():
            raise GeomlError(f"{where}id {number!r}; ids are whole numbers from 0")
        if name and color and colors.setdefault(name, color.lower()) != color.lower():
            raise GeomlError(f"{where}class {name} has the color {colors[name]} already")
        if name and number and ids.setdefault(name, int(number)) != int(number):
            raise GeomlError(f"{where}class {name} has the id {ids[name]} already")
    names = list(dict.fromkeys(name for name in named.values() if name))
    return ClassMap(path, tuple(_ordered(path, names, ids)), colors, named)


def _ordered(path: str, names: Sequence[str], ids: Mapping[str, int]) -> Sequence[str]:
    if not names:
        raise GeomlError(f"{path}: names no class; a row without a name ignores its value")
    if not ids:
        return names
    if missing := [name for name in names if name not in ids]:
        raise GeomlError(f"{path}: class {missing[0]} has no id; give all classes one, or none")
    owner: dict[int, str] = {}
    for name in names:
        if owner.setdefault(ids[name], name) != name:
            raise GeomlError(
                f"{path}: classes {owner[ids[name]]} and {name} share the id {ids[name]}"
            )
    if sorted(owner) != list(range(len(names))):
        have = ", ".join(map(str, sorted(owner)))
        raise GeomlError(
            f"{path}: ids {have}; {len(names)} classes have the ids 0 to {len(names) - 1}"
            " (without ids they are numbered in the order of the rows)"
        )
    return sorted(names, key=lambda name: ids[name])


def _rows(path: str) -> list[tuple[int, dict[str, str]]]:
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise GeomlError(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise GeomlError(f"{path}: not readable as a CSV file ({error})") from None
    lines = text.splitlines()
    first = lines[0] if lines else ""
    mark = next((m for m in ",;\t" if m in first), ",")
    try:
        table = csv.reader(lines, delimiter=mark, strict=True)
        header = [cell.strip().lower() for cell in next(table, [])]
        body = [(table.line_num, [cell.strip() for cell in row]) for row in table]
    except csv.Error as error:
        raise GeomlError(f"{path}: not readable as a CSV file ({error})") from None
    if "value" not in header:
        have = ", ".join(c for c in header if c) or "none"
        raise GeomlError(
            f"{path}: no column 'value'; a class map has the columns {', '.join(COLUMNS)}, this {have}"
        )
    for line, row in body:
        if len(row) > len(header):
            raise GeomlError(f"{path}, line {line}: {len(row)} cells under {len(header)} headings")
    return [
        (line, dict.fromkeys(COLUMNS, "") | dict(zip(header, row, strict=False)))
        for line, row in body
        if any(row)
    ]
