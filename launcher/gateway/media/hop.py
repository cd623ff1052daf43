"""One request to one checked address, within limits, and a sentence for each way in which it fails.

httpx2's transport speaks the HTTP: one for each hop, so no connection, cookie, proxy or setting of the environment is shared.
The URL's host is the address; the name goes into TLS, which checks the certificate against it, and into the Host header.
"""

from __future__ import annotations

import ssl
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

import httpx2

from launcher.gateway.media.targets import Target
from launcher.gateway.refusal import Refused, bad_request
from launcher.profile.hosts import Address

AGENT = "vllm-profile-launcher"
Trace = Callable[[str, dict[str, Any]], Awaitable[None]]
_REDIRECTS = frozenset((301, 302, 303, 307, 308))
# OpenSSL's numbers of what can be wrong with a certificate; its own words for the others.
_CERTIFICATE_FAULTS = {
    10: "it has expired",
    9: "it is not valid yet",
    18: "it is signed by itself",
    19: "it is signed by nobody whom this server trusts",
    20: "it is signed by nobody whom this server trusts",
    62: "it is for another name",
    64: "it is for another address",
}


@dataclass(frozen=True, slots=True)
class FetchLimits:
    """Bytes, seconds and counts. Memory held is at most ``at_once * max_bytes``, twice that at the moment of an end."""

    max_bytes: int = 20_000_000
    connect_s: float = 5.0  # for the name, and again for a connection with its TLS
    read_s: float = 5.0  # between two pieces of the answer
    total_s: float = 20.0  # for all hops together
    redirects: int = 3
    at_once: int = 8
    waiting: int = 32  # that may wait for their turn, for total_s at most


async def get(target: Target, address: Address, limits: FetchLimits, tls: ssl.SSLContext) -> bytes | str:
    """The body of the answer, or where it redirects to. Raises NoConnection, or Refused for what another address would not
    mend either. Cancelled, it closes its connection."""
    transport = httpx2.AsyncHTTPTransport(
        verify=tls, trust_env=False, limits=httpx2.Limits(max_connections=1, max_keepalive_connections=0)
    )
    connection = _Connection()
    try:
        response = await transport.handle_async_request(_request(target, address, limits, connection.trace))
        return await _read(target, response, limits.max_bytes)
    except (httpx2.HTTPError, OSError) as error:  # the latter: TLS that breaks in the middle
        raise _failure(target, error, limits) from None
    finally:
        await connection.close()
        await transport.aclose()


def _request(target: Target, address: Address, limits: FetchLimits, trace: Trace) -> httpx2.Request:
    timeout = httpx2.Timeout(limits.read_s, connect=limits.connect_s)
    extensions = {"timeout": timeout.as_dict(), "sni_hostname": target.host, "trace": trace}
    headers = {
        "Host": target.authority,
        "User-Agent": AGENT,
        "Accept": "*/*",
        "Accept-Encoding": "identity",
        "Connection": "close",
    }
    url = target.url.copy_with(host=str(address), port=target.port, fragment=None)
    return httpx2.Request("GET", url, headers=headers, extensions=extensions)


async def _read(target: Target, response: httpx2.Response, max_bytes: int) -> bytes | str:
    status, headers = response.status_code, response.headers
    if status in _REDIRECTS and "location" in headers:
        return headers["location"]
    if status != 200:
        raise bad_request("url_status", f"{target.shown}: {target.host} answered with status {status}, not with 200.")
    encoding = headers.get("content-encoding", "identity").strip().lower()
    if encoding not in ("", "identity"):
        raise bad_request(
            "url_encoded",
            f"{target.shown}: the answer is compressed ({encoding[:40]}), which was not asked for and is not unpacked here.",
        )
    promised = headers.get("content-length", "")  # of 20 digits at most: h11 sees to it
    if promised.isdecimal() and int(promised) > max_bytes:
        raise _too_large(target, f"has {promised} bytes", max_bytes)
    pieces, size = [], 0
    async with aclosing(response.aiter_raw()) as stream:
        async for piece in stream:
            size += len(piece)
            if size > max_bytes:
                raise _too_large(target, "goes on", max_bytes)
            pieces.append(piece)
    if not size:
        raise bad_request("url_empty", f"{target.shown}: the answer has no bytes.")
    return b"".join(pieces)


def _too_large(target: Target, what: str, max_bytes: int) -> Refused:
    return bad_request(
        "url_too_large", f"{target.shown} {what}: at most {max_bytes} bytes are fetched. Send a smaller one."
    )


def _failure(target: Target, error: Exception, limits: FetchLimits) -> Exception:
    """What a failure below means: another address may do better, or the request is refused."""
    host = target.host
    if isinstance(error, httpx2.ConnectTimeout):
        return NoConnection(f"did not take a connection within {limits.connect_s:g} s")
    if isinstance(error, httpx2.ConnectError):
        fault = _tls_fault(error)
        if fault is None:
            return NoConnection("takes no connection")
        return bad_request("url_certificate", f"{target.shown}: {host} cannot be trusted: {fault}.")
    if isinstance(error, httpx2.TimeoutException):
        return bad_request("url_too_slow", f"{target.shown}: {host} sent nothing for {limits.read_s:g} s.")
    return bad_request(
        "url_broken", f"{target.shown}: {host} closed the connection early, or what it sent is not HTTP."
    )


class _Connection:
    """Holds the socket of a hop: httpcore2 (2.16) leaves it open where it is cancelled in the middle of the TLS handshake."""

    def __init__(self) -> None:
        self._stream: Any = None

    async def trace(self, event: str, info: dict[str, Any]) -> None:
        """The transport's extension of that name, by which it tells what it does."""
        if event == "connection.connect_tcp.complete":
            self._stream = info["return_value"]

    async def close(self) -> None:
        """Closes it if it is open; more than once does no harm."""
        if self._stream is not None:
            await self._stream.aclose()


class NoConnection(Exception):
    """This address takes no connection."""


def _tls_fault(error: BaseException) -> str | None:
    """What is wrong with the encryption; None if that is not why there is no connection."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, ssl.SSLError):
        cause = cause.__cause__ or cause.__context__
    if cause is None:
        return None
    if isinstance(cause, ssl.SSLCertVerificationError):
        return f"of its certificate, {_CERTIFICATE_FAULTS.get(cause.verify_code, cause.verify_message)}"
    return "it does not speak TLS as this server does"
