"""STAC APIs on this machine for tests: recorded, made up, and real servers; each ends with its block."""

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import requests
from served import running

ROOT = Path(__file__).parent.parent
RECORDED = ROOT.parent / "shared/data/stac/pc_earthsearch_replay"
SERVERS = Path(os.environ.get("GEOML_SERVERS", ROOT / ".venv-servers"))
PLANETARY = "planetarycomputer.microsoft.com/api/stac/v1"
EARTH = "earth-search.aws.element84.com/v1"
APIS = (PLANETARY, EARTH)
CORE = [
    f"https://api.stacspec.org/v1.0.0/{name}" for name in ("core", "collections", "item-search")
]
CQL2 = "http://www.opengis.net/spec/cql2/1.0/conf/cql2-json"
START_S = 30


@dataclass
class Ask:
    """One request."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: Any


@dataclass
class Reply:
    """One answer; `fate` drop hangs up before it, half in the middle of it."""

    value: Any = None  # sent as JSON; bytes as they are
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    fate: str = ""


class Web(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, answer: Callable[[Ask], Reply]) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answer = answer
        self.log: list[Ask] = []
        self.fates: list[int] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, *_: Any) -> None:
        """A client that hangs up is nothing to print."""

    def bodies(self) -> list[Any]:
        """What searches were sent."""
        return [ask.body or ask.query for ask in self.log if ask.path.endswith("/search")]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # else the body waits 40 ms for the head to be acknowledged
    server: Web

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        sent = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        ask = Ask(
            self.command,
            parts.path,
            dict(parse_qsl(parts.query)),
            dict(self.headers),
            json.loads(sent) if sent else None,
        )
        self.server.log.append(ask)
        reply = self.server.answer(ask)
        body = reply.value if isinstance(reply.value, bytes) else json.dumps(reply.value).encode()
        self.close_connection = bool(reply.fate)
        if reply.fate == "drop":
            return
        self.send_response(reply.status)
        for name, value in reply.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: len(body) // 2] if reply.fate == "half" else body)

    do_POST = do_GET

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@contextmanager
def answering(answer: Callable[[Ask], Reply]) -> Iterator[Web]:
    """A server that answers as the function says."""
    server = Web(answer)
    with running(server):
        yield server


@contextmanager
def small_api(
    items: Sequence[dict[str, Any]],
    *conforms: str,
    method: str = "POST",
    page: int = 10,
    fate: Callable[[Ask], Reply | None] = lambda ask: None,
) -> Iterator[Web]:
    """An API that knows no condition at all: it sends all items by pages; `fate` goes first."""

    def answer(ask: Ask) -> Reply:
        if found := fate(ask):
            return found
        url = server.url
        if ask.path == "/":
            links = [{"rel": "search", "href": f"{url}/search", "method": method}]
            links.append({"rel": "data", "href": f"{url}/collections"})
            landing = {"type": "Catalog", "id": "small", "description": "", "stac_version": "1.0.0"}
            return Reply(landing | {"conformsTo": [*CORE, *conforms], "links": links})
        names = sorted({item["collection"] for item in items})
        if ask.path == "/collections":
            return Reply({"collections": [{"id": name} for name in names], "links": []})
        if ask.path.startswith("/collections/"):
            there = ask.path.removeprefix("/collections/") in names
            return Reply({"id": "it"}) if there else Reply({"code": "NotFound"}, 404)
        asked = ask.body or ask.query
        first = int(asked.get("token", 0))
        links = []
        if first + page < len(items):
            more = asked | {"token": str(first + page)}
            text = "&".join(f"{k}={v}" for k, v in more.items())
            link = {"rel": "next", "href": f"{url}/search", "method": "POST", "body": more}
            get = {"rel": "next", "href": f"/search?{text}"}  # as some write it
            links = [link if ask.method == "POST" else get]
        part = list(items[first : first + page])
        return Reply({"type": "FeatureCollection", "features": part, "links": links})

    with answering(answer) as server:
        yield server


@contextmanager
def replay() -> Iterator[Web]:
    """The recorded exchanges of the Planetary Computer and Earth Search, under their host as a path.

    A request is known by method, path, query and body; the size of a page does not count. What
    was never asked for has HTTP status 599.
    """
    known: dict[tuple[str, str, str], tuple[int, str]] = {}
    ids: dict[str, Any] = {}
    for entry in json.loads((RECORDED / "index.json").read_text()):
        text = (RECORDED / entry["file"]).read_text()
        parts = urlsplit(entry["uri"])
        sent = entry["request_body"] or "null"
        query = dict(parse_qsl(parts.query))
        key = (entry["method"], f"/{parts.netloc}{parts.path}", _sorted(query, json.loads(sent)))
        known.setdefault(key, (entry["status"], text))
        if parts.path.endswith("/collections"):
            for one in json.loads(text)["collections"]:
                ids[f"{key[1]}/{one['id']}"] = one
    hosts = {urlsplit(f"//{path}").hostname for path in APIS}

    def answer(ask: Ask) -> Reply:
        found = known.get((ask.method, ask.path, _sorted(ask.query, ask.body)))
        if found is None and ask.path in ids:
            found = (200, json.dumps(ids[ask.path]))
        elif found is None and ask.path.rpartition("/")[0] in (f"/{p}/collections" for p in APIS):
            found = known["GET", f"/{EARTH}/collections/foo", _sorted({}, None)]  # a recorded 404
        if found is None:
            return Reply({"description": f"never recorded: {ask.body}"}, 599)
        body = json.loads(found[1])
        for link in [*body.get("links", []), *_links_below(body)]:
            for host in hosts:
                link["href"] = link["href"].replace(f"https://{host}", f"{server.url}/{host}")
        return Reply(body, found[0])

    with answering(answer) as server:
        yield server


def _links_below(body: dict[str, Any]) -> list[dict[str, Any]]:
    below = [*body.get("features", []), *body.get("collections", [])]
    return [link for one in below for link in one.get("links", [])]


def _sorted(query: dict[str, str], body: Any) -> str:
    kept = {k: v for k, v in (body or {}).items() if k != "limit"}
    times = kept.get("datetime")
    if times:  # a moment may be written in several ways
        ends = [t if t == ".." else datetime.fromisoformat(t).isoformat() for t in times.split("/")]
        kept["datetime"] = "/".join(ends)
    return json.dumps([query, kept], sort_keys=True)


@contextmanager
def sas(minutes: float = 60, log: list[tuple[str, str | None]] | None = None) -> Iterator[Web]:
    """An endpoint of tokens for PC_SDK_SAS_URL; the n-th token ends in `sig=hush-n`.

    `log` takes what was asked for, `account/container`, and with which subscription key. Statuses
    in the server's `fates` are answered first, one a request.
    """
    given: list[int] = []

    def answer(ask: Ask) -> Reply:
        if log is not None:
            log.append((ask.path.lstrip("/"), ask.headers.get("Ocp-Apim-Subscription-Key")))
        if server.fates:
            return Reply({"message": "sig=hush-no"}, server.fates.pop(0), {"Retry-After": "0"})
        given.append(len(given))
        ends = (datetime.now(UTC) + timedelta(minutes=minutes)).isoformat()
        text = f"st=2020&se={ends[:19]}Z&sp=rl&sig=hush-{len(given)}"
        return Reply({"msft:expiry": ends, "token": text})

    with answering(answer) as server:
        yield server


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def process(command: list[str], url: str, log: Path, **more: Any) -> Iterator[str]:
    """A server program until the block ends; it has to answer at `url`."""
    with (
        log.open("wb") as out,
        subprocess.Popen(command, stdout=out, stderr=out, **more) as program,
    ):
        try:
            _wait_for(url, program, log)
            yield url
        finally:
            program.terminate()
            try:
                program.wait(10)
            except subprocess.TimeoutExpired:
                program.kill()


def _wait_for(url: str, program: "subprocess.Popen[bytes]", log: Path) -> None:
    end = time.monotonic() + START_S
    while time.monotonic() < end and program.poll() is None:
        try:
            if requests.get(url, timeout=5).ok:
                return
        except requests.RequestException:
            time.sleep(0.05)
    raise RuntimeError(f"{program.args} does not answer: {log.read_text()[-2000:]}")


@contextmanager
def rustac_api(file: Path) -> Iterator[str]:
    """`rustac serve` over a file of items; it knows no filter, query or sort."""
    beside = Path(sys.executable).parent / "rustac"
    program = str(beside) if beside.exists() else shutil.which("rustac") or "rustac"
    address = f"127.0.0.1:{free_port()}"
    options = ["--use-duckdb", "false", "--create-collections", "--addr", address]
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        with process([program, "serve", str(file), *options], f"http://{address}", log) as url:
            yield url


def postgres_bin() -> Path | None:
    """The folder of initdb and postgres."""
    there = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    found = str(there[-1]) if there else shutil.which("initdb")
    return Path(found).resolve().parent if found else None


def pgstac_lacks() -> str | None:
    """What is missing for `pgstac_api`."""
    if not (SERVERS / "bin/pypgstac").exists():
        return f"no pypgstac in {SERVERS}; run make test-servers"
    if postgres_bin() is None:
        return "no PostgreSQL (Debian: postgresql, postgresql-15-postgis-3)"
    share = subprocess.run(
        [str(postgres_bin() / "pg_config"), "--sharedir"], capture_output=True, text=True
    ).stdout.strip()
    if not Path(share, "extension/postgis.control").exists():
        return "no PostGIS (Debian: postgresql-15-postgis-3)"
    return None


@contextmanager
def postgres() -> Iterator[dict[str, str]]:
    """An empty database on a loopback port; gives the PG* variables that lead to it."""
    programs, port = postgres_bin(), str(free_port())
    assert programs
    other: dict[str, Any] = {}
    if os.geteuid() == 0:  # initdb refuses root
        other = {"user": "postgres", "group": "postgres", "extra_groups": []}
    with tempfile.TemporaryDirectory(prefix="pg", dir="/tmp") as folder:  # a socket's path is short
        if other:
            shutil.chown(folder, "postgres", "postgres")
        other["cwd"] = folder

        def call(name: str, *options: str) -> None:
            command = [str(programs / name), *options]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL, **other)

        call("initdb", "-D", f"{folder}/data", "-A", "trust", "-U", "postgres", "-E", "UTF8", "-N")
        quick = f"-c listen_addresses=127.0.0.1 -p {port} -k {folder} -c fsync=off"
        base = ["-D", f"{folder}/data", "-w"]
        call("pg_ctl", *base, "-l", f"{folder}/log", "-o", quick, "start")
        try:
            call("createdb", "-h", folder, "-p", port, "-U", "postgres", "stac")
            yield {
                "PGHOST": "127.0.0.1",
                "PGPORT": port,
                "PGUSER": "postgres",
                "PGPASSWORD": "none",
                "PGDATABASE": "stac",
            }
        finally:
            call("pg_ctl", *base, "-m", "immediate", "stop")


@contextmanager
def pgstac_api(
    items: Sequence[dict[str, Any]], collections: Sequence[dict[str, Any]]
) -> Iterator[str]:
    """stac-fastapi over pgstac over PostgreSQL: an API with filter, query and sort."""
    with ExitStack() as stack:
        env = os.environ | stack.enter_context(postgres())
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        subprocess.run(
            [SERVERS / "bin/pypgstac", "migrate"], env=env, check=True, stdout=subprocess.DEVNULL
        )
        for kind, values in {"collections": collections, "items": items}.items():
            file = folder / f"{kind}.ndjson"
            file.write_text("\n".join(map(json.dumps, values)))
            load = [SERVERS / "bin/pypgstac", "load", kind, file, "--method", "upsert"]
            subprocess.run(load, env=env, check=True, stdout=subprocess.DEVNULL)
        port = str(free_port())
        serve = [str(SERVERS / "bin/python"), "-m", "uvicorn", "--factory", "--port", port]
        serve += ["stac_fastapi.pgstac.app:create_app", "--host", "127.0.0.1"]
        url, log = f"http://127.0.0.1:{port}", folder / "log"
        yield stack.enter_context(process(serve, url, log, env=env))
