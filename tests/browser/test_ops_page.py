"""The operator's page in a real browser: against a real deployment for what it does, against a player for what takes hours."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Locator, Page, expect

import launcher.ui
from tests.browser.drawing import rgb
from tests.browser.occupant import occupied
from tests.browser.player import START, Player, bad_look, card, engine, look, playing, replica
from tests.browser.site import Site
from tests.browser.watch import PageWatch
from tests.e2e.endpoint import get

Visit = Callable[..., PageWatch]
UI = Path(launcher.ui.__file__).parent
DRAWN_MS = 1000  # the page draws no more often


@pytest.fixture
def player() -> Iterator[Player]:
    with playing() as one:
        yield one


@pytest.fixture
def watch(player: Player, visit: Visit) -> PageWatch:
    """The page with its first look."""
    player.play(look())
    found = visit(player, "/ops")
    expect(headline(found.page)).to_be_visible()
    return found


def headline(page: Page) -> Locator:
    return page.locator(".headline .sentence")


def plot(page: Page, name: str) -> Locator:
    return page.locator("figure.plot", has=page.get_by_role("heading", name=name, exact=True))


def row(page: Page, index: int) -> Locator:
    return page.locator("table.engines tbody tr").nth(index)


def cell(page: Page, index: int, name: str) -> Locator:
    return row(page, index).locator(f"[data-name='{name}']")


# A real deployment.


def test_it_shows_what_a_deployment_does(site: Site, visit: Visit) -> None:
    watch = visit(site, "/ops")
    watch.forgive("status of 503")  # where the control app is not there yet
    page = watch.page
    expect(headline(page)).to_have_text("The engine serves. Nobody waits.")
    expect(cell(page, 0, "In flight")).to_have_text("0")
    site.fake.set(hold_after=1)
    with occupied(site):
        expect(cell(page, 0, "In flight")).to_have_text("1")
        expect(plot(page, "Queue and in flight").locator("li", has_text="in flight")).to_contain_text("1")
    expect(cell(page, 0, "In flight")).to_have_text("0")
    expect(page.locator(".plan")).to_contain_text("KV cache of one replica")
    expect(page.locator(".plan .badge").first).to_have_text(re.compile("fits|not known"))


def test_the_mode_is_switched(site: Site, visit: Visit) -> None:
    page = visit(site, "/ops").page
    for name, mode in (("high throughput", "high-throughput"), ("balanced", "balanced")):
        button = page.get_by_role("button", name=name)
        button.click()
        expect(page.locator(".mode [role=status]")).to_contain_text(f"to {name}.")
        expect(button).to_have_attribute("aria-pressed", "true")
        assert get(site.address + "/api/state")[1]["mode"] == mode


def test_an_engine_is_drained_after_a_question(site: Site, visit: Visit) -> None:
    page = visit(site, "/ops").page
    page.get_by_role("button", name="Drain engine 0").press("Enter")
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("No other engine serves")
    expect(dialog.get_by_role("button", name="Cancel")).to_be_focused()
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    expect(page.get_by_role("button", name="Drain engine 0")).to_be_focused()
    page.keyboard.press("Enter")
    dialog.get_by_role("button", name="Drain").click()
    expect(page.locator(".engines-said")).to_contain_text("Replica 0 finishes what it has and gets no new requests")
    expect(headline(page)).to_contain_text("The engine does not serve. Engine 0: drained.")
    page.get_by_role("button", name="Undrain engine 0").click()
    expect(headline(page)).to_have_text("The engine serves. Nobody waits.")


def test_a_key_is_asked_for_kept_and_forgotten(sites: Callable[..., Site], visit: Visit) -> None:
    site = sites("admission.max_queued=100")  # a site of its own: it stays locked
    user, secret = site.add_key("mallory"), site.add_key("operator", "--admin")
    watch = visit(site, "/ops")
    watch.forgive("status of 401", "status of 403")
    page, field = watch.page, watch.page.get_by_label("API key")
    use = page.get_by_role("button", name="Use this key")
    said = page.locator(".door [role=alert]")
    expect(said).to_contain_text("This endpoint needs an API key")
    expect(field).to_be_focused()
    field.fill("wrong")
    field.press("Enter")
    expect(said).to_contain_text("The API key is not known here.")
    field.fill(user)
    use.click()
    expect(said).to_contain_text("may not do this: it takes one made with `launcher key add NAME --admin`")
    field.fill(secret)
    use.click()
    expect(headline(page)).to_contain_text("The engine serves.")
    assert not [one.url for one in watch.requests if secret in one.url]
    page.reload()  # it holds for as long as the tab
    expect(headline(page)).to_contain_text("The engine serves.")
    page.get_by_role("button", name="Forget the key").click()
    expect(said).to_contain_text("This endpoint needs an API key")
    expect(headline(page)).to_have_count(0)


def test_without_scripts_it_says_what_to_do(site: Site, visit: Visit) -> None:
    page = visit(site, "/ops", script=False).page
    expect(page.get_by_role("main")).to_contain_text("launcher top")
    expect(page.get_by_role("main")).to_contain_text("/api/watch")


# Played: what is shown.


def test_the_headline_says_how_it_is(player: Player, watch: PageWatch) -> None:
    page = watch.page
    expect(headline(page)).to_have_text("All 2 engines serve. Nobody waits.")
    player.play(look(1, waiting=3))
    expect(headline(page)).to_have_text("All 2 engines serve. 3 requests wait, the oldest 40 ms.")
    player.play(bad_look(2))
    expect(headline(page)).to_have_text(
        "1 of 2 engines serves. Engine 1: waits to be restarted. 3 requests wait, the oldest 40 ms. "
        "Of the last minute's 312 requests 11 were refused or evicted. 1 failed."
    )
    expect(page.locator(".headline .notice")).to_contain_text("card 1 (NVIDIA GeForce RTX 4090): memory grows")
    expect(page).to_have_title("Look at this · played · operations")
    player.play(look(3, live=None))
    expect(headline(page)).to_have_text("The gateway does not answer.")
    expect(page).to_have_title("Not serving · played · operations")


def test_only_a_change_of_state_is_read_out(player: Player, watch: PageWatch) -> None:
    """A polite region that changed with each look would talk all day."""
    status = watch.page.locator("main > [role=status]")
    expect(status).to_have_text("All 2 engines serve.")
    player.play(look(1, waiting=3))
    expect(headline(watch.page)).to_contain_text("3 requests wait")
    expect(status).to_have_text("All 2 engines serve.")
    player.play(bad_look(2))
    expect(status).to_have_text("1 of 2 engines serves. Engine 1: waits to be restarted.")


def test_figures_of_all_kinds_are_shown(player: Player, watch: PageWatch) -> None:
    page = watch.page
    player.play(bad_look(1))
    expect(row(page, 1)).to_contain_text("waits to be restarted")
    expect(row(page, 1)).to_contain_text("Last failure: CUDA out of memory")
    expect(cell(page, 0, "Prefill in hand")).to_contain_text("1,024of 4,096")
    expect(cell(page, 0, "KV cache")).to_contain_text("42 %73 % prefix hits")
    expect(cell(page, 1, "KV cache")).to_have_text("–")
    expect(page.locator("table.counts", has_text="By priority").locator("tr", has_text="normal")).to_contain_text("3")
    expect(page.locator("table.counts", has_text="By length").locator("tr", has_text="≤ 1k tokens")).to_contain_text(
        "3"
    )
    reason = page.locator("table.outcomes tr", has_text="queue_full")
    expect(reason.locator("td")).to_have_text(["9", "9"])
    expect(page.locator("table.cards tbody tr").nth(1)).to_contain_text("+60 MiB/min21 min")
    expect(page.locator("ol.ends li")).to_have_count(20)
    expect(page.locator("ol.ends li").first).to_contain_text("Lower engine.gpu_memory_utilization.")
    expect(page.locator(".plan")).to_contain_text("KV cache9.0 GiB")
    expect(page.locator(".findings li").first).to_contain_text("Set it to 64.")


def test_goodput_is_by_the_objective_that_is_chosen(player: Player, watch: PageWatch) -> None:
    page = watch.page
    figure = plot(page, "Goodput, requests/s")
    expect(figure.locator(".aside")).to_have_text("95 %: 285 of 300 requests")
    expect(figure.locator("li").first).to_have_text(re.compile(r"within\s+4\.75"))
    page.get_by_label("TTFT within").select_option("0.5")
    expect(figure.locator(".aside")).to_have_text("50 %: 150 of 300 requests")
    player.play(bad_look(1))  # of 300 streams and 12 requests that came to nothing
    expect(figure.locator(".aside")).to_have_text("48 %: 150 of 312 requests")
    page.reload()
    expect(page.get_by_label("TTFT within")).to_have_value("0.5")


def test_plots_show_what_was_and_share_a_cursor(player: Player, watch: PageWatch) -> None:
    page = watch.page
    player.play(*(look(second, waiting=second) for second in range(1, 101)))
    queue, ttft = plot(page, "Queue and in flight"), plot(page, "TTFT")
    expect(queue.locator("li").first).to_contain_text("100")
    canvas = queue.get_by_role("img")
    expect(canvas).to_have_attribute("aria-label", re.compile(r"^Queue and in flight: waiting 100, in flight 24\. "))
    box = canvas.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + 0.55 * box["width"], box["y"] + 40)
    expect(ttft.locator(".aside")).to_have_text(re.compile(r"^at \d\d:\d\d:\d\d$"))
    assert 30 < int(queue.locator("li b").first.inner_text()) < 70
    page.mouse.move(0, 0)
    expect(queue.locator("li").first).to_contain_text("100")


PIXELS = """
(figure) => {
  const canvas = figure.querySelector('canvas')
  const all = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data
  const ink = getComputedStyle(figure.querySelector('.mark')).color
  const [r, g, b] = ink.match(/\\d+/g).map(Number)
  const columns = new Set()
  for (let i = 0; i < all.length; i += 4)
    if (all[i + 3] > 200 && Math.abs(all[i] - r) + Math.abs(all[i + 1] - g) + Math.abs(all[i + 2] - b) < 40) columns.add(i / 4 % canvas.width)
  return {ink, columns: [...columns].sort((a, b) => a - b)}
}
"""


def test_a_gap_in_the_looks_is_a_gap_in_the_line(player: Player, watch: PageWatch) -> None:
    page = watch.page
    player.play(*(look(second, waiting=5) for second in range(1, 100) if not 40 < second < 60))
    figure = plot(page, "Queue and in flight")
    expect(headline(page)).to_contain_text("5 requests wait")
    columns = figure.evaluate(PIXELS)["columns"]
    widest = max(after - before for before, after in pairwise(columns))
    assert 35 < widest < 90  # of 340 for 120 s
    assert columns[-1] - columns[0] > 200


def test_lines_have_the_colours_that_are_chosen(player: Player, watch: PageWatch) -> None:
    page = watch.page
    player.play(*(look(second, waiting=5) for second in range(1, 100)))
    expect(headline(page)).to_contain_text("5 requests wait")
    figure = plot(page, "Queue and in flight")
    watch.forgive("willReadFrequently")  # of PIXELS
    light = figure.evaluate(PIXELS)
    page.locator("#theme").select_option("dark")
    expect(page.locator("html")).to_have_attribute("data-theme", "dark")
    page.evaluate("new Promise(requestAnimationFrame).then(() => new Promise(requestAnimationFrame))")
    dark = figure.evaluate(PIXELS)
    assert rgb(light["ink"]) != rgb(dark["ink"])
    assert len(light["columns"]) > 200
    assert len(dark["columns"]) > 200


# Played: how it goes.


def test_it_comes_back_by_itself_and_says_so_meanwhile(player: Player, watch: PageWatch) -> None:
    page = watch.page
    watch.forgive("ERR_CONNECTION_REFUSED", "ERR_INCOMPLETE_CHUNKED_ENCODING")
    player.end()
    banner = page.locator(".banner")
    expect(banner).to_contain_text("The connection to the gateway is broken. The figures below are")
    expect(banner).to_contain_text(re.compile(r"Next try in \d+ s\.|Trying now\."))
    expect(page.locator("main > [role=status]")).to_have_text("The connection to the gateway is broken.")
    expect(headline(page)).to_have_text("All 2 engines serve. Nobody waits.")  # the last figures stay, greyed
    expect(page.locator("main.stale > .headline")).to_have_css("filter", "grayscale(1)")
    player.newest = look(30, waiting=1)
    player.begin()
    expect(headline(page)).to_contain_text("1 request waits, for 40 ms.")
    expect(banner).to_have_count(0)
    expect(page.locator("main.stale")).to_have_count(0)


def test_an_end_that_is_none_is_not_told(player: Player, watch: PageWatch) -> None:
    """The server ends each stream after a while; the next begins a second later."""
    player.asked.get(timeout=10)
    player.newest = look(1, waiting=2)
    player.cut()
    player.asked.get(timeout=10)
    expect(headline(watch.page)).to_contain_text("2 requests wait")
    expect(watch.page.locator(".going")).to_have_text("Live")


def test_a_refusal_is_shown_in_the_gateways_words(player: Player, visit: Visit) -> None:
    why = "64 watch already; close a page, or ask /api/watch."
    player.refusal = (503, {"message": why, "reason": "too_many_watchers", "src": "control"})
    watch = visit(player, "/ops")
    watch.forgive("status of 503")
    expect(watch.page.locator(".banner")).to_contain_text(why)
    player.refusal, player.newest = None, look()
    watch.page.get_by_role("button", name="Try now").click()
    expect(headline(watch.page)).to_contain_text("All 2 engines serve.")


def test_a_silent_connection_is_left(player: Player, watch: PageWatch) -> None:
    watch.page.clock.install()
    player.play(look(1, waiting=3))
    expect(headline(watch.page)).to_contain_text("3 requests wait")
    player.newest = None  # the next connection is silent too
    watch.page.clock.run_for(10_000)
    expect(watch.page.locator(".banner")).to_contain_text(re.compile(r"is broken\. +The figures below are 1\d s old\."))


HIDE = """
(isHidden) => {
  Object.defineProperty(document, 'hidden', {value: isHidden, configurable: true})
  document.dispatchEvent(new Event('visibilitychange'))
}
"""


def test_a_tab_that_nobody_sees_stops_reading(player: Player, watch: PageWatch) -> None:
    page = watch.page
    player.asked.get(timeout=10)
    page.clock.install()
    page.evaluate(HIDE, True)
    page.clock.run_for(299_000)
    expect(page.locator(".going")).to_have_text("Live")
    page.clock.run_for(2_000)
    expect(page.locator(".going")).to_have_text("Paused")
    player.newest = look(300, waiting=4)
    page.evaluate(HIDE, False)
    player.asked.get(timeout=10)
    expect(page.locator(".going")).to_have_text("Live")
    page.clock.run_for(DRAWN_MS)
    expect(headline(page)).to_contain_text("4 requests wait")


def test_hours_leave_nothing_behind(player: Player, watch: PageWatch) -> None:
    """5,000 looks, each drawn second a second of the page's clock; engines come and go, reasons and ends change."""
    page = watch.page
    page.clock.install()

    def pass_looks(first: int, last: int) -> None:
        for begin in range(first, last, 100):
            player.play(*(varied(second) for second in range(begin, begin + 100)))
            page.wait_for_function("at => window.__seen.at === at", arg=START + begin + 99)
            page.clock.run_for(DRAWN_MS)

    page.evaluate(SEE_LOOKS)
    pass_looks(1, 1001)
    before = watch.held()
    pass_looks(1001, 5001)
    after = watch.held()
    # A look is 6 kB: if they were kept it would be 24 MB. The browser's own caches move by half a megabyte.
    assert after.heap_bytes - before.heap_bytes < 1_500_000
    assert after.nodes - before.nodes < 100
    assert after.listeners - before.listeners < 20
    expect(headline(page)).to_contain_text("All 2 engines serve.")


