"""A further host's side of an engine over several: it joins the head, runs its part when told to, and ends it when told to.

Nothing outlives the line to the head: where that is gone, the part is ended, and the head is looked for again.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

import msgspec

from launcher.errors import EngineError, LauncherError, PreconditionError
from launcher.supervise.child import Child, Exit, kill_session
from launcher.supervise.engine import TAIL_LINES, Command, Finding
from launcher.supervise.link import Link, LinkLost
from launcher.supervise.node_messages import (
    Bye,
    Challenge,
    End,
    Ended,
    Hello,
    Refused,
    Start,
    Welcome,
    is_proof,
    new_nonce,
    proof_of,
)

log = logging.getLogger("launcher.supervise")
RETRY_S = 1.0
KILL_GRACE_S = 5.0  # as in supervisor.py


class FollowerPhase(StrEnum):
    SEEKING = "waiting for the head"
    JOINED = "waiting for the other nodes"
    RUNNING = "running"
    STOPPED = "stopped"


@dataclass(frozen=True)
class Part:
    """What this host runs of the engine. ``command`` is asked anew each time, with this host's address towards the head."""

    hello: Hello
    command: Callable[[str], Command]
    diagnose: Callable[[Sequence[str], Exit], Finding]
    stage_of: Callable[[str], str | None]
    logger: logging.Logger
    environment: Mapping[str, str]


