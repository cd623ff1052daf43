"""The one loop that owns every engine: events in, `state.transition` decides, actions out.

Only `Supervisor.run` changes an engine's state. Background tasks (start, health, warm-up, liveness, waiting for the
end) never do: each only puts an event into the inbox, marked with the attempt that it belongs to, and what comes late
from an attempt that is over is dropped.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Any

from launcher.errors import LauncherError
from launcher.profile.model import TimeoutsSection, WarmupSection
from launcher.supervise import state
from launcher.supervise.child import Child, kill_session
from launcher.supervise.engine import Engine, EngineEnd, EngineSpec, Finding, OtherHosts, ReplicaListener, new_ends
from launcher.supervise.engine_client import EngineClient
from launcher.supervise.restart import RestartPolicy, restarts_left
from launcher.supervise.state import EngineState, Phase, transition
from launcher.supervise.warmup import WarmupFailed, warm_up, warmup_requests
from launcher.supervise.watch import Watch

log = logging.getLogger("launcher.supervise")

HEALTH_POLL_S = 0.2
KILL_GRACE_S = 5.0  # how long a guard may take to clear everything below it before it is killed itself


class Supervisor:
    """Keeps engines running until told to stop. ``on_change`` is called after each change of an engine's state or stage."""

    def __init__(
        self,
        specs: Sequence[EngineSpec],
        listener: ReplicaListener,
        *,
        policy: RestartPolicy,
        timeouts: TimeoutsSection,
        warmup: WarmupSection,
        base_dir: Path,
        environment: Mapping[str, str],
        on_change: Callable[[Engine], None],
    ) -> None:
        self.engines = [Engine(spec) for spec in specs]
        self.ends = new_ends()  # written by `run` only
        self._listener = listener
        self._policy = policy
        self._timeouts = timeouts
        self._warmup = warmup
        self._base_dir = base_dir
        self._environment = environment
        self._on_change = on_change
        self._inbox: asyncio.Queue[tuple[Engine, int | None, state.Event]] = asyncio.Queue()

    def __repr__(self) -> str:
        return f"<Supervisor {' '.join(repr(engine.state) for engine in self.engines)}>"

    def restarts_left(self, engine: Engine) -> int:
        """How many times it would be started again if it died from now on."""
        return restarts_left(engine.state.crashes, asyncio.get_running_loop().time(), self._policy)

    def start(self) -> None:
        """Ask for every engine."""
        for engine in self.engines:
            self._inbox.put_nowait((engine, None, state.Start()))

    def stop(self) -> None:
        """Ask every engine to go: politely, then after timeouts.stop not so."""
        for engine in self.engines:
            self._inbox.put_nowait((engine, None, state.Stop()))

    def kill(self) -> None:
        """End every engine at once."""
        for engine in self.engines:
            if engine.child is not None:
                engine.child.kill()
        self.stop()

    async def run(self) -> None:
        """Work until every engine is stopped or failed, with no process left."""
        try:
            while True:
                engine, attempt, event = await self._inbox.get()
                if attempt is None or attempt == engine.state.attempt:
                    self._apply(engine, event)
                if self._inbox.empty() and all(e.state.phase in state.FINAL for e in self.engines):
                    return
        finally:
            await self._clear()

    async def _clear(self) -> None:
        for engine in self.engines:
            running = [*engine.tasks, *engine.probes]
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)
            if engine.child is not None:
                engine.child.kill()
                await engine.child.wait()
            if engine.client is not None:
                await engine.client.close()

    def _apply(self, engine: Engine, event: state.Event) -> None:
        now = asyncio.get_running_loop().time()
        before = engine.state
        engine.state, actions = transition(before, event, now, self._policy)
        if engine.state.phase is not before.phase:
            self._note(engine, before)
        if cause := state.unasked_end(before.phase, engine.state.phase, event):
            engine.ends[cause] += 1
            self.ends.append(EngineEnd(time.time(), engine.spec.index, cause, engine.state.reason, engine.state.remedy))
        for action in actions:
            self._perform(engine, action)
        if engine.state is not before:
            self._on_change(engine)

    def _note(self, engine: Engine, before: EngineState) -> None:
        engine.stage = ""
        for probe in engine.probes:  # each phase has its own: health while starting, warm-up, then liveness
            probe.cancel()
        if engine.state.phase in (Phase.KILLING, Phase.BACKOFF, Phase.FAILED) and engine.state.reason:
            engine.last_failure = engine.state.reason
        log.info("engine %d: %s → %s %s", engine.spec.index, before.phase, engine.state.phase, engine.state.reason)

    def _perform(self, engine: Engine, action: state.Action) -> None:
        match action:
            case state.Spawn():
                self._run(engine, engine.tasks, self._start_child(engine, engine.state.attempt))
            case state.WarmUp():
                self._run(engine, engine.probes, self._warm(engine, engine.state.attempt))
            case state.AnnounceReady():
                self._listener.ready(engine.spec.index)
                self._run(engine, engine.probes, self._watch(engine, engine.state.attempt))
            case state.AnnounceDown(reason):
                if engine.client is not None:  # else it was never announced: no process was started yet
                    self._listener.down(engine.spec.index, reason)
            case state.Kill():
                self._run(engine, engine.tasks, self._kill(engine))
            case state.Terminate():
                self._run(engine, engine.tasks, self._terminate(engine))
            case state.WakeAt(at):
                self._run(engine, engine.tasks, self._wake(engine, engine.state.attempt, at))
            case state.GiveUp():
                log.error("engine %d: gave up: %s", engine.spec.index, engine.state.reason)

    def _run(
        self, engine: Engine, group: set[asyncio.Task[None]], work: Coroutine[Any, Any, None]
    ) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        attempt = engine.state.attempt
        group.add(task)

        def done(task: asyncio.Task[None]) -> None:
            group.discard(task)
            error = None if task.cancelled() else task.exception()
            if error is not None:  # a bug of ours must not leave an engine waiting for an event that never comes
                log.error("engine %d: internal error", engine.spec.index, exc_info=error)
                kind = state.Exited if engine.child is None else state.Failed
                self._tell(engine, attempt, kind(f"internal error: {type(error).__name__}: {error}"))

        task.add_done_callback(done)
        return task

    def _tell(self, engine: Engine, attempt: int, event: state.Event) -> None:
        self._inbox.put_nowait((engine, attempt, event))

    async def _start_child(self, engine: Engine, attempt: int) -> None:
        """One life of the engine, on all of its hosts where it has several."""
        others = engine.spec.others
        if others is not None:
            if not await self._gathered(engine, attempt, others):
                self._tell(engine, attempt, state.Exited("stopped while it waited for the other hosts"))
                return
            self._run(engine, engine.tasks, self._heed(engine, attempt, others))
        end = await self._live(engine, attempt)
        if others is not None and (fallen := await others.disband(end.reason)) is not None:
            # Which of the two was first, none can tell: each breaks off when the other is gone.
            both = f"{end.reason}; {fallen.reason}"
            end = Finding(both, fallen.remedy or end.remedy, end.retry_helps and fallen.retry_helps)
        self._tell(engine, attempt, state.Exited(end.reason, end.remedy, end.retry_helps))

    async def _gathered(self, engine: Engine, attempt: int, others: OtherHosts) -> bool:
        """Wait for the other hosts, however long; False when told to stop meanwhile."""

        def on_step(step: str) -> None:
            engine.stage = step
            self._on_change(engine)

        # a probe, so that it ends with the phase
        gathering = self._run(engine, engine.probes, others.gather(attempt, on_step))
        await asyncio.wait({gathering})
        return not gathering.cancelled() and gathering.exception() is None

    async def _heed(self, engine: Engine, attempt: int, others: OtherHosts) -> None:
        """What no longer runs on one host is ended on this one too."""
        if (fallen := await others.until_fallen()) is not None:
            self._tell(engine, attempt, state.Failed(fallen.reason, fallen.remedy, fallen.retry_helps))

    async def _live(self, engine: Engine, attempt: int) -> Finding:
        """Start the process, then wait for health on one side and for its end on the other; why it ended."""
        engine.tail.clear()
        try:
            command = engine.spec.command()
        except LauncherError as error:
            return Finding(error.message, error.hint, retry_helps=False)
        if engine.client is not None:
            await engine.client.close()
        engine.client = EngineClient(command.url, engine.spec.model, command.headers)
        self._listener.starting(engine.spec.index, command.url, command.headers)
        engine.child = await Child.spawn(
            command.argv,
            command.environment(self._environment),
            lambda line, transient: self._on_line(engine, line, transient),
        )
        engine.spec.logger.info("--- attempt %d, pid %d, %s", attempt, engine.child.pid, command.url)
        if engine.state.phase is not Phase.STARTING:  # told to stop meanwhile
            engine.child.kill()
        else:
            self._on_change(engine)
            self._run(engine, engine.probes, self._await_health(engine, attempt))
        return await self._await_end(engine, engine.child)

    def _on_line(self, engine: Engine, line: str, transient: bool) -> None:
        if not transient:
            engine.tail.append(line)
            engine.spec.logger.info("%s", line)
        stage = engine.spec.stage_of(line)
        if stage is not None and stage != engine.stage and engine.state.phase is Phase.STARTING:
            engine.stage = stage
            self._on_change(engine)

    async def _await_end(self, engine: Engine, child: Child) -> Finding:
        ended = await child.wait()
        engine.child = None
        engine.spec.logger.info("--- %s", ended)
        return engine.spec.diagnose(tuple(engine.tail), ended)

    async def _await_health(self, engine: Engine, attempt: int) -> None:
        assert engine.client is not None
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._timeouts.start
        while loop.time() < deadline:
            if await engine.client.health_fault(timeout_s=5.0) is None:
                self._tell(engine, attempt, state.Healthy())
                return
            await asyncio.sleep(HEALTH_POLL_S)
        at = f" (it was: {engine.stage})" if engine.stage else ""
        self._tell(
            engine,
            attempt,
            state.Failed(
                f"not healthy within timeouts.start ({self._timeouts.start:g} s){at}",
                "Raise timeouts.start if it was still loading; `launcher logs` shows how far it came.",
            ),
        )

    async def _warm(self, engine: Engine, attempt: int) -> None:
        assert engine.client is not None

        def on_step(step: str) -> None:
            engine.stage = step
            self._on_change(engine)

        try:
            requests = warmup_requests(self._warmup, sees_images=engine.spec.sees_images, base_dir=self._base_dir)
            await warm_up(engine.client, requests, timeout_s=self._timeouts.warmup, on_step=on_step)
        except WarmupFailed as error:
            self._tell(engine, attempt, state.Failed(error.message, error.hint, error.retry_helps))
        else:
            self._tell(engine, attempt, state.Warmed())

    async def _watch(self, engine: Engine, attempt: int) -> None:
        """Liveness of a ready engine."""
        assert engine.client is not None
        watch = Watch(engine.client, lambda: self._listener.activity(engine.spec.index), self._timeouts)
        self._tell(engine, attempt, await watch.until_hung())

    async def _kill(self, engine: Engine) -> None:
        child = engine.child
        if child is None:
            return
        child.kill()
        await asyncio.sleep(KILL_GRACE_S)
        if engine.child is child:  # its guard does not act
            kill_session(child.pid)
            kill_session(child.guard_pid)

    async def _terminate(self, engine: Engine) -> None:
        child = engine.child
        if child is None:
            return
        child.terminate()
        await asyncio.sleep(self._timeouts.stop)
        if engine.child is child:
            log.warning("engine %d did not stop within %g s: killed", engine.spec.index, self._timeouts.stop)
            await self._kill(engine)

    async def _wake(self, engine: Engine, attempt: int, at: float) -> None:
        await asyncio.sleep(max(0.0, at - asyncio.get_running_loop().time()))
        self._tell(engine, attempt, state.BackoffOver())
