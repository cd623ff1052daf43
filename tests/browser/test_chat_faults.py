"""The chat page when something goes wrong: what is said, what is kept, and what can be done about it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import expect

from tests.browser.chat import Chat, broken_picture, half_a_picture, picture
from tests.browser.occupant import occupied
from tests.browser.site import Site
from tests.browser.watch import PageWatch
from tests.browser.wire import Wire, wire_to

Visit = Callable[..., PageWatch]
Sites = Callable[..., Site]
ONE_AT_A_TIME = ("admission.max_in_flight=1", "admission.max_queued=0")


@pytest.fixture
def chat(site: Site, visit: Visit) -> Chat:
    return Chat(visit(site)).ready()


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (broken_picture(), "picture"),
        (half_a_picture(), "picture"),
        (("letter.png", b"Dear Sir or Madam, this is no picture."), "picture"),
    ],
    ids=lambda value: value[0],
)
def test_a_bad_picture(bad: tuple[str, bytes], words: str, chat: Chat) -> None:
    chat.watch.forgive("status of 400")
    chat.pick(bad, picture())
    expect(chat.tray.first).to_have_attribute("data-state", "failed")
    expect(chat.tray.first.locator(".notice.bad")).to_contain_text(words)
    expect(chat.act("again", chat.tray.first)).to_be_visible()
    chat.act("remove", chat.tray.first).click()
    expect(chat.tray).to_have_count(1)
    expect(chat.tray).to_have_attribute("data-state", "ready")
    chat.asked("What is it?")
    expect(chat.questions.last.locator(".pictures img")).to_have_count(1)


def test_a_bad_picture_that_was_sent_all_the_same(site: Site, chat: Chat) -> None:
    chat.watch.forgive("status of 400")
    chat.pick(broken_picture())
    chat.ask("What is it?")
    chat.until("refused")
    expect(chat.notice).to_contain_text("picture")
    assert site.fake.seen()["requests"] == []


def test_what_is_no_picture_is_not_sent(chat: Chat) -> None:
    chat.pick(("letter.txt", b"Dear Sir"))
    expect(chat.page.locator("#composer .notice")).to_contain_text("letter.txt")
    expect(chat.tray).to_have_count(0)
    assert chat.watch.asked("/api/upload") == []


def test_a_full_engine_is_waited_for(sites: Sites, visit: Visit) -> None:
    """A 429 counts down, and where the user wishes asks again by itself."""
    site = sites(*ONE_AT_A_TIME)
    chat = Chat(visit(site)).ready()
    chat.watch.forgive("status of 429")
    site.fake.set(hold_after=1)
    with occupied(site):
        chat.ask("Count.")
        chat.until("refused")
        expect(chat.notice).to_contain_text(re.compile(r"queue|busy|full", re.IGNORECASE))
        seconds = chat.answer.locator(".countdown")
        assert int(seconds.inner_text()) >= 1
        chat.act("auto").check()
        expect(chat.act("cancel")).to_be_visible()
        expect(chat.notice).to_contain_text("Tried again", timeout=10_000)  # in vain: it counts anew
        site.fake.set(hold_after=-1)
    chat.until("done")
    expect(chat.text).to_have_text("w0 w1 w2 w3 w4 w5 w6 w7")
    expect(chat.notice).to_have_count(0)


def test_an_engine_that_is_killed_in_the_middle_is_not_noticed(site: Site, chat: Chat) -> None:
    """The gateway goes on with the answer as soon as the engine is there again."""
    site.fake.set(hold_after=3)
    chat.ask("Count.")
    expect(chat.text).to_have_text("w0 w1 w2")
    site.kill_engine()
    chat.until("done")
    expect(chat.text).to_have_text("w0 w1 w2 w3 w4 w5 w6 w7")


def test_an_engine_that_is_killed_in_the_middle_for_good(sites: Sites, visit: Visit) -> None:
    """Where the gateway does not, the user may."""
    site = sites("admission.resume_streams=false")
    chat = Chat(visit(site)).ready()
    site.fake.set(hold_after=3)
    chat.ask("Count.")
    expect(chat.text).to_have_text("w0 w1 w2")
    site.kill_engine()
    chat.until("broken")
    expect(chat.notice).to_contain_text("engine")
    expect(chat.text).to_have_text("w0 w1 w2")
    site.until_ready()
    chat.act("goon").click()
    chat.until("done")
    expect(chat.text).to_have_text("w0 w1 w2 w3 w4 w5 w6 w7")


def test_an_engine_that_cannot_be_asked(sites: Sites, visit: Visit) -> None:
    """503 while it is started anew; the question is kept."""
    site = sites("admission.restart_wait=0s", "restart.backoff=30s")
    chat = Chat(visit(site)).ready()
    chat.watch.forgive("status of 503")
    site.kill_engine()
    site.until_down()
    chat.ask("Count.")
    chat.until("refused")
    expect(chat.notice).to_contain_text("ready")
    expect(chat.answer.locator(".countdown")).to_have_count(1)


@pytest.fixture
def wire(site: Site) -> Iterator[Wire]:
    with wire_to(site.address) as one:
        yield one


def test_a_connection_that_breaks(wire: Wire, site: Site, visit: Visit) -> None:
    chat = Chat(visit(site, origin=wire.address)).ready()
    chat.watch.forgive("net::ERR_")
    site.fake.set(hold_after=3)
    chat.ask("Count.")
    expect(chat.text).to_have_text("w0 w1 w2")
    wire.cut()
    chat.until("broken")
    expect(chat.notice).to_contain_text("broke off")
    site.fake.set(hold_after=-1)
    wire.mend()
    chat.act("goon").click()
    chat.until("done")
    expect(chat.text).to_have_text("w0 w1 w2 w3 w4 w5 w6 w7")


def test_a_server_that_is_out_of_reach(wire: Wire, site: Site, visit: Visit) -> None:
    chat = Chat(visit(site, origin=wire.address)).ready()
    chat.watch.forgive("net::ERR_")
    wire.cut()
    chat.ask("Count.")
    chat.until("refused")
    expect(chat.notice).to_contain_text("does not answer")
    wire.mend()
    chat.act("retry").click()
    chat.until("done")


def test_an_upload_that_breaks_off(wire: Wire, site: Site, visit: Visit) -> None:
    chat = Chat(visit(site, origin=wire.address)).ready()
    chat.watch.forgive("net::ERR_")
    chat.watch.slow_upload(10_000)
    chat.pick(picture())
    expect(chat.tray).to_have_attribute("data-state", "sending")
    wire.cut()
    expect(chat.tray).to_have_attribute("data-state", "failed")
    wire.mend()
    chat.watch.slow_upload(0)
    chat.act("again", chat.tray).click()
    expect(chat.tray).to_have_attribute("data-state", "ready")


def test_an_engine_that_answers_with_an_error(site: Site, chat: Chat) -> None:
    """Its own sentence is shown, as the gateway passes it on."""
    chat.watch.forgive("status of 500")
    site.fake.set(fault="error_500")
    chat.ask("Count.")
    chat.until("refused")
    expect(chat.notice.locator("p").first).to_have_text("The server had an error while processing your request.")
    site.fake.set(fault="")
    chat.act("retry").click()
    chat.until("done")


def test_an_error_within_the_stream(sites: Sites, visit: Visit) -> None:
    site = sites("admission.resume_streams=false")
    chat = Chat(visit(site)).ready()
    site.fake.set(fault="stream_error", fault_after=3)
    chat.ask("Count.")
    chat.until("broken")
    expect(chat.notice).to_contain_text("The server had an error while processing your request")
    expect(chat.text).to_have_text("w0 w1 w2")


@pytest.fixture(scope="package")
def locked(sites: Sites) -> tuple[Site, str]:
    """A site that asks for keys, and one of them; not an administrator's."""
    site = sites("admission.max_queued=100")  # a site of its own: it stays locked
    return site, site.add_key("alice")


