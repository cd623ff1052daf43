"""How an answer is drawn while it streams: what stands stays, nothing in it does harm, and its cuts leave no trace."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, expect

from tests.browser import drawn
from tests.browser.drawn import Sheet

MIXED = """\
# Title *one*
Words with **bold**, *em*, `code`, ~~gone~~, [a link](https://a.example/x?y=1&amp;z=2) and https://b.example/z.
The same paragraph, $a_1 * b_2$ and \\(x^2\\).

- one
- two
  - nested
    1. deep
    2. deeper
  - [ ] to do
  - [x] done

  ```python
  def f():
  \treturn "\u202e"
  ```

> quote
lazy
> > nested

Setext
------
| Name | Value |
|:-----|------:|
| a \\| b | 1 |
| **c** |

***
1985. no list

7. seven
8. eight
"""
CODE = "Before\n~~~~ js {1}\nconst a = '```';\n\n~~~\n\tx\n~~~~\nAfter\r\n\r\n    indented\n\n    more\n\nend\r"
ENGLAND = "🏴\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f"
WORLD = f"# مرحبا\n\nשלום *עולם*, 你好世界 👨\u200d👩\u200d👧 {ENGLAND} e\u0301\n\n- 第一\n- 第二\n"
MATHS = "$$\nE = m * c_1 * c_2\n# no heading\n$$\nso \\[\na*b*c\n\\]\n\n\\[ x \\]\n\nIt costs $5 *or* $6.\n"
LONG = (
    "word " * 1500 + "\n\n" + "x" * 9000 + "\n```\n" + "y" * 9000 + "\n" + "z\n" * 600 + "```\n" + "- i\n" * 150
    + "\n" + "> q\n" * 300 + "\n|a|b|\n|-|-|\n" + "|1|2|\n" * 150 + "\n" + "p\n\n" * 200
)  # fmt: skip
BROKEN = "a\ud800b\udc00c\ud83d \U0001f600\0 [x](<y \n**a `b\n\n- \n\n  c\n>\n> d\n```\nopen"
SAMPLES = {"mixed": MIXED, "code": CODE, "world": WORLD, "maths": MATHS, "long": LONG, "broken": BROKEN}
MB = 1 << 20

TAGS = """
    A BLOCKQUOTE BUTTON CODE DEL DIV EM H3 H4 H5 H6 HR INPUT LI OL P PRE SPAN STRONG TABLE TBODY TD TH THEAD TR UL
"""
ATTRIBUTES = """
    aria-label aria-live checked class dir disabled href rel role scope start style tabindex target title type
"""
CLASSES = """
    at-center at-end at-start code code-head code-language full goes-on host math out-of-sight part quiet table task unseen
"""
EVIL = [
    "<script>hit()</script>",
    "<img src=x onerror=hit()>",
    '<img src="https://evil.example/a.png">',
    "<svg onload=hit()><script>hit()</script></svg><math><mi xlink:href='javascript:hit()'>",
    "<iframe srcdoc='<script>parent.hit()</script>'></iframe><object data=x></object><embed src=x>",
    "<style>@import 'https://evil.example/a.css'; body { display: none }</style>",
    "<link rel=stylesheet href=https://evil.example/a.css><base href=https://evil.example/>",
    '<meta http-equiv="refresh" content="0;url=https://evil.example/">',
    "<form action=/admin/stop method=post><input name=body><button>Go</button></form>",
    "<a id=sheet name=sheet></a><img name=getElementById><form id=body>",
    "<video src=https://evil.example/v autoplay><audio src=https://evil.example/a autoplay>",
    "<details open ontoggle=hit()>x</details><input autofocus onfocus=hit()>",
    "<noscript><p title='</noscript><img src=x onerror=hit()>'>",
    "<template><img src=x onerror=hit()></template><!-- <img src=x onerror=hit()> --><![CDATA[<script>hit()</script>]]>",
    "[x](javascript:hit())",
    "[x](JaVaScRiPt:hit()) [x](java\nscript:hit()) [x](<java\tscript:hit()>) [x](\x01javascript:hit())",
    "[x](javascript&colon;hit()) [x](javascript&#58;hit()) [x](&#106;avascript:hit()) [x](javascript%3Ahit())",
    "[x](data:text/html,<script>hit()</script>) [x](vbscript:hit()) [x](blob:https://a.example/1) [x](file:///etc/passwd)",
    "[x](/admin/stop) [x](//evil.example/) [x](#sheet) [x](?a) [x](ops)",
    "<javascript:hit()> <data:text/html;base64,PHNjcmlwdD4=> <tel:1>",
    '[x](https://a.example/"onmouseover="hit() "title\\"onclick=hit()")',
    "![x](https://evil.example/a.png) ![x](data:image/svg+xml,<svg/onload=hit()>) ![x](javascript:hit()) ![x][r]\n\n[r]: https://evil.example/r.png",
    "[![x](https://evil.example/a.png)](javascript:hit())",
    "[a [b](https://b.example) c](https://c.example) **[x](<b>)** `<b onclick=hit()>`",
    '```"><img src=x onerror=hit()>\n</code></pre><script>hit()</script>\n```',
    "| <img src=x onerror=hit()> | b |\n|---|---|\n| <script>hit()</script> | [x](javascript:hit()) |",
    "# <script>hit()</script>\n- <iframe src=javascript:hit()>\n> <b id=main>",
    "$<img src=x onerror=hit()>$ and \\(<script>hit()</script>\\)\n\n$$\n<script>hit()</script>\n$$",
    "&lt;script&gt;hit()&lt;/script&gt; &#60;img src=x onerror=hit()&#62;",
    "<b><i><u><div><p><table><tr><td>",
    "</div></main></body></html>",
    "<<<<script>script>>hit()<</script>/script>",
    "\0<scr\0ipt>hit()</scr\0ipt> \ud800<script\udfff>",
    "~~~\n<unclosed",
    "<a href='https://a.example",
]  # fmt: skip
# Each of them repeated 10,000 times; what stands after it closes as many.
KNOTS = [
    ("[", ""), ("[", "]"), ("![", ""), ("[a](", ")"), ("(", ")"), ("*", ""), ("*a ", ""), ("*a **b ", ""), ("_", "_"),
    ("`", ""), ("`a``b", ""), ("~~a ", ""), ("<", ">"), ("<a ", ""), (">", ""), ("> ", ""), ("- ", ""), ("1. ", ""),
    ("> - ", ""), ("#", ""), ("|", ""), ("|-", ""), ("\\", ""), ("&#", ""), ("$", ""), ("\\(", ""), ("\\[", "\\]"),
    ("http://", ""), ("www.a.", ""), ("a@", ""), ("```\n", ""), ("> ```\n", ""), ("- a\n\n", ""), ("\n", ""), ("a\n", ""),
    ("\t", ""), ("  \n", ""), ("\u202e", ""), ("a\u202e", ""), ("\U000e0041", ""), ("|a|\n|-|\n", ""), ("a\n=\n", ""),
]  # fmt: skip


@pytest.fixture(scope="module")
def shared(browser: Browser) -> Iterator[Sheet]:
    with drawn.served() as url, drawn.sheet(browser, url, permissions=["clipboard-read", "clipboard-write"]) as one:
        yield one


@pytest.fixture
def sheet(shared: Sheet) -> Iterator[Sheet]:
    """The page, which must have nothing to say afterwards, and have asked for nothing."""
    shared.ask("() => sheet.begin()")
    yield shared
    shared.ask("0")  # what the browser had to say has come when this is answered
    wrong, requests = shared.wrong[:], shared.requests[:]
    shared.wrong.clear()
    shared.requests.clear()
    assert (wrong, requests) == ([], [])


def html(sheet: Sheet, text: str) -> str:
    """What is drawn, without the parts that it lies in and what every link and text block has."""
    found = sheet.whole(text)
    found = re.sub(r' (?:rel="noopener noreferrer nofollow" target="_blank" title="[^"]*"|dir="auto")', "", found)
    return re.sub(r'^(?:<div class="part">){2}|(?:</div>){2}$', "", found)


@pytest.mark.parametrize("name", SAMPLES)
def test_cuts_leave_no_trace(sheet: Sheet, name: str) -> None:
    text = SAMPLES[name]
    whole = sheet.whole(text)
    longest = {"long": (900, 5000)}.get(name, (1, 3, 17))
    for seed, units in enumerate(longest):
        assert sheet.cut(text, units, seed) == whole


def test_text_is_kept_as_it_came(sheet: Sheet) -> None:
    sheet.cut(BROKEN, 2, 5)
    assert sheet.ask("text => sheet.drawing.text === sheet.units(text)", drawn.units(BROKEN))


# After every piece: all elements that something follows are finished. `stood` holds their texts.
WATCH = """
([text, longest]) => {
  const stood = new Map(), wrong = [];
  const note = () => {
    let open = sheet.element;
    const follows = new Set();
    while (open) { follows.add(open); open = open.lastElementChild; }
    for (const one of sheet.element.querySelectorAll('p, li, pre, tr, h3, h4, h5, h6, table, ul, ol, blockquote')) {
      if (!follows.has(one) && !stood.has(one)) stood.set(one, one.textContent);
    }
  };
  let observer = null;
  const drawing = sheet.pieces(text, longest, 1, () => {
    if (observer === null) {
      observer = new MutationObserver(() => {});
      observer.observe(sheet.element, { subtree: true, childList: true, characterData: true });
    }
    for (const { target, removedNodes } of observer.takeRecords()) {
      for (const one of removedNodes) if (stood.has(one)) wrong.push(one.outerHTML);
      const block = (target.closest ? target : target.parentElement)?.closest('p, pre, tr, h3');
      if (stood.has(block)) wrong.push(block.outerHTML);
    }
    note();
  });
  drawing.end();
  for (const [one, words] of stood) if (!one.isConnected || one.textContent !== words) wrong.push(one.outerHTML);
  return [stood.size, wrong];
}
"""


@pytest.mark.parametrize(("name", "least"), [("mixed", 20), ("code", 2), ("world", 2), ("long", 100)])
def test_what_stands_stays(sheet: Sheet, name: str, least: int) -> None:
    count, wrong = sheet.ask(WATCH, [SAMPLES[name], 400 if name == "long" else 6])
    assert wrong == []
    assert count >= least


def test_open_code_only_grows(sheet: Sheet) -> None:
    removed, same, text = sheet.ask("""() => {
      const drawing = sheet.begin();
      drawing.add('```\\none\\n');
      drawing.turn(Infinity, true);
      const first = document.querySelector('main code .part').firstChild;
      const observer = new MutationObserver(() => {});
      observer.observe(sheet.element, { subtree: true, childList: true });
      for (const piece of ['tw', 'o\\n', 'th', 'ree', '\\n\\nfo', 'ur']) { drawing.add(piece); drawing.turn(Infinity, true); }
      const removed = observer.takeRecords().flatMap((one) => [...one.removedNodes]).length;
      return [removed, document.querySelector('main code .part').firstChild === first, document.querySelector('main code').textContent];
    }""")
    assert (removed, same, text) == (0, True, "one\ntwo\nthree\n\nfour")


def test_selection_outlives_drawing(sheet: Sheet) -> None:
    assert (
        sheet.ask("""() => {
      const drawing = sheet.begin();
      drawing.add('Some **strong** words');
      drawing.turn(Infinity, true);
      getSelection().selectAllChildren(document.querySelector('main strong'));
      for (const piece of [' and', ' *more', '* of', ' them.']) { drawing.add(piece); drawing.turn(Infinity, true); }
      return getSelection().toString();
    }""")
        == "strong"
    )


def test_a_line_is_shown_when_it_is_clear_what_it_begins(sheet: Sheet) -> None:
    """A list after a paragraph does not pass through a heading, nor a table's head through a paragraph with bars."""
    seen = sheet.ask("""() => {
      const drawing = sheet.begin(), seen = [];
      for (const piece of ['Words\\n', '-', ' ', 'item', '\\n', '`', '``', 'py', '\\n', '`', '``', '\\n', '#', ' ', 'T']) {
        drawing.add(piece);
        drawing.turn(Infinity, true);
        seen.push([...sheet.element.querySelectorAll('p, ul, h3, h4, pre')].map((one) => one.localName).join(' '));
      }
      return [...new Set(seen)];
    }""")
    assert seen == ["p", "p ul p", "p ul p pre", "p ul p pre h3"]


GROWING = {
    "words": "word " * 40_000,
    "one word": "x" * 200_000,
    "knots": "*a `b [c] " * 20_000,
    "code": "```\n" + "call(1)\n" * 25_000,
    "lines": "a\n" * 100_000,
    "list": "- *item*\n" * 8_000,
    "nested": "- a\n" + "  - b\n" * 15_000,
    "table": "|a|b|\n|-|-|\n" + "|*c*|d|\n" * 6_000,
    "paragraphs": "p\n\n" * 30_000,
}


@pytest.mark.parametrize("name", GROWING)
def test_work_of_a_frame_is_bounded(sheet: Sheet, name: str) -> None:
    """Of a stream of 30 characters a frame, late as early; and of all at once: a turn ends after some hundred nodes."""
    text = GROWING[name]
    most = sheet.ask(
        """text => {
      const drawing = sheet.begin();
      const most = { characters: 0, nodes: 0, children: 0 };
      const step = (until = Infinity) => {
        const { characters, nodes } = drawing.work;
        const isMore = drawing.turn(until, true);
        most.characters = Math.max(most.characters, drawing.work.characters - characters);
        most.nodes = Math.max(most.nodes, drawing.work.nodes - nodes);
        return isMore;
      };
      drawing.add(text.slice(0, -3000));
      let turns = 0;
      while (step()) turns += 1;
      const burst = { ...most };
      Object.assign(most, { characters: 0, nodes: 0 });
      for (let at = text.length - 3000; at < text.length; at += 30) { drawing.add(text.slice(at, at + 30)); step(); }
      for (const one of sheet.element.querySelectorAll('*')) most.children = Math.max(most.children, one.childElementCount);
      drawing.end();
      return { burst, most, turns };
    }""",
        text,
    )
    assert most["most"]["characters"] <= 2 * 4096 + 60
    assert most["most"]["nodes"] <= 200
    assert most["most"]["children"] <= 301  # of a paragraph; it has 300 marks at most
    assert most["burst"]["nodes"] <= 250 + 300
    assert most["burst"]["characters"] <= 65536 + 2 * 4096


def test_a_turn_ends_in_time(sheet: Sheet) -> None:
    """No line is begun when the time is over, so that a turn is longer than it may be by one line at most."""
    assert sheet.ask("""() => {
      const drawing = sheet.begin();
      drawing.add('line\\n\\n'.repeat(100));
      return [drawing.turn(0, true), sheet.element.textContent, drawing.turn(Infinity, true), sheet.element.querySelectorAll('p').length];
    }""") == [True, "", False, 100]


def test_a_mebibyte_on_one_line(sheet: Sheet) -> None:
    length, longest, isWide = sheet.ask(f"""async () => {{
      await sheet.whole('0123456789abcdef'.repeat({MB} / 16));
      const all = [...sheet.element.querySelectorAll('p')].map((one) => one.textContent.length);
      const {{ scrollWidth, clientWidth }} = document.documentElement;
      return [sheet.element.textContent.length, Math.max(...all), scrollWidth > clientWidth];
    }}""")
    assert (length, longest, isWide) == (MB, 4096, False)


def test_no_frame_is_needed(sheet: Sheet) -> None:
    """In a tab that is out of sight none comes: what is over is drawn at once, what goes on by a timer."""
    sheet.ask("() => { globalThis.frames_ = requestAnimationFrame; globalThis.requestAnimationFrame = () => 0; }")
    try:
        ended = sheet.ask(
            "() => { const one = sheet.begin(); one.add('a **b**'); one.end(); return sheet.element.textContent; }"
        )
        sheet.ask("() => { sheet.begin().add('it goes on'); }")
        assert sheet.ask("() => sheet.until(() => sheet.element.textContent === 'it goes on')")
        long = sheet.ask("() => sheet.whole('p\\n\\n'.repeat(2000)).then(() => sheet.element.textContent.length)")
    finally:
        sheet.ask("() => { globalThis.requestAnimationFrame = frames_; }")
    assert (ended, long) == ("a b", 2000)


def test_when_it_was_on_the_screen(sheet: Sheet) -> None:
    began, turns = sheet.ask("""async () => {
      let turns = 0;
      const began = performance.now();
      // Enough that drawing it takes longer than a tick of the page's clock, which are 0.1 ms apart.
      sheet.begin({ onDrawn: () => { turns += 1; } }).add('first *x* '.repeat(100));
      await new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
      return [began, turns];
    }""")
    assert sheet.ask("() => sheet.until(() => sheet.drawing.drawnAt !== null)")
    at, ms = sheet.ask("[sheet.drawing.drawnAt, sheet.drawing.drawMs]")
    assert turns == 1
    assert at > began
    assert ms > 0


def test_nothing_is_added_to_what_is_over(sheet: Sheet) -> None:
    said = sheet.ask(
        """() => { const one = sheet.begin(); one.end(); try { one.add('x'); } catch (error) { return error.message; } }"""
    )
    assert said == "Drawing.add() after end() or set(): the answer is over."


AUDIT = """
([texts, tags, attributes, classes]) => (async () => {
  globalThis.hit = () => { globalThis.wasHit = true; };
  const wrong = [];
  const isOutside = (one) => one.rel === 'noopener noreferrer nofollow' && one.target === '_blank' && !one.querySelector('a');
  const check = (text) => {
    for (const one of sheet.element.querySelectorAll('*')) {
      const bad = [];
      if (!tags.includes(one.tagName)) bad.push(one.tagName);
      for (const { name } of one.attributes) if (!attributes.includes(name)) bad.push(name);
      for (const name of one.classList) if (!classes.includes(name)) bad.push(name);
      if (one.hasAttribute('style') && !/^contain-intrinsic-block-size: auto \\d+em;$/.test(one.getAttribute('style'))) bad.push('style');
      if (one.tagName === 'A' && !(/^(https?|mailto):$/.test(one.protocol) && isOutside(one))) bad.push(one.href);
      if (bad.length) wrong.push([text, bad, one.outerHTML]);
    }
  };
  for (const written of texts) {
    const text = sheet.units(written);
    await sheet.whole(text);
    check(written);
    const drawing = sheet.pieces(text, 5, 3, () => check(written));
    drawing.end();
    check(written);
    const words = sheet.element.textContent.length;
    if (!words && !/^[\\s>|#-]*$/.test(text)) wrong.push([written, 'nothing is shown']);
  }
  return [wrong, globalThis.wasHit === true, typeof sheet.begin, document.title];
})()
"""


def test_hostile_answers_do_nothing(sheet: Sheet) -> None:
    wrong, was_hit, begin, title = sheet.ask(
        AUDIT, [[drawn.units(one) for one in EVIL], TAGS.split(), ATTRIBUTES.split(), CLASSES.split()]
    )
    assert wrong == []
    assert (was_hit, begin, title) == (False, "function", "ready")


def test_no_knot_holds_the_page_up(sheet: Sheet) -> None:
    """The depth of what is made is bounded, and all that is not a mark is shown."""
    depths = sheet.ask(
        """async (knots) => {
      const found = [];
      for (const [open, close] of knots) {
        await sheet.whole(open.repeat(10_000) + 'end' + close.repeat(10_000));
        let depth = 0;
        for (let one = sheet.element; one; one = one.lastElementChild) depth += 1;
        const shown = sheet.element.textContent.includes('end');
        if (depth > 60 || !shown) found.push([open, depth, shown]);
      }
      return found;
    }""",
        KNOTS,
    )
    assert depths == []


def test_unseen_characters_are_shown(sheet: Sheet) -> None:
    sheet.whole(
        "a\u202eb\u2066c &#x202E; `d\u202d` [e\u2069](https://a.example/\u202e) \u200b \ufeff \x1b[0m "
        + "".join(chr(0xE0000 + ord(one)) for one in "secret")
        + "\n\n```x\u202e\ny\u202ez\n```\n"
    )
    assert sheet.texts(".unseen") == [
        "U+202E", "U+2066", "U+202E", "U+202D", "U+2069", "U+200B", "U+FEFF", "U+001B",
        "U+E0073 U+E0065 U+E0063 U+E0072 +2", "U+202E",
    ]  # fmt: skip
    assert sheet.texts(".code-language") == ["x⟦U+202E⟧"]
    text = sheet.ask("() => sheet.element.textContent + sheet.element.innerHTML")
    assert re.search("[\u202a-\u202e\u2066-\u2069\u200b\ufeff\x1b\U000e0000-\U000e007f]", text) is None


@pytest.mark.parametrize(
    "text",
    ["مرحبا\u200f بالعالم", "می\u200cخواهم", "שָׁלוֹם", "你好，世界", "葛\U000e0100", "ไทย\u200bไทย", "क्\u200dष", "❤️‍🔥 👩🏽‍🚀 🇨🇳", ENGLAND],
)  # fmt: skip
def test_what_people_write_is_left_as_it_is(sheet: Sheet, text: str) -> None:
    sheet.whole(f"{text}\n\n```\n{text}\n```")
    assert sheet.texts(".unseen") == []
    assert [one.strip() for one in sheet.texts(":is(p, code)")] == [text.strip(), text.strip()]


def test_direction_is_the_texts_own(sheet: Sheet) -> None:
    sheet.whole("مرحبا\n\nhello\n\n- שלום\n- word\n\n```\nمرحبا\n```")
    sides = "all => all.map((one) => [one.matches(':dir(rtl)'), getComputedStyle(one).unicodeBidi])"
    assert sheet.page.locator("main :is(p, ul, pre code)").evaluate_all(sides) == [
        [True, "plaintext"], [False, "plaintext"], [True, "isolate"], [True, "plaintext"], [True, "plaintext"], [False, "isolate"],
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("markdown", "expected"),
    [
        ("# a\n## b\n#### c\n###### d", "<h3>a</h3><h4>b</h4><h6>c</h6><h6>d</h6>"),
        ("a\n===\nb\n-", "<h3>a</h3><h4>b</h4>"),
        ("a\nb  \nc\\\nd<br/>e", "<p>a\nb\nc\nd\ne</p>"),
        ("**a** *b* ~~c~~ `d*`", "<p><strong>a</strong> <em>b</em> <del>c</del> <code>d*</code></p>"),
        ("a_b_c 2 * 3 * 4 ~5", "<p>a_b_c 2 * 3 * 4 ~5</p>"),
        ("a <b>c</b> &lt; &amp;amp; &copy;", "<p>a &lt;b&gt;c&lt;/b&gt; &lt; &amp;amp; ©</p>"),
        ("<div>\n\n*a*\n\n</div>", "<p>&lt;div&gt;</p><p><em>a</em></p><p>&lt;/div&gt;</p>"),
        ("- a\n- b\n\n- c", "<ul><li><p>a</p></li><li><p>b</p></li><li><p>c</p></li></ul>"),
        ("- a\n  - b\n    c\n* d", "<ul><li><p>a</p><ul><li><p>b\nc</p></li></ul></li></ul><ul><li><p>d</p></li></ul>"),
        ("3. a\n4. b", '<ol start="3"><li><p>a</p></li><li><p>b</p></li></ol>'),
        ("a\n1. b", "<p>a</p><ol><li><p>b</p></li></ol>"),
        ("in\n1985. b", "<p>in\n1985. b</p>"),
        (
            "- [ ] a\n- [x] b\n- [y] c",
            '<ul><li class="task"><p><input type="checkbox" disabled="" aria-label="To do">a</p></li>'
            '<li class="task"><p><input type="checkbox" disabled="" checked="" aria-label="Done">b</p></li>'
            "<li><p>[y] c</p></li></ul>",
        ),
        ("> a\nb\n\n> c", "<blockquote><p>a\nb</p></blockquote><blockquote><p>c</p></blockquote>"),
        ("> - a\n>   b\n> # c", "<blockquote><ul><li><p>a\nb</p></li></ul><h3>c</h3></blockquote>"),
        ("a\n\n***\nb", "<p>a</p><hr><p>b</p>"),
        ("$a_1*b*c$ \\(*x*\\) $5 *or* $6", '<p><span class="math">$a_1*b*c$</span> <span class="math">\\(*x*\\)</span> $5 <em>or</em> $6</p>'),
        ("$$\n*a*\n- b\n$$\nc", '<p class="math">$$\n*a*\n- b\n$$</p><p>c</p>'),
        ("$$ *a* $$\n\\[ *b*\n\\]", '<p class="math">$$ *a* $$</p><p class="math">\\[ *b*\n\\]</p>'),
        ("$$c$$ *d*", '<p><span class="math">$$c$$</span> <em>d</em></p>'),
        ("[a][b]\n\n[b]: https://b.example", '<p>[a][b]</p><p>[b]: <a href="https://b.example/">https://b.example</a></p>'),
        ("![a](https://b.example/c.png)", '<p><a href="https://b.example/c.png">Image: a</a></p>'),
        ("[a](javascript:b)", "<p>a (javascript:b)</p>"),
        ("a@b.example", '<p><a href="mailto:a@b.example">a@b.example</a></p>'),
    ],
)  # fmt: skip
def test_markdown(sheet: Sheet, markdown: str, expected: str) -> None:
    assert html(sheet, markdown) == expected


def test_a_table(sheet: Sheet) -> None:
    found = html(sheet, "a\n\n| b | c | d |\n|:-|:-:|-:|\n| \\| | `e\\|f` |\n| g | **h** | i | j |\nk")
    assert found == (
        '<p>a</p><div class="table" tabindex="0" role="group" aria-label="Table"><table><thead><tr>'
        '<th class="at-start" scope="col">b</th><th class="at-center" scope="col">c</th><th class="at-end" scope="col">d</th>'
        '</tr></thead><tbody><tr><td class="at-start">|</td><td class="at-center"><code>e|f</code></td></tr>'
        '<tr><td class="at-start">g</td><td class="at-center"><strong>h</strong></td><td class="at-end">i</td></tr>'
        '<tr><td class="at-start">k</td></tr></tbody></table></div>'
    )


@pytest.mark.parametrize(
    ("markdown", "host"),
    [
        ("[docs](https://a.example/b)", None),
        ("[a.example](https://a.example/b)", None),
        ("[https://www.a.example/x.html](https://a.example/x.html)", None),
        ("<https://a.example/x.y/z.html>", None),
        ("[version 1.2.3](https://a.example)", None),
        ("[bank.example](https://evil.example)", "evil.example"),
        ("[https://bank.example/login](https://evil.example)", "evil.example"),
        ("[sign in at **bank**.example](https://evil.example)", "evil.example"),
        ("https://bank.example@evil.example/x", "evil.example"),
        ("[b\u200dank.example](https://evil.example)", "evil.example"),
        ("[ｂａｎｋ．ｅｘａｍｐｌｅ](https://evil.example)", "evil.example"),
        ("[127.0.0.1](https://evil.example)", "evil.example"),
        ("[bаnk.example](https://bаnk.example)", "xn--bnk-6cd.example"),
        ("[help@bank.example](mailto:thief@evil.example)", "evil.example"),
    ],
)
def test_a_link_says_where_it_leads(sheet: Sheet, markdown: str, host: str | None) -> None:
    sheet.whole(markdown)
    assert len(sheet.texts("a")) == 1
    assert sheet.texts(".host") == ([] if host is None else [f" ({host})"])


def test_code_is_copied_as_it_came(sheet: Sheet) -> None:
    sheet.whole("```py\na = '\u202e'\n\n\tb\n```\n")
    sheet.page.get_by_role("button", name="Copy py").press("Enter")
    expect(sheet.page.get_by_role("button")).to_have_text("Copied py")
    assert sheet.ask("navigator.clipboard.readText()") == "a = '\u202e'\n\n\tb\n"


def test_code_is_copied_where_there_is_no_clipboard_of_the_new_kind(sheet: Sheet) -> None:
    sheet.whole("```\nold\n```\n")
    sheet.ask("() => { navigator.clipboard.writeText = () => Promise.reject(new Error('no')); }")
    try:
        sheet.page.get_by_role("button", name="Copy").click()
        expect(sheet.page.get_by_role("button")).to_have_text("Copied")
        assert sheet.ask("navigator.clipboard.readText()") == "old\n"
        assert sheet.ask("document.activeElement.localName") == "button"
    finally:
        sheet.ask("() => { delete navigator.clipboard.writeText; }")


def test_wide_blocks_scroll_by_keyboard(sheet: Sheet) -> None:
    sheet.whole("```js\n" + "wide " * 100 + "\n```\n\n|" + " wordwordwordword |" * 20 + "\n|" + "-|" * 20)
    for name in ("Code: js", "Table"):
        block = sheet.page.get_by_role("group", name=name)
        block.focus()
        sheet.page.keyboard.press("ArrowRight")
        assert sheet.ask("() => sheet.until(() => document.activeElement.scrollLeft > 0)")


def test_the_page_gives_the_words(sheet: Sheet) -> None:
    sheet.ask("() => sheet.begin({ copyLabel: 'C!', codeLabel: 'K!' }).set('```x\\ny\\n```')")
    expect(sheet.page.get_by_role("button")).to_have_text("C! x")
    expect(sheet.page.get_by_role("group", name="K!: x")).to_have_count(1)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_narrow(browser: Browser, shared: Sheet, scheme: Any) -> None:
    """On a phone only code and tables are wider than the screen, and they scroll within themselves."""
    with drawn.sheet(browser, shared.url, viewport={"width": 360, "height": 640}, color_scheme=scheme) as phone:
        phone.whole(
            MIXED
            + WORLD
            + MATHS
            + "\n\n"
            + "x" * 300
            + "\n\n```\n"
            + "y" * 300
            + "\n```\n"
            + "> " * 12
            + "deep `"
            + "z" * 90
            + "`"
        )
        width, ink, paper = phone.ask("""() => {
          const style = getComputedStyle(document.querySelector('main p'));
          return [document.documentElement.scrollWidth, style.color, getComputedStyle(document.body).backgroundColor];
        }""")
    assert width == 360
    assert ink != paper
    assert (phone.wrong, phone.requests) == ([], [])
