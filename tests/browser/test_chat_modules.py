"""The chat page's pure modules, called as the page calls them: in the browser, under its policy."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser

from tests.browser.site import Site
from tests.browser.watch import opened

Call = Callable[..., Any]


@pytest.fixture(scope="module")
def call(browser: Browser, sites: Callable[..., Site]) -> Iterator[Call]:
    """Runs JavaScript that has a module of the chat page as ``m``, and values as ``v``."""
    with opened(browser, sites().address) as watch:

        def run(module: str, code: str, *values: Any) -> Any:
            script = f"async (v) => {{ const m = await import('/ui/chat/{module}.js'); {code} }}"
            return watch.page.evaluate(script, list(values))

        yield run
        assert watch.faults() == []


# Reasoning within the content.

THINK = """
    const [pieces] = v, thinking = new m.Thinking();
    let text = '', thought = '';
    for (const piece of pieces) { const part = thinking.part(piece); text += part.text; thought += part.thought; }
    return [text + thinking.take(), thought];
"""


@pytest.mark.parametrize(
    ("content", "parted"),
    [
        ("<think>a <b></think>\n\nHello <think>x</think>", ["Hello <think>x</think>", "a <b>"]),
        ("\n<think></think>x", ["x", ""]),
        ("Hello", ["Hello", ""]),
        (" <thing>", [" <thing>", ""]),
        ("<think>never closed", ["", "never closed"]),
        ("<", ["<", ""]),
        ("  ", ["  ", ""]),
    ],
)
def test_reasoning_at_the_beginning_of_an_answer_is_parted(content: str, parted: list[str], call: Call) -> None:
    for step in range(1, len(content) + 1):
        pieces = [content[start : start + step] for start in range(0, len(content), step)]
        assert call("requests", THINK, pieces) == parted, f"in pieces of {step}"


# Time.


def test_server_timing_is_read(call: Call) -> None:
    header = 'decode;dur=15.4, scale;dur=5.1, media;dur=20.9, queue;dur=0.0, engine;dur=33.2;desc="to first byte"'
    found = call("timing", "return m.serverTiming(v[0])", header)
    assert found == {"decode": 15.4, "scale": 5.1, "media": 20.9, "queue": 0, "engine": 33.2}
    assert call("timing", "return m.serverTiming(null)") == {}


CLOCK = {
    "asked": 1000,
    "sent": 1002,
    "head": 1020,
    "firstToken": 1100,
    "lastByte": 1300,
    "painted": 1310,
    "pictures": [],
}


def account(call: Call, server: dict[str, float], **clock: Any) -> dict[str, Any]:
    found: dict[str, Any] = call("timing", "return m.account(v[0], v[1])", {**CLOCK, **clock}, server)
    return found


def spans(found: dict[str, Any]) -> list[tuple[str, float, float]]:
    return [(one["stage"], one["start"], one["ms"]) for one in found["spans"]]


def test_every_millisecond_after_send_belongs_to_one_stage(call: Call) -> None:
    found = account(call, {"queue": 5, "engine": 9})
    assert spans(found) == [
        ("network", 0, 6),
        ("queue", 6, 5),
        ("first-token", 11, 89),
        ("stream", 100, 200),
        ("drawing", 300, 10),
    ]
    assert found["totalMs"] == found["waitMs"] == 310 == sum(one["ms"] for one in found["spans"])
    assert found["ttftMs"] == 98


def test_the_time_in_which_a_user_writes_is_not_counted(call: Call) -> None:
    picture = {"chosen": 200, "uploaded": 230, "ms": {"decode": 20, "scale": 6, "encode": 4}}
    found = account(call, {"queue": 5, "engine": 9}, pictures=[picture])
    assert spans(found)[:3] == [("upload", -800, 30), ("decode", -770, 20), ("scale", -750, 10)]
    assert (found["waitMs"], found["totalMs"]) == (310, 370)


def test_two_pictures_at_once_are_not_counted_twice(call: Call) -> None:
    one = {"chosen": 200, "uploaded": 300, "ms": {"decode": 50}}
    other = {"chosen": 220, "uploaded": 320, "ms": {"decode": 10}}
    assert account(call, {}, pictures=[one, other])["totalMs"] == 310 + 150


def test_what_was_left_of_an_upload_is_a_stage_of_its_own(call: Call) -> None:
    picture = {"chosen": 900, "uploaded": 1010, "ms": {}}
    found = account(call, {"queue": 0, "engine": 5}, pictures=[picture], sent=1012)
    assert spans(found)[:3] == [("upload", -100, 110), ("wait", 0, 10), ("network", 10, 5)]
    assert found["totalMs"] == 100 + 310


def test_what_is_done_with_pictures_of_the_request_itself_is_told(call: Call) -> None:
    found = account(call, {"decode": 6, "scale": 2, "media": 8, "queue": 1, "engine": 2}, head=1030)
    assert spans(found)[:4] == [("network", 0, 19), ("decode", 19, 6), ("scale", 25, 2), ("queue", 27, 1)]


def test_median_and_p95_are_ranks_of_what_was_seen(call: Call) -> None:
    code = """
        const figures = new m.Figures();
        for (let ms = 1; ms <= 100; ms += 1) figures.note({ totalMs: ms, spans: [{ stage: 'queue', start: 0, ms }] });
        return figures.rows();
    """
    row = {"median": 50, "p95": 95, "count": 100}
    assert call("timing", code) == [{"stage": "queue", **row}, {"stage": "total", **row}]


# The tree.

GROW = """
    const tree = m.conversation();
    const q = m.add(tree, m.ROOT, 'user', { text: 'one' });
    const a = m.add(tree, q.id, 'assistant', { text: 'first', state: 'done' });
    const b = m.add(tree, q.id, 'assistant', { text: 'second', state: 'done' });
    b.at = a.at + 1;
    const texts = () => m.path(tree).map((node) => node.text);
