"""How compose writes what is not plain text: durations, sizes, and a $ that is meant."""

from __future__ import annotations

from launcher.profile.units import GIB, MIB, format_duration


def seconds(duration_s: float) -> str:
    """As Go writes durations, which know no days."""
    return format_duration(duration_s) if duration_s < 86400 else f"{duration_s:.0f}s"


def size(size_bytes: int) -> str:
    return f"{size_bytes // GIB}gb" if size_bytes % GIB == 0 else f"{-(-size_bytes // MIB)}mb"


def literal(text: str) -> str:
    """The text where compose would put a variable in place of what follows a $."""
    return text.replace("$", "$$")
