"""Fixtures: the machine's own Chromium, and pages of it that keep what they ask for and what they complain of."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from deploy.bootstrap import BROWSERS

REMEDY = "there is no Chromium: sudo apt-get install chromium (`make test` does it where it is root)"


@dataclass
class Opened:
    """A page, what it asked for, and what the browser complained of: console errors, what the policy stopped, exceptions."""

    page: Page
    requests: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)


# Not for the whole session: while it runs, Playwright holds this thread's event loop, and asyncio's tests need one.
@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        no_browser()
    with (
        sync_playwright() as playwright,
        playwright.chromium.launch(executable_path=path, args=["--no-sandbox"]) as one,
    ):
        yield one


def no_browser() -> NoReturn:
    """In CI nobody reads what was skipped: there it fails."""
    if os.environ.get("CI"):
        pytest.fail(REMEDY)
    pytest.skip(REMEDY)


@pytest.fixture
def open_page(browser: Browser) -> Iterator[Callable[[Path], Opened]]:
    """Opens a file as a reader would, on a large screen with light colours."""
    contexts = []

    def opened(path: Path) -> Opened:
        context = browser.new_context(color_scheme="light", viewport={"width": 1280, "height": 844})
        contexts.append(context)
        found = Opened(context.new_page())
        found.page.on("request", lambda request: found.requests.append(request.url))
        found.page.on("websocket", lambda socket: found.requests.append(socket.url))
        found.page.on(
            "console", lambda said: found.complaints.append(said.text) if said.type in ("error", "warning") else None
        )
        found.page.on("pageerror", lambda error: found.complaints.append(str(error)))
        found.page.goto(path.as_uri())
        found.page.evaluate("0")  # what the browser had to say before has come when this is answered
        return found

    yield opened
    for context in contexts:
        context.close()
