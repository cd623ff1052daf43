"""What the shipped profiles say of their plans in their first lines is what the planner says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from launcher.plan.plan import make_plan
from launcher.probe.model_files import read_model_facts
from launcher.profile.load import load_profile

ROOT = Path(__file__).parents[3]
SHIPPED = sorted((ROOT / "profiles").glob("*.yaml"))
WITH_FIGURES = [path for path in SHIPPED if path.stem not in ("external", "cpu-smollm2")]


def header(path: Path) -> str:
    lines = path.read_text().splitlines()
    return " ".join(line.removeprefix("#").strip() for line in lines[: lines.index("version: 1")])


@pytest.mark.parametrize("path", WITH_FIGURES, ids=lambda path: path.stem)
def test_figures(path: Path) -> None:
    loaded = load_profile(path, env={})
    plan = make_plan(loaded.profile, read_model_facts(loaded.profile, loaded.base_dir, offline=True))
    assert plan.verdict == "fits"
    assert plan.kv_tokens is not None
    assert plan.requests_at_full_length is not None
    tokens = re.search(r"([\d,]+) tokens, or (\d+) requests of full length", header(path))
    assert tokens
    assert int(tokens[1].replace(",", "")) == pytest.approx(plan.kv_tokens, rel=0.03)
    assert int(tokens[2]) == pytest.approx(plan.requests_at_full_length, abs=1.5)


def test_the_default_fits() -> None:
    loaded = load_profile(ROOT / "profiles" / "cpu-smollm2.yaml", env={})
    plan = make_plan(loaded.profile, read_model_facts(loaded.profile, loaded.base_dir, offline=True))
    assert plan.verdict == "fits", plan.summary
    assert not plan.errors
