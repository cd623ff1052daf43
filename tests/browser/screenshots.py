"""Takes the pictures of the pages that the documentation shows, and on demand pictures of every state to look at.

python -m tests.browser.screenshots                    docs/chat.png and docs/ops.png, of a site with fake engines
python -m tests.browser.screenshots --engine real      the same of the default profile, which sees no pictures
python -m tests.browser.screenshots --all FOLDER       every state, light and dark, wide and narrow, into FOLDER
"""

from __future__ import annotations

import argparse
import io
import json
import math
import sys
import tempfile
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from random import Random

from PIL import Image, ImageDraw, ImageFilter
from playwright.sync_api import Browser, expect, sync_playwright

from deploy.bootstrap import find_browser
from tests.browser.chat import Chat
from tests.browser.conftest import FLAGS, REMEDY
from tests.browser.site import Site, running_site
from tests.browser.test_chat_access import STATES
from tests.browser.watch import opened
from tests.e2e.endpoint import Endpoint
from tests.gateway.media.pictures import saved

DOCS = Path(__file__).resolve().parents[2] / "docs"
LARGEST_BYTES = 150_000
QUESTION = "What is to be seen in this picture? Answer with a list."
REASONING = "A shore in the evening. I go from the sky down to the water and name what stands out."
ANSWER = """\
The picture shows a **shore at dusk**, drawn with few colours:

1. a low sun above the sea, with its light on the water,
2. a white lighthouse with two red bands on a dark cliff,
3. two sailing boats, the nearer one with a red sail.
"""
OPS_SECONDS = 60.0  # of load before the operator's page is taken: what its plots then show


def evening(width: int = 1920, height: int = 1080) -> Image.Image:
    """A picture to ask about: sun, sea, lighthouse, boats."""
    picture, dice = Image.new("RGB", (width, height)), Random(4)
    draw, horizon = ImageDraw.Draw(picture), height * 0.55
    for y in range(height):
        share = y / horizon if y < horizon else (height - y) / (height - horizon)
        low, high = ((255, 176, 110), (52, 78, 140)) if y < horizon else ((196, 128, 104), (24, 44, 84))
        colour = tuple(round(b + (a - b) * share**1.4) for a, b in zip(low, high, strict=True))
        draw.line((0, y, width, y), fill=colour)  # type: ignore[arg-type]
    sun = (width * 0.36, horizon - height * 0.09, height * 0.075)
    draw.ellipse((sun[0] - sun[2], sun[1] - sun[2], sun[0] + sun[2], sun[1] + sun[2]), fill=(255, 236, 190))
    for _ in range(260):  # its light on the water
        y = horizon + dice.random() ** 1.5 * (height - horizon)
        spread = 20 + (y - horizon) * 0.45
        x = sun[0] + dice.gauss(0, spread)
        draw.line((x - spread * 0.3, y, x + spread * 0.3, y), fill=(255, 206, 150), width=3)
    cliff = [(width * 0.68, horizon + 60), (width * 0.74, horizon - 40), (width, horizon - 110), (width, horizon + 130)]
    draw.polygon(cliff, fill=(38, 34, 48))
    _lighthouse(draw, width * 0.83, horizon - 60, height * 0.38)
    _boat(draw, width * 0.2, horizon + height * 0.2, height * 0.2, (190, 50, 44))
    _boat(draw, width * 0.53, horizon + height * 0.05, height * 0.08, (240, 232, 220))
    return picture.filter(ImageFilter.GaussianBlur(0.8))


def _lighthouse(draw: ImageDraw.ImageDraw, x: float, foot: float, size: float) -> None:
    for part in range(5):
        low, high = part / 5, (part + 1) / 5
        wide, narrow = size * (0.13 - 0.05 * low), size * (0.13 - 0.05 * high)
        corners = [(x - wide, foot - size * low), (x + wide, foot - size * low)]
        corners += [(x + narrow, foot - size * high), (x - narrow, foot - size * high)]
        draw.polygon(corners, fill=(186, 44, 40) if part % 2 else (244, 240, 232))
    draw.rectangle((x - size * 0.06, foot - size * 1.12, x + size * 0.06, foot - size), fill=(255, 232, 150))
    draw.polygon(
        [(x - size * 0.09, foot - size * 1.12), (x + size * 0.09, foot - size * 1.12), (x, foot - size * 1.24)],
        fill=(60, 30, 34),
    )


def _boat(draw: ImageDraw.ImageDraw, x: float, y: float, size: float, sail: tuple[int, int, int]) -> None:
    hull = [
        (x - size * 0.5, y),
        (x + size * 0.5, y),
        (x + size * 0.32, y + size * 0.16),
        (x - size * 0.34, y + size * 0.16),
    ]
    draw.polygon(hull, fill=(44, 30, 30))
    draw.polygon(
        [(x - size * 0.03, y - size * 0.05), (x - size * 0.03, y - size), (x - size * 0.45, y - size * 0.05)], fill=sail
    )
    draw.polygon(
        [(x + size * 0.03, y - size * 0.05), (x + size * 0.03, y - size * 0.9), (x + size * 0.36, y - size * 0.05)],
        fill=sail,
    )


def written(picture: bytes, path: Path) -> None:
    """As a PNG of so many colours that it is small. Raises SystemExit where none is."""
    image = Image.open(io.BytesIO(picture)).convert("RGB")
    for colours in (256, 128, 64, 32):
        out = io.BytesIO()
        image.quantize(colours, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE).save(out, "PNG", optimize=True)
        if out.tell() <= LARGEST_BYTES:
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(out.getvalue())
            print(f"{path}: {image.width}×{image.height}, {colours} colours, {out.tell() // 1000} kB")
            return
    raise SystemExit(f"{path} would have more than {LARGEST_BYTES} bytes: take a smaller part of the page")


