"""The web page in a real browser, in front of a real vLLM."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import pytest
from playwright.sync_api import Page, expect, sync_playwright

from deploy.bootstrap import find_browser
from tests.browser.chat import Chat
from tests.browser.conftest import FLAGS, no_browser
from tests.browser.watch import PageWatch, opened
from tests.e2e.endpoint import QUESTION, Endpoint

STEPS = """async () => {
  const seen = []
  while (document.querySelector('article.message[data-role=assistant]:last-of-type').dataset.state !== 'done') {
    const text = document.querySelector('article.message[data-role=assistant]:last-of-type .answer').textContent
    if (text !== seen.at(-1)) seen.push(text)
    await new Promise(done => setTimeout(done, 20))
  }
  return seen
}"""


# Only for one test: while it runs, Playwright holds this thread's event loop, and asyncio's tests need one.
@pytest.fixture
def watch(served: Endpoint) -> Iterator[PageWatch]:
    path = find_browser()
    if path is None:
        no_browser()
    with (
        sync_playwright() as playwright,
        playwright.chromium.launch(executable_path=path, args=[*FLAGS]) as browser,
        opened(browser, served.url) as one,
    ):
        yield one
        assert one.faults() == []


def test_a_question_and_its_answer(watch: PageWatch, served: Endpoint) -> None:
    chat = Chat(watch).ready()
    expect(chat.page.get_by_role("heading", level=1)).to_have_text("smollm2")
    chat.ask(QUESTION)
    expect(chat.answer).to_have_attribute("data-state", "done", timeout=120_000)
    expect(chat.text).to_contain_text("Paris")
    stages = chat.stages()
    assert {"first-token", "stream"} <= stages.keys()
    assert all(ms > 0 for ms in stages.values())


def test_text_grows_between_reads(watch: PageWatch) -> None:
    chat = Chat(watch).ready()
    chat.page.locator("#options").click()
    chat.page.locator("#max-tokens").fill("60")
    chat.page.keyboard.press("Escape")
    chat.ask("Tell me about the sea.")
    seen = chat.page.evaluate(STEPS)
    assert len(seen) > 10
    assert all(later.startswith(earlier[:-3]) for earlier, later in pairwise(seen))


def test_it_takes_no_pictures_and_says_so(watch: PageWatch) -> None:
    """SmolLM2 reads text only."""
    chat = Chat(watch).ready()
    expect(chat.page.locator("#attach")).to_have_count(0)
    chat.drop(("photo.png", b"\x89PNG"))
    expect(chat.page.locator("#composer .notice")).to_contain_text("smollm2 takes no pictures")


def test_the_operators_page_shows_the_engine(watch: PageWatch, served: Endpoint) -> None:
    page: Page = watch.page
    page.goto(served.url + "/ops")
    expect(page.locator("table.engines tbody tr")).to_contain_text("ready")
    expect(page.locator(".plan")).to_contain_text("KV cache of one replica")
