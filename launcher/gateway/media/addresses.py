"""Which addresses may be fetched from: only those of the public internet, whichever way they are written. Standard library only.

A table of our own before ``ipaddress``'s word for it: what that calls private differs between releases of Python, and it
knows nothing of metadata services or of the ways to write an IPv4 address within an IPv6 one.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network

from launcher.profile.hosts import Address

Resolve = Callable[[str, int], Awaitable[list[str]]]  # name, port → addresses; raises OSError

# The first that fits is the reason. Metadata services give a machine's credentials to whoever asks from within.
_METADATA = (
    "169.254.169.254/32",  # AWS, Azure, Google, OpenStack
    "169.254.170.2/32",  # AWS, containers
    "fd00:ec2::254/128",  # AWS
    "fd20:ce::254/128",  # Google
    "100.100.100.200/32",  # Alibaba
    "192.0.0.192/32",  # Oracle
    "168.63.129.16/32",  # Azure: looks public, is not
)
_KINDS = (
    ("a metadata service's address", _METADATA),
    ("a loopback address", ("127.0.0.0/8", "::1/128")),
    ("an unspecified address", ("0.0.0.0/8", "::/128")),
    ("a private address", ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7", "fec0::/10")),
    ("a link-local address", ("169.254.0.0/16", "fe80::/10")),
    ("an address shared by a provider's customers", ("100.64.0.0/10",)),
    ("a multicast address", ("224.0.0.0/4", "ff00::/8")),
    ("an address for examples", ("192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24", "2001:db8::/32", "3fff::/20")),
    ("an address for benchmarks", ("198.18.0.0/15", "2001:2::/48")),
    ("a reserved address", ("192.0.0.0/24", "192.88.99.0/24", "240.0.0.0/4", "2001::/23")),
)
_NETWORKS = tuple((kind, ip_network(network)) for kind, networks in _KINDS for network in networks)
_PUBLIC_V6 = IPv6Network("2000::/3")
_TEREDO, _SIX_TO_FOUR = IPv6Network("2001::/32"), IPv6Network("2002::/16")
_NAT64 = IPv6Network("64:ff9b::/96")
_IPV4_IN_LOW_BITS = (IPv6Network("::ffff:0:0/96"), IPv6Network("::ffff:0:0:0/96"), IPv6Network("::/96"), _NAT64)
_NO_ADDRESS_OF_ANYBODY = "192.0.2.1"


def address_fault(address: Address) -> str | None:
    """What kind of address this is, if it is not to be fetched from; None for a public one."""
    if isinstance(address, IPv6Address) and (inner := _wrapped(address)) is not None:
        return _wrapped_fault(address, inner)
    for kind, network in _NETWORKS:
        if _is_in(address, network):
            return kind
    if not address.is_global or (isinstance(address, IPv6Address) and address not in _PUBLIC_V6):
        return "a reserved address"
    if is_own(address):
        return "an address of this machine"
    return None


def _is_in(address: Address, network: IPv4Network | IPv6Network) -> bool:
    return address.version == network.version and address in network


def _wrapped(address: IPv6Address) -> IPv4Address | None:
    """The IPv4 address that packets for this one may end at."""
    number = int(address)
    if address in _SIX_TO_FOUR:
        return IPv4Address(number >> 80 & 0xFFFFFFFF)
    if address in _TEREDO:
        return IPv4Address(~number & 0xFFFFFFFF)
    if number > 1 and any(address in network for network in _IPV4_IN_LOW_BITS):
        return IPv4Address(number & 0xFFFFFFFF)
    return None


def _wrapped_fault(address: IPv6Address, inner: IPv4Address) -> str | None:
    fault = address_fault(inner)
    if fault is not None:
        return f"{fault} within an IPv6 address"
    # A network without IPv4 reaches the IPv4 internet through NAT64. The other forms are of no use to anybody honest.
    return None if address in _NAT64 else "an IPv4 address within an IPv6 address"


def is_own(address: Address) -> bool:
    """Whether it belongs to this machine, where a service may listen that its firewall keeps from others."""
    # Where anything may be bound to (net.ipv4.ip_nonlocal_bind), this cannot tell: then the answer is no.
    return _can_bind(str(address)) and not _can_bind(_NO_ADDRESS_OF_ANYBODY)


def _can_bind(address: str) -> bool:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind((address, 0))
    except OSError:
        return False
    return True


async def resolve_by_system(name: str, port: int) -> list[str]:
    """Addresses of a name, as this machine resolves it, without repeats. Raises OSError."""
    found = await asyncio.get_running_loop().getaddrinfo(name, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))
