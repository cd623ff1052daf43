"""The README's first requests, run as they stand against the default profile."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from tests.e2e.endpoint import ROOT, Endpoint

README = (ROOT / "README.md").read_text()
SERVED_AT = "http://127.0.0.1:8000"


@pytest.mark.parametrize("number", [0, 1], ids=["openai", "langchain"])
def test_python(served: Endpoint, number: int) -> None:
    code = re.findall(r"```python\n(.*?)```", README, re.DOTALL)[number]
    done = subprocess.run(
        [sys.executable, "-c", code.replace(SERVED_AT, served.url)], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert "Paris" in done.stdout


def test_curl(served: Endpoint) -> None:
    line = re.search(r"^\$ (curl .*?\\\n.*?)\n", README, re.MULTILINE | re.DOTALL)
    assert line
    done = subprocess.run(
        ["bash", "-c", line[1].replace(SERVED_AT, served.url)], capture_output=True, text=True, timeout=120
    )
    assert "Paris" in done.stdout, done.stderr
