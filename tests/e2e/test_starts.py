"""Plans against real starts: one that cannot be, really started, and what the log of one that works is read as."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from loadtests.starts import main, make_case
from loadtests.starts_engine import Seen
from loadtests.starts_table import ENDED, is_right
from tests.e2e.endpoint import PROFILE, Endpoint


def test_a_start_that_works(served: Endpoint) -> None:
    """By the log of the engine that is up anyway: a start of its own would take half a minute to say the same."""
    seen, predicted = Seen(), make_case(PROFILE, "as it is", ()).predicted()
    log = served.state_dir / served.name / "logs" / "engine-0.log"
    assert seen.read(log.read_text().splitlines())
    assert (predicted["verdict"], predicted["kv_tokens"]) == ("fits", seen.facts["kv_tokens"])


def test_a_start_that_cannot_work(served: Endpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings, out = tmp_path / "settings.yaml", tmp_path / "starts.json"
    settings.write_text("too small: [engine.kv_cache_memory=16MiB]\n")
    monkeypatch.setattr(sys, "argv", ["starts", str(PROFILE), str(settings), "--out", str(out)])
    main()
    (fails,) = json.loads(out.read_text())["starts"].values()
    assert fails["outcome"] == ENDED
    assert fails["errors"] == ["kv-below-max-len"]
    assert fails["why"].startswith("the KV cache is too small: one request of 2048 tokens needs 0.09 GiB")
    assert is_right(fails)
