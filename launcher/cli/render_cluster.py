"""`launcher render slurm` and `launcher render ray`: read the profile and write a script for the hosts of a cluster."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

from launcher.cli.output import FILE_OPTION, SET_OPTION, put_text

_OPTIONS = (
    click.argument("profile", type=click.Path(path_type=Path)),
    SET_OPTION,
    click.option(
        "--program",
        default="launcher",
        show_default=True,
        help="The launcher on the hosts, such as a path in a folder of all.",
    ),
    click.option("--profile-path", help="The profile on the hosts. Default: its absolute path here."),
    FILE_OPTION,
)


def script_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """What both commands are given."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


@click.command("slurm", epilog="Example: launcher render slurm profiles/1xh200.yaml | sbatch")
@script_options
def slurm_command(
    profile: Path, sets: Sequence[str], program: str, profile_path: str | None, output: Path | None
) -> None:
    """Write a Slurm batch script that runs a profile, over several hosts where engine.nodes says so."""
    from launcher.profile.load import load_profile
    from launcher.render.slurm import slurm_script

    loaded = load_profile(profile, sets=sets, env={})
    script = slurm_script(loaded, program, profile_path or str(profile.absolute()), sets)
    put_text(script, output, f". Start it with: sbatch {output}")


@click.command("ray", epilog="Example: launcher render ray two-hosts.yaml --set engine.distributed=ray -o ray.sh")
@script_options
def ray_command(
    profile: Path, sets: Sequence[str], program: str, profile_path: str | None, output: Path | None
) -> None:
    """Write a script that starts a Ray cluster on several hosts, and a profile on it (engine.distributed: ray)."""
    from launcher.profile.load import load_profile
    from launcher.render.ray import ray_script

    loaded = load_profile(profile, sets=sets, env={})
    script = ray_script(loaded, program, profile_path or str(profile.absolute()), sets)
    put_text(script, output, f". Start it with: bash {output}")
