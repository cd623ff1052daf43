"""The reports of `launcher bench` in a real browser: they ask nobody for anything, and show what they are for."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page

from loadtests import bench, driver, strategies_report, sweep, tune_report
from loadtests.report import html
from tests.browser.conftest import Opened
from tests.browser.drawing import contrast, drawings, faults, painted, unseen
from tests.fakes.process import fake_engine
from tests.loadtests.test_bench import group, made

Open = Callable[[Path], Opened]
PHONE, SCREEN = 390, 1280
SHORT = "not started: the weights alone take more than the card has; take a smaller model, or more cards"


@pytest.fixture(scope="package")
def report(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a user has after a run, which is not made where nothing could show it."""
    out = tmp_path_factory.mktemp("report") / "bench.html"
    told = "--rates 4,12 --rounds 2 --seconds 2 --scenario fixed --scale 0.1 --slo ttft=0.5,itl=0.06 --out"
    with fake_engine(first_token_s=0.05, inter_token_s=0.01) as engine, pytest.MonkeyPatch.context() as patch:
        patch.setattr(driver, "WARM_UP_S", 1.0)
        assert bench.main([engine.url, *told.split(), str(out)]) == 0
    return out


def hard() -> str:
    """All that strains a layout: nine rates, waits from 20 ms to a minute, many tokens, names without a space."""
    rates = []
    for number, rate in enumerate((0.25, 0.5, 1, 2, 4, 8, 12, 16, 24)):
        rounds = []
        for good in (min(rate, 9.0), 0.9 * min(rate, 9.0)):
            figures = group(0.05 * (1 + number**2) / good, good)
            figures["not_served"] = {"http://" + "a" * 120: 3}
            waits = [0.02 * 3000 ** ((index / 200) ** (1 + number / 4)) for index in range(201)]
            rounds.append({"scenarios": {"all": figures}, "samples": {"ttft": waits, "e2e": [1.0]}})
        rates.append({"rate": rate, "rounds": rounds})
    timeline = [
        {
            "at": 1.01 * second, "queued": 200 * abs(math.sin(second / 9)), "in flight": 100 + second % 80, "prefill": 800.0 * second,
            "kv cache": second / 3, "card memory": 140.5, "card busy": 60 + second % 40,
        }
        for second in range(300)
    ]  # fmt: skip
    return html(
        made(rates=rates, timeline=timeline, model="/models/" + "x" * 70, command="launcher bench " + "y" * 100)
    )


def nothing() -> str:
    """Every request was refused, and nobody was there to be watched."""
    run = made({**group(), "ttft": {}, "itl": {}, "e2e": {}}, timeline=[])
    run["rates"][0]["rounds"][0]["samples"] = {"ttft": [], "e2e": []}
    return html(run)


def sweep_report() -> str:
    found = [(0.1, 50.0), (0.2, 140.0), (0.35, 120.0), (0.9, 260.0)]
    rows: list[dict[str, Any]] = [
        {
            "settings": {"engine.max_num_seqs": str(2**number)},
            "figures": {**group(ttft), "output_tokens_per_s": tokens},
            "memory_gib": 20 + number,
        }
        for number, (ttft, tokens) in enumerate(found)
    ]
    rows.append({"settings": {"engine.max_num_seqs": "64"}, "why": SHORT})
    load = {"profile": "profiles/1x3090.yaml", "set": [], "scenario": "pictures", "users": 8, "slo": {"ttft": 1.0}}
    return sweep.html(load, rows)


def strategies_of_two_loads() -> str:
    names = ("all", "no-chunked-prefill", "no-prefix-cache", "window-always", "no-admission")
    found: dict[str, Any] = {
        name: {
            load: [
                {"figures": group(0.1 * number, times * number * good), "watched": {"kv cache": 40.0}}
                for good in (1.0, 1.2)
            ]
            for times, load in ((1, "50 users"), (2, "100 users"))
        }
        for number, name in enumerate(names, 1)
    }
    found["eager"] = {"50 users": [SHORT], "100 users": [SHORT]}
    run = {
        "when": "2026-11-26",
        "machine": "m",
        "profile": "profiles/1x3090.yaml",
        "set": [],
        "scenario": "chat",
        "slo": {},
        "seed": 1,
        "any_event": False,
        "command": "launcher bench strategies " + "y" * 100,
    }
    run |= {"seconds": 30, "rounds": 2, "loads": ["50 users", "100 users"], "strategies": found}
    return strategies_report.html(run, dict.fromkeys(found, "the profile with a few keys changed"))


def tune_of_many_settings() -> str:
    """So many that the names of the lines take several rows."""
    tried: list[dict[str, str]] = [{}]
    tried += [{"engine.max_num_seqs": str(2**number), "engine.compile": "eager"} for number in range(12)]
    rows: list[dict[str, Any]] = [
        {
            "settings": settings,
            "rate": rate,
            "figures": {**group(good=rate + number / 4), "sent": 100, "good": 99 - number * rate},
        }
        for number, settings in enumerate(tried)
        for rate in (1, 2, 4)
    ]
    rows.append({"settings": {"engine.max_num_seqs": "8192"}, "rate": None, "why": SHORT})
    return tune_report.html(
        {"when": "2026-11-26", "machine": "m", "load": {"profile": "profiles/1x3090.yaml"}, "rows": rows}
    )


MADE = {
    "hard": hard, "nothing": nothing, "sweep": sweep_report, "strategies": strategies_of_two_loads, "tune": tune_of_many_settings,
}  # fmt: skip


