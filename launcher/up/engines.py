"""vLLM servers that we start and supervise: from the plan's placements to what `ps` shows and why they ended."""

from __future__ import annotations

import logging
import os
import re
import time
from collections.abc import Callable, Iterator, Sequence

from launcher.engine.command import EngineCommand
from launcher.engine.diagnose import diagnose
from launcher.engine.stages import stage_of
from launcher.errors import EngineError
from launcher.gateway.keyring import VARIABLE
from launcher.gateway.metrics import Sample
from launcher.plan.placement import Placement
from launcher.plan.plan import Plan
from launcher.probe.gpus import gpu_use
from launcher.profile.load import LoadedProfile
from launcher.profile.model import TimeoutsSection
from launcher.supervise.child import Exit
from launcher.supervise.crew import Crew
from launcher.supervise.engine import Engine, EngineEnd, EngineSpec, Finding, ReplicaListener
from launcher.supervise.restart import RestartPolicy
from launcher.supervise.state import Phase
from launcher.supervise.supervisor import Supervisor
from launcher.up.figures import Cards, engine_samples
from launcher.up.keys import ENGINE_KEY
from launcher.up.nodes import make_crew
from launcher.up.prepare import Prepared
from launcher.up.snapshot import EngineView, progress_line, view_engine

# Gets a line worth saying, or '' when only figures moved.
Changed = Callable[[str], None]
NOT_THE_ENGINES = (VARIABLE, ENGINE_KEY)  # of our environment


class Since:
    """When each engine entered the phase that it is in, in seconds since the epoch."""

    def __init__(self) -> None:
        self._entered: dict[int, tuple[str, float]] = {}

    def of(self, index: int, phase: str) -> float:
        known, at = self._entered.get(index, ("", 0.0))
        if known != phase:
            self._entered[index] = (phase, at := time.time())
        return at


class OwnEngines:
    """The plan's replicas as supervised processes. ``command`` is asked for anew at each attempt."""

    def __init__(
        self,
        loaded: LoadedProfile,
        prepared: Prepared,
        listener: ReplicaListener,
        changed: Changed,
        *,
        command: Callable[[Placement], EngineCommand],
        logger: Callable[[int], logging.Logger],
        where_logged: Callable[[int], str],
        timeouts: TimeoutsSection | None = None,
    ) -> None:
        self._loaded, self._prepared, self._changed = loaded, prepared, changed
        self._command, self._logger, self._where_logged = command, logger, where_logged
        self._started = time.time()
        self._since = Since()
        self._said: dict[int, str] = {}
        profile = loaded.profile
        self._crew = self._make_crew()
        self._cards = Cards(gpu_use if profile.hardware.device == "cuda" else tuple)
        self._supervisor = Supervisor(
            [self._spec(placement) for placement in prepared.plan.placements],
            listener,
            policy=RestartPolicy.of(profile.restart),
            timeouts=timeouts or profile.timeouts,
            warmup=profile.warmup,
            base_dir=loaded.base_dir,
            environment={name: value for name, value in os.environ.items() if name not in NOT_THE_ENGINES},
            on_change=self._engine_changed,
        )

    def _make_crew(self) -> Crew | None:
        """The other hosts' launchers, where the engine has other hosts."""
        node, build = self._prepared.node, self._prepared.build
        if node is None or build is None:
            return None
        return make_crew(self._loaded.profile, build, node, os.environ.get(ENGINE_KEY, ""), self._changed)

    async def run(self) -> None:
        """Until none runs any more."""
        if self._crew is not None:
            await self._crew.open()
        try:
            async with self._cards.watched():
                self._supervisor.start()
                await self._supervisor.run()
        finally:
            if self._crew is not None:
                failed = [e.state.reason for e in self._supervisor.engines if e.state.phase is Phase.FAILED]
                await self._crew.close("".join(failed[:1]))

    def stop(self) -> None:
        """Ask each to end; `run` returns when they have."""
        self._supervisor.stop()

    def kill(self) -> None:
        """End each at once."""
        self._supervisor.kill()

    def views(self) -> tuple[EngineView, ...]:
        """Each as it is now."""
        return tuple(
            view_engine(engine, self._since.of(engine.spec.index, engine.state.phase))
            for engine in self._supervisor.engines
        )

    def ends(self) -> tuple[EngineEnd, ...]:
        """The last ends that nobody asked for, the oldest first."""
        return tuple(self._supervisor.ends)

    def samples(self) -> Iterator[Sample]:
        """Metrics of the engines and of the cards, in the gateway's table of them."""
        yield from engine_samples(self._supervisor)
        yield from self._cards.samples()

    def why_over(self) -> EngineError:
        """Why `run` returned without having been asked to."""
        profile = self._loaded.profile
        first = next(engine for engine in self._supervisor.engines if engine.state.phase is Phase.FAILED)
        crashes = len(first.state.crashes)
        tried = "" if crashes == 1 else f" ({crashes} times within {profile.restart.window:g} s, no restart left)"
        return EngineError(
            f"engine {first.spec.index} failed{tried}: {first.state.reason}",
            f"{first.state.remedy}\nIts log: {self._where_logged(first.spec.index)}".strip(),
        )

    def _spec(self, placement: Placement) -> EngineSpec:
        return EngineSpec(
            index=placement.replica,
            command=lambda: self._command(placement),
            model=self._loaded.profile.model.public_name or "",
            sees_images=sees_images(self._prepared.plan),
            diagnose=self._diagnose,
            stage_of=lambda line: None if (stage := stage_of(line)) is None else str(stage),
            logger=self._logger(placement.replica),
            others=self._crew,
        )

    def _diagnose(self, lines: Sequence[str], ended: Exit) -> Finding:
        found = diagnose(lines, self._loaded.profile, ended.code, ended.signal)
        return Finding(found.cause, found.remedy, found.retry_helps)

    def _engine_changed(self, engine: Engine) -> None:
        line = progress_line(engine, time.time() - self._started, len(self._supervisor.engines))
        gist = re.sub(r" ?(\d+ ?%|\d+/\d+)", "", line)  # a share that grows is for the status line, not for a line each
        moved = self._said.get(engine.spec.index) != gist
        self._said[engine.spec.index] = gist
        self._changed(line if moved else "")


def sees_images(plan: Plan) -> bool:
    """Whether the model has a vision tower and the profile lets pictures in; not known counts as no."""
    return plan.shape is not None and plan.shape.vision is not None and plan.profile.model.images_per_prompt != 0
