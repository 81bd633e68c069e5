"""Write man pages and completion scripts from the program itself: `python -m geoml_cli.docs`.

With `--check` nothing is written: stale files are named, and the status is 1 if there are any.
"""

import re
import sys
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from inspect import cleandoc
from pathlib import Path

from geoml_cli import __doc__ as summary
from geoml_cli import __version__, completions
from geoml_cli.cli import ROOT_OPTIONS
from geoml_cli.commands import COMMANDS
from geoml_cli.commands.help import ARTIFACTS, PIPES
from geoml_cli.errors import MEANING
from geoml_cli.program import program, surface_of
from geoml_cli.surface import Block, Given, blocks, usage

ROOT = Path(__file__).parents[1]
DATE = "2026-11-23"  # of the release; changes with __version__
MADE = '.\\" Written by `make docs` from geoml_cli: edit it there.'
ROFF = {  # what roff or a UTF-8 terminal would show as something else
    "\\": r"\e",
    "-": r"\-",
    "'": r"\(aq",
    "`": r"\(ga",
    "^": r"\(ha",
    "~": r"\(ti",
    '"': r"\(dq",
}


def escape(text: str) -> str:
    """Text as roff shows it letter by letter, in ASCII."""
    return "".join(ROFF.get(c, c if ord(c) < 128 else f"\\[u{ord(c):04X}]") for c in text)


def guard(line: str) -> str:
    """Keep a line that begins with a dot from being a request."""
    return f"\\&{line}" if line.startswith(".") else line


def prose(text: str) -> str:
    """A paragraph, wrapped; what stands in backquotes is bold."""
    lines = textwrap.wrap(text, 78, break_long_words=False, break_on_hyphens=False)
    joined = "\n".join(guard(escape(line)) for line in lines)
    return re.sub(r"\\\(ga(.+?)\\\(ga", r"\\fB\1\\fR", joined, flags=re.S)


def example(text: str) -> str:
    """Lines that stay as they are."""
    return "\n".join([".RS 4", ".EX", *(guard(escape(x)) for x in text.split("\n")), ".EE", ".RE"])


def passage(found: Sequence[Block]) -> str:
    """Paragraphs and examples, one after the other."""
    written = [example(b.text) if b.example else prose(b.text) for b in found]
    return "\n.PP\n".join(written)


def item(term: str, text: str) -> str:
    """A term and, indented below it, what it means."""
    return f".TP\n{term}\n{prose(text)}" if text else f".TP\n{term}"


def bold(text: str) -> str:
    """Text to be typed as it is."""
    return f"\\fB{escape(text)}\\fR"


def entry(given: Given) -> str:
    """One option or argument with its help."""
    note = f" ({given.note})" if given.note else ""
    if given.choices and given.flags:
        value = "|".join(map(bold, given.choices))
    else:
        value = f"\\fI{escape(given.value)}\\fR" + "..." * (given.many and not given.flags)
    names = ", ".join(map(bold, given.flags))
    return item(f"{names} {value if given.value else ''}".strip(), given.help + note)


def page(name: str, line: str, sections: Mapping[str, str]) -> str:
    """A whole man page; empty sections are left out."""
    head = f'.TH "{escape(name.upper())}" 1 "{DATE}" "geoml {__version__}" "geoml manual"'
    named = {"NAME": f"{escape(name)} \\- {escape(line.rstrip('.'))}"} | dict(sections)
    body = [f".SH {title}\n{text}" for title, text in named.items() if text]
    return "\n".join([MADE, head, ".nh", ".ad l", *body]) + "\n"


def synopsis(command: str, rest: str) -> str:
    """The command in bold, what is to be typed in bold, what stands for something in italics."""
    marked = re.sub(r"[A-Z]{2,}[A-Z0-9_]*", lambda found: f"\\fI{found[0]}\\fR", escape(rest))
    marked = re.sub(r"(\\-)+[a-z]\S*", lambda found: f"\\fB{found[0]}\\fR", marked)
    return f".B {escape(command)}\n{marked}"


def artifacts() -> str:
    """The table of `geoml help artifacts`."""
    table, rest = ARTIFACTS.split("\n\n", 1)
    rows = [re.split(r"  +", line, maxsplit=1) for line in table.split("\n")]
    listed = [item(bold(name), f"{what}.") for name, what in rows]
    return "\n".join([*listed, ".PP", passage(blocks(rest))])


