"""What `launcher plan` says of a profile with some keys changed, before a measurement starts it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

from loadtests.driver import reason
from loadtests.failures import Failed

REMEDY = "→ "


class Unplanned(Failed):
    """No plan can be made: the sentence that says why, and the line with its remedy."""

    def __init__(self, sentence: str, remedy: str = "") -> None:
        super().__init__(sentence)
        self.remedy = remedy


def plan_of(profile: str, sets: Sequence[str]) -> dict[str, Any]:
    """As `launcher plan -o json` prints it. Raises Unplanned where none can be made."""
    told = [part for one in sets for part in ("--set", one)]
    command = [sys.executable, "-m", "launcher", "plan", profile, "-o", "json", *told]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    try:
        plan: dict[str, Any] = json.loads(done.stdout)
        return plan
    except ValueError:
        lines = [line for line in done.stderr.splitlines() if line.strip()] or ["the plan could not be made"]
        remedy = next((line for line in lines if line.startswith(REMEDY)), "")
        raise Unplanned(lines[0].removeprefix("error: "), remedy) from None


def refused(profile: str, sets: Sequence[str]) -> str | None:
    """Why the plan says that it cannot fit, the remedy on a line of its own; None: it may."""
    try:
        plan = plan_of(profile, sets)
    except Failed as error:
        return in_full(error)
    return str(plan["summary"]) if plan["verdict"] == "does_not_fit" else None


def in_full(error: BaseException) -> str:
    """For a terminal: the sentence, and on a line of its own the remedy where there is one."""
    lines = str(error).splitlines()
    remedy = getattr(error, "remedy", "") or next((line for line in lines if line.startswith(REMEDY)), "")
    sentence = reason(Failed("\n".join(line for line in lines if line != remedy)))
    return f"{sentence}\n{remedy}" if remedy else sentence


def in_short(text: str) -> str:
    """For a cell of a table: the sentence alone."""
    return text.partition("\n")[0]