@pytest.fixture(params=["bench", *MADE])
def page_file(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Each kind of report, as a file."""
    if request.param == "bench":
        found: Path = request.getfixturevalue("report")
        return found
    path = tmp_path / f"{request.param}.html"
    path.write_text(MADE[request.param](), encoding="utf-8")
    return path


def test_it_asks_nobody_and_can_be_read(page_file: Path, open_page: Open) -> None:
    opened = open_page(page_file)
    for scheme in ("light", "dark"):
        opened.page.emulate_media(color_scheme=scheme)
        for width in (PHONE, SCREEN):
            opened.page.set_viewport_size({"width": width, "height": 844})
            assert [f"{scheme}, {width} px: {fault}" for fault in faults_of(opened.page, scheme)] == []
        picture = painted(opened.page)
        assert [fault for one in drawings(opened.page) for fault in unseen(one, picture)] == []
    assert opened.page.locator("svg").count() == page_file.read_text().count("<svg")
    assert opened.requests == [page_file.as_uri()]
    assert opened.complaints == []


def faults_of(page: Page, scheme: str) -> Iterator[str]:
    ink, paper = page.evaluate(
        "(({color, backgroundColor}) => [color, backgroundColor])(getComputedStyle(document.body))"
    )
    if contrast(ink, paper) < 7:
        yield f"{ink} on {paper}"
    if (contrast(paper, "rgb(0, 0, 0)") < 2) != (scheme == "dark"):
        yield f"the paper is {paper}"
    scrolled, inner = page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
    if scrolled > inner:
        yield f"the page is {scrolled} px wide and scrolls sideways"
    for one in drawings(page):
        yield from faults(one, paper)


def test_a_run_shows_its_rates_and_its_plots(report: Path, open_page: Open) -> None:
    page = open_page(report).page
    assert page.locator("tbody tr:first-child td:first-child").inner_text() == "4"
    assert page.locator("tbody tr").count() == 2
    plots = page.get_by_role("img")
    assert plots.count() >= 5
    assert all(plot.is_visible() for plot in plots.all())


def test_a_sweep_shows_what_failed_and_why(tmp_path: Path, open_page: Open) -> None:
    (tmp_path / "sweep.html").write_text(sweep_report())
    page = open_page(tmp_path / "sweep.html").page
    assert page.get_by_text(SHORT).is_visible()
    assert page.locator("circle").count() == 8  # four that were measured, their name's, three of the best of their kind
    assert page.locator("th:last-child").bounding_box()["x"] < SCREEN  # the sentence pushes no figure out of sight


# That the watch can find something.

POLICY = "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"


@pytest.fixture
def planted(tmp_path: Path) -> Callable[..., Path]:
    """A report with something put in the place of something else."""

    def made_of(before: str, after: str, *more: tuple[str, str]) -> Path:
        text = html(made())
        for old, new in ((before, after), *more):
            assert old in text
            text = text.replace(old, new)
        path = tmp_path / "planted.html"
        path.write_text(text)
        return path

    return made_of


def test_what_is_asked_of_others_is_stopped_and_seen(planted: Callable[..., Path], open_page: Open) -> None:
    path = planted("<h1>", '<img src="https://example.invalid/x.png"><h1>')
    opened = open_page(path)
    assert opened.requests == [path.as_uri(), "https://example.invalid/x.png"]  # which is how far it gets
    (said,) = opened.complaints
    assert "https://example.invalid/x.png" in said
    assert "Content Security Policy" in said


def test_without_the_policy_the_request_is_seen(planted: Callable[..., Path], open_page: Open) -> None:
    path = planted("<h1>", '<img src="x.png"><h1>', (POLICY, ""))
    assert open_page(path).requests == [path.as_uri(), path.with_name("x.png").as_uri()]


def test_what_a_script_throws_is_seen(planted: Callable[..., Path], open_page: Open) -> None:
    assert open_page(planted("<h1>", "<script>throw 'planted'</script><h1>", (POLICY, ""))).complaints == ["planted"]


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        ('y="16" class="title"', 'y="1" class="title"', "'Goodput' is cut off"),
        ('cx="', 'cx="9', "'circle' is cut off"),
        ('text-anchor="end"', "", "something goes through '1'"),
        ("M64 34h24", "M100 34h24", "something goes through 'good'"),
        ('x="94"', 'x="150"', "'good' and 'served' lie over each other"),
        ("font-size: 13px", "font-size: 7px", "'good' is 7."),
        ('fill="#2878ee"', 'fill="#eeeeee"', "'circle' in rgb(238, 238, 238) on rgb(255, 255, 255) has a contrast of 1.2"),
        ("svg { width: 100%", "svg { width: 99px", "it is only 99x53"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_found(
    before: str, after: str, words: str, planted: Callable[..., Path], open_page: Open
) -> None:
    page = open_page(planted(before, after)).page
    found = [fault for one in drawings(page) for fault in faults(one, "rgb(255, 255, 255)")]
    assert any(words in fault for fault in found), found


def test_what_is_not_painted_is_found(planted: Callable[..., Path], open_page: Open) -> None:
    page = open_page(planted("svg text {", ".line, circle { opacity: 0 } svg text {")).page
    picture = painted(page)
    assert unseen(drawings(page)[1], picture) == [
        "Goodput: nothing in rgb(221, 59, 64) is seen",
        "Goodput: nothing in rgb(40, 120, 238) is seen",
    ]
