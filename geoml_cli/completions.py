"""Completion scripts for bash, zsh and fish, with every name baked in: no Python runs at TAB."""

import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from geoml_cli import registry
from geoml_cli.cli import ROOT_OPTIONS
from geoml_cli.commands import COMMANDS, TOPICS
from geoml_cli.surface import Given

Surfaces = Mapping[str, list[Given]]  # verb: what it offers
HEAD = "# {} completion for geoml, written by `make docs`: static, no Python runs at TAB"
PATHS = {"PATH", "FILE", "FOLDER", "INPUT"}  # what stands for a file's name, also as FILE.json
DEVICES = ("auto", "cpu", "cuda", "mps")


class Values(NamedTuple):
    """What may stand in a place: names with their descriptions, file names, or anything."""

    names: Mapping[str, str]
    files: bool = False


def bare(value: str) -> str:
    """What a value is, without a name before it or an ending after it: `[LAYER=]FILE.csv` is a FILE."""
    return value.rpartition("]")[2].rpartition("=")[2].split(".")[0]


def values(given: Given) -> Values:
    """What an option or argument takes; `--encoder` takes the names in the room `encoders`."""
    if given.choices:
        return Values(dict.fromkeys(given.choices, ""))
    room = next((r for r in (given.name, f"{given.name}s") if r in registry.ENTRY), "")
    if given.flags and room:
        return Values({name: registry.about(room, name) for name in registry.names(room)})
    if given.value == "ROOM":
        rooms = {room: registry.about_room(room) for room in registry.ENTRY}
        return Values(rooms | {"weights": "Published checkpoints: size, licence, bands."})
    if given.value == "TOPIC":
        return Values(TOPICS | COMMANDS)
    if given.value == "DEVICE":
        return Values(dict.fromkeys(DEVICES, ""))
    return Values({}, files=bare(given.value) in PATHS or not given.flags)


def options(surface: Iterable[Given]) -> list[Given]:
    """The options of a command, without its arguments."""
    return [given for given in surface if given.flags]


def argument(surface: Iterable[Given]) -> Values:
    """What a command's arguments take."""
    return next((values(given) for given in surface if not given.flags), Values({}))


# ---- bash

BASH = """\
_geoml() {
    local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]}
    local word verb='' head='' options='' values='' files='' IFS=$' \\t\\n'
    COMPREPLY=()
    # bash cuts --option=value at the "=", unless COMP_WORDBREAKS has lost it
    if [[ $cur == --*=* ]]; then
        prev=${cur%%=*} head=${cur%%=*}= cur=${cur#*=}
    elif [[ $cur == = ]]; then
        cur=''
    elif [[ $prev == = ]]; then
        prev=${COMP_WORDS[COMP_CWORD-2]}
    fi
    for word in "${COMP_WORDS[@]:1:COMP_CWORD-1}"; do
        [[ $word != -* ]] && { verb=$word; break; }
    done
    case $verb in
@CASES@
    esac
    if [[ $files ]]; then
        # readline completes file names itself, quotes and tildes included, when nothing is given
        [[ $head ]] && IFS=$'\\n' && COMPREPLY=($(compgen -P "$head" -f -- "$cur"))
        return
    fi
    compopt +o default 2>/dev/null
    [[ $cur == -* && -z $head ]] && values=$options
    COMPREPLY=($(compgen -P "$head" -W "$values" -- "$cur"))
}
complete -o default -F _geoml geoml
"""


def bash(surfaces: Surfaces) -> str:
    """The script for bash 3.2 and later."""
    root = [flag for flags in ROOT_OPTIONS for flag in flags.split(", ") if flag.startswith("--")]
    cases = [f"    '') values='{' '.join(COMMANDS)}' options='{' '.join(root)}' ;;"]
    for verb, surface in surfaces.items():
        cases += [f"    {verb})", *_bash_verb(surface), "        ;;"]
    return f"{HEAD.format('bash')}\n{BASH.replace('@CASES@', chr(10).join(cases))}"


def _bash_verb(surface: list[Given]) -> list[str]:
    long = [flag for given in options(surface) for flag in given.flags if flag.startswith("--")]
    flags: dict[str, list[str]] = {}  # by what completes them
    for given in options(surface):
        if given.value:
            flags.setdefault(_bash_values(values(given)), []).extend(given.flags)
    return [
        f"        options='{' '.join(long)}'",
        "        case $prev in",
        *(f"        {'|'.join(spelled)}) {action} ;;" for action, spelled in flags.items()),
        f"        *) [[ $cur == -* ]] || {_bash_values(argument(surface))} ;;",
        "        esac",
    ]


def _bash_values(taken: Values) -> str:
    return "files=1" if taken.files else f"values='{' '.join(taken.names)}'"


# ---- zsh