def first_command(found: Sequence[Block]) -> str:
    """The first command of a verb's examples, with the lines that go on from it."""
    text = next((block.text for block in found if block.example), "")
    return re.match(r"(.*\\\n)*.*", text)[0]  # type: ignore[index]


def statuses() -> str:
    """The table of `geoml help exit-codes`."""
    return "\n".join(item(bold(str(status.value)), f"{line}.") for status, line in MEANING.items())


def see_also(names: Iterable[str]) -> str:
    """References to other pages."""
    return " ,\n".join(f".BR \\%{escape(name)} (1)" for name in names)


def root_page(docs: Mapping[str, str]) -> str:
    """The page of `geoml` itself, with the first example of each verb."""
    commands = filter(None, (first_command(blocks(doc)) for doc in docs.values()))
    return page(
        "geoml",
        summary or "",
        {
            "SYNOPSIS": synopsis("geoml", "COMMAND [ARGUMENTS]..."),
            "DESCRIPTION": passage(blocks(f"{summary}\n\n{PIPES}")),
            "COMMANDS": "\n".join(item(bold(name), line) for name, line in COMMANDS.items()),
            "OPTIONS": "\n".join(
                item(", ".join(map(bold, flags.split(", "))), line)
                for flags, line in ROOT_OPTIONS.items()
            ),
            "EXIT STATUS": statuses(),
            "FILES": artifacts(),
            "EXAMPLES": example("\n".join(commands)),
            "SEE ALSO": see_also(f"geoml-{name}" for name in COMMANDS),
        },
    )


def verb_page(name: str, doc: str, surface: Sequence[Given]) -> str:
    """The page of one verb; the examples that end its docstring have their own section."""
    text = blocks(doc)
    last = max((i for i, block in enumerate(text) if not block.example), default=0) + 1
    own = [given for given in surface if given.flags and not given.shared]
    common = [given for given in surface if given.shared]
    described = [passage(text[:last]), *(entry(given) for given in surface if not given.flags)]
    return page(
        f"geoml-{name}",
        COMMANDS[name],
        {
            "SYNOPSIS": synopsis(f"geoml {name}", usage(surface)),
            "DESCRIPTION": "\n".join(described),
            "OPTIONS": "\n".join(map(entry, own)),
            "COMMON OPTIONS": "\n".join(map(entry, common)),
            "EXIT STATUS": statuses(),
            "EXAMPLES": "\n.PP\n".join(example(block.text) for block in text[last:]),
            "SEE ALSO": see_also(
                ["geoml", *(f"geoml-{other}" for other in COMMANDS if other != name)]
            ),
        },
    )


def generate() -> dict[str, str]:
    """Every generated file: {path from the root of the repository: text}."""
    verbs = {name: program(name) for name in COMMANDS}
    surfaces = {name: surface_of(verb) for name, verb in verbs.items()}
    docs = {name: cleandoc(verb.help or "") for name, verb in verbs.items()}
    pages = {f"man/geoml-{name}.1": verb_page(name, docs[name], surfaces[name]) for name in verbs}
    return {
        "man/geoml.1": root_page(docs),
        **pages,
        "completions/geoml": completions.bash(surfaces),
        "completions/_geoml": completions.zsh(surfaces),
        "completions/geoml.fish": completions.fish(surfaces),
    }


def stale(wanted: Mapping[str, str], root: Path) -> list[str]:
    """Files that are missing, differ, or describe a command that is no more."""
    left = {str(p.relative_to(root)) for p in (root / "man").glob("geoml*.1")} - set(wanted)
    differ = {p for p, text in wanted.items() if not _holds(root / p, text)}
    return sorted(left | differ)


def _holds(path: Path, text: str) -> bool:
    return path.is_file() and path.read_text() == text


def main(argv: Sequence[str], root: Path = ROOT) -> int:
    """Write what is stale, or only name it."""
    wanted = generate()
    changed = stale(wanted, root)
    if "--check" in argv:
        if changed:
            print(f"stale: {' '.join(changed)}; run `make docs`", file=sys.stderr)
        return int(bool(changed))
    for name in changed:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        if name in wanted:
            (root / name).write_text(wanted[name])
        else:
            (root / name).unlink()
        print(name)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
