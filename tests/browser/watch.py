"""A page in the browser, watched: what it asks for, what it complains of, how long it keeps its thread, what it holds.

Everything that is timed here is told by the browser itself, in the browser's own clock.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Any

from playwright.sync_api import Browser, BrowserContext, CDPSession, ConsoleMessage, Page, Request

AXE = files("axe_playwright_python").joinpath("axe.min.js").read_text(encoding="utf-8")
# The rules of WCAG up to 2.2 AA, and what axe's authors think good besides.
AXE_TAGS = ("wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice")
PATIENCE_MS = 10_000.0  # for what a page does at once on a machine that has nothing else to do
LONG_TASK_MS = 50.0  # the browser reports no shorter ones

# Runs before the page's own scripts, and is kept from none by its policy.
PROBE = """
(() => {
  const seen = window.__seen = {violations: [], tasks: []}
  document.addEventListener('securitypolicyviolation', event => {
    seen.violations.push(`${event.effectiveDirective} stopped ${event.blockedURI} (${event.sourceFile}:${event.lineNumber}) ${event.sample}`)
  })
  new PerformanceObserver(list => seen.tasks.push(...list.getEntries().map(one => one.duration)))
    .observe({type: 'longtask', buffered: true})
})()
"""


@dataclass(frozen=True)
class Task:
    """One task of the page's main thread, in milliseconds: from begin to end, and what the processor spent on it.

    The two differ where the machine had something else to do in the middle of it.
    """

    wall_ms: float
    processor_ms: float


@dataclass
class Held:
    """What a page holds, after everything that can go has gone."""

    heap_bytes: int
    nodes: int
    listeners: int
    documents: int


@dataclass
class PageWatch:
    """A page and what was seen of it. ``origin`` is where all it asks for must come from."""

    page: Page
    origin: str
    requests: list[Request] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)
    dialogs: list[str] = field(default_factory=list)
    forgiven: list[str] = field(default_factory=list)
    _session: CDPSession | None = None

    @property
    def cdp(self) -> CDPSession:
        """The browser's own protocol for this page."""
        if self._session is None:
            self._session = self.page.context.new_cdp_session(self.page)
        return self._session

    def begin(self) -> None:
        """Listens. Before the page is opened, else its first words are missed."""
        page = self.page
        page.add_init_script(PROBE)
        page.context.on("request", lambda request: self.requests.append(request))
        page.on("websocket", lambda socket: self.complaints.append(f"a web socket to {socket.url}"))
        page.on("console", self._said)
        page.on("pageerror", lambda error: self.complaints.append(f"an error of the script: {error}"))
        page.on("crash", lambda _: self.complaints.append("the page crashed"))
        page.on("dialog", self._asked)

    def _said(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning", "assert"):
            self.complaints.append(f"{message.type}: {message.text} ({message.location.get('url', '')})")

    def _asked(self, dialog: Any) -> None:
        """A dialog of the browser's stops the page until it is answered: none is wanted."""
        self.dialogs.append(dialog.message)
        dialog.dismiss()

    def forgive(self, *words: str) -> None:
        """Complaints with these words are wanted here: the browser itself writes each answer above 399 to the console."""
        self.forgiven += words

    def faults(self) -> list[str]:
        """Sentences: requests to others, complaints, what the policy stopped, dialogs."""
        said = self.page.evaluate("window.__seen?.violations ?? []") if not self.page.is_closed() else []
        found = [f"asked {url}" for url in self.strangers()]
        found += [one for one in self.complaints if not any(words in one for words in self.forgiven)]
        return [*found, *(f"policy: {one}" for one in said), *(f"dialog: {one}" for one in self.dialogs)]

    def strangers(self) -> list[str]:
        """URLs of other origins that were asked for. ``blob:`` and ``data:`` are the page's own."""
        own = (f"{self.origin}/", f"blob:{self.origin}/", "data:")
        return [one.url for one in self.requests if not one.url.startswith(own)]

    def asked(self, path: str, method: str = "") -> list[Request]:
        """The requests for a path, without what comes after a question mark."""
        target = self.origin + path
        return [one for one in self.requests if one.url.partition("?")[0] == target and method in ("", one.method)]

    def long_tasks(self) -> list[float]:
        """How long each task of more than 50 ms took, in milliseconds, as the page itself was told."""
        found: list[float] = self.page.evaluate("window.__seen.tasks")
        return found

    def held(self) -> Held:
        """What is left when nothing more can be collected."""
        for _ in range(2):  # what a first round has finalised goes in a second
            self.cdp.send("HeapProfiler.collectGarbage")
        counts = self.cdp.send("Memory.getDOMCounters")
        heap = self.cdp.send("Runtime.getHeapUsage")
        return Held(int(heap["usedSize"]), counts["nodes"], counts["jsEventListeners"], counts["documents"])

    def slow_upload(self, bytes_per_s: float) -> None:
        """What the page sends goes no faster from now on; 0: as fast as it can."""
        self.cdp.send("Network.enable")
        rules = {"offline": False, "latency": 0, "downloadThroughput": -1, "uploadThroughput": bytes_per_s or -1}
        self.cdp.send("Network.emulateNetworkConditions", rules)

    def axe(self, *without: str) -> list[str]:
        """What axe-core finds on the page as it is now: a sentence for each violation. ``without``: rules that are not asked."""
        # Given to the browser's debugger, which the page's policy does not bind.
        self.page.evaluate(AXE)
        options = {"runOnly": AXE_TAGS, "rules": {name: {"enabled": False} for name in without}}
        options["resultTypes"] = ("violations",)
        found = self.page.evaluate("options => axe.run(document, options)", options)
        return [sentence for one in found["violations"] for sentence in _sentences(one)]


def _sentences(violation: dict[str, Any]) -> Iterator[str]:
    for node in violation["nodes"]:
        reasons = [check["message"] for kind in ("any", "all", "none") for check in node[kind]]
        yield f"{violation['id']}: {' '.join(map(str, node['target']))}: {'; '.join(reasons) or violation['help']}"


@contextmanager
def opened(
    browser: Browser,
    origin: str,
    path: str = "/",
    *,
    width: int = 1280,
    height: int = 800,
    scheme: str = "light",
    locale: str = "en-US",
    still: bool = False,
    script: bool = True,
    permissions: Sequence[str] = (),
    key: str = "",
    **more: Any,
) -> Iterator[PageWatch]:
    """A page of its own browser profile. ``still``: the user wants no motion. ``key``: put into the session storage before."""
    context: BrowserContext = browser.new_context(
        viewport={"width": width, "height": height},
        color_scheme=scheme,  # type: ignore[arg-type]
        reduced_motion="reduce" if still else "no-preference",
        locale=locale,
        java_script_enabled=script,
        permissions=[*permissions],
        **more,
    )
    context.set_default_timeout(PATIENCE_MS)
    try:
        watch = PageWatch(context.new_page(), origin)
        watch.begin()
        if key:
            context.add_init_script(f"sessionStorage.setItem('launcher.key', {json.dumps(key)})")
        watch.page.goto(origin + path)
        yield watch
    finally:
        context.close()


@contextmanager
def tasks_of(browser: Browser, page: Page) -> Iterator[list[Task]]:
    """All tasks of the page's main thread while this is open; the list is filled at the end."""
    found: list[Task] = []
    browser.start_tracing(page=page, categories=["disabled-by-default-devtools.timeline", "devtools.timeline"])
    try:
        yield found
    finally:
        page.evaluate("new Promise(done => setTimeout(done))")  # a task that still ran would be left out
        events = json.loads(browser.stop_tracing())["traceEvents"]
        found += _main_thread_tasks(events)


def _main_thread_tasks(events: Sequence[dict[str, Any]]) -> Iterator[Task]:
    """A trace has the browser's own threads too; its renderer is the one that draws the page."""
    main = {(one["pid"], one["tid"]) for one in events if one.get("args", {}).get("name") == "CrRendererMain"}
    for one in events:
        if one["name"] == "RunTask" and (one["pid"], one["tid"]) in main:
            yield Task(one.get("dur", 0) / 1000, one.get("tdur", 0) / 1000)
