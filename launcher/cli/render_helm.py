"""`launcher render helm`: reads the profile, and what is known of its model, and writes values for the chart."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

import click

from launcher.cli.output import FILE_OPTION, SET_OPTION, put_text


@click.command("helm", epilog="Example: launcher render helm profiles/2x4090.yaml | helm install demo helm -f -")
@click.argument("path", metavar="PROFILE", type=click.Path(path_type=Path))
@SET_OPTION
@FILE_OPTION
def helm_command(path: Path, sets: Sequence[str], output: Path | None) -> None:
    """Write values for the Helm chart in helm/: the profile, and beside it what the plan knows of it.

    Which cards the engines want, their /dev/shm, how long the download may take and how much room it needs. LAUNCHER__…
    variables of this shell are not written.
    """
    from launcher.cli.render_plan import read_planned  # brings the plan: only here
    from launcher.render.helm import helm_values

    loaded, plan, weight_bytes = read_planned(path, sets)
    words = ["launcher", "render", "helm", str(path), *(word for one in sets for word in ("--set", one))]
    text = helm_values(loaded, plan, weight_bytes, written_by=shlex.join(words))
    put_text(text, output, f". Install it with: helm install {loaded.profile.name} helm -f {output}")
