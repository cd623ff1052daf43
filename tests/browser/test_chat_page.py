"""The chat page in a real browser, on a real gateway: what a user does with it, and sees."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import expect

from tests.browser.chat import Chat, picture
from tests.browser.site import MODEL, Site
from tests.browser.watch import PageWatch

Visit = Callable[..., PageWatch]
MARKDOWN = """\
# A heading

Some **bold** text, `code` and a [link](https://example.org/a).

- one
- two

| a | b |
|---|---|
| 1 | 2 |

```python
print("hello")
```
"""


@pytest.fixture
def chat(site: Site, visit: Visit) -> Chat:
    """The page as most have it: wide, light, English."""
    return Chat(visit(site)).ready()


def test_text_grows_while_it_comes(site: Site, chat: Chat) -> None:
    site.fake.set(reply="one two three four five six", hold_after=3)
    chat.ask("Count.")
    expect(chat.text).to_have_text("one two three")
    chat.until("streaming")
    site.fake.set(hold_after=-1)
    site.fake.release()
    chat.until("done")
    expect(chat.text).to_have_text("one two three four five six")
    request = site.fake.last_request()
    assert request["messages"] == [{"role": "user", "content": "Count."}]
    assert (request["model"], request["stream"]) == (MODEL, True)


def test_what_stands_is_not_drawn_again(site: Site, chat: Chat) -> None:
    """A paragraph that is complete stays the same element while the rest comes."""
    site.fake.set(reply="The first paragraph.\n\nThe second paragraph.\n\nAnd the third, which goes on", hold_after=7)
    chat.ask("Write.")
    expect(chat.text).to_contain_text("And the")
    chat.text.locator("p").first.evaluate("one => { window.stood = one }")
    site.fake.set(hold_after=-1)
    site.fake.release()
    chat.until("done")
    expect(chat.text).to_contain_text("which goes on")
    assert chat.text.locator("p").first.evaluate("one => one === window.stood && one.isConnected")


def test_markdown_is_drawn(site: Site, chat: Chat) -> None:
    site.fake.set(reply=MARKDOWN)
    chat.asked("Show all that you can.")
    expect(chat.text.get_by_role("heading", name="A heading")).to_be_visible()
    expect(chat.text.locator("strong")).to_have_text("bold")
    expect(chat.text.locator("li")).to_have_text(["one", "two"])
    expect(chat.text.locator("td")).to_have_text(["1", "2"])
    expect(chat.text.locator("pre")).to_contain_text('print("hello")')
    link = chat.text.get_by_role("link", name="link")
    assert link.get_attribute("href") == "https://example.org/a"
    assert "noopener" in (link.get_attribute("rel") or "")


def test_reasoning_is_folded_away(site: Site, chat: Chat) -> None:
    site.fake.set(reasoning="First I think about it.", reply="Then I answer.")
    assert chat.asked("Think.") == "Then I answer."
    thoughts = chat.answer.locator("details.reasoning .thoughts")
    expect(thoughts).to_be_hidden()
    chat.answer.locator("details.reasoning summary").click()
    expect(thoughts).to_have_text("First I think about it.")
    site.fake.set(reasoning="", reply="No thought.")
    chat.asked("Do not.")
    expect(chat.answer.locator("details.reasoning")).to_be_hidden()


def test_a_conversation_goes_on(site: Site, chat: Chat) -> None:
    site.fake.set(reply="Blue.")
    chat.asked("Which colour?")
    chat.asked("And which other?")
    assert [one["content"] for one in site.fake.last_request()["messages"]] == [
        "Which colour?",
        "Blue.",
        "And which other?",
    ]


def test_a_picture_is_on_its_way_before_the_question_is_sent(site: Site, chat: Chat) -> None:
    chat.pick(picture(1920, 1080))
    expect(chat.tray).to_have_attribute("data-state", "ready")
    expect(chat.tray.locator("img")).to_be_visible()
    expect(chat.tray.locator("figcaption")).to_contain_text("1920×1080 → ")
    expect(chat.tray.locator("figcaption")).to_contain_text("tokens")
    assert len(chat.watch.asked("/api/upload", "POST")) == 1
    chat.asked("What is it?")
    content = site.fake.last_request()["messages"][0]["content"]
    assert [part["type"] for part in content] == ["image_url", "text"]
    assert content[0]["image_url"]["url"].startswith("data:image/jpeg;base64,")  # the gateway has put it in
    expect(chat.tray).to_have_count(0)
    expect(chat.questions.last.locator(".pictures img")).to_be_visible()
    chat.asked("And what else?")
    assert len(chat.watch.asked("/api/upload", "POST")) == 1  # it is there already


@pytest.mark.parametrize("way", ["drop", "paste"])
def test_pictures_come_in_by_other_ways(way: str, chat: Chat) -> None:
    getattr(chat, way)(picture(), picture(seed=2))
    expect(chat.tray).to_have_count(2)
    for one in chat.tray.all():
        expect(one).to_have_attribute("data-state", "ready")
    chat.act("remove", chat.tray.first).click()
    expect(chat.tray).to_have_count(1)
    chat.asked("What is it?")
    expect(chat.questions.last.locator(".pictures img")).to_have_count(1)


def test_the_send_button_never_waits_for_a_picture(chat: Chat) -> None:
    chat.watch.slow_upload(20_000)
    chat.pick(picture())
    expect(chat.tray).to_have_attribute("data-state", "sending")
    chat.ask("What is it?")
    chat.until("waiting")
    chat.watch.slow_upload(0)
    chat.until("done")
    assert {"upload", "first-token", "stream"} <= chat.stages().keys()


def test_where_the_time_went(site: Site, chat: Chat) -> None:
    site.fake.set(first_token_s=0.2, inter_token_s=0.02, tokens=10)
    chat.pick(picture(1920, 1080))
    expect(chat.tray).to_have_attribute("data-state", "ready")
    chat.asked("What is it?")
    bars = chat.stages()
    assert {"upload", "decode", "first-token", "stream"} <= bars.keys()
    assert bars["first-token"] > 150  # of 200; the network may seem to have had a part of it
    assert bars["stream"] > 150  # of 180; tokens that come late may come together
    total = float(chat.answer.locator("figure.waterfall .total").get_attribute("data-ms") or "nan")
    assert total >= max(bars.values())
    for bar in chat.answer.locator("figure.waterfall li").all():
        assert bar.get_attribute("aria-label") == bar.get_attribute("title") != ""
    chat.page.locator("#figures").click()
    table = chat.page.locator("#figures-dialog table")
    expect(table.locator("tr[data-stage=first-token]")).to_be_visible()
    expect(table.locator("tr[data-stage=total]")).to_be_visible()


def test_stop_and_go_on(site: Site, chat: Chat) -> None:
    site.fake.set(hold_after=3)
    chat.ask("Count.")
    expect(chat.text).to_have_text("w0 w1 w2")
    chat.page.locator("#stop").click()
    chat.until("stopped")
    site.fake.wait("abort")  # the engine works for nobody any more
    expect(chat.page.locator("#send")).to_be_visible()
    site.fake.set(hold_after=-1)
    chat.act("goon").click()
    chat.until("done")
    expect(chat.text).to_have_text("w0 w1 w2 w3 w4 w5 w6 w7")
    request = site.fake.last_request()
    assert request["continue_final_message"] is True
    assert request["messages"][-1] == {"role": "assistant", "content": "w0 w1 w2"}


def test_regenerate_keeps_both(site: Site, chat: Chat) -> None:
    site.fake.set(reply="The first.")
    chat.asked("Say something.")
    site.fake.set(reply="The second.")
    chat.act("regenerate").click()
    expect(chat.text).to_have_text("The second.")
    chat.until("done")
    expect(chat.answer.locator(".variants")).to_contain_text("2/2")
    chat.act("previous").click()
    expect(chat.text).to_have_text("The first.")
    chat.act("next").click()
    expect(chat.text).to_have_text("The second.")
    assert site.fake.last_request()["messages"] == [{"role": "user", "content": "Say something."}]


def test_edit_and_send_again(site: Site, chat: Chat) -> None:
    site.fake.set(reply="Four.")
    chat.asked("What is 2 + 2?")
    chat.act("edit", chat.questions.last).click()
    editor = chat.questions.last.locator("textarea.editor")
    expect(editor).to_be_focused()
    expect(editor).to_have_value("What is 2 + 2?")
    editor.fill("What is 3 + 3?")
    site.fake.set(reply="Six.")
    chat.act("save", chat.questions.last).click()
    expect(chat.text).to_have_text("Six.")
    chat.until("done")
    assert [one["content"] for one in site.fake.last_request()["messages"]] == ["What is 3 + 3?"]
    chat.act("previous", chat.questions.last).click()
    expect(chat.questions.last.locator(".said")).to_have_text("What is 2 + 2?")
    expect(chat.text).to_have_text("Four.")


def test_copy(site: Site, visit: Visit) -> None:
    chat = Chat(visit(site, permissions=("clipboard-read", "clipboard-write"))).ready()
    site.fake.set(reply="Some **bold** text.")
    chat.asked("Write.")
    chat.act("copy").click()
    expect(chat.act("copy")).to_have_text("Copied")
    assert chat.page.evaluate("navigator.clipboard.readText()") == "Some **bold** text."


def test_export(site: Site, chat: Chat, tmp_path: Path) -> None:
    site.fake.set(reply="Some **bold** text.")
    chat.asked("Write.")
    chat.page.locator("#options").click()
    found = {}
    for kind in ("markdown", "json"):
        with chat.page.expect_download() as told:
            chat.page.locator(f"[data-act=export-{kind}]").click()
        path = tmp_path / kind
        told.value.save_as(path)
        found[kind] = path.read_text()
    assert "Write." in found["markdown"]
    assert "Some **bold** text." in found["markdown"]
    assert "Some **bold** text." in json.dumps(json.loads(found["json"]))


def test_conversations_are_kept(site: Site, chat: Chat) -> None:
    listed = chat.page.locator("nav#conversations button.conversation")
    chat.pick(picture())
    chat.asked("The first question")
    chat.page.locator("#new").click()
    expect(chat.answers).to_have_count(0)
    chat.asked("The second question")
    expect(listed).to_have_count(2)
    chat.page.reload()
    chat.ready()
    expect(listed).to_have_count(2)
    expect(listed.first).to_contain_text("The second question")
    listed.last.click()
    expect(chat.questions.locator(".said")).to_have_text("The first question")
    expect(chat.questions.locator(".pictures img")).to_be_visible()
    chat.asked("And about that picture?")
    assert site.fake.last_request()["messages"][0]["content"][0]["type"] == "image_url"
    chat.page.locator("nav#conversations [data-act=delete]").first.click()
    chat.page.locator("#confirm-dialog [data-act=yes]").click()
    expect(listed).to_have_count(1)


def test_an_answer_goes_on_while_another_conversation_is_read(site: Site, chat: Chat) -> None:
    site.fake.set(hold_after=3)
    chat.ask("Count.")
    expect(chat.text).to_have_text("w0 w1 w2")
    chat.page.locator("#new").click()
    expect(chat.answers).to_have_count(0)
    site.fake.set(hold_after=-1)
    site.fake.release()
    site.fake.wait("done")
    chat.page.locator("nav#conversations button.conversation").last.click()
    chat.until("done")
    expect(chat.text).to_have_text("w0 w1 w2 w3 w4 w5 w6 w7")


def test_a_mode_goes_with_each_request(site: Site, chat: Chat) -> None:
    chat.page.locator("#mode").click()
    modes = chat.page.locator("#mode-dialog #modes")
    expect(modes.locator("input[value=balanced]")).to_be_checked()
    expect(modes).to_contain_text("324")  # tokens that a picture comes to, in one mode
    expect(modes).to_contain_text("160")  # and in another
    modes.locator("input[value=low-latency]").check()
    chat.page.keyboard.press("Escape")
    chat.pick(picture(1920, 1080))
    expect(chat.tray).to_have_attribute("data-state", "ready")
    chat.asked("What is it?")
    sent = chat.watch.asked("/v1/chat/completions", "POST")[-1]
    assert sent.headers["x-mode"] == "low-latency"
    assert chat.watch.asked("/api/upload", "POST")[-1].headers["x-mode"] == "low-latency"


def test_options_go_with_each_request(site: Site, chat: Chat) -> None:
    chat.page.locator("#options").click()
    chat.page.locator("#system").fill("Be brief.")
    chat.page.locator("#temperature").fill("0.5")
    chat.page.locator("#max-tokens").fill("5")
    chat.page.locator("#thinking").select_option("off")
    chat.page.keyboard.press("Escape")
    assert chat.asked("Count.") == "w0 w1 w2 w3 w4"
    request = site.fake.last_request()
    assert request["messages"][0] == {"role": "system", "content": "Be brief."}
    assert (request["temperature"], request["max_tokens"]) == (0.5, 5)
    assert request["chat_template_kwargs"]["enable_thinking"] is False


def test_the_newest_stays_in_sight_unless_one_reads_above(site: Site, chat: Chat) -> None:
    site.fake.set(reply="\n\n".join(f"Paragraph {number}." for number in range(60)), hold_after=41)
    chat.ask("Write a lot.")
    expect(chat.text).to_contain_text("Paragraph 39.")
    expect(chat.text.locator("p").nth(39)).to_be_in_viewport()
    chat.questions.first.scroll_into_view_if_needed()
    chat.page.mouse.move(600, 300)
    chat.page.mouse.wheel(0, -10_000)
    expect(chat.questions.first).to_be_in_viewport()
    site.fake.set(hold_after=-1)
    site.fake.release()
    chat.until("done")
    expect(chat.questions.first).to_be_in_viewport()  # nobody is torn away from what is being read
