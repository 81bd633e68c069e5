"""The checkpoint that a model's encoders start from, and stand on where only what changed is stored."""

import hashlib
import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from geoml_cli import registry
from geoml_cli.errors import GeomlError, TryLater
from geoml_cli.formats.digest import digest_file
from geoml_cli.formats.model import NAME, WEIGHTS, read_model
from geoml_cli.formats.package import HF, PKG, read_packed
from geoml_cli.formats.stamp import Input

CLIENTS = ("httpx", "httpx2", "httpcore", "httpcore2", "requests", "urllib3")
SUFFIXES = (
    ".safetensors",
    ".pt",
    ".pth",
    ".bin",
    ".ckpt",
)  # the first that a repository has is taken


@dataclass(frozen=True)
class Checkpoint:
    """Where tensors are, and where they come from; nothing is loaded yet.

    `name` is as it was given; `file` the local file, or None where they lie inside a wheel.
    """

    name: str
    file: Path | None
    licence: str | None = None
    revision: str | None = None

    @cached_property
    def digest(self) -> str:
        """sha256 of the bytes."""
        if self.file is not None:
            return digest_file(self.file)
        return hashlib.sha256(read_packed(self.name, SUFFIXES).data).hexdigest()

    def state(self) -> dict[str, Any]:
        """The tensors of an encoder in it."""
        from geoml_cli.core.base import encoder_state

        if self.file is not None:
            return encoder_state(str(self.file))
        return encoder_state(self.name, read_packed(self.name, SUFFIXES).data)

    @property
    def input(self) -> Input:
        """As something that was read."""
        path = self.name if self.file is None or self.remote else str(self.file)
        return Input(path, "encoder_weights", self.digest)

    @property
    def remote(self) -> bool:
        """Whether the name says all, wherever one stands: of a repository or a package."""
        return self.name.startswith((HF, PKG))

    def recorded(self, out: Path) -> dict[str, Any]:
        """What a model folder at `out` says of what it stands on."""
        path = self.name if self.remote else os.path.relpath(str(self.file), out)
        found = {"path": path, "sha256": self.digest, "licence": self.licence}
        return found | {"revision": self.revision} if self.revision else found


def checkpoint_of(name: str) -> Checkpoint:
    """What `--encoder-weights` names: a checkpoint, a model folder, `hf:REPO[@REV][/FILE]`, `pkg:PACKAGE/FILE`, or a
    name of `geoml list weights`.
    """
    if name.startswith(PKG):
        found = read_packed(name, SUFFIXES)
        inside = found.path.endswith(".whl")
        return Checkpoint(name, None if inside else Path(found.path), found.licence)
    if name.startswith(HF):
        return _from_hub(name)
    if name in registry.weights() and not Path(name).exists():
        return checkpoint_of(registry.weights()[name]["weights"])
    place = Path(name)
    if place.name == NAME:
        place = place.parent
    licence = None
    if place.is_dir():
        if (place / NAME).is_file():
            licence = (read_model(str(place)).head.get("base") or {}).get("licence")
            place = place / WEIGHTS
        else:
            place = _only(place)
    if not place.is_file():
        raise GeomlError(f"{name}: no checkpoint, and no model folder")
    return Checkpoint(name, place, licence)


def _only(folder: Path) -> Path:
    """The checkpoint in a folder: the first kind that is there, and the one of that kind."""
    for suffix in SUFFIXES:
        found = sorted(p for p in folder.iterdir() if p.suffix == suffix)
        if len(found) == 1:
            return found[0]
        if found:
            names = ", ".join(p.name for p in found[:5])
            raise GeomlError(f"{folder}: holds several checkpoints ({names}); name one of them")
    raise GeomlError(f"{folder}: no checkpoint, and no model folder")


def _from_hub(name: str) -> Checkpoint:
    """A file of a repository of the Hugging Face hub, in its own cache; the revision is the commit's."""
    try:
        import huggingface_hub as hub
        from huggingface_hub.errors import (
            EntryNotFoundError,
            HfHubHTTPError,
            LocalEntryNotFoundError,
            OfflineModeIsEnabled,
            RepositoryNotFoundError,
        )
    except ImportError:
        raise GeomlError(f"{name}: needs huggingface_hub; pip install 'geoml-cli[hub]'") from None
    text, _, tail = name.removeprefix(HF).partition("@")
    parts = text.split("/")
    revision, _, inside = tail.partition("/") if tail else ("", "", "")
    repository, file = "/".join(parts[:2]), "/".join(parts[2:]) or inside
    if len(parts) < 2 or not all(parts[:2]):
        raise GeomlError(
            f"{name}: write hf:OWNER/NAME, hf:OWNER/NAME@REVISION or hf:OWNER/NAME/FILE"
        )
    licence = None
    try:
        if not file or not os.environ.get("HF_HUB_OFFLINE"):
            about = hub.HfApi().model_info(repository, revision=revision or None)
            licence = about.card_data.get("license") if about.card_data else None
            revision = about.sha or revision
            file = file or _first([one.rfilename for one in about.siblings or ()], name)
        local = Path(hub.hf_hub_download(repository, file, revision=revision or None))
    except LocalEntryNotFoundError as error:
        raise TryLater(
            f"{name}: cannot be fetched now, and is not in the cache ({_line(error)})"
        ) from None
    except (RepositoryNotFoundError, EntryNotFoundError) as error:
        raise GeomlError(f"{name}: {_line(error)}") from None
    except OfflineModeIsEnabled:
        raise TryLater(
            f"{name}: HF_HUB_OFFLINE is set; name the file too, if it is in the cache"
        ) from None
    except HfHubHTTPError as error:
        raise TryLater(f"{name}: the hub did not answer ({_line(error)})") from None
    except Exception as error:  # of whichever library the hub's own client speaks through
        if not isinstance(error, OSError) and _home(error) not in CLIENTS:
            raise
        raise TryLater(f"{name}: the hub cannot be reached ({_line(error)})") from None
    return Checkpoint(name, local, licence, revision or None)


def _home(error: BaseException) -> str:
    return type(error).__module__.partition(".")[0]


def _line(error: BaseException) -> str:
    return next(
        (line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__
    )


def _first(files: list[str], name: str) -> str:
    """The checkpoint of a repository: safetensors before others, at its top before in folders."""
    for suffix in SUFFIXES:
        found = sorted((f for f in files if f.endswith(suffix)), key=lambda f: (f.count("/"), f))
        if found and (len(found) == 1 or found[0].count("/") < found[1].count("/")):
            return found[0]
        if found:
            raise GeomlError(
                f"{name}: holds several checkpoints ({', '.join(found[:5])}); name one: {name}/FILE"
            )
    raise GeomlError(f"{name}: holds no checkpoint ({', '.join(SUFFIXES)})")
