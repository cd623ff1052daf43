"""Whose keys `launcher key` means: those of a deployment, of a profile's deployment, or of a file named outright."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import click

from launcher.cli.run import choose
from launcher.errors import LauncherError, PreconditionError, ProfileError
from launcher.gateway import audit
from launcher.profile.load import LoadedProfile, load_profile
from launcher.supervise.rundir import Found, state_root
from launcher.up.keys import KEYS_FILE, keys_path

F = TypeVar("F", bound=Callable[..., Any])


class Place(NamedTuple):
    """Whose keys: the file, and where what is done to them is noted."""

    keys: Path
    audit: Path


def place_options(command: F) -> F:
    """The three ways to say whose keys are meant."""
    for option in (
        click.option("--file", type=click.Path(path_type=Path, dir_okay=False), help="A file of keys, wherever it is."),
        click.option("--profile", type=click.Path(path_type=Path), help="The deployment of this profile's file."),
        click.option("--deployment", metavar="NAME", help="A deployment. Default: the only one that runs."),
    ):
        command = option(command)
    return command


def find_place(deployment: str | None, profile: Path | None, file: Path | None) -> Place:
    """The keys that the options mean."""
    if sum(option is not None for option in (deployment, profile, file)) > 1:
        raise click.UsageError("--deployment, --profile and --file exclude each other: each says whose keys are meant.")
    if file is not None:
        return Place(file, file.with_name(f"{file.stem}.{audit.FILE}"))
    if deployment is not None and deployment.endswith((".yaml", ".yml")):  # as for ps, logs and down
        profile = Path(deployment)
    if profile is not None:
        return place_of_profile(load_profile(profile))
    try:
        return place_of_deployment(choose(deployment, ended_too=deployment is not None))
    except PreconditionError as error:
        hint = "--profile FILE means the deployment of a profile that has never run, --file FILE any file of keys."
        raise PreconditionError(error.message, hint) from None


def place_of_profile(loaded: LoadedProfile) -> Place:
    own = loaded.profile.logging.dir
    logs = loaded.resolve(own) if own else state_root() / loaded.profile.name / "logs"
    return Place(keys_path(loaded), logs / audit.FILE)


def place_of_deployment(found: Found) -> Place:
    """By its record; one that does not say where its keys are has a profile that does."""
    if keys := found.record.get("keys_file"):
        return Place(Path(keys), found.logs / audit.FILE)
    named = found.record.get("profile")
    try:
        own = load_profile(Path(named)).profile.gateway.keys_file if named else None
    except ProfileError as error:
        message = f"{found.name}: its profile, which says where its keys are, cannot be read: {error.message}"
        raise LauncherError(message, "Say it with --profile FILE or --file FILE.") from None
    keys = Path(named).absolute().parent / Path(own).expanduser() if named and own else found.path / KEYS_FILE
    return Place(keys, found.logs / audit.FILE)
