"""One engine started for its log alone: read until it is up, ends or says nothing in time, then killed with all below it."""

from __future__ import annotations

import contextlib
import os
import queue
import subprocess
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from launcher.engine.command import EngineCommand
from launcher.engine.diagnose import diagnose
from launcher.engine.stages import stage_of
from launcher.probe.gpus import GpuUse, gpu_use
from launcher.profile.model import Profile
from launcher.profile.units import GIB, MIB
from launcher.supervise.child import kill_session
from loadtests.starts_table import ENDED, STARTED, TIMED_OUT

KILLED_S = 30.0  # for the kernel to end what was killed
GIVEN_BACK_S = 60.0  # for the driver to give a killed engine's memory back
SLACK = 64 * MIB  # by which a card's used memory may differ from what it was


@dataclass
class Seen:
    """What a log has told so far."""

    lines: list[str] = field(default_factory=list)
    facts: dict[str, float] = field(default_factory=dict)

    def read(self, lines: Iterable[str]) -> bool:
        """Reads until the engine is up; False if the lines end before.

        The size of the KV cache comes earlier, but is only arithmetic: memory can still run out when it is allocated, or
        when CUDA graphs are captured.
        """
        for line in lines:
            self.lines.append(line)
            if stage := stage_of(line):
                self.facts |= stage.facts
                if "start_s" in stage.facts or stage.text == "HTTP server up":
                    return True
        return False


def lines_of(process: subprocess.Popen[str], log: IO[str], within_s: float) -> Iterator[str]:
    """The lines of a process's output as they come, until it ends or the time is up. They are written to ``log``."""
    assert process.stdout is not None
    stdout, deadline = process.stdout, time.monotonic() + within_s
    waiting: queue.Queue[str | None] = queue.Queue()

    def pump() -> None:
        for line in stdout:
            waiting.put(line)
        waiting.put(None)

    threading.Thread(target=pump, daemon=True).start()
    while time.monotonic() < deadline:
        try:
            line = waiting.get(timeout=1.0)
        except queue.Empty:
            if process.poll() is not None:  # a child that outlives it keeps the pipe open
                return
            continue
        if line is None:
            return
        log.write(line)
        yield line.rstrip("\n")


def start(command: EngineCommand, profile: Profile, log: Path) -> dict[str, Any]:
    """Starts an engine, reads what it says and kills it. Returns the outcome, and why where it did not come up.

    One that is neither up nor gone within timeouts.start is given up. Raises ValueError where it cannot be killed.
    """
    environment, began, seen = command.environment(os.environ), time.monotonic(), Seen()
    process = subprocess.Popen(
        command.argv, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, errors="replace", start_new_session=True,
    )  # fmt: skip
    try:
        with log.open("w", encoding="utf-8") as file:
            is_up = seen.read(lines_of(process, file, profile.timeouts.start))
        seconds = round(time.monotonic() - began, 1)
        if not is_up:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(2.0)
        outcome = {"outcome": STARTED} if is_up else why_not(profile, seen.lines, process.returncode)
        return {"seconds": seconds, "facts": seen.facts, **outcome}
    finally:
        end(process)


def end(process: subprocess.Popen[str]) -> None:
    """Kills an engine and all below it. Raises ValueError where the kernel does not let go of one: it would hold the card's memory."""
    deadline = time.monotonic() + KILLED_S
    while left := kill_session(process.pid):
        if time.monotonic() > deadline:
            raise ValueError(
                f"process {', '.join(map(str, left))} of the engine is still there {KILLED_S:g} s after SIGKILL: it waits in the kernel, "
                "most likely for the card's driver; restart the machine, then go on with the same --out"
            )
        time.sleep(0.1)
    process.wait()


def why_not(profile: Profile, lines: Sequence[str], code: int | None) -> dict[str, Any]:
    """The outcome of a start that did not come up; ``code`` as subprocess has it, None: it still runs."""
    if code is None:
        why = f"neither ready nor ended within {profile.timeouts.start:g} s: allow more with timeouts.start"
        return {"outcome": TIMED_OUT, "why": why}
    exit_code, signal = (code, None) if code >= 0 else (None, -code)
    found = diagnose(lines, profile, exit_code, signal)
    return {"outcome": ENDED, "why": found.cause, "diagnosis": found.name, "evidence": list(found.evidence)}


def wait_for_memory(before: Sequence[GpuUse]) -> None:
    """Until every card has as much free as before. Raises ValueError where one has not: the next start would be wrong."""
    deadline = time.monotonic() + GIVEN_BACK_S
    while held := [
        f"card {now.index} holds {(now.used_bytes - was.used_bytes) / GIB:.2f} GiB more than before the start"
        for was, now in zip(before, gpu_use(), strict=True)
        if now.used_bytes > was.used_bytes + SLACK
    ]:
        if time.monotonic() > deadline:
            raise ValueError(f"{'; '.join(held)}, {GIVEN_BACK_S:g} s after its end")
        time.sleep(0.2)