def test_nobody_has_to_wait(locked: tuple[Site, str], visit: Visit) -> None:
    """A key that may ask once a minute: the time is counted down, and the user may leave it at that."""
    site, _ = locked
    chat = Chat(visit(site, key=site.add_key("carol", "--rpm", "1"))).ready()
    chat.watch.forgive("status of 429")
    chat.asked("Count.")
    chat.ask("Count on.")
    chat.until("refused")
    expect(chat.notice).to_contain_text("1 request")
    seconds = chat.answer.locator(".countdown")
    first = int(seconds.inner_text())
    assert 2 <= first <= 60
    expect(chat.act("auto")).not_to_be_checked()
    expect(seconds).to_have_text(str(first - 1))
    chat.act("auto").check()
    chat.act("cancel").click()
    expect(chat.act("auto")).not_to_be_checked()
    chat.act("retry").click()
    chat.until("refused")
    expect(chat.answers).to_have_count(2)


def test_a_wrong_key_and_the_right_one(locked: tuple[Site, str], visit: Visit) -> None:
    site, secret = locked
    chat = Chat(visit(site))
    chat.watch.forgive("status of 401")
    dialog = chat.page.locator("#key-dialog")
    expect(dialog).to_be_visible()
    dialog.locator("#key").fill("sk-wrong")
    dialog.locator("[data-act=use-key]").click()
    expect(dialog.locator(".notice")).to_contain_text("key")
    dialog.locator("#key").fill(secret)
    dialog.locator("[data-act=use-key]").click()
    expect(dialog).to_be_hidden()
    assert chat.asked("Count.").startswith("w0 w1")
    assert chat.page.evaluate("JSON.stringify(localStorage)").count(secret) == 0
    assert secret not in chat.page.content()
    chat.page.reload()
    chat.ready()
    expect(dialog).to_be_hidden()  # kept for this tab
    other = chat.page.context.new_page()
    other.goto(site.address)
    expect(other.locator("#key-dialog")).to_be_visible()  # and for no other


