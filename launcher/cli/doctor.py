"""The verb doctor: what this machine has, against what a profile needs; each finding with a remedy."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from launcher.cli.output import OUTPUT_OPTION, SET_OPTION, print_json, styled
from launcher.errors import EXIT_OK, EXIT_PRECONDITION

if TYPE_CHECKING:
    from launcher.cli.model_findings import Finding

COLOURS = {"ok": "green", "warn": "yellow", "fail": "red"}


@click.command("doctor", epilog="Example: launcher doctor profiles/2x4090.yaml")
@click.argument("profile", required=False, type=click.Path(path_type=Path))
@SET_OPTION
@click.option("--offline", is_flag=True, help="Do not ask the model hub whether the model can be had.")
@OUTPUT_OPTION
def doctor_command(profile: Path | None, sets: Sequence[str], offline: bool, output: str) -> int:
    """Check this machine: vLLM, cards, memory, disk, ports; with PROFILE, against what it needs.

    Exits with 4 if something fails that would keep the profile from starting.
    """
    from launcher.cli.findings import examine
    from launcher.profile.load import load_profile

    if sets and profile is None:
        raise click.UsageError("--set goes with a profile: launcher doctor profiles/cpu-smollm2.yaml --set …")
    loaded = load_profile(profile, sets=sets) if profile else None
    findings = examine(loaded, offline=offline)
    failed = any(finding.status == "fail" for finding in findings)
    if output == "json":
        print_json({"ok": not failed, "checks": [finding._asdict() for finding in findings]})
    else:
        _print(findings)
    return EXIT_PRECONDITION if failed else EXIT_OK


def _print(findings: Sequence[Finding]) -> None:
    width = max(len(finding.check) for finding in findings)
    for finding in findings:
        status = styled(f"{finding.status:<4}", sys.stdout, fg=COLOURS[finding.status])
        message = finding.message.replace("\n", f"\n{'':<{width + 8}}")
        click.echo(f"{status}  {finding.check:<{width}}  {message}")
        if finding.remedy:
            click.echo(f"{'':<{width + 6}}  → {finding.remedy}")
