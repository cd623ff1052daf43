"""Fetches a picture or a clip by its URL, from public addresses only, within limits of size and time.

Each hop is decided by hand: its URL is checked (``targets``), its name resolved once, every address of it checked
(``addresses``), and the request made to a checked address (``hop``); nothing resolves the name again.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from ipaddress import ip_address

import httpx2

from launcher.gateway.media.addresses import Resolve, address_fault, resolve_by_system
from launcher.gateway.media.hop import FetchLimits, NoConnection, get
from launcher.gateway.media.targets import Allowed, Target
from launcher.gateway.refusal import Refusal, Refused, bad_request
from launcher.profile.hosts import Address

log = logging.getLogger("launcher.gateway")
MAX_TRIED = 3  # addresses of one name that are tried, one after another
BUSY_RETRY_S = 2.0


@dataclass(frozen=True, slots=True)
class Fetched:
    """What came. What it is, its bytes tell: the server's word for it is not asked."""

    data: bytes
    host: str  # the last one
    redirects: int
    seconds: float


class Fetcher:
    """Fetches for the gateway; bounded in number. ``resolve`` and ``fault_of`` are for tests."""

    def __init__(
        self,
        allowed: Allowed,
        limits: FetchLimits | None = None,
        *,
        tls: ssl.SSLContext | None = None,
        resolve: Resolve = resolve_by_system,
        fault_of: Callable[[Address], str | None] = address_fault,
    ) -> None:
        self.allowed = allowed
        self.limits = limits or FetchLimits()
        self._tls = tls or httpx2.create_ssl_context(trust_env=False)
        self._resolve, self._fault_of = resolve, fault_of
        self._turns = asyncio.Semaphore(self.limits.at_once)
        self._running = self._waiting = 0

    def check(self, url: str, param: str | None = None) -> None:
        """Whether the URL's text is one that may be fetched. Raises Refused."""
        try:
            self.allowed.target(url)
        except Refused as refused:
            raise Refused(replace(refused.refusal, param=param)) from None

    async def fetch(self, url: str, param: str | None = None) -> Fetched:
        """The bytes at a URL. Raises Refused, with ``param`` as the request's field that the URL stood in.

        Cancelled, it closes its connection."""
        try:
            first = self.allowed.target(url)
            await self._take_turn()
            self._running += 1
            try:
                return await self._within_limits(first)
            finally:
                self._running -= 1
                self._turns.release()
        except Refused as refused:
            raise Refused(replace(refused.refusal, param=param)) from None

    async def _take_turn(self) -> None:
        limits = self.limits
        busy = f"This server fetches {limits.at_once} URLs at once and all are in use. Try again, or send the bytes themselves."
        refused = Refused(Refusal(503, "url_fetches_busy", busy, retry_after_s=BUSY_RETRY_S))
        if self._turns.locked() and self._waiting >= limits.waiting:
            raise refused
        self._waiting += 1
        try:
            async with asyncio.timeout(limits.total_s):
                await self._turns.acquire()
        except TimeoutError:
            raise refused from None
        finally:
            self._waiting -= 1

    async def _within_limits(self, first: Target) -> Fetched:
        begun = time.monotonic()
        try:
            async with asyncio.timeout(self.limits.total_s):
                data, last = await self._follow(first)
        except TimeoutError:
            raise bad_request(
                "url_too_slow",
                f"{first.shown} was not fetched whole within {self.limits.total_s:g} s, which is the limit.",
            ) from None
        return Fetched(data, last.host, last.hop, time.monotonic() - begun)

    async def _follow(self, target: Target) -> tuple[bytes, Target]:
        seen = {target.url}
        while True:
            answer = await self._get(target)
            if isinstance(answer, bytes):
                return answer, target
            target = self.allowed.target(answer, base=target)
            if target.url in seen:
                raise bad_request("url_redirects", f"{target.shown} was asked before: its redirects go in a circle.")
            if target.hop > self.limits.redirects:
                raise bad_request(
                    "url_redirects",
                    f"{target.shown}: more than {self.limits.redirects} redirects are not followed. Give the last URL itself.",
                )
            seen.add(target.url)

    async def _get(self, target: Target) -> bytes | str:
        """The answer's body, or where it redirects to."""
        addresses = await self._checked(target)
        failed = NoConnection()
        for address in addresses[:MAX_TRIED]:
            try:
                return await get(target, address, self.limits, self._tls)
            except NoConnection as failure:
                failed = failure
        raise bad_request("url_unreachable", f"{target.shown}: {target.host} {failed}.")

    async def _checked(self, target: Target) -> list[Address]:
        """All addresses of the host, if each of them is public."""
        addresses = [target.address] if target.address is not None else await self._resolved(target)
        for address in addresses:
            if fault := self._fault_of(address):
                log.info("fetch refused: %s is %s, %s", target.host, address, fault)
                # The address itself is not told: what a name means inside is nobody's business outside.
                is_it = "is" if target.address is not None else "leads to"
                raise bad_request(
                    "url_address_refused",
                    f"{target.shown}: {target.host} {is_it} {fault}. Only public addresses are fetched from;"
                    " send the bytes as data:image/…;base64,… instead.",
                )
        return addresses

    async def _resolved(self, target: Target) -> list[Address]:
        try:
            async with asyncio.timeout(self.limits.connect_s):
                found = [ip_address(text) for text in await self._resolve(target.host, target.port)]
        except TimeoutError:
            raise bad_request(
                "url_too_slow", f"{target.shown}: the name was not resolved within {self.limits.connect_s:g} s."
            ) from None
        except (OSError, UnicodeError):
            found = []
        if not found:
            raise bad_request(
                "url_unknown_host", f"{target.shown}: no address is known for {target.host}. Check its spelling."
            )
        return found

    def __repr__(self) -> str:
        return f"<Fetcher running={self._running}/{self.limits.at_once} waiting={self._waiting}>"
