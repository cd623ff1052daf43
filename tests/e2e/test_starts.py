"""Plans against real starts: one that fits and one that does not, both really started."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from loadtests.starts import main
from loadtests.starts_table import ENDED, STARTED, is_right
from tests.e2e.conftest import require_vllm
from tests.e2e.endpoint import PROFILE


def test_one_start_that_works_and_one_that_cannot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    require_vllm()
    settings, out = tmp_path / "settings.yaml", tmp_path / "starts.json"
    settings.write_text("as it is: []\ntoo small: [engine.kv_cache_memory=16MiB]\n")
    monkeypatch.setattr(sys, "argv", ["starts", str(PROFILE), str(settings), "--out", str(out)])
    main()
    found = json.loads(out.read_text())["starts"]
    works, fails = found["as it is"], found["too small"]
    assert works["outcome"] == STARTED
    assert works["kv_tokens"] == works["facts"]["kv_tokens"]
    assert is_right(works)
    assert fails["outcome"] == ENDED
    assert fails["errors"] == ["kv-below-max-len"]
    assert fails["why"].startswith("the KV cache is too small: one request of 2048 tokens needs 0.09 GiB")
    assert is_right(fails)
