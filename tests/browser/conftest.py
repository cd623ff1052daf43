"""Fixtures: the machine's own Chromium, sites to open in it, and pages that keep what they ask for and complain of."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from deploy.bootstrap import find_browser
from tests.browser.site import Site, running_site
from tests.browser.watch import PageWatch, opened

# A camera that shows a test picture, and nobody who has to be asked for it.
FLAGS = ("--no-sandbox", "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream")
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
    path = find_browser()
    if path is None:
        no_browser()
    with sync_playwright() as playwright, playwright.chromium.launch(executable_path=path, args=[*FLAGS]) as one:
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


@pytest.fixture(scope="package")
def sites(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Site]]:
    """Starts a site with these settings changed, once for all tests that want the same; its engines are as at their start."""
    running: dict[tuple[str, ...], Site] = {}
    with ExitStack() as stack:

        def found(*sets: str) -> Site:
            if sets not in running:
                running[sets] = stack.enter_context(running_site(tmp_path_factory.mktemp("site") / "site", *sets))
            running[sets].reset()
            return running[sets]

        yield found


@pytest.fixture
def site(sites: Callable[..., Site]) -> Site:
    """One engine, no keys, nothing changed."""
    return sites()


@pytest.fixture
def visit(browser: Browser) -> Iterator[Callable[..., PageWatch]]:
    """Opens a page of a site (see ``watch.opened``). At the test's end there must be nothing to complain of."""
    watches: list[PageWatch] = []
    with ExitStack() as stack:

        def visited(site: Site, path: str = "/", **how: Any) -> PageWatch:
            origin = how.pop("origin", site.address)
            watches.append(stack.enter_context(opened(browser, origin, path, **how)))
            return watches[-1]

        yield visited
        faults = [fault for watch in watches for fault in watch.faults()]
    assert faults == []
