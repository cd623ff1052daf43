"""The one folder for what the launcher keeps between runs and can make again."""

from __future__ import annotations

import os
from pathlib import Path


def cache_dir() -> Path:
    """$LAUNCHER_CACHE, else vllm-profile-launcher/ in the user's cache."""
    if own := os.environ.get("LAUNCHER_CACHE"):
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vllm-profile-launcher"
