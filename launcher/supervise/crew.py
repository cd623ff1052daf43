"""The head's side of an engine over several hosts: the other launchers come here, start together and end together.

vLLM itself leaves the workers of the other hosts behind when one host is gone, so every generation is ended on all of
them before the next is begun. `Supervisor` asks; what may be is decided in `roll`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from launcher.errors import PreconditionError
from launcher.supervise.engine import Finding
from launcher.supervise.link import Link, LinkLost
from launcher.supervise.node_messages import (
    MOST_BYTES,
    PROTOCOL,
    AnyMessage,
    Bye,
    Challenge,
    End,
    Ended,
    Hello,
    Start,
    Welcome,
    new_nonce,
    proof_of,
)
from launcher.supervise.roll import Roll, names, refusal

log = logging.getLogger("launcher.supervise")
HELLO_S = 10.0
DISBAND_S = 15.0  # a guard needs moments to clear a host; one that takes longer is waited for before the next start


class Crew:
    """``ours``: what the head itself would say. All is written by the event loop's tasks, each change by ``_now``."""

    def __init__(
        self, ours: Hello, address: str, port: int, *, key: str = "", on_word: Callable[[str], None] = lambda line: None
    ) -> None:
        self.roll = Roll(ours.nodes)
        self._ours, self._address, self._port, self._key = ours, address, port, key
        self._on_word = on_word
        self._links: dict[int, Link] = {}
        self._strangers: set[Link] = set()
        self._moved = asyncio.Event()
        self._fault: Finding | None = None  # the first that fell out of the present generation, and why
        self._server: asyncio.Server | None = None
        self._closed = False

    def __repr__(self) -> str:
        return f"<Crew {self._address}:{self._port} {self.roll!r}>"

    async def open(self) -> None:
        """Let the other hosts come. Raises PreconditionError where the address cannot be listened on."""
        self._server = await listen_for_nodes(self._meet, self._address, self._port)

    async def close(self, failure: str = "") -> None:
        """Send everybody away. ``failure``: why the head gave up; '': it was told to stop."""
        self._closed = True
        if self._server is not None:
            self._server.close()
        for link in self._links.values():
            link.send(Bye(failure))
        await asyncio.gather(*(link.close() for link in {*self._links.values(), *self._strangers}))

    async def gather(self, generation: int, on_step: Callable[[str], None]) -> None:
        """Wait until every host is there with nothing left of earlier generations, then start this one on all of them."""
        await self.disband("an earlier start was not ended")  # nothing to do, but for a bug
        while awaited := self.roll.awaited:
            on_step(f"waiting for {names(awaited)}")
            await self._moved.wait()
        self._fault = None
        self._now(self.roll.started(generation))
        for link in self._links.values():
            link.send(Start(generation))

    async def until_fallen(self) -> Finding | None:
        """Why a host fell out of the generation; None when it was ended here."""
        while self.roll.generation is not None and not self.roll.fallen:
            await self._moved.wait()
        return self._fault if self.roll.generation is not None else None

    async def disband(self, reason: str) -> Finding | None:
        """End the generation on every host, and wait a little until nothing of it is left. Who had fallen out, and why."""
        generation = self.roll.generation
        self._now(self.roll.over())
        if generation is None:
            return None
        for rank, link in self._links.items():
            if self.roll.runs.get(rank) == generation:
                link.send(End(generation, reason))
        try:
            async with asyncio.timeout(DISBAND_S):
                while any(runs is not None for runs in self.roll.runs.values()):
                    await self._moved.wait()
        except TimeoutError:
            log.warning("%r: generation %d is not ended everywhere yet", self, generation)
        return self._fault

    async def _meet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, from the challenge to its end."""
        link = Link(reader, writer)
        self._strangers.add(link)
        rank = None
        try:
            async with asyncio.timeout(HELLO_S):
                rank = await self._let_in(link)
            while rank is not None:
                self._hear(rank, await link.receive())
        except TimeoutError:
            log.info("%s said no hello", link.peer_address)
        except LinkLost as lost:
            if rank is not None and not self._closed:
                self._lose(rank, str(lost))
        finally:
            self._strangers.discard(link)
            await link.close()

    async def _let_in(self, link: Link) -> int | None:
        challenge = Challenge(PROTOCOL, new_nonce())
        link.send(challenge)
        hello = await link.receive()
        if not isinstance(hello, Hello):
            raise LinkLost("it said no hello")
        if refused := refusal(self.roll, self._ours, hello, challenge, self._key):
            link.send(refused)
            self._on_word(f"{link.peer_address} was sent away: {refused.reason}")
            return None
        link.send(Welcome(proof_of(self._key, "head", challenge, hello.nonce, hello.rank)))
        self._strangers.discard(link)
        self._links[hello.rank] = link
        self._now(self.roll.joined(hello.rank))
        self._on_word(f"node {hello.rank} is there ({link.peer_address})")
        return hello.rank

    def _hear(self, rank: int, message: AnyMessage) -> None:
        if not isinstance(message, Ended):
            raise LinkLost(f"it said {type(message).__name__}, which only a head says")
        if message.by_itself and self.roll.runs.get(rank) == message.generation:
            self._blame(Finding(f"node {rank}: {message.reason}", message.remedy, message.retry_helps))
        self._now(self.roll.ended(rank, message.generation))

    def _lose(self, rank: int, why: str) -> None:
        self._on_word(f"node {rank} is gone: {why}")
        if self.roll.runs.get(rank) is not None:
            self._blame(
                Finding(
                    f"node {rank} is gone: {why}",
                    f"See `launcher logs` on that host, and its network to {self._address}.",
                )
            )
        del self._links[rank]
        self._now(self.roll.left(rank))

    def _blame(self, finding: Finding) -> None:
        self._fault = self._fault or finding

    def _now(self, roll: Roll) -> None:
        """The one place where the roll changes; wakes whoever waits for it to."""
        self.roll = roll
        self._moved.set()
        self._moved = asyncio.Event()


async def listen_for_nodes(
    meet: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None] | None], address: str, port: int
) -> asyncio.Server:
    """Raises PreconditionError where ``address`` is not this host's, or the port is taken."""
    try:
        return await asyncio.start_server(meet, address, port, limit=MOST_BYTES)
    except OSError as error:
        raise PreconditionError(
            f"port {port} of {address}, where the launchers of the other hosts come, cannot be listened on: {error.strerror}",
            "--head names the first host's own address, and its port and the next one must be free: give another as "
            "--head ADDRESS:PORT, the same on every host.",
        ) from None