# The newest look that the page has read: JSON.parse is what each goes through.
SEE_LOOKS = """
() => {
  const parse = JSON.parse
  JSON.parse = (text, ...more) => { const found = parse(text, ...more); if (found?.at) window.__seen.at = found.at; return found }
}
"""


def varied(second: int) -> dict[str, Any]:
    extra = 2 + second // 100 % 2  # a third engine that joins and leaves
    found = bad_look(second) if second % 7 == 0 else look(second, waiting=second % 40)
    found["engines"] = [engine(one) for one in range(extra)]
    found["live"]["replicas"] = [replica(one) for one in range(extra)]
    found["gpus"] = [card(one) for one in range(extra)]
    found["live"]["totals"]["refusals"] = {f"reason_{second % 300}": second, "queue_full": second}
    found["ends"] = [
        {"at": START + second - 20 + one, "engine": 0, "cause": "hung", "reason": f"r {second}", "remedy": ""}
        for one in range(20)
    ]
    return found


# For everybody.


DARK_PHONE, LIGHT_SCREEN = (360, "dark"), (1280, "light")
ALL_SCREENS = (DARK_PHONE, (360, "light"), (1280, "dark"), LIGHT_SCREEN)


def faults_of(watch: PageWatch, screens: Iterable[tuple[int, Any]] = (DARK_PHONE, LIGHT_SCREEN)) -> list[str]:
    """What axe finds, and what is wider than the screen."""
    found = []
    for width, scheme in screens:
        watch.page.set_viewport_size({"width": width, "height": 800})
        watch.page.emulate_media(color_scheme=scheme)
        across = watch.page.evaluate("document.documentElement.scrollWidth")
        faults = [*watch.axe(), *([f"it is {across} wide"] if across > width else [])]
        found += [f"{width} {scheme}: {fault}" for fault in faults]
    return found


