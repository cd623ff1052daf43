"""A host that runs a part of an engine whose head is elsewhere: no gateway, nothing that answers; see ``follower``."""

from __future__ import annotations

import dataclasses
import logging
import os
import time
from collections.abc import Sequence
from pathlib import Path

from launcher.engine.command import EngineCommand, engine_command
from launcher.engine.diagnose import diagnose
from launcher.engine.nodes import Node
from launcher.engine.stages import stage_of
from launcher.profile.load import LoadedProfile
from launcher.supervise.child import Exit
from launcher.supervise.engine import Finding
from launcher.supervise.follower import Follower, FollowerPhase, Part
from launcher.supervise.logfiles import engine_console, engine_logger, launcher_console, launcher_logger
from launcher.supervise.rundir import RunDir
from launcher.up.deployment import RECORD_VERSION, STOP_MARGIN_S, going_on_without
from launcher.up.engines import NOT_THE_ENGINES, Since
from launcher.up.keys import ENGINE_KEY
from launcher.up.nodes import at_address, hello_of, meeting_port
from launcher.up.prepare import Prepared
from launcher.up.snapshot import Audience, EngineView, Snapshot, processes_of
from launcher.up.status import Status


def run_name(name: str, node: Node) -> str:
    """The run directory of a host: a home folder may be on several hosts, so each has a name of its own."""
    return name if node.is_head else f"{name}-node-{node.rank}"


class Following:
    """One host's part, until told to stop. Written by its own event loop only.

    With ``rundir`` it is listed by `launcher ps` and logs to files; without, as in a container, it logs to stderr.
    """

    def __init__(
        self,
        loaded: LoadedProfile,
        prepared: Prepared,
        audience: Audience,
        *,
        rundir: RunDir | None = None,
        status: Status | None = None,
        leaves_with_head: bool = False,
    ) -> None:
        """``status`` is told while the part runs."""
        assert prepared.node is not None
        self._loaded, self._prepared, self._audience, self._rundir = loaded, prepared, audience, rundir
        self._node = prepared.node
        self._logs = self._open_logs()
        self._follower = Follower(
            self._part(),
            self._node.head,
            meeting_port(self._node),
            key=os.environ.get(ENGINE_KEY, ""),
            leaves_with_head=leaves_with_head,
            on_change=self._changed,
        )
        self._started, self._since, self._said = time.time(), Since(), ""
        self._told_to_stop = 0
        self._status = status

    def _open_logs(self) -> Path | None:
        section = self._loaded.profile.logging
        if self._rundir is None:
            launcher_console(section)
            return None
        logs = self._loaded.base_dir / section.dir if section.dir else self._rundir.path / "logs"
        launcher_logger(logs, section)
        return logs

    def _part(self) -> Part:
        profile, build = self._loaded.profile, self._prepared.build
        assert build is not None
        return Part(
            hello=hello_of(profile, build, self._node),
            command=self._command,
            diagnose=self._diagnose,
            stage_of=lambda line: None if (stage := stage_of(line)) is None else str(stage),
            logger=self._engine_logger(),
            environment={name: value for name, value in os.environ.items() if name not in NOT_THE_ENGINES},
        )

    def _engine_logger(self) -> logging.Logger:
        if self._logs is None:
            return engine_console(self._node.rank)
        return engine_logger(self._node.rank, self._logs, self._loaded.profile.logging)

    @property
    def stopped_at_once(self) -> bool:
        """Whether it was told a second time to stop."""
        return self._told_to_stop > 1

    def request_stop(self) -> None:
        """The first call lets the head end what runs, if it is about to; the second ends it, and the head sees that."""
        self._told_to_stop += 1
        if self._told_to_stop > 1:
            self._follower.stop()
            return
        if self._follower.child is not None:
            self._audience.said(
                f"stopping: the part goes on until the head ends it, {self._patience_s:g} s at most (once more to stop at once)"
            )
        self._follower.leave(self._patience_s)

    @property
    def _patience_s(self) -> float:
        timeouts = self._loaded.profile.timeouts
        return timeouts.drain + timeouts.stop

    async def run(self) -> None:
        """Until told to stop. Raises PreconditionError where the head will not have this host."""
        self._changed()
        try:
            await self._follower.run()
        finally:
            self._changed()
        self._audience.said("stopped")

    def _command(self, address: str) -> EngineCommand:
        build, plan = self._prepared.build, self._prepared.plan
        assert build is not None
        return engine_command(
            self._loaded.profile,
            plan.placements[0],
            port=0,
            model_path=self._prepared.model_path,
            build=build,
            base_dir=self._loaded.base_dir,
            text_only=plan.is_text_only,
            node=at_address(self._node, address),
        )

    def _diagnose(self, lines: Sequence[str], ended: Exit) -> Finding:
        found = diagnose(lines, self._loaded.profile, ended.code, ended.signal)
        return Finding(found.cause, found.remedy, found.retry_helps)

    def _changed(self) -> None:
        if self._status is not None:
            self._status.say("" if self._follower.phase is FollowerPhase.RUNNING else str(self._follower.phase))
        line = f"node {self._node.rank}: {self._stage()}"
        with going_on_without("the terminal or log that is written to"):
            if line != self._said:
                self._audience.said(line)
            self._audience.changed(self.snapshot())
        self._said = line
        if self._rundir is not None:
            with going_on_without(f"the record in {self._rundir.path}"):
                self._rundir.write(self._record())

    def _stage(self) -> str:
        follower = self._follower
        where = f" at {self._node.head}:{meeting_port(self._node)}" if follower.phase is FollowerPhase.SEEKING else ""
        why = follower.stage or follower.note
        return f"{follower.phase}{where}{f' ({why})' if why else ''}"

    def snapshot(self) -> Snapshot:
        """As it is now."""
        follower, child = self._follower, self._follower.child
        phase = "running" if child is not None else "stopped" if follower.phase is FollowerPhase.STOPPED else "waiting"
        view = EngineView(
            index=self._node.rank,
            phase=phase,
            stage=self._stage(),
            url="",
            since=self._since.of(0, str(follower.phase)),
            restarts=max(0, follower.starts - 1),
            last_failure=follower.last_failure,
            **processes_of(child),
        )
        profile = self._loaded.profile
        name = run_name(profile.name, self._node)
        return Snapshot(name, phase, url="", model=profile.model.public_name or "", engines=(view,))

    def _record(self) -> dict[str, object]:
        return {
            "schema_version": RECORD_VERSION,
            "pid": os.getpid(),
            "profile": str(self._loaded.path),
            "logs": str(self._logs),
            "started": self._started,
            "stop_within_s": self._patience_s + STOP_MARGIN_S,
            **dataclasses.asdict(self.snapshot()),
        }

    def __repr__(self) -> str:
        return f"<Following {self._node} {self._follower!r}>"
