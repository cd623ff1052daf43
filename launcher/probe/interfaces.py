"""This host's network interfaces: which of them has an address."""

from __future__ import annotations

import fcntl
import socket
import struct
from ipaddress import ip_address
from pathlib import Path

SIOCGIFADDR = 0x8915
INET6 = Path("/proc/net/if_inet6")  # address in 32 hex digits, index, prefix length, scope, flags, name


def interface_of(address: str) -> str:
    """The name of the interface that has ``address``; '' where none has it as its first (an alias), or off Linux."""
    wanted = ip_address(address)
    try:
        if wanted.version == 6:
            rows = [line.split() for line in INET6.read_text().splitlines()]
            return next((row[5] for row in rows if int(row[0], 16) == int(wanted)), "")
        return next((name for _, name in socket.if_nameindex() if _ipv4_of(name) == str(wanted)), "")
    except OSError:
        return ""


def _ipv4_of(interface: str) -> str | None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            answer = fcntl.ioctl(probe, SIOCGIFADDR, struct.pack("256s", interface.encode()[:15]))
        except OSError:  # it has no address
            return None
    return socket.inet_ntoa(answer[20:24])
