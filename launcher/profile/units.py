"""Durations and sizes with their units, as a profile writes them: ``200ms``, ``10m``, ``10MiB``."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, PlainSerializer, WithJsonSchema

KIB, MIB, GIB = 2**10, 2**20, 2**30
SECONDS = {"ms": Decimal("0.001"), "s": Decimal(1), "m": Decimal(60), "h": Decimal(3600), "d": Decimal(86400)}
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
LONGEST_S = 365 * 86400  # more is a slip of the unit, and sums of such times would overflow timers
LARGEST_BYTES = 2**50

DURATION_PATTERN = r"^\s*\d+(\.\d+)?\s*(ms|s|m|h|d)\s*$"
SIZE_PATTERN = r"^\s*\d+(\.\d+)?\s*(B|kB|MB|GB|TB|KiB|MiB|GiB|TiB)\s*$"


def parse_duration(value: Any) -> float:
    """``'200ms'`` → 0.2 (seconds). A number alone is refused, since nobody can tell seconds from milliseconds in it."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)", value.strip(), re.ASCII) if isinstance(value, str) else None
    if match is None:
        raise ValueError(
            f"{value!r} is not a duration: write a number and a unit (ms, s, m, h or d), such as 200ms or 10m"
        )
    # Decimal, so that 9ms is 0.009 and not 0.009000000000000001.
    seconds = float(Decimal(match[1]) * SECONDS[match[2]])
    if seconds > LONGEST_S:
        raise ValueError(f"{value!r} is too long: 365d at most")
    return seconds


def parse_size(value: Any) -> int:
    """``'10MiB'`` → 10485760 (bytes). A number alone is refused."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([A-Za-z]+)", value.strip(), re.ASCII) if isinstance(value, str) else None
    if match is None or match[2] not in BYTES:
        raise ValueError(
            f"{value!r} is not a size: write a number and a unit (B, kB, MB, GB, KiB, MiB or GiB), such as 10MiB"
        )
    size = round(Decimal(match[1]) * BYTES[match[2]])
    if size > LARGEST_BYTES:
        raise ValueError(f"{value!r} is too large: 1024TiB at most")
    return size


def format_duration(seconds: float) -> str:
    """Seconds in the largest unit that writes them whole; ``parse_duration`` gives exactly them back: 0.2 → ``'200ms'``."""
    exact = Decimal(repr(float(seconds)))
    units = ("d", "h", "m", "s") if exact >= 1 else ("ms",)
    for unit in units:
        if exact and exact % SECONDS[unit] == 0:
            return f"{int(exact / SECONDS[unit])}{unit}"
    return f"{exact.normalize():f}s"


def format_size(size_bytes: int) -> str:
    """Bytes in the largest binary unit that writes them whole, so that ``parse_size`` gives them back: 2**30 → ``'1GiB'``."""
    for unit in ("TiB", "GiB", "MiB", "KiB"):
        if size_bytes >= BYTES[unit] and size_bytes % BYTES[unit] == 0:
            return f"{size_bytes // BYTES[unit]}{unit}"
    return f"{size_bytes}B"


def format_gib(size_bytes: float) -> str:
    """Bytes for people, in GiB with two decimals, or MiB below a tenth of one."""
    return f"{size_bytes / 2**30:.2f} GiB" if size_bytes >= 2**30 / 10 else f"{size_bytes / 2**20:.0f} MiB"


def _some_time(seconds: float) -> float:
    if seconds <= 0:
        raise ValueError("no time at all would never let anything through: give more than 0s")
    return seconds


def _some_bytes(size_bytes: int) -> int:
    if size_bytes <= 0:
        raise ValueError("a size of 0 would never let anything through: give more than 0B")
    return size_bytes


# Defaults in code are plain numbers (seconds, bytes); only what a user writes passes the parsers.
DurationOrZero = Annotated[
    float,
    BeforeValidator(parse_duration),
    PlainSerializer(format_duration, return_type=str),
    WithJsonSchema({"type": "string", "pattern": DURATION_PATTERN, "examples": ["200ms", "30s", "10m"]}),
]
Duration = Annotated[DurationOrZero, AfterValidator(_some_time)]
Size = Annotated[
    int,
    BeforeValidator(parse_size),
    AfterValidator(_some_bytes),
    PlainSerializer(format_size, return_type=str),
    WithJsonSchema({"type": "string", "pattern": SIZE_PATTERN, "examples": ["10MiB", "24GiB"]}),
]
