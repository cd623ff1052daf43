"""The processes that decode what clients send, and the queue before them; the gateway itself looks at no pixel.

Processes are started when there is work for them, at most so many, and live until close(). One that a file has ended is
replaced when there is work again; only that file is refused.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from contextlib import suppress
from dataclasses import replace
from typing import Any, TypeVar

import msgspec

from launcher.gateway.media.audio import AudioJob, Cut
from launcher.gateway.media.jobs import BadPicture, Bug, Job, Shrunk
from launcher.gateway.media.process import WorkerProcess, unavailable
from launcher.gateway.refusal import BUG, Refusal, Refused

log = logging.getLogger("launcher.gateway")
Answer = TypeVar("Answer")
MIB = 1024 * 1024
BYTES_PER_PIXEL = 16  # the hungriest decoders: progressive JPEG at full size, WebP with two canvases, deep AVIF
ABANDONED_S = 0.5  # what a file may still take whose sender has gone
PICTURE_ANSWERS: msgspec.msgpack.Decoder[Shrunk | BadPicture | Bug] = msgspec.msgpack.Decoder(Shrunk | BadPicture | Bug)
CLIP_ANSWERS: msgspec.msgpack.Decoder[Cut | BadPicture | Bug] = msgspec.msgpack.Decoder(Cut | BadPicture | Bug)
BROKEN = (
    "Pictures and clips cannot be decoded at present: no process for it can be started, the gateway's log says why."
)


def memory_for(max_pixels: int, max_bytes: int) -> int:
    """Memory, in bytes, for the largest picture that is let in: pixels, and bytes as it comes."""
    return 64 * MIB + BYTES_PER_PIXEL * max_pixels + 4 * max_bytes


class Pool:
    """Processes that work on files, each on one at a time. Belongs to one event loop, which alone writes its state.

    ``memory_bytes`` is for a file and all that is made of it, ``cpu_s`` the seconds of a processor that it may take;
    ``wall_s`` ends what hangs, or gets no processor. ``max_waiting`` files wait; more are refused with 503.
    """

    def __init__(
        self, *, workers: int, memory_bytes: int, cpu_s: float, wall_s: float = 60.0, max_waiting: int = 256
    ) -> None:
        self._most, self._max_waiting = workers, max_waiting
        self._limits = (memory_bytes, cpu_s, wall_s)
        self._idle: list[WorkerProcess] = []  # the last one used comes first: it is warm
        self._workers: set[WorkerProcess] = set()
        self._lives: set[asyncio.Task[None]] = set()  # one for each process, from before its start to its end
        self._waiting: deque[asyncio.Future[WorkerProcess]] = deque()
        self._closed = False
        self.deaths = 0  # of processes, but for close()

    async def shrink(self, data: bytes, job: Job, param: str | None = None) -> Shrunk:
        """decode.shrink in another process. Raises Refused; ``param`` says which part of the request it was."""
        return await self._answer("picture", data, job, PICTURE_ANSWERS, param)

    async def cut(self, data: bytes, job: AudioJob, param: str | None = None) -> Cut:
        """The same with audio.cut."""
        return await self._answer("clip", data, job, CLIP_ANSWERS, param)

    async def _answer(
        self,
        task: str,
        data: bytes,
        job: Any,
        answers: msgspec.msgpack.Decoder[Answer | BadPicture | Bug],
        param: str | None,
    ) -> Answer:
        try:
            answer = await self.run(task, data, job, answers)
        except Refused as refused:
            raise Refused(replace(refused.refusal, param=param)) from None
        if isinstance(answer, BadPicture):
            raise answer.refused(param)
        assert not isinstance(answer, Bug), "run() has raised"
        return answer

    async def run(self, task: str, data: bytes, job: Any, answers: msgspec.msgpack.Decoder[Answer]) -> Answer:
        """What a task of worker.TASKS answers; ``answers`` reads it, Bug among the types. Raises Refused for none.

        A caller that is cancelled gives its place back.
        """
        worker = await self._take()
        answer = worker.ask(task, msgspec.msgpack.encode((task, job)), data)
        try:
            encoded = await answer
        except asyncio.CancelledError:
            worker.hurry(ABANDONED_S)
            raise
        try:
            found = answers.decode(encoded)
        except msgspec.MsgspecError as error:
            log.error("a media worker answered what cannot be read, and is killed: %s", error)
            worker.kill()
            raise Refused(replace(BUG, close=False)) from None
        if isinstance(found, Bug):
            log.error("decoding failed: this is a bug\n%s", found.traceback)
            raise Refused(replace(BUG, close=False))
        return found

    async def close(self) -> None:
        """Ends all processes and refuses what waits. No process is left when this returns."""
        self._closed = True
        self._refuse_waiting(unavailable("The gateway is stopping."))
        for worker in self._workers:
            worker.kill()
        if self._lives:
            await asyncio.wait(self._lives)

    async def _take(self) -> WorkerProcess:
        while self._idle:
            worker = self._idle.pop()
            if worker.is_alive:
                return worker
        if self._closed:
            raise Refused(unavailable("The gateway is stopping."))
        if len(self._waiting) >= self._max_waiting:
            raise Refused(unavailable(f"{self._max_waiting} files wait to be decoded already. Send it again later."))
        if len(self._lives) < self._most:
            self._start()
        place: asyncio.Future[WorkerProcess] = asyncio.get_running_loop().create_future()
        self._waiting.append(place)
        try:
            return await place
        except asyncio.CancelledError:
            if place.cancelled():
                with suppress(ValueError):  # it was passed over just now
                    self._waiting.remove(place)
            elif place.exception() is None:  # cancelled in the moment that it was given a process
                self._free(place.result())
            raise

    def _free(self, worker: WorkerProcess) -> None:
        """A process that can take a file: to whoever waits longest, else it is idle."""
        if not worker.is_alive:
            return
        while self._waiting:
            place = self._waiting.popleft()
            if not place.done():
                place.set_result(worker)
                return
        self._idle.append(worker)

    def _start(self) -> None:
        life = asyncio.get_running_loop().create_task(self._live(), name="media worker")
        self._lives.add(life)
        life.add_done_callback(self._over)

    async def _live(self) -> None:
        """A process from its start to its end."""
        try:
            worker = await WorkerProcess.start(self._free, *self._limits)
        except OSError as error:
            log.error("no process to decode pictures and clips can be started: %s", error)
            self._refuse_waiting(unavailable(BROKEN))
            return
        self._workers.add(worker)
        if self._closed:
            worker.kill()
        end = await worker.ended()
        self._workers.discard(worker)
        if worker in self._idle:
            self._idle.remove(worker)
        if self._closed:
            return
        self.deaths += 1
        log.warning("a media worker (pid %d) %s; the next file gets another", worker.pid, end)
        if not worker.is_ready:
            self._refuse_waiting(unavailable(BROKEN))

    def _over(self, life: asyncio.Task[None]) -> None:
        self._lives.discard(life)
        if not life.cancelled() and (error := life.exception()):
            log.error("a media worker's task failed: this is a bug", exc_info=error)
            self._refuse_waiting(replace(BUG, close=False))
        if self._waiting and not self._closed:
            self._start()

    def _refuse_waiting(self, refusal: Refusal) -> None:
        while self._waiting:
            place = self._waiting.popleft()
            if not place.done():
                place.set_exception(Refused(refusal))

    def __repr__(self) -> str:
        busy = sum(worker.is_ready for worker in self._workers) - len(self._idle)
        return f"<Pool workers={len(self._workers)}/{self._most} busy={busy} waiting={len(self._waiting)} deaths={self.deaths}>"
