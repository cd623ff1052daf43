"""This machine's main memory, from the kernel."""

from __future__ import annotations

from pathlib import Path

MEMINFO = Path("/proc/meminfo")


def main_memory(meminfo: Path = MEMINFO) -> int | None:
    """MemTotal in bytes; None where the kernel does not say (no Linux)."""
    try:
        lines = meminfo.read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    for line in lines:
        name, _, rest = line.partition(":")
        if name == "MemTotal":
            return int(rest.split()[0]) * 1024
    return None