def test_a_key_that_is_revoked_meanwhile(locked: tuple[Site, str], visit: Visit) -> None:
    site, _ = locked
    secret = site.add_key("bob")
    chat = Chat(visit(site, key=secret)).ready()
    chat.watch.forgive("status of 401")
    chat.asked("Count.")
    site.revoke_key("bob", secret)
    chat.ask("Count on.")
    expect(chat.page.locator("#key-dialog")).to_be_visible()
    expect(chat.page.locator("#key-dialog .notice")).to_contain_text("revoked")


def test_without_scripts_it_says_what_to_do(site: Site, visit: Visit) -> None:
    page = visit(site, script=False).page
    expect(page.get_by_role("heading")).to_contain_text("needs scripts")
    said = page.locator("body").inner_text()
    assert "/v1/chat/completions" in said
    assert "脚本" in said


HOSTILE = {
    "a script": "<script>window.harmed = 1; alert(1)</script>Then.",
    "a picture that calls": '<img src="https://example.invalid/x.png" onerror="window.harmed = 1">Then.',
    "a Markdown picture": "![x](https://example.invalid/x.png) Then.",
    "a frame": '<iframe src="https://example.invalid/"></iframe><object data="//example.invalid"></object>Then.',
    "a link that runs": "[click me](javascript:window.harmed=1) [me too](data:text/html,<script>harmed=1</script>) Then.",
    "a style": "<style>body { display: none }</style><div style='position:fixed;inset:0'>x</div>Then.",
    "a form": "<form action='https://example.invalid/'><input name=key><button>Send your key</button></form>Then.",
    "names of our own": '<div id="question">x</div><a id="send" name="key">y</a>Then.',
    "SVG and MathML": "<svg onload='window.harmed=1'><a href='javascript:1'><text>x</text></a></svg><math><mtext></math>Then.",
    "right to left": "abc \u202egnihtemos\u2066 def \u200f\u061c Then.",
    "a table without end": "|" * 3000 + "\n" + "|-" * 3000 + "|\nThen.",
    "brackets": "[" * 4000 + "]" * 4000 + " Then.",
    "emphasis": "**_" * 4000 + " Then.",
    "quotes": "> " * 3000 + "Then.",
}


# What an answer may not bring into the page: what runs, what loads, and what could be taken for a part of the page.
UNWANTED = "script, style, iframe, object, form, input, img[src^=http], [onerror], [onload], [style], [id], [name]"


def test_hostile_answers_do_no_harm(site: Site, chat: Chat) -> None:
    """Each as answer and as reasoning. What they ask of others, and what the policy has to stop, is seen at the end."""
    for name, said in HOSTILE.items():
        site.fake.set(reply=said, reasoning=said)
        chat.ask(name)
        chat.until("done")
        expect(chat.text).to_contain_text("Then")
        chat.answer.locator("details.reasoning summary").click()
        expect(chat.answer.locator(".thoughts")).to_contain_text("Then")
        assert chat.page.evaluate("window.harmed") is None, name
        unwanted = chat.answer.locator(".answer, .thoughts").locator(UNWANTED)
        assert unwanted.evaluate_all("found => found.map(one => one.outerHTML)") == [], name
        links = chat.answer.locator(".answer a[href], .thoughts a[href]").evaluate_all(
            "all => all.map(one => one.href)"
        )
        assert [link for link in links if not link.startswith(("http://", "https://", "mailto:"))] == [], name
        chat.page.set_viewport_size({"width": 360, "height": 700})
        assert chat.page.evaluate("document.documentElement.scrollWidth <= innerWidth"), name
        expect(chat.question).to_be_visible()
        chat.page.set_viewport_size({"width": 1280, "height": 800})


def test_a_megabyte_on_one_line(site: Site, chat: Chat) -> None:
    site.fake.set(reply="x" * 500_000 + " " + "y" * 500_000 + " Then.")
    chat.ask("Be long.")
    chat.until("done")
    expect(chat.text).to_contain_text("Then.")
    assert chat.text.evaluate("one => one.textContent.length") >= 1_000_000
    assert chat.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    site.fake.set(reply="Yes.")
    assert chat.asked("Still there?") == "Yes."
