"""Starts the fake engine as a process of its own and talks to it, for tests."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

SCRIPT = Path(__file__).with_name("engine.py")


class Controls:
    """The way to a fake engine's routes under /_fake/, whoever started it."""

    def __init__(self, url: str) -> None:
        self.url = url

    def call_now(self, path: str, value: Any = None) -> dict[str, Any]:
        """GET, or POST of ``value``; an error status raises AssertionError with the body."""
        data = None if value is None else json.dumps(value).encode()
        try:
            with urllib.request.urlopen(urllib.request.Request(self.url + path, data), timeout=60) as response:
                answer: dict[str, Any] = json.load(response)
        except urllib.error.HTTPError as error:
            raise AssertionError(f"fake engine: {path}: {error.code} {error.read().decode()}") from None
        return answer


class FakeEngine(Controls):
    """A running fake engine."""

    def __init__(self, process: subprocess.Popen[str], url: str) -> None:
        super().__init__(url)
        self.process = process
        self.port = int(url.rsplit(":", 1)[1])

    async def call(self, path: str, value: Any = None) -> dict[str, Any]:
        return await asyncio.to_thread(self.call_now, path, value)

    async def set(self, **behaviour: Any) -> None:
        await self.call("/_fake/set", behaviour)

    async def seen(self) -> dict[str, Any]:
        return await self.call("/_fake/seen")

    async def wait(self, event: str, count: int = 1, timeout_s: float = 10) -> dict[str, Any]:
        """Returns what was seen once ``event`` has come ``count`` times in all."""
        return await self.call(f"/_fake/wait?event={event}&count={count}&timeout={timeout_s}")

    async def release(self, count: int = 1) -> None:
        await self.call(f"/_fake/release?count={count}", {})

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@contextmanager
def fake_engine(port: int = 0, **behaviour: Any) -> Iterator[FakeEngine]:
    """A fake engine, on a free port unless one is given; stopped at the end."""
    environment = os.environ | {"FAKE_ENGINE": json.dumps(behaviour), "PYTHONUNBUFFERED": "1"}
    command = (sys.executable, str(SCRIPT), "--port", str(port))
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment, text=True)
    assert process.stdout is not None
    try:
        for line in process.stdout:
            if match := re.search(r"running on (http://\S+)", line):
                break
        else:
            raise AssertionError("the fake engine ended before it listened")
        threading.Thread(target=process.stdout.read, daemon=True).start()
        yield FakeEngine(process, match[1])
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
