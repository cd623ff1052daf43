"""What `launcher top` draws, given what was seen."""

from __future__ import annotations

import copy
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from launcher.cli.top import tell_end
from launcher.cli.top_view import picture, span
from launcher.errors import LauncherError
from launcher.supervise.rundir import Found

LIVE: dict[str, Any] = {
    "model": "m", "mode": "balanced", "draining": False, "uptime_s": 4000, "connections": 7,
    "queue": {"count": 3, "tokens": 900, "oldest_s": 0.4, "by_priority": {"high": 1, "normal": 2, "low": 0}},
    "replicas": [{
        "index": 0, "in_flight": 4, "ledger": {"prefill_tokens": {"held": 512, "cap": 2048}}, "pace": {"itl_ms": 20.0},
    }],
    "totals": {
        "served": 10, "failed": 1, "cancelled": 2, "resumed": 0, "refusals": {"queue_full": 5},
        "evictions": {"deadline_passed": 9},
    },
    "last_minute": {
        "requests_s": 1.5, "prompt_tokens_s": 300.0, "output_tokens_s": 80.0, "ttft_p50_ms": 120.0, "ttft_p99_ms": 800.0,
        "itl_p50_ms": None, "itl_p99_ms": None,
    },
}  # fmt: skip
ENGINE = {
    "index": 0,
    "phase": "ready",
    "stage": "",
    "restarts": 2,
    "last_failure": "exited with code 0",
    "kv_cache": 0.25,
}
CARD = {
    "index": 0, "name": "RTX 4090", "used_bytes": 18 * 2**30, "total_bytes": 24 * 2**30, "utilization": 93,
    "growth_bytes_per_s": 2**20, "full_in_s": 600.0, "warning": "card 0 (RTX 4090): memory grows",
}  # fmt: skip


def drawn(**changes: Any) -> str:
    seen = {"name": "x", "state": "ready", "live": LIVE, "engines": [ENGINE], "gpus": [], "warnings": [], **changes}
    console = Console(file=io.StringIO(), width=160)
    console.print(picture(seen))
    return console.file.getvalue()  # type: ignore[attr-defined, no-any-return]


def test_all_of_it() -> None:
    text = drawn(gpus=[CARD], warnings=[CARD["warning"]])
    assert "x  ready  m  mode balanced  up 1 h 6 min  7 connections" in text
    assert "! card 0 (RTX 4090): memory grows" in text
    assert "512/2048" in text
    assert "25%" in text
    assert "200" in text  # 4 answers at 20 ms a token
    assert "18.0 of 24.0 GiB  75%   93 %  +60 MiB/min" in " ".join(text.split("\n")).replace("   ", "  ").replace(
        "75%  93", "75%   93"
    )
    assert "1 high, 2 normal (900 tokens, the oldest for 0.4 s)" in text
    assert "TTFT         120 / 800 ms   ITL –   (p50 / p99)" in text
    assert "refused      9 deadline_passed, 5 queue_full" in text


def test_a_gateway_that_does_not_answer() -> None:
    text = drawn(live=None)
    assert "x  ready  its gateway does not answer" in text
    assert "exited with code 0" in text


@pytest.mark.parametrize(("seconds", "text"), [(5, "5 s"), (65.9, "1 min 5 s"), (7260, "2 h 1 min")])
def test_spans(seconds: float, text: str) -> None:
    assert span(seconds) == text


def test_foreign_text_is_no_markup() -> None:
    text = drawn(engines=[{**ENGINE, "last_failure": "said [/x] and [red]"}], gpus=[{**CARD, "name": "A[/b]"}])
    assert "said [/x] and [red]" in text
    assert "A[/b]" in text


def fields(value: Any, *path: Any) -> Iterator[tuple[Any, ...]]:
    """The path of each field within a state."""
    if isinstance(value, dict | list):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            if isinstance(value, dict):
                yield (*path, key)
            yield from fields(inner, *path, key)


@pytest.mark.parametrize("path", list(fields(LIVE)), ids=str)
def test_what_an_older_launcher_does_not_tell(path: tuple[Any, ...]) -> None:
    live = inner = copy.deepcopy(LIVE)
    for key in path[:-1]:
        inner = inner[key]
    del inner[path[-1]]
    drawn(live=live)


def test_what_is_not_told_is_a_dash() -> None:
    text = drawn(live={"replicas": [{"index": 0}]}, engines=[{**ENGINE, "kv_cache": None, "restarts": None}])
    assert "x  ready  –  mode –  up –  – connections" in text
    assert "0       ready  –          –        –                   –         exited with code 0" in text
    assert "waiting      – (– tokens)" in text
    assert "TTFT         –   ITL –" in text
    assert "refused      –" in text


@pytest.mark.parametrize("record", [{}, {"state": "ended"}])
def test_the_end_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str], record: dict[str, Any]) -> None:
    (tmp_path / "state.json").write_text(json.dumps(record))
    tell_end(Found(tmp_path, {"state": "ready"}, alive=True))
    assert capsys.readouterr().err == f"{tmp_path.name}: the deployment has ended\n"


def test_a_killed_launcher_is_no_good_end(tmp_path: Path) -> None:
    (tmp_path / "state.json").write_text(json.dumps({"state": "ready"}))
    with pytest.raises(LauncherError, match="its launcher was killed") as raised:
        tell_end(Found(tmp_path, {"state": "ready"}, alive=True))
    assert raised.value.hint == f"`launcher down {tmp_path.name}` cleans up."
