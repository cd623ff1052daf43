"""What an earlier run has measured, so that the same measurement goes on where it was."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from loadtests.driver import Failed

Rows = list[dict[str, Any]]


def fingerprint(profile: str) -> str:
    """Of the profile's text: figures of another text are of another profile."""
    return hashlib.sha256(Path(profile).read_bytes()).hexdigest()


def earlier(path: Path, load: dict[str, Any], profile: str, measurement: str) -> Rows:
    """The rows that have figures; what failed is tried again. Raises Failed for a file of another measurement."""
    if not path.exists():
        return []
    try:
        run = json.loads(path.read_text())
        if run["measurement"] != measurement or run["load"] != json.loads(json.dumps(load)):
            raise Failed(f"{path} has figures of another load: name another --out, or remove it")
        if run["profile_sha256"] != profile:
            raise Failed(
                f"{path} has figures of another version of {load['profile']}: name another --out, or remove it"
            )
        return [row for row in run["rows"] if "figures" in row]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise Failed(f"{path} is no figures of `launcher bench {measurement}`: {error}") from None
