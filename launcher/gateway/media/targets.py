"""Which URLs a request may name: their schemes, hosts and ports, and a sentence for every other. No I/O."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import httpx2

from launcher.gateway.refusal import bad_request
from launcher.profile.hosts import LABELS, Address, pattern_fault, written_address

MAX_URL = 8192  # characters; a signed URL of a cloud store has one or two thousand
MAX_SHOWN = 120  # characters of a URL in a sentence; never its query: signatures are there
USUAL_PORTS = {"https": 443, "http": 80}
_INSTEAD = "Give it as an https URL or as data:image/…;base64,…"

# Schemes that people try, and what there is instead.
_SCHEMES = {
    "file": "Files of the server are never read",
    "data": "A data: URL holds its bytes itself, nothing is to be fetched: it begins with data:image/ or data:audio/",
    "ftp": "FTP is not spoken here",
    "ftps": "FTP is not spoken here",
    "sftp": "FTP is not spoken here",
    "gopher": "Gopher is not spoken here",
    "ws": "A WebSocket has no pictures",
    "wss": "A WebSocket has no pictures",
    "s3": "Cloud stores are not asked by their own protocol: make a signed https URL",
    "gs": "Cloud stores are not asked by their own protocol: make a signed https URL",
    "blob": "A blob: URL exists only within the browser that made it",
    "javascript": "Scripts are not run",
    "upload": "An upload's URL is upload: and the id that POST /api/upload answered, with nothing after it",
}


@dataclass(frozen=True, slots=True)
class Target:
    """A URL that may be fetched, as far as its text tells."""

    url: httpx2.URL
    host: str  # in lower case, without a dot at its end; an IPv6 address without brackets
    port: int
    address: Address | None  # where the host is one
    hop: int = 0  # how many redirects led to it

    @property
    def shown(self) -> str:
        """The URL for a sentence: without its query, and not all of a long one."""
        text = f"{self.url.scheme}://{self.authority}{self.url.path}"
        text = text if len(text) <= MAX_SHOWN else text[: MAX_SHOWN - 1] + "…"
        return f"{text} (redirect {self.hop})" if self.hop else text

    @property
    def authority(self) -> str:
        """What the Host header says."""
        name = f"[{self.host}]" if ":" in self.host else self.host
        return name if USUAL_PORTS[self.url.scheme] == self.port else f"{name}:{self.port}"


@dataclass(frozen=True, slots=True)
class Allowed:
    """What the profile lets clients name. No host: fetching is off. Raises ValueError for an entry that cannot be one."""

    hosts: tuple[str, ...] = ()
    has_http: bool = False
    ports: frozenset[int] = frozenset(USUAL_PORTS.values())

    @classmethod
    def of(cls, hosts: Sequence[str], *, http: bool = False, more_ports: Collection[int] = ()) -> Allowed:
        for host in hosts:
            if fault := pattern_fault(host):
                raise ValueError(f"allowed host {host!r} {fault}")
        return cls(tuple(hosts), http, frozenset(USUAL_PORTS.values()) | frozenset(more_ports))

    def target(self, url: str, base: Target | None = None) -> Target:
        """What to fetch, given the URL that a client sent, or that ``base`` redirects to. Raises Refused."""
        if not self.hosts:
            raise bad_request(
                "url_fetch_off",
                "This server fetches no URLs. Send the bytes as data:image/…;base64,…, or upload them first.",
            )
        if len(url) > MAX_URL:
            raise bad_request("url_invalid", f"A URL of {len(url)} characters is too long: at most {MAX_URL} are read.")
        try:
            parsed = httpx2.URL(url) if base is None else base.url.join(url)
        except (httpx2.InvalidURL, UnicodeError) as error:  # the latter: half of a surrogate pair
            why = error if isinstance(error, httpx2.InvalidURL) else "it has a letter that is none"
            raise bad_request("url_invalid", f"{_quoted(url)} is no URL: {why}. {_INSTEAD}") from None
        self._check_scheme(parsed, url)
        target = _target(parsed, url, 0 if base is None else base.hop + 1)
        if target.port not in self.ports:
            raise bad_request(
                "url_port_refused", f"{target.shown}: port {target.port} is not fetched from, {_ports(self.ports)}."
            )
        if not any(matches(target.host, pattern) for pattern in self.hosts):
            raise bad_request(
                "url_host_refused",
                f"{target.shown}: this server does not fetch from {target.host}. Its operator lists the hosts that it does"
                " fetch from; send the bytes as data:image/…;base64,… instead.",
            )
        return target

    def _check_scheme(self, parsed: httpx2.URL, url: str) -> None:
        scheme = parsed.scheme
        if scheme == "http" and not self.has_http:
            raise bad_request("url_scheme_refused", f"{_quoted(url)}: http is not fetched here, only https.")
        if scheme in USUAL_PORTS:
            return
        if not scheme:
            raise bad_request("url_scheme_refused", f"{_quoted(url)} has no scheme. {_INSTEAD}")
        why = _SCHEMES.get(scheme, f"'{scheme[:20]}:' is no scheme that is fetched here")
        raise bad_request("url_scheme_refused", f"{_quoted(url)}: {why}. {_INSTEAD}")


def _target(parsed: httpx2.URL, url: str, hop: int) -> Target:
    if parsed.userinfo:
        raise bad_request(
            "url_with_credentials",
            "A URL with a user name or password (or an @ before its host) is not fetched: leave that part out.",
        )
    host = parsed.raw_host.decode("ascii").rstrip(".").lower()
    if not host:
        raise bad_request("url_invalid", f"{_quoted(url)} names no host. {_INSTEAD}")
    try:
        address = written_address(host)
    except ValueError:
        raise bad_request(
            "url_invalid",
            f"{_quoted(url)}: {host[:64]} is not how an address is written. Write four numbers from 0 to 255 with dots, or a name.",
        ) from None
    if address is not None:
        host = str(address)
    elif len(host) > 253 or not LABELS.fullmatch(host):
        raise bad_request("url_invalid", f"{_quoted(url)}: {host[:64]!r} cannot be a host's name.")
    port = USUAL_PORTS[parsed.scheme] if parsed.port is None else parsed.port
    return Target(parsed, host, port, address, hop)


def _quoted(url: str) -> str:
    """The beginning of a URL, up to its query; without what stands before an @."""
    text = re.split(r"[?#]", url, maxsplit=1)[0]
    text = re.sub(r"//[^/]*@", "//…@", text)
    text = "".join(letter if letter.isprintable() else "�" for letter in text[:MAX_SHOWN])
    return f"'{text}{'…' if len(url) > len(text) else ''}'"


def _ports(ports: frozenset[int]) -> str:
    *others, last = map(str, sorted(ports))
    return f"only from {', '.join(others)} and {last}"


def matches(host: str, pattern: str) -> bool:
    """Whether one entry allows a host; ``*.example.org`` stands for every name below example.org, not for itself."""
    pattern = pattern.rstrip(".").lower()
    if pattern == "*":
        return True
    if pattern.startswith("*."):
        return host.endswith(pattern[1:]) and len(host) > len(pattern) - 1
    written = written_address(pattern.strip("[]"))
    return host == (pattern if written is None else str(written))
