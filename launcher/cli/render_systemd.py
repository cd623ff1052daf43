"""`launcher render systemd`: reads the profile and writes the unit of a service that runs it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from launcher.cli.output import FILE_OPTION, SET_OPTION, put_text

BACKGROUND = ("-d", "--detach", "--wait", "--timeout", "--notify-fd")


@click.command(
    "systemd",
    epilog="Example: launcher render systemd profiles/2x4090.yaml -o /etc/systemd/system/launcher-2x4090.service",
)
@click.argument("profile", type=click.Path(path_type=Path))
@click.argument("arguments", metavar="[-- OPTION…]", nargs=-1, type=click.UNPROCESSED)
@SET_OPTION
@click.option(
    "--program", help="The launcher on the machine that is to run it. Default: /opt/launcher/.venv/bin/launcher."
)
@click.option("--profile-path", help="The profile there. Default: /etc/launcher/NAME.yaml.")
@click.option("--user", default="launcher", show_default=True, help="Whom it runs as.")
@FILE_OPTION
def systemd_command(
    profile: Path,
    arguments: Sequence[str],
    sets: Sequence[str],
    program: str | None,
    profile_path: str | None,
    user: str,
    output: Path | None,
) -> None:
    """Write a systemd unit that runs a profile with `launcher up`: confined, watched, drained when it is stopped.

    What --set says goes into its command line, and so do the options behind two dashes, such as: -- --force. The
    LAUNCHER__… variables of this shell do not.
    """
    from launcher.profile.load import load_profile
    from launcher.render.systemd import PROGRAM, Place, service_unit

    if background := [word for word in arguments if word.partition("=")[0] in BACKGROUND]:
        raise click.UsageError(
            f"{background[0]} does not go with a service, which stays in the foreground: leave it out."
        )
    loaded = load_profile(profile, sets=sets, env={})
    given = [word for one in sets for word in ("--set", one)]
    place = Place(program or PROGRAM, profile_path or "", user, interpreter_of(program or PROGRAM))
    text = service_unit(loaded, place, (*given, *arguments))
    unit = output.stem if output else ""
    put_text(text, output, f". Start it with: systemctl daemon-reload && systemctl enable --now {unit}")


def interpreter_of(program: str) -> str:
    """Where the Python beside a program of this machine really is: a virtual environment only points to it. '': not here."""
    python = Path(program).with_name("python")
    return str(python.resolve()) if python.exists() else ""
