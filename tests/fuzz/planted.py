"""Targets with a fault each that no seed shows, for the fuzzer's own tests."""

from __future__ import annotations

import os
import signal
from contextlib import suppress

from launcher.gateway.sse import EventParser
from tests.fuzz.target import Target


def sound(data: bytes) -> None:
    EventParser().feed(data)


def fragile(data: bytes) -> None:
    assert not any(b"event: x" in event for event in EventParser().feed(data))


def endless(data: bytes) -> None:
    with suppress(Exception):  # as those do who read hostile files
        while any(b"event: x" in event for event in EventParser().feed(data)):
            pass


def deadly(data: bytes) -> None:
    """As a decoder in C with a fault."""
    if any(b"event: x" in event for event in EventParser().feed(data)):
        os.kill(os.getpid(), signal.SIGSEGV)


SEEDS, WORDS = (b"data: a\n\n",), (b"event: x", b"\n\n")
TARGETS = {run.__name__: Target(run, SEEDS, WORDS) for run in (sound, fragile, endless, deadly)}
