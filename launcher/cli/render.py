"""`launcher render`: a profile written down for what else can start it. Each kind is imported when it is asked for."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import click

from launcher.cli.render_cluster import ray_command, slurm_command
from launcher.cli.render_compose import compose_command
from launcher.cli.render_helm import helm_command
from launcher.cli.render_systemd import systemd_command
from launcher.errors import LauncherError


@click.group("render")
def render_group() -> None:
    """Write a profile down for compose, Helm, systemd, Slurm or Ray, or the dashboards for it.

    What is written goes to the standard output, or to the file of -o.
    """


render_group.add_command(compose_command)
render_group.add_command(slurm_command)
render_group.add_command(ray_command)
render_group.add_command(helm_command)
render_group.add_command(systemd_command)


@render_group.command("dashboards", epilog="Example: launcher render dashboards -o deploy/grafana")
@click.argument("name", required=False)
@click.option(
    "-o",
    "--output",
    "folder",
    type=click.Path(path_type=Path, file_okay=False),
    help="Write all of them, and what makes Grafana take them up, below this folder.",
)
def dashboards_command(name: str | None, folder: Path | None) -> None:
    """Write the Grafana dashboards: overview, engines, machine. They are the same for each profile.

    With NAME that one's JSON, as Grafana imports it. Without NAME and -o one JSON object of all, by file name.
    """
    from launcher.render.dashboards import BOARDS, dashboard, files, text

    boards = {board.uid.removeprefix("launcher-"): board for board in BOARDS}
    if name is not None and folder is not None:
        raise click.UsageError("-o writes all dashboards: leave NAME out, or print that one with > FILE.")
    if name is not None:
        if name not in boards:
            raise click.UsageError(f"There is no dashboard {name!r}. There are: {', '.join(boards)}.")
        click.echo(text(boards[name]), nl=False)
    elif folder is not None:
        write_files(folder, files())
    else:
        click.echo(json.dumps({f"{board.uid}.json": dashboard(board) for board in BOARDS}, ensure_ascii=False))


def write_files(folder: Path, texts: Mapping[str, str]) -> None:
    """Each text to its path below the folder. Raises LauncherError where that cannot be."""
    for name, written in texts.items():
        path = folder / name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(written)
        except OSError as error:
            raise LauncherError(f"{path} cannot be written: {error.strerror}", "Name a folder that you own.") from None
    click.echo(f"{len(texts)} files written below {folder}", err=True)
