"""What `launcher plan` says of a profile with some keys changed, before a measurement starts it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

from loadtests.driver import Failed


def plan_of(profile: str, sets: Sequence[str]) -> dict[str, Any]:
    """As `launcher plan -o json` prints it. Raises Failed with its first line where none can be made."""
    told = [part for one in sets for part in ("--set", one)]
    command = [sys.executable, "-m", "launcher", "plan", profile, "-o", "json", *told]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    try:
        plan: dict[str, Any] = json.loads(done.stdout)
        return plan
    except ValueError:
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        raise Failed(lines[0].removeprefix("error: ") if lines else "the plan could not be made") from None


def refused(profile: str, sets: Sequence[str]) -> str | None:
    """Why the plan says that it cannot fit; None: it may."""
    try:
        plan = plan_of(profile, sets)
    except Failed as error:
        return str(error)
    return str(plan["summary"]) if plan["verdict"] == "does_not_fit" else None
