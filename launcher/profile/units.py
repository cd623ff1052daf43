"""Durations and sizes with their units, as a profile writes them: ``200ms``, ``10m``, ``10MiB``."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import BeforeValidator, PlainSerializer, WithJsonSchema

KIB, MIB, GIB = 2**10, 2**20, 2**30
SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
BYTES = {
    "B": 1,
    "kB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
    "KiB": 2**10,
    "MiB": 2**20,
    "GiB": 2**30,
    "TiB": 2**40,
}

DURATION_PATTERN = r"^\d+(\.\d+)?(ms|s|m|h|d)$"
SIZE_PATTERN = r"^\d+(\.\d+)?(B|kB|MB|GB|TB|KiB|MiB|GiB|TiB)$"


def parse_duration(value: Any) -> float:
    """``'200ms'`` → 0.2 (seconds). A number alone is refused, since nobody can tell seconds from milliseconds in it."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)", value.strip()) if isinstance(value, str) else None
    if match is None:
        raise ValueError(
            f"{value!r} is not a duration: write a number and a unit (ms, s, m, h or d), such as 200ms or 10m"
        )
    return float(match[1]) * SECONDS[match[2]]


def parse_size(value: Any) -> int:
    """``'10MiB'`` → 10485760 (bytes). A number alone is refused."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kKMGT]i?B|B)", value.strip()) if isinstance(value, str) else None
    if match is None or match[2] not in BYTES:
        raise ValueError(
            f"{value!r} is not a size: write a number and a unit (B, kB, MB, GB, KiB, MiB or GiB), such as 10MiB"
        )
    return round(float(match[1]) * BYTES[match[2]])


def format_duration(seconds: float) -> str:
    """Seconds in the largest unit that writes them whole, so that ``parse_duration`` gives them back: 0.2 → ``'200ms'``."""
    for unit in ("d", "h", "m", "s"):
        if seconds >= SECONDS[unit] and seconds % SECONDS[unit] == 0:
            return f"{seconds / SECONDS[unit]:g}{unit}"
    return f"{seconds * 1000:g}ms" if seconds < 1 else f"{seconds:g}s"


def format_size(size_bytes: int) -> str:
    """Bytes in the largest binary unit that writes them whole, so that ``parse_size`` gives them back: 2**30 → ``'1GiB'``."""
    for unit in ("TiB", "GiB", "MiB", "KiB"):
        if size_bytes >= BYTES[unit] and size_bytes % BYTES[unit] == 0:
            return f"{size_bytes // BYTES[unit]}{unit}"
    return f"{size_bytes}B"


def format_gib(size_bytes: float) -> str:
    """Bytes for people, in GiB with two decimals, or MiB below a tenth of one."""
    return f"{size_bytes / 2**30:.2f} GiB" if size_bytes >= 2**30 / 10 else f"{size_bytes / 2**20:.0f} MiB"


# Defaults in code are plain numbers (seconds, bytes); only what a user writes passes the parsers.
Duration = Annotated[
    float,
    BeforeValidator(parse_duration),
    PlainSerializer(format_duration, return_type=str),
    WithJsonSchema({"type": "string", "pattern": DURATION_PATTERN, "examples": ["200ms", "30s", "10m"]}),
]
Size = Annotated[
    int,
    BeforeValidator(parse_size),
    PlainSerializer(format_size, return_type=str),
    WithJsonSchema({"type": "string", "pattern": SIZE_PATTERN, "examples": ["10MiB", "24GiB"]}),
]
