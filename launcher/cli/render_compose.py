"""`launcher render compose`: reads the profiles, and what is known of their models, and writes the compose file."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

import click

from launcher.cli.output import FILE_OPTION, SET_OPTION, put_text
from launcher.errors import LauncherError

CHECKOUT_HELP = (
    "This project's source: the images are built from it, and --profile monitoring brings its Prometheus rules and "
    "Grafana dashboards."
)


@click.command("compose", epilog="Example: launcher render compose profiles/2x4090.yaml --checkout . -o compose.yaml")
@click.argument("paths", metavar="PROFILE…", nargs=-1, required=True, type=click.Path(path_type=Path))
@SET_OPTION
@click.option("--checkout", type=click.Path(file_okay=False, path_type=Path), help=CHECKOUT_HELP)
@FILE_OPTION
def compose_command(paths: Sequence[Path], sets: Sequence[str], checkout: Path | None, output: Path | None) -> None:
    """Write a Docker Compose file for a profile: engines, gateway, and what they need of the machine.

    Of several profiles each is started by --profile cpu, gpu or external. What --set says is written into the file for
    all of them; LAUNCHER__… variables of this shell are not. Paths in it are relative to its folder (that of -o, else
    the working directory).
    """
    from launcher.cli.render_plan import read_planned  # brings the plan: only here
    from launcher.render.compose import compose_file
    from launcher.render.compose_part import Given

    if checkout is not None and not (checkout / "deploy" / "Dockerfile").is_file():
        raise LauncherError(
            f"--checkout: {checkout} has no deploy/Dockerfile", "Name the folder that this project was cloned into."
        )
    planned = [read_planned(path, sets) for path in paths]
    text = compose_file(
        [Given(loaded, tuple(sets), weight_bytes) for loaded, _, weight_bytes in planned],
        folder=output.parent if output else Path.cwd(),
        checkout=checkout,
        written_by=_command_line(paths, sets, checkout),
    )
    put_text(text, output, "; its first lines say how it is started")


def _command_line(paths: Sequence[Path], sets: Sequence[str], checkout: Path | None) -> str:
    words = ["launcher", "render", "compose", *map(str, paths), *(word for one in sets for word in ("--set", one))]
    return shlex.join([*words, *(["--checkout", str(checkout)] if checkout is not None else [])])
