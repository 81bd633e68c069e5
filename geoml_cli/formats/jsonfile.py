"""JSON as the project writes it: sorted keys, finite numbers, a newline at the end."""

import hashlib
import json
from pathlib import Path
from typing import Any

from geoml_cli.errors import GeomlError


def dumps(value: Any) -> str:
    """Text for a file."""
    return json.dumps(value, indent=1, sort_keys=True, allow_nan=False, ensure_ascii=False) + "\n"


def canonical(value: Any) -> bytes:
    """Bytes that depend on the value alone: what is hashed."""
    text = json.dumps(
        value, sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=False
    )
    return text.encode()


def sha256_of(value: Any) -> str:
    """Hex sha256 of the canonical JSON."""
    return hashlib.sha256(canonical(value)).hexdigest()


def read_json(path: str | Path) -> Any:
    """Parse a JSON file; what is wrong with it is said in one line."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise GeomlError(f"{path}: damaged JSON ({error}); make it again") from None
