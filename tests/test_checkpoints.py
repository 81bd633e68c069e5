"""Checkpoints by any name: of the hub, of packages, of folders; with licence and revision; never run."""

import hashlib
import json
import os
import subprocess
import sys
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import made
import pytest
from safetensors.torch import load_file, save_file

from geoml_cli.cli import run
from geoml_cli.errors import GeomlError
from geoml_cli.stages.base import checkpoint_of

UNET = ["--encoder", "unet:width=4,depth=2", "--device", "cpu", "--epochs", "1"]
INSIDE = "0.sensors.0.encoder."
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoints")
    made.scene(folder)
    before = Path.cwd()
    os.chdir(folder)
    try:
        words = ["--labels", "labels.gpkg", "--label-column", "class", "--size", "32"]
        assert run(["tile", "scene.tif", *words, "-o", "tiles/"]) == 0
        assert run(["train", "tiles/", *UNET, "-o", "first/"]) == 0
        state = load_file("first/weights.safetensors")
        mine = {k.removeprefix(INSIDE): v for k, v in state.items() if k.startswith(INSIDE)}
        save_file(mine, "encoder.safetensors")
    finally:
        os.chdir(before)
    return folder


@pytest.fixture
def here(trained, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("tiles", "first", "encoder.safetensors", "scene.tif"):
        (tmp_path / name).symlink_to(trained / name)
    return tmp_path


class Hub(BaseHTTPRequestHandler):
    """As much of the hub's interface as a download asks."""

    files: dict[str, bytes] = {}

    def _say(self, status, body=b"", head=None, kind="application/json"):
        self.send_response(status)
        for key, value in {
            "Content-Length": str(len(body)),
            "Content-Type": kind,
            **(head or {}),
        }.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def do_GET(self):
        path = self.path.partition("?")[0]
        if path.startswith("/api/models/owner/net"):
            listed = [{"rfilename": name} for name in self.files]
            about = {"id": "owner/net", "sha": COMMIT, "siblings": listed}
            return self._say(
                200, json.dumps(about | {"cardData": {"license": "apache-2.0"}}).encode()
            )
        name = path.rpartition("/")[2]
        if not path.startswith("/owner/net/resolve/") or name not in self.files:
            said = {"X-Error-Code": "RepoNotFound", "X-Error-Message": "Repository not found"}
            return self._say(404, b"{}", said)
        data = self.files[name]
        digest = hashlib.sha256(data).hexdigest()
        head = {"ETag": f'"{digest}"', "X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"}
        return self._say(200, data, head, "application/octet-stream")

    do_HEAD = do_GET

    def log_message(self, *_):
        pass


@pytest.fixture
def hub(trained, monkeypatch, tmp_path):
    pytest.importorskip("huggingface_hub")
    data = (trained / "encoder.safetensors").read_bytes()
    Hub.files = {"README.md": b"", "net.safetensors": data, "old.pt": b"never read"}
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    told = {
        "HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}",
        "HF_HOME": str(tmp_path / "hub"),
    }
    told |= {"HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_XET": "1"}
    yield server, told
    server.shutdown()
    server.server_close()


def geoml(*words, **told):
    line = [sys.executable, "-m", "geoml_cli", *words]
    return subprocess.run(line, capture_output=True, text=True, env={**os.environ, **told})


@pytest.mark.slow
def test_a_repository_of_the_hub_is_a_checkpoint_also_without_it(here, hub):
    server, told = hub
    words = ["train", "tiles/", *UNET, "--tune", "head", "--encoder-weights", "hf:owner/net"]
    got = geoml(*words, "-o", "model/", **told)
    assert got.returncode == 0, got.stderr
    base = json.loads(Path("model/model.json").read_text())["base"]
    digest = hashlib.sha256(Path("encoder.safetensors").read_bytes()).hexdigest()
    assert base == {
        "path": "hf:owner/net",
        "sha256": digest,
        "licence": "apache-2.0",
        "revision": COMMIT,
    }
    # what is stored is the head alone: the encoder comes out of the hub's cache, which may be all there is
    assert not any(k.startswith(INSIDE) for k in load_file("model/weights.safetensors"))
    got = geoml("predict", "scene.tif", "--model", "model/", "-o", "map.tif", **told)
    assert got.returncode == 0, got.stderr
    server.shutdown()
    server.server_close()
    named = f"hf:owner/net/net.safetensors@{COMMIT}"
    got = geoml("embed", "tiles/", "--encoder", UNET[1], "--encoder-weights", named, "-o", "e.parquet", **told, HF_HUB_OFFLINE="1")  # fmt: skip
    assert got.returncode == 0, got.stderr
    got = geoml(*words, "-o", "other/", **told | {"HF_HUB_DOWNLOAD_TIMEOUT": "1"})
    assert got.returncode == 75 and len(got.stderr.strip().splitlines()) == 1, got.stderr
    assert "hf:owner/net" in got.stderr


@pytest.mark.slow
def test_a_repository_that_is_not_there_is_said(here, hub):
    _, told = hub
    got = geoml(
        "train", "tiles/", *UNET, "--encoder-weights", "hf:nobody/nothing", "-o", "m/", **told
    )
    assert got.returncode == 1 and "hf:nobody/nothing" in got.stderr, got.stderr
    assert len(got.stderr.strip().splitlines()) == 1


def wheel(path, files, licence="MIT"):
    with zipfile.ZipFile(path, "w") as out:
        for name, data in files.items():
            out.writestr(name, data)
        out.writestr(
            "net-1.0.dist-info/METADATA", f"Metadata-Version: 2.1\nName: net\nLicense: {licence}\n"
        )
    return path


def test_a_wheel_is_a_checkpoint_of_which_nothing_is_imported(here):
    code = "raise SystemExit('imported')"
    data = Path("encoder.safetensors").read_bytes()
    wheel(
        "net-1.0-py3-none-any.whl", {"net/__init__.py": code, "net/data/encoder.safetensors": data}
    )
    named = "pkg:net-1.0-py3-none-any.whl/encoder.safetensors"
    assert (
        run(
            ["train", "tiles/", *UNET, "--encoder-weights", named, "--tune", "head", "-o", "model/"]
        )
        == 0
    )
    base = json.loads(Path("model/model.json").read_text())["base"]
    assert base["path"] == named and base["licence"] == "MIT"
    assert run(["predict", "scene.tif", "--model", "model/", "-o", "map.tif"]) == 0
    with pytest.raises(GeomlError, match="it holds encoder.safetensors"):
        checkpoint_of("pkg:net-1.0-py3-none-any.whl/other.safetensors")


def test_a_folder_with_one_checkpoint_is_that(here, tmp_path):
    folder = tmp_path / "published"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(Path("encoder.safetensors").read_bytes())
    (folder / "old.pt").write_bytes(b"never read")
    assert checkpoint_of(str(folder)).file == folder / "model.safetensors"
    (folder / "second.safetensors").write_bytes(b"")
    with pytest.raises(GeomlError, match="several checkpoints"):
        checkpoint_of(str(folder))


@pytest.mark.parametrize("word", ["system", "eval", "getattr"])
def test_pickles_that_would_run_something_are_refused(here, word, capfd, tmp_path):
    import builtins
    import pickle

    target = {"system": os.system, "eval": builtins.eval, "getattr": builtins.getattr}[word]
    what = {"system": ("touch owned",), "eval": ("open('owned', 'w')",), "getattr": (os, "system")}[
        word
    ]

    class Hostile:
        def __reduce__(self):
            return (target, what) if word != "getattr" else (target, ("", "join"))

    Path("bad.pt").write_bytes(pickle.dumps({"state_dict": Hostile()}))
    with zipfile.ZipFile("zipped.pt", "w") as out:
        out.writestr("archive/data.pkl", pickle.dumps(Hostile()))
        out.writestr("archive/version", "3")
    for name in ("bad.pt", "zipped.pt"):
        assert run(["train", "tiles/", *UNET, "--encoder-weights", name, "-o", "m/"]) == 1
        assert "more than tensors, or is damaged" in capfd.readouterr().err
    wheel("net-1.0-py3-none-any.whl", {"net/bad.pt": Path("bad.pt").read_bytes()})
    assert (
        run(
            [
                "train",
                "tiles/",
                *UNET,
                "--encoder-weights",
                "pkg:net-1.0-py3-none-any.whl/bad.pt",
                "-o",
                "m/",
            ]
        )
        == 1
    )
    assert not Path("owned").exists() and not Path("m").exists()


def test_published_names_tell_what_a_user_must_know(capfd):
    from geoml_cli import registry
    from geoml_cli.core.network import own_scales

    published = registry.weights
    for name, about in published().items():
        if "location_encoder" in about:
            part, chosen = registry.parse("location_encoders", about["location_encoder"])
            assert part == "satclip" and f"L{chosen['degrees']}/" in about["weights"]
            continue
        part, chosen = registry.parse("encoders", about["encoder"])
        sizes = registry.load("encoders", part).SIZES
        assert part in ("prithvi", "satvision") and chosen["size"] in sizes, name
        assert about["weights"].startswith("hf:") and about["licence"]
        count = {"prithvi": 6, "satvision": 14}[part]
        assert len(about["bands"]) == len(about["mean"]) == len(about["std"]) == count
    counts = Path(__file__).parents[2] / "shared/parity/param_counts.json"
    if counts.is_file():  # four bytes a parameter
        known = json.loads(counts.read_text())
        for name, key in (
            ("prithvi-eo-2.0-300m", "prithvi_eo2_300"),
            ("prithvi-eo-2.0-600m-tl", "prithvi_eo2_600_tl"),
        ):
            assert published()[name]["megabytes"] == round(known[key]["mae"] * 4 / 1e6)
        giant = known["satvision_toa_giant_mim"]["params"]  # two bytes a parameter
        assert published()["satvision-toa"]["megabytes"] == round(giant * 2 / 1e6)
    toa = published()["satvision-toa"]
    low, span = own_scales(toa["encoder"], 14)
    assert low == toa["mean"] and span == pytest.approx(toa["std"])
    assert run(["list", "weights"]) == 0
    lines = capfd.readouterr().out.splitlines()
    assert len(lines) == len(published()) and all(
        ("Apache-2.0" in line and " MB" in line) or "MIT, --location-encoder" in line
        for line in lines
    )
    assert run(["list", "weights", "--json"]) == 0
    assert json.loads(capfd.readouterr().out)[0]["bands"][0] == "blue"
