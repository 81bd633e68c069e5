"""Options of a verb in a TOML file, under the names of the flags: `--config` and `--print-config`."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from geoml_cli.errors import GeomlError, UsageMistake
from geoml_cli.surface import Given

SELF = ("config", "print_config", "help")


def named_file(words: Sequence[str]) -> str | None:
    """The file that a command line names with `--config`; of several the last."""
    found = None
    for i, word in enumerate(words):
        if word == "--":
            break
        if word == "--config" and i + 1 < len(words):
            found = words[i + 1]
        elif word.startswith("--config="):
            found = word.partition("=")[2]
    return found


def read_config(
    path: str, verb: str, verbs: Sequence[str], surface: Sequence[Given]
) -> dict[str, Any]:
    """Values by the parameter's name: the top of a file, then its table of the verb.

    Tables of other verbs may stand beside it. Raises where the file is no TOML, or a name is none of
    the verb's.
    """
    import tomllib

    try:
        with open(path, "rb") as file:
            found = tomllib.load(file)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise GeomlError(f"{path}: no TOML file ({error})") from None
    own = found.pop(verb, {})
    if not isinstance(own, dict):
        found[verb], own = own, {}
    plain = {k: v for k, v in found.items() if not (isinstance(v, dict) and k in verbs)}
    known = {name: given for given in surface for name in names_of(given)}
    values = {}
    for key, value in {**plain, **own}.items():
        name = key.replace("-", "_").lower()
        if name not in known or known[name].name in SELF:
            raise UsageMistake(
                f"{path}: geoml {verb} has no option called {key}{_near(name, known)}"
            )
        given = known[name]
        values[given.parameter] = _value(value, given, f"{path}: {key}")
    return values


def names_of(given: Given) -> list[str]:
    """How a file may call an option or an argument, with _ for -."""
    flags = [flag.lstrip("-").replace("-", "_") for flag in given.flags if flag.startswith("--")]
    return [given.name, *flags]


def _near(name: str, known: Mapping[str, Given]) -> str:
    from difflib import get_close_matches

    near = get_close_matches(name, known, 1)
    return f"; did you mean {near[0].replace('_', '-')}?" if near else ""


def _value(value: Any, given: Given, where: str) -> Any:
    """A value as the command line would have given it."""
    if isinstance(value, dict):
        raise UsageMistake(f"{where}: is a table; write a value")
    if not given.value and given.flags:  # a switch
        if not isinstance(value, bool):
            raise UsageMistake(f"{where}: write true or false")
        return value
    if given.many:
        return [_word(one) for one in (value if isinstance(value, list) else [value])]
    return ",".join(map(_word, value)) if isinstance(value, list) else _word(value)


def _word(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return repr(value) if isinstance(value, float) else str(value)


def as_toml(surface: Sequence[Given], values: Mapping[str, Any]) -> str:
    """All that is in effect, as a file that `--config` reads back to the same run."""
    lines = []
    for given in surface:
        value = values.get(given.parameter)
        if given.name in SELF or value is None or (given.many and not value):
            continue
        lines.append(f"{given.name.replace('_', '-')} = {_literal(value)}")
    return "\n".join(lines)


def _literal(value: Any) -> str:
    """A TOML value; JSON writes strings, numbers and lists of them alike."""
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_literal, value))}]"
    if isinstance(value, bool | int | float | str):
        return json.dumps(value, ensure_ascii=False)
    return json.dumps(str(getattr(value, "value", value)), ensure_ascii=False)
