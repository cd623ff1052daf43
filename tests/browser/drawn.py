"""A page that holds nothing but drawings of answers, under the policy that the gateway sends with its pages."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Page, expect

import launcher
from launcher.gateway.static import ALWAYS

HEADERS = dict(line.decode().split(": ", 1) for line in ALWAYS)
SHEET = b"""<!doctype html><html lang="en"><meta charset="utf-8"><title>Drawings</title>
<meta name="viewport" content="width=device-width, initial-scale=1"><link rel="icon" href="data:,">
<link rel="stylesheet" href="/ui/style.css"><link rel="stylesheet" href="/ui/drawing/drawing.css">
<link rel="stylesheet" href="/sheet.css"><script type="module" src="/sheet.js"></script><main></main></html>"""
STYLE = b"main { padding: 12px; max-width: 760px; margin: auto; }"
# `sheet` draws into an element of its own. The seeded cuts are of UTF-16 units: they part surrogates too.
SCRIPT = rb"""
import { Drawing } from '/ui/drawing/drawing.js';

const main = document.querySelector('main');
const random = (seed) => () => { seed = (Math.imul(seed, 1103515245) + 12345) >>> 0; return seed / 2 ** 32; };
const units = (text) => text.replace(/\\u([0-9a-f]{4})/g, (_, hex) => String.fromCharCode(parseInt(hex, 16)));

globalThis.sheet = {
  units,
  begin(options) {
    main.replaceChildren(document.createElement('article'));
    this.element = main.firstChild;
    this.drawing = new Drawing(this.element, options);
    return this.drawing;
  },
  async whole(text) {
    await this.begin().set(text);
    return this.element.innerHTML;
  },
  /** Draws `text` in pieces of up to `longest` units; turns come after some of them. */
  pieces(text, longest, seed, between = () => {}) {
    const next = random(seed);
    const drawing = this.begin();
    for (let at = 0; at < text.length;) {
      const size = 1 + Math.floor(next() * longest);
      drawing.add(text.slice(at, at + size));
      at += size;
      if (next() < 0.7) drawing.turn(Infinity, true);
      between();
    }
    return drawing;
  },
  /** Whether `isTrue` comes to hold, which is asked after every task for ten seconds. */
  async until(isTrue) {
    for (const end = performance.now() + 10_000; !isTrue() && performance.now() < end;) await new Promise((done) => setTimeout(done));
    return isTrue();
  },
  async cut(text, longest, seed) {
    await this.pieces(text, longest, seed).end();
    return this.element.innerHTML;
  },
};
document.title = 'ready';
"""


class Handler(SimpleHTTPRequestHandler):
    """The page, and launcher/ui below /ui."""

    made = {  # noqa: RUF012 (nobody changes it)
        "/": ("text/html; charset=utf-8", SHEET),
        "/sheet.js": ("text/javascript", SCRIPT),
        "/sheet.css": ("text/css", STYLE),
    }
    extensions_map = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}  # noqa: RUF012

    def do_GET(self) -> None:
        if self.path not in self.made:
            self.path = self.path.removeprefix("/ui")
            return super().do_GET()
        kind, body = self.made[self.path]
        self.send_response(200)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def end_headers(self) -> None:
        for name, value in HEADERS.items():
            self.send_header(name, value)
        super().end_headers()

    def log_message(self, *args: Any) -> None:
        """Nobody reads it."""


@contextmanager
def served() -> Iterator[str]:
    """The address of the page, while a server of its own serves it."""
    handler = partial(Handler, directory=str(Path(launcher.__file__).parent / "ui"))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}/"
        finally:
            server.shutdown()
            thread.join()


@dataclass
class Sheet:
    """The page, what it asked for since it was there, and what went wrong: console, policy, exceptions, dialogs, windows."""

    page: Page
    url: str
    requests: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    def ask(self, script: str, value: object = None) -> Any:
        return self.page.evaluate(script, value)

    def whole(self, text: str) -> str:
        """Draws a whole answer; what the page then holds."""
        return str(self.ask("text => sheet.whole(sheet.units(text))", units(text)))

    def cut(self, text: str, longest: int, seed: int) -> str:
        """Draws a stream in pieces; what the page holds at its end."""
        return str(self.ask("([text, ...how]) => sheet.cut(sheet.units(text), ...how)", [units(text), longest, seed]))

    def texts(self, selector: str) -> list[str]:
        return self.page.locator(f"main {selector}").all_text_contents()


def units(text: str) -> str:
    r"""Half surrogates do not travel as UTF-8: they go as \uD800 and become themselves in the page."""
    return "".join(f"\\u{ord(one):04x}" if 0xD800 <= ord(one) <= 0xDFFF else one for one in text)


@contextmanager
def sheet(browser: Browser, url: str, **context: Any) -> Iterator[Sheet]:
    """Opens the page in a browser of its own kind: `context` is of Playwright's new_context()."""
    own = browser.new_context(**{"viewport": {"width": 900, "height": 800}, "color_scheme": "light", **context})
    found = Sheet(own.new_page(), url)
    heard: dict[str, Callable[[Any], str]] = {
        "console": lambda said: f"{said.type}: {said.text}",
        "pageerror": str,
        "dialog": lambda dialog: f"dialog: {dialog.message}",
        "popup": lambda page: f"window: {page.url}",
    }
    for event, name in heard.items():
        found.page.on(event, lambda it, name=name: found.wrong.append(name(it)))  # type: ignore[call-overload]
    found.page.on("request", lambda request: found.requests.append(request.url))
    found.page.goto(url)
    expect(found.page).to_have_title("ready")
    found.requests.clear()
    yield found
    own.close()
