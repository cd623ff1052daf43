"""A profile read for `launcher render`, with its plan: one that does not fit is written down all the same, and said so."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from launcher.plan.plan import Plan, make_plan
from launcher.probe.model_files import read_model_facts
from launcher.profile.load import LoadedProfile, load_profile


def read_planned(path: Path, sets: Sequence[str]) -> tuple[LoadedProfile, Plan, int | None]:
    """The profile, its plan, and the bytes of its model's checkpoint where they are known.

    LAUNCHER__… variables of this shell are not heeded: what is written runs elsewhere. Raises ProfileError.
    """
    loaded = load_profile(path, sets=sets, env={})
    facts = read_model_facts(loaded.profile, loaded.base_dir)
    plan = make_plan(loaded.profile, facts)
    if plan.verdict == "does_not_fit":
        click.echo(f"warning: {path}: {plan.summary} `launcher plan {path}` says what to change.", err=True)
    return loaded, plan, facts.weights.total if facts and facts.weights else None
