"""`launcher render helm`: reads the profile, and what is known of its model, and writes values for the chart."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

import click

from launcher.cli.output import SET_OPTION
from launcher.errors import LauncherError


@click.command("helm", epilog="Example: launcher render helm profiles/2x4090.yaml | helm install demo helm -f -")
@click.argument("path", metavar="PROFILE", type=click.Path(path_type=Path))
@SET_OPTION
@click.option("-o", "--output", type=click.Path(path_type=Path), help="The file to write. Default: standard output.")
def helm_command(path: Path, sets: Sequence[str], output: Path | None) -> None:
    """Write values for the Helm chart in helm/: the profile, and beside it what the plan knows of it.

    Which cards the engines want, their /dev/shm, how long the download may take and how much room it needs. LAUNCHER__…
    variables of this shell are not written.
    """
    from launcher.plan.plan import make_plan
    from launcher.probe.model_files import read_model_facts
    from launcher.profile.load import load_profile
    from launcher.render.helm import helm_values

    loaded = load_profile(path, sets=sets, env={})
    facts = read_model_facts(loaded.profile, loaded.base_dir)
    plan = make_plan(loaded.profile, facts)
    if plan.verdict == "does_not_fit":
        click.echo(f"warning: {path}: {plan.summary} `launcher plan {path}` says what to change.", err=True)
    words = ["launcher", "render", "helm", str(path), *(word for one in sets for word in ("--set", one))]
    weight_bytes = facts.weights.total if facts and facts.weights else None
    text = helm_values(loaded, plan, weight_bytes, written_by=shlex.join(words))
    if output is None:
        click.echo(text, nl=False)
        return
    try:
        output.write_text(text, encoding="utf-8")
    except OSError as error:
        raise LauncherError(
            f"{output} cannot be written: {error.strerror}", "Name a file in a folder of yours."
        ) from None
    click.echo(f"{output} is written. Install it with: helm install {loaded.profile.name} helm -f {output}", err=True)
