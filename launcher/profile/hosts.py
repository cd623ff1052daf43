"""Hosts as a profile and a URL may write them: names, patterns of names, addresses in the usual way of writing only."""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv6Address
from typing import Annotated

from pydantic import AfterValidator

Address = IPv4Address | IPv6Address
LABELS = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)(\.(?!-)[a-z0-9_-]{1,63}(?<!-))*")


def written_address(host: str) -> Address | None:
    """The address that is written instead of a host; None for a name. Raises ValueError for any but the usual way of
    writing: ``2130706433``, ``0x7f.1`` and ``127.1`` are all 127.0.0.1 to a resolver."""
    if ":" in host:
        return IPv6Address(host.partition("%")[0])
    last = host.rstrip(".").rpartition(".")[2].lower()
    if last.isdecimal() or (last.startswith("0x") and all(digit in "0123456789abcdef" for digit in last[2:])):
        return IPv4Address(host)
    return None


def pattern_fault(pattern: str) -> str | None:
    """What is wrong with an entry of a list of allowed hosts; None if nothing is."""
    if pattern == "*":
        return None
    if not pattern:
        return "is empty"
    if "/" in pattern or "@" in pattern:
        return "is not a host: leave out the scheme, the path and the user"
    name = pattern.removeprefix("*.").rstrip(".").lower()
    if "*" in name:
        return "has a * elsewhere than as its first label: 'example.org', '*.example.org' and '*' are possible"
    try:
        is_name = written_address(name.strip("[]")) is None
    except ValueError:
        return "has a port, or is an address that is not written in the usual way: ports have a list of their own"
    if is_name and not LABELS.fullmatch(name):
        return "cannot be a host's name: only letters a to z, digits, - and _ are (other letters as xn--…)"
    return None


def _pattern(value: str) -> str:
    if fault := pattern_fault(value):
        raise ValueError(f"{value!r} {fault}")
    return value


HostPattern = Annotated[str, AfterValidator(_pattern)]