class Follower:
    """Host ``part.hello.rank`` of an engine. All is written by the task that runs `run`, and by the one that it starts."""

    def __init__(
        self,
        part: Part,
        head: str,
        port: int,
        *,
        key: str = "",
        leaves_with_head: bool = False,
        on_change: Callable[[], None] = lambda: None,
    ) -> None:
        """``leaves_with_head``: `run` ends when the head stops for good, rather than to wait for it to come back."""
        self.phase = FollowerPhase.SEEKING
        self.stage = ""  # how far its part has come, by its log
        self.note = ""  # why it is in this phase
        self.child: Child | None = None
        self.starts = 0
        self.last_failure = ""
        self._part, self._head, self._port, self._key = part, head, port, key
        self._leaves_with_head = leaves_with_head
        self._on_change = on_change
        self._stopped = asyncio.Event()
        self._life: asyncio.Task[None] | None = None
        self._told_to_end = ""
        self._leaves = False

    def __repr__(self) -> str:
        return f"<Follower {self._part.hello.rank} {self.phase} starts={self.starts}>"

    def stop(self) -> None:
        """End the part and leave; `run` returns when nothing is left."""
        self._stopped.set()

    def leave(self, patience_s: float) -> None:
        """Leave once the head has ended the part, or after so long: all hosts may be told to stop, and the head drains."""
        self._leaves = True
        if self._life is None:
            self.stop()
        else:
            asyncio.get_running_loop().call_later(patience_s, self.stop)

    async def run(self) -> None:
        """Until told to stop. Raises PreconditionError where the head will not have it, EngineError where it gave up."""
        following = asyncio.create_task(self._follow())
        stopped = asyncio.create_task(self._stopped.wait())
        try:
            await asyncio.wait({following, stopped}, return_when=asyncio.FIRST_COMPLETED)
            if following.done():
                following.result()
        finally:
            self._told_to_end = "its launcher was told to stop"
            for task in (following, stopped):
                task.cancel()
            await asyncio.gather(following, stopped, return_exceptions=True)
            self._enter(FollowerPhase.STOPPED)

    async def _follow(self) -> None:
        while True:
            try:
                bye = await self._with_head()
            except LinkLost as lost:
                self.note = str(lost)
            else:
                self.note = bye.failure or "it was stopped"
                if self._leaves_with_head:
                    if bye.failure:
                        raise EngineError(f"the head gave up: {bye.failure}", "Its log, on the first host, tells more.")
                    return
            self._enter(FollowerPhase.SEEKING)
            await asyncio.sleep(RETRY_S)

    async def _with_head(self) -> Bye:
        """One line to the head, from the first word to its farewell. Raises LinkLost, or PreconditionError when refused."""
        link = await Link.connect(self._head, self._port)
        try:
            async with asyncio.timeout(RETRY_S * 10):
                await self._introduce(link)
            self.note = ""
            self._enter(FollowerPhase.JOINED)
            while True:
                match await link.receive():
                    case Start(generation) if self._life is None:
                        self._told_to_end, self.stage = "", ""
                        self._life = asyncio.create_task(self._live(generation, link))
                    case End(_, reason):
                        await self._end(f"the head ended it: {reason}")
                    case Bye() as bye:
                        return bye
                    case other:
                        raise LinkLost(f"the head said {type(other).__name__}, which has no sense now")
        except TimeoutError:
            raise LinkLost("it did not say welcome") from None
        finally:
            await self._end(self._told_to_end or "the head is gone")
            await link.close()

    async def _introduce(self, link: Link) -> None:
        challenge = await link.receive()
        if not isinstance(challenge, Challenge):
            raise LinkLost("there is no launcher that is the head of an engine")
        rank, nonce = self._part.hello.rank, new_nonce()
        proof = proof_of(self._key, "follower", challenge, nonce, rank)
        link.send(msgspec.structs.replace(self._part.hello, nonce=nonce, proof=proof))
        match await link.receive():
            case Refused(reason, remedy, retry_helps):
                if retry_helps:
                    raise LinkLost(f"it sent this host away: {reason}")
                raise PreconditionError(f"the head, {self._head}, sent this host away: {reason}", remedy)
            case Welcome(theirs) if is_proof(theirs, proof_of(self._key, "head", challenge, nonce, rank)):
                return
            case Welcome():
                raise PreconditionError(
                    f"{self._head} did not prove that it has this host's LAUNCHER_ENGINE_KEY",
                    "Set the same on every host.",
                )
            case other:
                raise LinkLost(f"it answered hello with {type(other).__name__}")

    async def _live(self, generation: int, link: Link) -> None:
        """This host's part in one generation, to its last process; then the head is told."""
        finding = await self._run_part(link.own_address)
        told = self._told_to_end
        if not told:
            self.last_failure = finding.reason
        self._life, self.note = None, told or finding.reason
        self._enter(FollowerPhase.JOINED)
        link.send(Ended(generation, not told, told or finding.reason, finding.remedy, finding.retry_helps))
        if self._leaves:
            self.stop()

    async def _run_part(self, address: str) -> Finding:
        part, tail = self._part, deque[str](maxlen=TAIL_LINES)

        def on_line(line: str, transient: bool) -> None:
            if not transient:
                tail.append(line)
                part.logger.info("%s", line)
            if (stage := part.stage_of(line)) is not None and stage != self.stage:
                self.stage = stage
                self._on_change()

        try:
            command = part.command(address)
            self.child = child = await Child.spawn(command.argv, command.environment(part.environment), on_line)
        except LauncherError as error:
            return Finding(error.message, error.hint, retry_helps=False)
        except (OSError, RuntimeError) as error:  # no process could be made
            return Finding(f"no process could be started: {error}")
        self.starts += 1
        part.logger.info("--- start %d, pid %d", self.starts, child.pid)
        self.note = ""
        self._enter(FollowerPhase.RUNNING)
        if self._told_to_end:  # meanwhile
            child.kill()
        ended = await child.wait()
        self.child = None
        part.logger.info("--- %s", ended)
        return part.diagnose(tuple(tail), ended)

    async def _end(self, why: str) -> None:
        """End the part, if it runs, with all its processes."""
        life = self._life
        if life is None:
            return
        self._told_to_end = why
        if self.child is not None:
            self.child.kill()
        await asyncio.wait({life}, timeout=KILL_GRACE_S)
        if (child := self.child) is not None:  # its guard does not act
            kill_session(child.pid)
            kill_session(child.guard_pid)
        await asyncio.wait({life})

    def _enter(self, phase: FollowerPhase) -> None:
        self.stage = ""
        log.info("node %d: %s %s", self._part.hello.rank, phase, self.note)
        self.phase = phase
        self._on_change()
