"""What a target was made of, in make's syntax, for `include` in a Makefile."""

import re
from collections.abc import Iterable
from pathlib import Path

from geoml_cli.formats.commit import write_text

EQUALS = "geoml_equals"  # make has no way to quote `=` in a target, so it comes out of a variable
UNSPEAKABLE = re.compile(r"[\n;|]|\\%|\\$|\(.*\)$")


def can_name(path: str) -> bool:
    """Whether make has a way to spell a path."""
    return not UNSPEAKABLE.search(path)


def write_depfile(path: str | Path, target: str, read: Iterable[str]) -> None:
    """Say that `target` was made of the files `read`; a file that is gone later counts as changed."""
    read = [name for name in read if can_name(name)]
    lines = [f"{EQUALS} := ="] if any("=" in name for name in (target, *read)) else []
    lines.append(" ".join([f"{_target(target)}:", *map(_quote, read)]))
    lines += [f"{_target(name)}:" for name in read]
    write_text(path, "\n".join(lines) + "\n")


def _quote(name: str) -> str:
    """A name as GNU make 4 reads it in a list of prerequisites."""
    name = re.sub(r"(\\+)(?=[\s#:*?\[\]])", lambda found: found[1] * 2, name.replace("$", "$$"))
    return re.sub(r"([ #:*?\[\]])", r"\\\1", name).replace("=", f"$({EQUALS})")


def _target(name: str) -> str:
    return _quote(name).replace("%", "\\%")