def docs_chat(browser: Browser, site: Site, folder: Path) -> None:
    """A picture, what the gateway makes of it, an answer, and its waterfall."""
    site.fake.set(reply=ANSWER, reasoning=REASONING, first_token_s=0.18, inter_token_s=0.012)
    with opened(browser, site.address, width=1180, height=880, device_scale_factor=1.5) as watch:
        chat = Chat(watch).ready()
        chat.pick(("evening.jpg", saved(evening(), "JPEG", quality=90)))
        expect(chat.tray).to_have_attribute("data-state", "ready")
        chat.asked(QUESTION)
        expect(chat.answer.locator("figure.waterfall")).to_be_visible()
        written(watch.page.screenshot(animations="disabled", caret="hide"), folder / "chat.png")


def docs_real_chat(browser: Browser, address: str, folder: Path) -> None:
    with opened(browser, address, width=1180, height=880, device_scale_factor=1.5) as watch:
        chat = Chat(watch).ready()
        chat.asked("What is the capital of France, and what is it known for?")
        expect(chat.answer.locator("figure.waterfall")).to_be_visible()
        written(watch.page.screenshot(animations="disabled", caret="hide"), folder / "chat.png")


def docs_ops(browser: Browser, address: str, model: str, folder: Path, seconds: float = OPS_SECONDS) -> None:
    """The operator's page, opened before the load begins."""
    with opened(browser, address, "/ops", width=1280, height=900) as watch, load(address, model):
        watch.page.wait_for_timeout(seconds * 1000)
        written(watch.page.screenshot(animations="disabled"), folder / "ops.png")


@contextmanager
def load(address: str, model: str) -> Iterator[None]:
    """Streams of others that come and go, in waves, of every length and priority."""
    over = threading.Event()
    threads = [threading.Thread(target=_client, args=(address, model, number, over)) for number in range(16)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        over.set()
        for thread in threads:
            thread.join()


def _client(address: str, model: str, number: int, over: threading.Event) -> None:
    dice, priority = Random(number), ("high", "normal", "normal", "low")[number % 4]
    turn = 0
    while not over.wait(dice.random() * (1.2 + math.sin(turn / 3 + number)) * 3):
        turn += 1
        words = " ".join("word" for _ in range(int(10 ** (1 + 2.6 * dice.random()))))
        body = {
            "model": model,
            "stream": True,
            "max_tokens": dice.randrange(20, 160),
            "messages": [{"role": "user", "content": words}],
        }
        headers = {"content-type": "application/json", "x-priority": priority, "x-mode": "high-throughput"}
        request = urllib.request.Request(f"{address}/v1/chat/completions", json.dumps(body).encode(), headers)
        try:
            with urllib.request.urlopen(request, timeout=120) as answer:
                answer.read()
        except OSError:
            continue  # refused: that is to be seen too


def every_state(browser: Browser, site: Site, folder: Path) -> None:
    """Each state of the chat page, and the operator's page, as files whose names say which."""
    folder.mkdir(parents=True, exist_ok=True)
    for scheme in ("light", "dark"):
        for width, height in ((1280, 800), (360, 740)):
            for name, lead in STATES.items():
                site.reset()
                with opened(browser, site.address, width=1280, height=800, scheme=scheme, still=True) as watch:
                    lead(site, Chat(watch).ready())
                    watch.page.set_viewport_size({"width": width, "height": height})
                    watch.page.screenshot(path=folder / f"chat-{name.replace(' ', '-')}-{scheme}-{width}.png")
            site.reset()
            with opened(browser, site.address, "/ops", width=width, height=height, scheme=scheme) as watch:
                watch.page.wait_for_timeout(3000)
                watch.page.screenshot(path=folder / f"ops-{scheme}-{width}.png", full_page=True)
    print(f"{len(list(folder.glob('*.png')))} pictures in {folder}")


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.browser.screenshots", description=__doc__.splitlines()[0])
    parser.add_argument("--engine", choices=("fake", "real"), default="fake")
    parser.add_argument("--all", type=Path, metavar="FOLDER", help="every state, for people to look at")
    parser.add_argument("--docs", type=Path, default=DOCS, metavar="FOLDER", help="where the two of the docs go")
    told = parser.parse_args(arguments)
    path = find_browser()
    if path is None:
        raise SystemExit(REMEDY)
    with ExitStack() as stack:
        state = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="screenshots-")))
        browser = stack.enter_context(sync_playwright()).chromium.launch(executable_path=path, args=[*FLAGS])
        stack.callback(browser.close)
        if told.engine == "real":
            real = Endpoint(state)
            stack.callback(real.down)
            if real.up().returncode:
                raise SystemExit(real.said)
            docs_real_chat(browser, real.url, told.docs)
            docs_ops(browser, real.url, "smollm2", told.docs)
            return
        if told.all:
            every_state(browser, stack.enter_context(running_site(state / "site")), told.all)
            return
        sets = ("engine.replicas=2", "admission.max_in_flight=4", "admission.deadline=15s")
        site = stack.enter_context(running_site(state / "site", *sets))
        docs_chat(browser, site, told.docs)
        for engine in site.engines:
            engine.reset()
            engine.set(first_token_s=0.15, inter_token_s=0.03)
        docs_ops(browser, site.address, "glm-4v-tiny", told.docs)


if __name__ == "__main__":
    main(sys.argv[1:])