"""


def test_another_answer_hides_the_first_and_loses_it_not(call: Call) -> None:
    code = "const before = texts(); m.turn(tree, b, -1); const after = texts(); m.turn(tree, a, -1); return [before, after, texts()];"
    assert call("tree", GROW + code) == [["one", "second"], ["one", "first"], ["one", "first"]]


def test_another_wording_has_its_own_answers(call: Call) -> None:
    code = """
        const r = m.add(tree, m.ROOT, 'user', { text: 'two' }); r.at = q.at + 1;
        const before = texts(); m.turn(tree, r, -1);
        return [before, texts(), m.pathTo(tree, a).map((node) => node.text)];
    """
    assert call("tree", GROW + code) == [["two"], ["one", "second"], ["one", "first"]]


def test_two_tabs_lose_nothing_of_each_other(call: Call) -> None:
    code = """
        const other = structuredClone(tree);
        m.add(other, b.id, 'user', { text: 'there' });
        m.add(tree, a.id, 'user', { text: 'here' });
        m.merge(tree, other);
        return [texts(), Object.keys(tree.nodes).length];
    """
    assert call("tree", GROW + code) == [["one", "second", "there"], 5]


def test_an_answer_that_the_page_left_is_broken_off(call: Call) -> None:
    code = """
        Object.assign(a, { state: 'streaming' }); Object.assign(b, { state: 'waiting', text: '' });
        m.settle(tree); return [a.state, b.state];
    """
    assert call("tree", GROW + code) == ["broken", "stopped"]


@pytest.mark.parametrize(
    ("text", "title"), [("x" * 70, "x" * 59 + "…"), ("  one\ntwo", "one"), ("", "")]
)  # fmt: skip
def test_a_conversation_is_called_by_its_first_line(text: str, title: str, call: Call) -> None:
    code = "const tree = m.conversation(); m.add(tree, m.ROOT, 'user', { text: v[0] }); return m.titleOf(tree);"
    assert call("tree", code, text) == title


def test_pictures_stand_before_their_question_and_refused_answers_are_left_out(call: Call) -> None:
    nodes = [
        {"role": "user", "text": "What?", "pictures": [{"id": "a"}, {"id": "b"}]},
        {"role": "assistant", "text": "", "state": "refused"},
        {"role": "user", "text": "", "pictures": [{"id": "a"}]},
        {"role": "assistant", "text": "A dog"},
        {"role": "user", "text": "Sure?"},
    ]
    code = "return m.messages(v[0], m.newest(v[0], null).kept, async ({ id }) => id + id, v[1])"
    found = call("requests", code, nodes, "Be brief.")
    picture = {letter: {"type": "image_url", "image_url": {"url": f"upload:{letter * 2}"}} for letter in "ab"}
    assert found == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [picture["a"], picture["b"], {"type": "text", "text": "What?"}]},
        {"role": "user", "content": [picture["a"]]},
        {"role": "assistant", "content": "A dog"},
        {"role": "user", "content": "Sure?"},
    ]


@pytest.mark.parametrize(
    ("most", "kept", "left_out"), [(None, [2, 1, 2], 0), (5, [2, 1, 2], 0), (3, [0, 1, 2], 2), (1, [0, 0, 1], 4)]
)
def test_of_more_pictures_than_are_taken_the_newest_go(most: int, kept: list[int], left_out: int, call: Call) -> None:
    nodes = [
        {"pictures": [{"id": f"{number}{part}"} for part in range(count)]} for number, count in enumerate((2, 1, 2))
    ]
    code = "const { kept, leftOut } = m.newest(v[0], v[1]); return [v[0].map((node) => kept.get(node).map(({ id }) => id)), leftOut];"
    found, out = call("requests", code, nodes, most)
    assert ([len(one) for one in found], out) == (kept, left_out)
    assert found[2][-1] == "21"


def test_only_what_was_chosen_is_sent(call: Call) -> None:
    nothing = {"temperature": "", "maxTokens": "", "thinking": ""}
    usual = {"model": "x", "messages": [], "stream": True, "stream_options": {"include_usage": True}}
    assert call("requests", "return m.body('x', [], v[0], false)", nothing) == usual
    chosen = {"temperature": "0", "maxTokens": "32", "thinking": "off"}
    assert call("requests", "return m.body('x', [], v[0], true)", chosen) == {
        **usual, "temperature": 0, "max_tokens": 32, "enable_thinking": False,
        "continue_final_message": True, "add_generation_prompt": False,
    }  # fmt: skip
