"""`launcher render compose`: reads the profiles, and what is known of their models, and writes the compose file."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from launcher.cli.output import SET_OPTION
from launcher.errors import LauncherError

if TYPE_CHECKING:
    from launcher.profile.load import LoadedProfile

CHECKOUT_HELP = (
    "This project's source: the images are built from it, and --profile monitoring brings its Prometheus rules and "
    "Grafana dashboards."
)


@click.command("compose", epilog="Example: launcher render compose profiles/2x4090.yaml --checkout . -o compose.yaml")
@click.argument("paths", metavar="PROFILE…", nargs=-1, required=True, type=click.Path(path_type=Path))
@SET_OPTION
@click.option("--checkout", type=click.Path(file_okay=False, path_type=Path), help=CHECKOUT_HELP)
@click.option("-o", "--output", type=click.Path(path_type=Path), help="The file to write. Default: standard output.")
def compose_command(paths: Sequence[Path], sets: Sequence[str], checkout: Path | None, output: Path | None) -> None:
    """Write a Docker Compose file for a profile: engines, gateway, and what they need of the machine.

    Of several profiles each is started by --profile cpu, gpu or external. What --set says is written into the file for
    all of them; LAUNCHER__… variables of this shell are not. Paths in it are relative to its folder (that of -o, else
    the working directory).
    """
    from launcher.render.compose import compose_file
    from launcher.render.compose_part import Given

    if checkout is not None and not (checkout / "deploy" / "Dockerfile").is_file():
        raise LauncherError(
            f"--checkout: {checkout} has no deploy/Dockerfile", "Name the folder that this project was cloned into."
        )
    text = compose_file(
        [Given(*_read(path, sets)) for path in paths],
        folder=output.parent if output else Path.cwd(),
        checkout=checkout,
        written_by=_command_line(paths, sets, checkout),
    )
    if output is None:
        click.echo(text, nl=False)
    else:
        _write(output, text)


def _write(output: Path, text: str) -> None:
    try:
        output.write_text(text, encoding="utf-8")
    except OSError as error:
        raise LauncherError(
            f"{output} cannot be written: {error.strerror}", "Name a file in a folder of yours."
        ) from None
    click.echo(f"{output} is written; its first lines say how it is started", err=True)


def _read(path: Path, sets: Sequence[str]) -> tuple[LoadedProfile, tuple[str, ...], int | None]:
    """The profile, what is set over it, and the bytes of its model's checkpoint. Warns of one that will not start."""
    from launcher.plan.plan import make_plan
    from launcher.probe.model_files import read_model_facts
    from launcher.profile.load import load_profile

    loaded = load_profile(path, sets=sets, env={})
    facts = read_model_facts(loaded.profile, loaded.base_dir)
    plan = make_plan(loaded.profile, facts)
    if plan.verdict == "does_not_fit":
        click.echo(f"warning: {path}: {plan.summary} `launcher plan {path}` says what to change.", err=True)
    return loaded, tuple(sets), facts.weights.total if facts and facts.weights else None


def _command_line(paths: Sequence[Path], sets: Sequence[str], checkout: Path | None) -> str:
    words = ["launcher", "render", "compose", *map(str, paths), *(word for one in sets for word in ("--set", one))]
    return shlex.join([*words, *(["--checkout", str(checkout)] if checkout is not None else [])])