def test_everybody_can_use_it(player: Player, visit: Visit) -> None:
    player.play(bad_look())
    watch = visit(player, "/ops")
    watch.forgive("status of 401", "status of 503")
    page = watch.page
    expect(page.locator(".plan table").first).to_be_visible()
    page.evaluate("document.querySelectorAll('details').forEach(one => { one.open = true })")
    assert faults_of(watch, ALL_SCREENS) == []
    page.locator("#language").select_option("zh")
    page.locator(".act button").first.click()
    expect(page.get_by_role("dialog")).to_be_visible()
    assert faults_of(watch) == []
    page.keyboard.press("Escape")
    player.refusal = (
        503,
        {"message": "64 watch already; close a page.", "reason": "too_many_watchers", "src": "control"},
    )
    player.cut()
    expect(page.locator(".banner")).to_be_visible()
    assert faults_of(watch) == []
    player.refusal = (401, {"message": "This endpoint needs an API key.", "reason": "missing_key", "src": "gateway"})
    page.locator(".banner button").click()
    expect(page.locator(".door")).to_be_visible()
    assert faults_of(watch) == []


def test_the_language_is_switched(watch: PageWatch) -> None:
    page = watch.page
    page.locator("#language").select_option("zh")
    expect(headline(page)).to_have_text("2 个引擎全部在服务。 无人等待。")
    expect(page.locator("html")).to_have_attribute("lang", "zh")
    page.reload()
    expect(headline(page)).to_have_text("2 个引擎全部在服务。 无人等待。")


ENTRY = re.compile(r"'?([\w.-]+)'?: \{\s*en: '((?:[^'\\]|\\.)*)',\s*zh: '((?:[^'\\]|\\.)*)',?\s*\}")
SAID = re.compile(r"\bsay\('([\w.-]+)'")


def test_every_text_is_there_in_both_languages() -> None:
    entries = {key: (en, zh) for key, en, zh in ENTRY.findall((UI / "ops" / "words.js").read_text())}
    said = {key for path in (UI / "ops").glob("*.js") for key in SAID.findall(path.read_text())}
    assert len(said) > 80
    assert said - entries.keys() == set()
    for key, (en, zh) in entries.items():
        assert set(re.findall(r"\{\w+\}", en)) == set(re.findall(r"\{\w+\}", zh)), key
