"""The chat page for everybody: without a mouse, with a screen reader, on a phone, in the dark, in both languages."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import expect

from launcher.gateway.modes import MODES
from tests.browser.chat import Chat, broken_picture, picture
from tests.browser.site import Site
from tests.browser.watch import PageWatch

Visit = Callable[..., PageWatch]
UI = Path(__file__).resolve().parents[2] / "launcher" / "ui"
PHONE, SCREEN = (360, 740), (1280, 800)
ALL = """\
Some **bold** text with [a link](https://example.org) and `code`.

| a | b |
|---|---|
| 1 | 2 |

```python
print("hello, this is a line of code that is longer than a phone is wide, so that it has to be scrolled sideways")
```

> A quote.

- one
- two
"""


@pytest.fixture
def chat(site: Site, visit: Visit) -> Chat:
    return Chat(visit(site)).ready()


# States of the page: each leads there from the empty page.


def empty(site: Site, chat: Chat) -> None:
    """As it is opened."""


def picture_chosen(site: Site, chat: Chat) -> None:
    chat.pick(picture(), broken_picture())
    expect(chat.tray.first).to_have_attribute("data-state", "ready")
    expect(chat.tray.last).to_have_attribute("data-state", "failed")
    chat.question.fill("What is it?")


def picture_sending(site: Site, chat: Chat) -> None:
    chat.watch.slow_upload(10_000)
    chat.pick(picture())
    expect(chat.tray.locator("progress")).to_be_visible()


def streaming(site: Site, chat: Chat) -> None:
    site.fake.set(reply=ALL, reasoning="I think.", hold_after=12)
    chat.ask("Write.")
    chat.until("streaming")


def answered(site: Site, chat: Chat) -> None:
    site.fake.set(reply=ALL, reasoning="I think.", inter_token_s=0.001)
    chat.pick(picture())
    chat.asked("Write.")
    chat.act("regenerate").click()
    expect(chat.answer.locator(".variants")).to_be_visible()
    chat.until("done")
    chat.answer.locator("details.reasoning summary").click()


def edited(site: Site, chat: Chat) -> None:
    chat.asked("Count.")
    chat.act("edit", chat.questions.last).click()
    expect(chat.questions.last.locator("textarea.editor")).to_be_focused()


def broken(site: Site, chat: Chat) -> None:
    site.fake.set(fault="error_500")
    chat.ask("Count.")
    chat.until("refused")


def dialog_of(button: str) -> Callable[[Site, Chat], None]:
    def opened(site: Site, chat: Chat) -> None:
        chat.asked("Count.")
        chat.page.locator(f"#{button}").click()
        expect(chat.page.locator("dialog[open]")).to_be_visible()

    return opened


STATES = {
    "empty": empty, "picture chosen": picture_chosen, "picture sending": picture_sending, "streaming": streaming,
    "answered": answered, "edited": edited, "broken": broken,
    "mode": dialog_of("mode"), "options": dialog_of("options"), "figures": dialog_of("figures"),
}  # fmt: skip


@pytest.mark.parametrize("name", STATES)
def test_axe_finds_nothing(name: str, site: Site, chat: Chat) -> None:
    """In each state, on a large screen and a phone, in light colours and dark ones; and nothing is cut off."""
    chat.watch.forgive("status of 400", "status of 500")
    STATES[name](site, chat)
    found = []
    for scheme in ("light", "dark"):
        for width, height in (SCREEN, PHONE):
            chat.page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
            chat.page.set_viewport_size({"width": width, "height": height})
            found += [f"{scheme}, {width} px: {fault}" for fault in (*chat.watch.axe(), *cut_off(chat))]
    assert found == []


CUT_OFF = """() => {
  const found = []
  if (document.documentElement.scrollWidth > innerWidth) found.push('the page scrolls sideways')
  for (const one of document.querySelectorAll('button, input, select, textarea, a')) {
    const box = one.getBoundingClientRect()
    if (!one.checkVisibility({visibilityProperty: true}) || box.width === 0 || one.closest('.out-of-sight, .skip, pre')) continue
    const isCut = box.right > innerWidth + 0.5 || box.left < -0.5
    if (isCut) found.push(`${one.id || one.dataset.act || one.outerHTML.slice(0, 80)} is cut off: ${box.left} to ${box.right}`)
  }
  return found
}"""


def cut_off(chat: Chat) -> list[str]:
    """Sentences: what reaches beyond the screen's sides."""
    found: list[str] = chat.page.evaluate(CUT_OFF)
    return found


def test_the_list_of_conversations_on_a_phone(site: Site, visit: Visit) -> None:
    chat = Chat(visit(site, width=360, height=740)).ready()
    listed = chat.page.locator("nav#conversations")
    expect(listed).to_be_hidden()
    chat.asked("Count.")
    chat.page.locator("#menu").click()
    expect(listed.locator("button.conversation")).to_be_visible()
    assert [*chat.watch.axe(), *cut_off(chat)] == []
    listed.locator("#new").click()
    expect(listed).to_be_hidden()
    expect(chat.question).to_be_focused()


def test_a_phone_has_a_camera(site: Site, visit: Visit) -> None:
    phone = Chat(visit(site, width=360, height=740, has_touch=True, is_mobile=True)).ready()
    with phone.page.expect_file_chooser() as chosen:
        phone.page.locator("#camera").tap()
    assert chosen.value.element.get_attribute("capture") == "environment"
    name, data = picture()
    chosen.value.set_files({"name": name, "mimeType": "image/jpeg", "buffer": data})
    expect(phone.tray).to_have_attribute("data-state", "ready")
    assert [*phone.watch.axe(), *cut_off(phone)] == []
    expect(Chat(visit(site)).ready().page.locator("#camera")).to_be_hidden()  # a large screen has a file dialog


def test_everything_is_done_without_a_mouse(site: Site, chat: Chat) -> None:
    keys = chat.page.keyboard
    expect(chat.question).to_be_focused()
    keys.type("The first line")
    keys.press("Shift+Enter")
    keys.type("and the second")
    keys.press("Enter")
    chat.until("done")
    assert site.fake.last_request()["messages"][0]["content"] == "The first line\nand the second"
    expect(chat.question).to_be_focused()
    expect(chat.question).to_have_value("")
    site.fake.set(hold_after=2)
    keys.type("Stop me")
    keys.press("Enter")
    chat.until("streaming")
    keys.press("Escape")
    chat.until("stopped")
    expect(chat.question).to_be_focused()
    press_until(chat, "Shift+Tab", "[data-act=regenerate]")
    site.fake.set(hold_after=-1)
    keys.press("Enter")
    chat.until("done")
    press_until(chat, "Shift+Tab", "#options")
    keys.press("Enter")
    expect(chat.page.locator("#options-dialog")).to_be_visible()
    keys.press("Escape")
    expect(chat.page.locator("#options-dialog")).to_be_hidden()
    expect(chat.page.locator("#options")).to_be_focused()


def press_until(chat: Chat, key: str, target: str, most: int = 60) -> None:
    """Presses a key until the focus is there; it must be seen wherever it is on its way."""
    for _ in range(most):
        chat.page.keyboard.press(key)
        if chat.page.evaluate("target => document.activeElement.matches(target)", target):
            return
    raise AssertionError(f"{target} was not reached by {key}")


def test_the_focus_is_always_seen(site: Site, chat: Chat) -> None:
    """Tab leads through all there is, in the order in which it is read, and back to the beginning."""
    site.fake.set(reply=ALL, reasoning="I think.")
    chat.asked("Write.")
    chat.question.fill("More")
    chat.page.evaluate(TO_THE_BEGINNING)
    seen = []
    for _ in range(80):
        chat.page.keyboard.press("Tab")
        at = chat.page.evaluate(FOCUS)
        if at is None:
            break
        seen.append(at)
    names = [one["name"] for one in seen]
    assert len(names) == len(set(names)) > 10
    for name in ("mode", "figures", "options", "new", "edit", "copy", "regenerate", "question", "attach", "send"):
        assert any(one.endswith(f"#{name}") for one in names), f"{name} is not among {names}"
    assert [one["name"] for one in seen if not one["is_seen"]] == []


# The next Tab goes to the first that can have the focus.
TO_THE_BEGINNING = """() => {
  const first = document.createElement('span')
  first.tabIndex = -1
  document.body.prepend(first)
  first.focus()
  first.remove()
}"""
FOCUS = """() => {
  const one = document.activeElement
  if (one === document.body || one === null) return null
  const style = getComputedStyle(one), box = one.getBoundingClientRect()
  const frame = one.closest('.writing')  // has one of its own
  const is_marked = style.outlineStyle !== 'none' && parseFloat(style.outlineWidth) >= 2
  const place = [...document.querySelectorAll('*')].indexOf(one)
  return {
    name: `${place}#${one.id || one.dataset.act || one.dataset.stage || one.className || one.tagName}`,
    is_seen: (is_marked || frame && getComputedStyle(frame).boxShadow !== 'none') && box.width > 0
      && box.bottom > 0 && box.top < innerHeight && box.right > 0 && box.left < innerWidth,
  }
}"""


def test_a_screen_reader_is_told(site: Site, chat: Chat) -> None:
    """Of the beginning and the end of an answer, not of each word."""
    status = chat.page.locator("#status[role=status]")
    site.fake.set(hold_after=3)
    chat.ask("Count.")
    expect(status).not_to_be_empty()
    told = status.inner_text()
    site.fake.set(hold_after=-1)
    site.fake.release()
    chat.until("done")
    expect(status).not_to_have_text(told)
    expect(status).to_have_text("The answer is complete.")
    assert chat.text.get_attribute("aria-live") in (None, "off")


def test_both_languages(site: Site, visit: Visit) -> None:
    chat = Chat(visit(site, locale="zh-CN")).ready()
    expect(chat.page.locator("html")).to_have_attribute("lang", re.compile("^zh"))
    expect(chat.page.locator("#send")).to_have_text("发送")
    chat.page.locator("#options").click()
    chat.page.locator("#language").select_option("en")
    expect(chat.page.locator("html")).to_have_attribute("lang", "en")
    expect(chat.page.locator("#send")).to_have_text("Send")
    chat.page.reload()
    expect(chat.ready().page.locator("#send")).to_have_text("Send")


def test_every_text_is_there_in_both(chat: Chat) -> None:
    table = chat.page.evaluate("import('/ui/chat/words.js').then(words => words.TABLE)")
    assert [key for key, texts in table.items() if texts.keys() != {"en", "zh"} or not all(texts.values())] == []
    slots = re.compile(r"\{\w+\}")
    assert [
        key for key, one in table.items() if sorted(slots.findall(one["en"])) != sorted(slots.findall(one["zh"]))
    ] == []
    source = "".join(path.read_text() for path in (UI / "chat").glob("*.js") if path.name != "words.js")
    assert set(re.findall(r"\bt\('([\w.-]+)'", source)) - table.keys() == set()
    used = set(re.findall(r"""['"]([\w.-]+)['"]""", source))
    unused = {key for key in table if key not in used and not key.endswith((".why", ".words"))} - set(MODES)
    assert unused == set()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_colours_are_the_systems_unless_chosen(scheme: str, site: Site, visit: Visit) -> None:
    chat = Chat(visit(site, scheme=scheme)).ready()
    paper = "() => getComputedStyle(document.body).backgroundColor"
    own = chat.page.evaluate(paper)
    assert (sum(map(int, re.findall(r"\d+", own)[:3])) > 380) == (scheme == "light")
    chat.page.locator("#options").click()
    chat.page.locator("#theme").select_option("dark" if scheme == "light" else "light")
    assert chat.page.evaluate(paper) != own
    other = chat.page.evaluate(paper)
    chat.page.reload()
    chat.ready()
    assert chat.page.evaluate(paper) == other


def test_nothing_moves_for_who_wants_that(site: Site, visit: Visit) -> None:
    chat = Chat(visit(site, still=True)).ready()
    site.fake.set(hold_after=3)
    chat.ask("Count.")
    chat.until("streaming")
    assert chat.page.evaluate("document.getAnimations().filter(one => one.playState === 'running').length") == 0
