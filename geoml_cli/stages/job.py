"""One run of one verb: lock, up-to-date check, a place to build in, signals, commit, report.

with Job("tile", out, "tiles", "tileset.json", arguments, inputs, manners) as job:
    if not job.done:
        ... build in job.part, calling job.check() between blocks ...
        job.commit(document)
job.report([str(job.stamp)])
"""

import json
import logging
import os
import shutil
import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from itertools import filterfalse
from pathlib import Path
from types import TracebackType
from typing import Any

from geoml_cli.errors import GeomlError, SomeFailed, Stopped, TryLater, Unreachable, UsageMistake
from geoml_cli.formats.commit import locked, put_folder, sync, write_text
from geoml_cli.formats.depfile import can_name, write_depfile
from geoml_cli.formats.digest import digest_file
from geoml_cli.formats.jsonfile import dumps, read_json
from geoml_cli.formats.stamp import Input, damage, read_record, record, stamp_in
from geoml_cli.manners import Manners, now
from geoml_cli.stages.signals import Signals

MARK = ".part.json"  # in a part folder: the fingerprint it is being built for
NOTE = ".mark"  # ending of a file beside one in a part folder: what that one is of, until the end
log = logging.getLogger("geoml")


class Job:
    """A run that writes one folder, or one file when `stamp` is None."""

    def __init__(
        self,
        verb: str,
        out: str,
        kind: str,
        stamp: str | None,
        arguments: dict[str, Any],
        inputs: list[Input],
        manners: Manners,
        mixed: bool = False,
        beside: Sequence[Path] = (),
    ) -> None:
        """`mixed`: files in the part folder tell themselves what they are of, so other runs' may stay.

        `beside`: files with a record of their own that the run writes elsewhere.
        """
        self.beside = tuple(beside)
        self.verb, self.manners, self.inputs, self.mixed = verb, manners, inputs, mixed
        self.named = out.rstrip("/") or out  # as on the command line: what make calls the target
        # a link is followed, so that what it leads to is replaced, on the disk that it leads to
        self.out = Path(
            os.path.realpath(out) if os.path.islink(self.named) else os.path.abspath(out)
        )
        if not self.out.name:
            raise UsageMistake(f"-o {out}: name a folder or file in it")
        self.stamp_name = stamp
        here = self.out if stamp else self.out.parent
        kept = [Input(_relative(i.path, here), i.role, i.digest) for i in inputs]
        self.record = record(verb, kind, arguments, kept)
        self.part = self.out.with_name(f".{self.out.name}.part")
        self.done = False
        self.failed: list[str] = []
        self._building = False
        self._finished = 0  # inputs, in this run: work that a rerun need not repeat
        self._began = now()
        self._stack = ExitStack()

    @property
    def stamp(self) -> str:
        """The stamp's path as the user would write it."""
        return f"{self.named}/{self.stamp_name}" if self.stamp_name else self.named

    def __enter__(self) -> "Job":
        self.out.parent.mkdir(parents=True, exist_ok=True)
        self._stack.enter_context(locked(self.out))
        try:
            self.signals = self._stack.enter_context(Signals())
            self._look()
            if not self.done:
                self._begin()
        except BaseException as error:
            self._leave(error)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        self._leave(error)

    def _leave(self, error: BaseException | None) -> None:
        """Let go. What a rerun can go on from is kept and said; what the inputs are to blame for is not."""
        with self._stack:
            if error is None or not self._building or not self.part.is_dir():
                return
            final = isinstance(error, GeomlError) and not isinstance(error, Stopped | TryLater)
            if (final and not self._finished) or not any(
                p.name != MARK for p in self.part.iterdir()
            ):
                shutil.rmtree(self.part)
            else:
                log.warning("%s keeps what is done; run the same command again to go on", self.part)

    def is_made(self, path: Path) -> bool:
        """Whether a file beside the output is of this very run."""
        if not path.exists():
            return False
        found = read_record(path)
        if found is None and not self.manners.force:
            raise GeomlError(
                f"{path}: exists and was not written by geoml; name another, or --force replaces it"
            )
        return found is not None and found["fingerprint"] == self.record["fingerprint"]

    def _look(self) -> None:
        """Decide between up to date, stale (ours, replaced) and foreign (refused)."""
        for path in self.beside:
            if not path.parent.is_dir():
                raise GeomlError(f"{path}: there is no folder {path.parent}; make it first")
            self.is_made(path)
        if not os.path.lexists(self.out):
            return
        if self.out.is_dir() and not self.stamp_name:
            raise GeomlError(f"{self.named}: is a folder; name a file")
        try:
            found = read_record(self.out)
        except GeomlError as error:
            if not self.manners.force:
                raise GeomlError(f"{error}; --force replaces it") from None
            self._guard()
            return
        if found is None:
            self._guard()
            if not self.manners.force and not (self.out.is_dir() and not any(self.out.iterdir())):
                raise GeomlError(
                    f"{self.named}: exists and was not written by geoml; name another -o, or --force replaces it"
                )
            return
        if found["verb"] != self.verb and not self.manners.force:
            raise GeomlError(
                f"{self.named}: written by `geoml {found['verb']}`; name another -o, or --force replaces it"
            )
        same = found["fingerprint"] == self.record["fingerprint"] and not found.get("failed")
        if same and not damage(self.out) and all(map(self.is_made, self.beside)):
            self.done = True
            self._touch()
            log.info("%s is up to date", self.stamp)
            if self.part.is_dir() and not (self.part / MARK).is_file():
                shutil.rmtree(self.part)  # the old artifact: a run was killed after the exchange
        else:
            self._guard()
            self._strangers(found)

    def _guard(self) -> None:
        """What is read, and the folder the user stands in or lives in, is never replaced."""
        out = os.path.realpath(self.out)
        kept = {".": "where you are", os.path.expanduser("~"): "your home"}
        for path, why in {**kept, **{i.path: "which this run reads" for i in self.inputs}}.items():
            path = os.path.realpath(path)
            if Path(path).is_relative_to(out):
                held = f"is {why}" if path == out else f"holds {path}, {why}"
                raise GeomlError(f"{self.named}: {held}; it would be replaced: name another -o")

    def _strangers(self, found: dict[str, Any]) -> None:
        """A stale folder of ours may hold files of the user's: they are not thrown away."""
        if not self.out.is_dir() or self.manners.force:
            return
        ours = set(found.get("members", {})) | {self.stamp_name}
        there = {str(p.relative_to(self.out)) for p in self.out.rglob("*") if not p.is_dir()}
        strange = sorted(p for p in there - ours if not p.endswith(".aux.xml"))
        if strange:
            raise GeomlError(
                f"{self.named}/{strange[0]}: not written by geoml, and {self.named} must be made again;"
                " move it away, or --force drops it"
            )

    def _touch(self) -> None:
        """Make the stamp newer than its inputs, if it is not, so that make is quiet."""
        stamp = stamp_in(self.out) or self.out
        newest = max((_mtime_ns(i.path) for i in self.inputs), default=0)
        if stamp.stat().st_mtime_ns < newest:
            os.utime(stamp)

    def _begin(self) -> None:
        self._building = True
        mark = {"fingerprint": self.record["fingerprint"]}
        if self.mixed:
            mark = {"verb": self.verb}
        if self.part.is_dir() and (self.part / MARK).is_file():
            try:
                if read_json(self.part / MARK) == mark:
                    log.info("going on in %s", self.part)
                    return
            except GeomlError:
                pass
        if self.mixed and stamp_in(self.part):  # finished, and killed before it was put in place
            write_text(self.part / MARK, dumps(mark))
            return
        if self.part.is_dir() and not self.part.is_symlink():
            shutil.rmtree(self.part)
        else:
            self.part.unlink(missing_ok=True)
        self.part.mkdir()
        write_text(self.part / MARK, dumps(mark))

    def check(self) -> None:
        """Stop here if a signal or the deadline asks for it; call it between blocks."""
        if self.signals.caught:
            raise Stopped(self.signals.caught)
        limit = self.manners.deadline_s
        if limit is not None and now() - self._began > limit:
            raise TryLater("deadline reached; run the same command again to go on")

    def attempt(self, name: str, work: Callable[[], Any]) -> Any:
        """Do one input's work; under --keep-going a GeomlError of its own is noted, not raised."""
        try:
            result = work()
            self._finished += 1
            return result
        except GeomlError as error:
            ours = isinstance(error, Stopped | TryLater) and not isinstance(error, Unreachable)
            if ours or not self.manners.keep_going:
                raise
            self.failed.append(name)
            log.warning("%s", error)
            return None

    def commit(self, document: dict[str, Any]) -> None:
        """Write the stamp, holding the sha256 of every member, and put the folder in place."""
        assert self.stamp_name
        for torn in self.part.rglob(".*.tmp"):  # of a run that was killed
            torn.unlink()
        files = (p.relative_to(self.part).as_posix() for p in self.part.rglob("*") if p.is_file())
        ours = (MARK, self.stamp_name)
        names = sorted(name for name in files if name not in ours and not name.endswith(NOTE))
        members = {n: digest_file(self.part / n) for n in names}
        document["geoml"] = self.record | {"members": members}
        if self.failed:  # so that the next run does not take it for up to date
            document["geoml"]["failed"] = sorted(self.failed)
        write_text(self.part / self.stamp_name, dumps(document))
        for note in [self.part / MARK, *self.part.rglob(f"*{NOTE}")]:
            note.unlink()
        put_folder(self.part, self.out)

    def commit_file(self, built: Path, others: dict[Path, Path] | None = None) -> None:
        """Put one finished file in place (and its companions before it); drop the part folder."""
        for source, target in [*(others or {}).items(), (built, self.out)]:
            sync(source)
            os.replace(source, target)
            sync(target.parent)
        shutil.rmtree(self.part)

    def report(
        self, paths: Iterable[str], records: Iterable[dict[str, Any]] = (), **summary: Any
    ) -> None:
        """Print what was written: paths, or records (--ndjson), or one summary (--json)."""
        if self.manners.depfile:
            self._write_depfile(self.manners.depfile)
        lines = list(paths)
        if self.manners.ndjson:
            for line in records:
                print(json.dumps(line, sort_keys=True, allow_nan=False))
        elif self.manners.json:
            done = {
                "out": self.named,
                "written": lines,
                "up_to_date": self.done,
                "failed": self.failed,
            }
            print(json.dumps(done | summary, sort_keys=True, allow_nan=False))
        else:
            for path in lines:
                print(path)
        sys.stdout.flush()
        if self.failed:
            raise SomeFailed(f"{len(self.failed)} input(s) failed: {', '.join(self.failed[:5])}")

    def _write_depfile(self, path: str) -> None:
        # only what make can look at: of a name that is no file it would say "changed", always
        read = sorted({i.path for i in self.inputs if os.path.exists(i.path)})
        for name in filterfalse(can_name, [self.stamp, *read]):
            log.warning("%s: make has no way to spell this name; %s goes without it", name, path)
        write_depfile(path, self.stamp, read)


def _mtime_ns(path: str) -> int:
    try:
        return os.stat(stamp_in(path) or path).st_mtime_ns
    except OSError:
        return 0


def _relative(path: str, here: Path) -> str:
    """A local path as seen from the artifact, so that a moved project keeps its chain."""
    if path == "-" or "://" in path or not os.path.exists(path):  # a name that GDAL understands
        return path
    return os.path.relpath(path, here)


def plan(manners: Manners, lines: Iterable[str]) -> None:
    """Print what --dry-run found: to stderr for people, nothing on stdout."""
    for line in lines:
        print(f"geoml: would {line}", file=sys.stderr)
