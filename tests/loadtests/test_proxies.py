"""Which proxies are compared, and how the compiled launcher is told from the plain one."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from loadtests.proxies import COMPILED, Place, known_proxies


def python_that_says(folder: Path, line: str) -> str:
    path = folder / "python"
    path.write_text(f"#!/bin/sh\necho '{line}'\n")
    path.chmod(0o755)
    return str(path)


def test_the_compiled_one_is_left_out_unless_asked_for() -> None:
    assert COMPILED not in [proxy.name for proxy in known_proxies(None, None)]


def test_the_compiled_one_runs_what_is_installed_and_not_the_sources_here(tmp_path: Path) -> None:
    python = python_that_says(tmp_path, "launcher, version 1.2.3 (gateway compiled)")
    (proxy,) = [proxy for proxy in known_proxies(None, None, os.path.relpath(python)) if proxy.name == COMPILED]
    assert proxy.version(proxy.program) == "1.2.3 (gateway compiled)"
    command = proxy.command(proxy.program, Place(8000, 9000, tmp_path, 100))
    assert command[:5] == [python, "-I", "-m", "launcher", "up"]
    assert not proxy.all_processes


@pytest.mark.parametrize("line", ["launcher, version 1.2.3", ""])
def test_a_plain_one_is_not_taken_for_it(tmp_path: Path, line: str) -> None:
    with pytest.raises(SystemExit, match="no compiled launcher is there"):
        known_proxies(None, None, python_that_says(tmp_path, line))


def test_a_python_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="no compiled launcher is there"):
        known_proxies(None, None, str(tmp_path / "none"))