ZSH = """\
_geoml() {
    local curcontext=$curcontext state line
    local -A opt_args
    _arguments -C '(- *)--version[Print the version.]' '(- *)'{-h,--help}'[Show this message and exit.]' \\
        '1:command:->verb' '*::argument:->rest'
    case $state in
    verb) _geoml_verbs ;;
    rest)
        case $words[1] in
@CASES@
        esac ;;
    esac
}
if [[ $funcstack[1] == _geoml ]]; then _geoml "$@"; else compdef _geoml geoml; fi
"""


def zsh(surfaces: Surfaces) -> str:
    """The script for zsh; lists of names are functions, so that each is written once."""
    lists = {"verbs": COMMANDS} | _lists(surfaces)
    functions = [
        f"_geoml_{title}() {{\n    local -a names=(\n"
        + "".join(f"        '{name}:{_zsh(line)}'\n" for name, line in names.items())
        + f"    )\n    _describe -t {title} {title} names\n}}\n"
        for title, names in lists.items()
    ]
    cases = []
    for verb, surface in surfaces.items():
        specs = [_zsh_option(given, lists) for given in options(surface)]
        specs += [
            f"'{'*' if given.many else '1'}:{given.value}:{_zsh_action(given, lists)}'"
            for given in surface
            if not given.flags
        ]
        cases.append(
            f"        {verb}) _arguments -s \\\n            " + " \\\n            ".join(specs)
        )
        cases.append("            ;;")
    body = ZSH.replace("@CASES@", "\n".join(cases))
    return f"#compdef geoml\n{HEAD.format('zsh')}\n{''.join(functions)}{body}"


def _lists(surfaces: Surfaces) -> dict[str, Mapping[str, str]]:
    """The described lists of names that some option or argument takes, by title."""
    found = {}
    for surface in surfaces.values():
        for given in surface:
            names = values(given).names
            if any(names.values()):
                found[_title(given)] = names
    return found


def _title(given: Given) -> str:
    """`encoders` for `--encoder`, `topics` for TOPIC."""
    return given.name if given.name.endswith("s") else f"{given.name}s"


def _zsh(text: str) -> str:
    return text.replace("'", "'\\''")


def _zsh_action(given: Given, lists: Mapping[str, object]) -> str:
    taken = values(given)
    if _title(given) in lists and any(taken.names.values()):
        return f"_geoml_{_title(given)}"
    return "_files" if taken.files else f"({' '.join(taken.names)})" if taken.names else " "


def _zsh_option(given: Given, lists: Mapping[str, object]) -> str:
    """`'(-o --out)'{-o+,--out=}'[help]:PATH:_files'`."""
    takes = {True: "=", False: "+"} if given.value else {True: "", False: ""}
    spelled = [flag + takes[flag.startswith("--")] for flag in given.flags]
    first = "*" if given.many else f"({' '.join(given.flags)})"
    flags = f"{{{','.join(spelled)}}}" if len(spelled) > 1 else spelled[0]
    line = _zsh(re.sub(r"([\[\]\\:])", r"\\\1", given.help))
    value = f":{given.value}:{_zsh_action(given, lists)}" if given.value else ""
    return f"'{first}'{flags}'[{line}]{_zsh(value)}'"


# ---- fish

FISH = """\
function __fish_geoml_using --description 'the verb on the command line is $argv[1]; or none is'
    set -l words (commandline -opc)
    for word in $words[2..-1]
        if not string match -q -- '-*' $word
            test "$word" = "$argv[1]"
            return
        end
    end
    test -z "$argv[1]"
end
complete -c geoml -f
"""


def fish(surfaces: Surfaces) -> str:
    """The script for fish 3 and later."""
    lines = [HEAD.format("fish"), FISH.rstrip()]
    for name, help_ in COMMANDS.items():
        lines.append(_fish("", f"-a {name} -d {_fish_quote(help_)}"))
    for flags, help_ in ROOT_OPTIONS.items():
        lines.append(_fish("", f"{_fish_flags(flags.split(', '))} -d {_fish_quote(help_)}"))
    for verb, surface in surfaces.items():
        for given in surface:
            spelled = f"{_fish_flags(given.flags)} " if given.flags else ""
            help_ = f" -d {_fish_quote(given.help)}" if given.flags else ""
            lines.append(_fish(verb, f"{spelled}{_fish_values(given)}{help_}".replace("  ", " ")))
    return "\n".join(lines) + "\n"


def _fish(verb: str, rest: str) -> str:
    return f"complete -c geoml -n '__fish_geoml_using {verb or chr(34) * 2}' {rest}"


def _fish_flags(flags: Iterable[str]) -> str:
    return " ".join(f"-l {f[2:]}" if f.startswith("--") else f"-s {f[1:]}" for f in flags)


def _fish_values(given: Given) -> str:
    taken = values(given)
    if taken.files:
        return "-r -F" if given.flags else "-F"
    items = [
        f"{name}\\t{_fish_quote(line)}" if line else name for name, line in taken.names.items()
    ]
    listed = f"-a {_fish_quote(' '.join(items))}" if items else ""
    return f"{'-x ' * bool(given.flags and given.value)}{listed}"


def _fish_quote(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
