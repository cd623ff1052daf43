"""From a picture chosen to its answer complete, in a real browser, stage by stage, with what shortens it off and on.

    python -m loadtests.webpage profile.yaml --rounds 100 --markdown webpage.md

Starts the profile with `launcher up`, opens the web page in this machine's Chromium and asks about a new picture each
time, the arms by turns: pictures as they come, sent with the question; brought to a budget by the gateway; and the same,
chosen while the question is still being written, as people do. One user: nobody else is served meanwhile. Engine,
gateway and browser share the machine.
"""

from __future__ import annotations

import argparse
import io
import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, NamedTuple

from PIL import Image

from deploy.bootstrap import find_browser
from launcher.errors import PreconditionError
from loadtests.deployment import Deployment, load_line, publish, say, stoppable
from loadtests.tally import percentile
from tests.gateway.media.pictures import photo

if TYPE_CHECKING:
    from playwright.sync_api import Page

MARGIN = 1500  # pixels by which the windows move
QUALITY = 85
PATIENCE_MS = 120_000
WARM_UP = 3  # rounds that are not counted
STAGES = ("upload", "decode", "scale", "wait", "network", "queue", "first-token", "stream", "drawing")


class Arm(NamedTuple):
    """A way to ask. ``mode`` chooses the budget; ``ahead``: sent once the picture is ready, not at once."""

    name: str
    mode: str
    ahead: bool


# The page sends its mode with each request, and a mode has its budget: so one deployment serves all arms.
OFF, ON = "high-throughput", "balanced"
ARMS = (
    Arm("as it comes, with the question", OFF, False),
    Arm("a budget, with the question", ON, False),
    Arm("a budget, while the question is written", ON, True),
)
LISTEN = """() => new Promise((done) => {
    window.answered = new Promise((told) => document.addEventListener('launcher:answer', (e) => told(e.detail), {once: true}));
    done();
})"""


def picture(seed: int, width: int, height: int, whole: Image.Image) -> bytes:
    """A JPEG that nobody has seen: each seed is another window of a large picture."""
    dice, file = random.Random(seed), io.BytesIO()
    left, top = dice.randrange(MARGIN), dice.randrange(MARGIN)
    whole.crop((left, top, left + width, top + height)).save(file, "JPEG", quality=QUALITY)
    return file.getvalue()


@contextmanager
def opened(url: str) -> Iterator[Page]:
    """The page in a browser without a window. Raises PreconditionError where there is none."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        raise PreconditionError("Playwright is not installed", "pip install playwright") from None
    path = find_browser()
    if path is None:
        raise PreconditionError("There is no Chromium on this machine", "sudo apt-get install chromium")
    with (
        sync_playwright() as playwright,
        playwright.chromium.launch(executable_path=path, args=["--no-sandbox"]) as one,
    ):
        page = one.new_page(viewport={"width": 1280, "height": 800})
        page.goto(url)
        page.locator("#send").wait_for()
        yield page


def ask(page: Page, arm: Arm, file: bytes, max_tokens: int) -> dict[str, Any]:
    """One question about one picture; what the page says of its time."""
    page.evaluate(f"localStorage.setItem('launcher.mode', '{arm.mode}')")
    page.evaluate(f"localStorage.setItem('launcher.max-tokens', '{max_tokens}')")
    page.locator("#new").click()
    page.locator("#question").fill("What is this?")
    page.evaluate(LISTEN)
    page.locator("#files").set_input_files({"name": "picture.jpg", "mimeType": "image/jpeg", "buffer": file})
    if arm.ahead:
        page.locator("#tray figure[data-state=ready]").wait_for(timeout=PATIENCE_MS)
    page.locator("#send").click()
    found: dict[str, Any] = page.evaluate("window.answered")
    return found


def run(page: Page, rounds: int, size: tuple[int, int], max_tokens: int) -> dict[str, list[dict[str, float]]]:
    """All answers by arm."""
    found: dict[str, list[dict[str, float]]] = {arm.name: [] for arm in ARMS}
    whole, seed = photo(size[0] + MARGIN, size[1] + MARGIN, 7), 0
    for number in range(-WARM_UP, rounds):
        for arm in ARMS if number % 2 else reversed(ARMS):
            told = ask(page, arm, picture(seed, *size, whole), max_tokens)
            seed += 1
            if number >= 0:
                found[arm.name].append({**told["stages"], "total": told["total_ms"], "after Send": told["wait_ms"]})
        if number % 10 == 9:
            say(f"round {number + 1} of {rounds}")
    return found


def table(found: dict[str, list[dict[str, float]]]) -> str:
    """Median and p95 of each stage in milliseconds; the ratio is the median of the rounds' own, to the first arm."""
    names = list(found)
    lines = ["| stage, ms: median / p95 | " + " | ".join(names) + " |", "|---|" + "---|" * len(names)]
    for stage in (*STAGES, "total", "after Send"):
        cells = [cell([one.get(stage, 0.0) for one in found[name]]) for name in names]
        if any(cells):
            lines.append(f"| {stage} | " + " | ".join(cells) + " |")
    for figure in ("total", "after Send"):
        first = [one[figure] for one in found[names[0]]]
        times = [median(b[figure] / a for a, b in zip(first, found[name], strict=True)) for name in names]
        lines.append(f"| {figure}, × the first | " + " | ".join(f"{value:.2f}" for value in times) + " |")
    return "\n".join([*lines, "", load_line(), ""])


def cell(values: list[float]) -> str:
    """'' where there was none of it."""
    return f"{median(values):,.1f} / {percentile(values, 0.95):,.1f}" if any(values) else ""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m loadtests.webpage", description=__doc__.partition("\n")[0])
    add = parser.add_argument
    add("profile", help="the profile to start; its model must take pictures")
    add("--set", action="append", default=[], metavar="KEY=VALUE", help="as for `launcher up`")
    add("--tokens", type=int, default=324, help="the budget of a picture (default: 324)")
    add("--size", default="1920x1080", help="of the pictures (default: 1920x1080)")
    add("--rounds", type=int, default=100)
    add("--max-tokens", type=int, default=32, help="of each answer (default: 32)")
    add("--markdown", type=Path, help="a file for the table; default: the terminal")
    chosen = parser.parse_args()
    width, height = map(int, chosen.size.split("x"))
    budgets = f"{{{OFF}: original, {ON}: {{max_tokens: {chosen.tokens}}}}}"
    sets = [f"gateway.images.modes={budgets}", "admission.deadline=60s", *chosen.set]
    with Deployment(chosen.profile, sets) as deployment, opened(deployment.gateway) as page:
        text = table(run(page, chosen.rounds, (width, height), chosen.max_tokens))
    publish(text, chosen.markdown)


if __name__ == "__main__":
    with stoppable():
        main()
