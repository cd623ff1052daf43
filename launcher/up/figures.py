"""What a launcher adds to the metrics: how its engines ended, what their crash budget allows, and its machine's cards."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator, Sequence

from launcher.gateway.metrics import Sample
from launcher.probe.gpus import GpuUse
from launcher.supervise.state import Phase
from launcher.supervise.supervisor import Supervisor

LOOK_EVERY_S = 15.0


def engine_samples(supervisor: Supervisor) -> Iterator[Sample]:
    """Of each engine that we run."""
    for engine in supervisor.engines:
        replica = str(engine.spec.index)
        for cause, count in engine.ends.items():
            yield "launcher_engine_ends", (replica, cause), count
        yield "launcher_engine_restarts_left", (replica,), supervisor.restarts_left(engine)
        yield "launcher_engine_given_up", (replica,), engine.state.phase is Phase.FAILED


class Cards:
    """The cards' memory and work. ``look`` runs in a thread, for a driver takes its time; written by `watched` only."""

    def __init__(self, look: Callable[[], Sequence[GpuUse]]) -> None:
        self._look = look
        self._seen: Sequence[GpuUse] = ()

    @contextlib.asynccontextmanager
    async def watched(self) -> AsyncIterator[None]:
        """Looks at them meanwhile."""
        watching = asyncio.create_task(self._watch())
        try:
            yield
        finally:
            watching.cancel()

    async def _watch(self) -> None:
        while True:
            self._seen = await asyncio.to_thread(self._look)
            await asyncio.sleep(LOOK_EVERY_S)

    def samples(self) -> Iterator[Sample]:
        """As they were when last looked at; none where there are none, or before."""
        for card in self._seen:
            labels = (str(card.index), card.name)
            yield "launcher_gpu_memory_used_bytes", labels, card.used_bytes
            yield "launcher_gpu_memory_total_bytes", labels, card.total_bytes
            if card.utilization is not None:
                yield "launcher_gpu_utilization_ratio", labels, card.utilization / 100
