"""`launcher up -d`: the child is the same launcher."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from launcher.cli.detach import own_sources
from tests.unit.cli.launching import ROOT, clean_env

WHERE = "import launcher; print(launcher.__file__)"


def test_another_launcher_in_the_current_folder_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "launcher").mkdir()
    (tmp_path / "launcher" / "__init__.py").write_text("")
    monkeypatch.chdir(tmp_path)
    env = clean_env() | {"PYTHONPATH": str(ROOT)}
    told = subprocess.run([sys.executable, *own_sources(), "-c", WHERE], env=env, capture_output=True, text=True).stdout
    assert Path(told.strip()).parents[1] == ROOT


def test_a_checkout_runs_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    told = subprocess.run(
        [sys.executable, *own_sources(), "-c", WHERE], env=clean_env(), capture_output=True, text=True
    )
    assert Path(told.stdout.strip()).parents[1] == ROOT
