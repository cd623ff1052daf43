"""That the watch over a page can find something: faults are planted in a real page of a real site."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser

from tests.browser.site import Site
from tests.browser.watch import PageWatch, opened, tasks_of
from tests.e2e.endpoint import wait_for

BUSY = "ms => new Promise(done => setTimeout(() => { const end = performance.now() + ms; while (performance.now() < end); done() }))"
KEEP = """() => {
  window.kept = [new Array(400_000).fill(0.5), ...Array.from({length: 1000}, () => document.createElement('i'))]
}"""


@pytest.fixture
def watch(site: Site, browser: Browser) -> Iterator[PageWatch]:
    with opened(browser, site.address, "/") as one:
        yield one


@pytest.mark.parametrize(
    ("planted", "words"),
    [
        ("fetch('https://example.invalid/x').catch(() => 0)", "policy: connect-src stopped https://example.invalid/x"),
        ("document.body.innerHTML = '<b>x</b>'", "policy: require-trusted-types-for stopped"),
        ("eval('1')", "policy: "),
        ("new Image().src = '//example.invalid/x.png'", "asked http://example.invalid/x.png"),
        ("console.error('planted')", "error: planted"),
        ("console.warn('planted')", "warning: planted"),
        ("throw Error('planted')", "an error of the script: planted"),
        ("alert('planted')", "dialog: planted"),
        ("fetch('/nowhere')", "404"),
    ],
)
def test_what_goes_wrong_is_seen(planted: str, words: str, watch: PageWatch) -> None:
    assert watch.faults() == []
    watch.page.evaluate(f"setTimeout(() => {{ {planted} }})")
    wait_for(words, lambda: any(words in fault for fault in watch.faults()), within_s=10)


def test_what_is_wanted_is_forgiven(watch: PageWatch) -> None:
    watch.forgive("status of 404")
    assert watch.page.evaluate("fetch('/nowhere').then(answer => answer.status)") == 404
    assert watch.faults() == []
    assert [one.url for one in watch.asked("/nowhere", "GET")] == [f"{watch.origin}/nowhere"]


def test_what_keeps_the_thread_is_timed(watch: PageWatch, browser: Browser) -> None:
    with tasks_of(browser, watch.page) as tasks:
        watch.page.evaluate(BUSY, 120)
    longest = max(tasks, key=lambda task: task.wall_ms)
    assert longest.wall_ms > 119
    assert 10 < longest.processor_ms < longest.wall_ms + 1
    assert any(ms > 119 for ms in watch.long_tasks())


def test_what_is_kept_is_counted(watch: PageWatch) -> None:
    before = watch.held()
    watch.page.evaluate(KEEP)
    kept = watch.held()
    assert kept.nodes > before.nodes + 900
    assert kept.heap_bytes > before.heap_bytes + 2_000_000
    watch.page.evaluate("() => { delete window.kept }")
    after = watch.held()
    assert after.nodes < before.nodes + 100
    assert after.heap_bytes < kept.heap_bytes - 2_000_000


def test_what_keeps_people_out_is_found(watch: PageWatch) -> None:
    watch.page.evaluate("document.body.append(document.createElement('button'))")
    assert any(fault.startswith("button-name: ") for fault in watch.axe())
