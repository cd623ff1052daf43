"""`launcher key`: API keys made, listed and revoked; a running gateway takes the change over by itself."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pwd
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from launcher.cli.key_place import Place, find_place, place_options
from launcher.cli.output import OUTPUT_OPTION, print_json, print_table
from launcher.errors import LauncherError
from launcher.gateway.audit import AuditLog
from launcher.gateway.keyfile import (
    NAME,
    NAME_RULE,
    Key,
    changing,
    hash_of,
    new_secret,
    priority_fault,
    read_keys,
    show_time,
    written,
)
from launcher.gateway.modes import PRIORITIES, PRIORITY_NAMES
from launcher.profile.units import parse_duration


@click.group("key")
def key_group() -> None:
    """Make, list and revoke the API keys of a deployment; it may be running or not.

    A running gateway takes each change over within a second. Once there is a key, every request needs one.
    """


@key_group.command(
    "add",
    short_help="Make a key and print it once.",
    epilog="Example: launcher key add alice --profile profiles/cpu-smollm2.yaml --rpm 60",
)
@click.argument("name")
@click.option("--priority", type=click.Choice(tuple(PRIORITIES)), default="normal", show_default=True)
@click.option(
    "--max-priority",
    type=click.Choice(tuple(PRIORITIES)),
    help="Highest that X-Priority may ask for. Default: --priority.",
)
@click.option(
    "--weight", type=click.FloatRange(0.001, 1000), default=1.0, show_default=True, help="Its share of a full engine."
)
@click.option("--rpm", type=click.IntRange(1, 10**12), help="Requests a minute. Default: no limit.")
@click.option("--tpm", type=click.IntRange(1, 10**12), help="Tokens a minute, prompts and answers. Default: no limit.")
@click.option("--admin", is_flag=True, help="May also switch modes, drain and the like.")
@click.option("--expires", metavar="DURATION", help="Such as 30d; 365d at most. Default: never.")
@place_options
@OUTPUT_OPTION
def add_command(
    name: str,
    priority: str,
    max_priority: str | None,
    weight: float,
    rpm: int | None,
    tpm: int | None,
    admin: bool,
    expires: str | None,
    output: str,
    **place: Any,
) -> None:
    """Make a key for NAME and print it: this once, since only its hash is kept."""
    if not NAME.fullmatch(name):
        raise click.UsageError(f"{name!r} is not a name: it takes {NAME_RULE}.")
    own, highest = PRIORITIES[priority], PRIORITIES[max_priority or priority]
    if own < highest:
        raise click.UsageError(f"--max-priority: {priority_fault(own, highest)}.")
    now = float(int(time.time()))
    expires_at = None if expires is None else now + duration(expires)
    secret, where = new_secret(), find_place(**place)
    with noted("key.add", name, where), changing(where.keys) as keys:
        for other in keys:
            if other.name == name and other.revoked is None:
                hint = f"Choose another name, or revoke that one first: launcher key revoke {other.id}"
                raise LauncherError(f"{where.keys} has a key for {name!r} already ({other.id})", hint)
        key = Key(
            id=new_id(keys),
            name=name,
            sha256=hash_of(secret),
            priority=own,
            max_priority=highest,
            weight=weight,
            requests_per_minute=rpm,
            tokens_per_minute=tpm,
            is_admin=admin,
            created=now,
            expires=expires_at,
        )
        is_first = not keys
        keys.append(key)
    if output == "json":
        print_json({"id": key.id, "name": name, "key": secret, "file": str(where.keys)})
    else:
        click.echo(secret)
    click.echo(f"added {name} ({key.id}) to {where.keys}. The key is shown only now: keep it.", err=True)
    if is_first:
        click.echo("It is the first one: from now on every request needs a key, unless gateway.auth is none.", err=True)


@key_group.command("list", short_help="List the keys, never the secrets.", epilog="Example: launcher key list -o json")
@place_options
@OUTPUT_OPTION
def list_command(output: str, **place: Any) -> None:
    """List the keys of the file, never the secrets. Those of LAUNCHER_API_KEYS are not in it."""
    where, now = find_place(**place), time.time()
    keys = read_keys(where.keys)
    if output == "json":
        shown = [{**written(key), "state": state_of(key, now)} for key in keys]
        for entry in shown:
            del entry["sha256"]
        print_json({"file": str(where.keys), "keys": shown})
        return
    click.echo(f"{where.keys}: {len(keys) or 'no'} keys", err=True)
    if keys:
        headers = (
            "ID",
            "NAME",
            "STATE",
            "PRIORITY",
            "WEIGHT",
            "REQUESTS/MIN",
            "TOKENS/MIN",
            "ADMIN",
            "CREATED",
            "EXPIRES",
        )
        print_table(headers, [row_of(key, now) for key in keys])


@key_group.command("revoke", short_help="Revoke a key, by its name or id.", epilog="Example: launcher key revoke alice")
@click.argument("key", metavar="ID|NAME")
@place_options
def revoke_command(key: str, **place: Any) -> None:
    """Revoke a key: new requests with it are refused, answers that have begun go on."""
    where = find_place(**place)
    with noted("key.revoke", key, where), changing(where.keys) as keys:
        index = find_key(keys, key, where.keys)
        found = keys[index]
        keys[index] = dataclasses.replace(found, revoked=time.time())
    click.echo(f"revoked {found.name} ({found.id}) in {where.keys}", err=True)


def find_key(keys: list[Key], wanted: str, path: Path) -> int:
    """Where the key is that an id or a name means. Raises with the choices."""
    matching = [index for index, key in enumerate(keys) if wanted in (key.id, key.name)]
    for index in matching:
        if keys[index].revoked is None:
            return index
    if matching:
        when = show_time(keys[matching[-1]].revoked or 0)
        raise LauncherError(
            f"{wanted!r} was revoked already, at {when}", f"`launcher key list --file {path}` shows all."
        )
    known = ", ".join(f"{key.name} ({key.id})" for key in keys if key.revoked is None) or "none"
    raise LauncherError(f"{path} has no key {wanted!r} (it has: {known})", "Give a key's name or its id.")


def new_id(keys: list[Key]) -> str:
    """Eight hexadecimal digits that no other key of the file has."""
    taken = {key.id for key in keys}
    while (found := os.urandom(4).hex()) in taken:
        pass
    return found


def duration(text: str) -> float:
    """Seconds. Raises UsageError for what is no duration, or none at all."""
    try:
        seconds = parse_duration(text)
    except ValueError as error:
        raise click.UsageError(f"--expires: {error}") from None
    if seconds < 1:
        raise click.UsageError(f"--expires: {text!r} is over before the key can be used.")
    return seconds


def state_of(key: Key, now: float) -> str:
    return "usable" if key.is_usable(now) else "revoked" if key.revoked is not None else "expired"


def row_of(key: Key, now: float) -> tuple[str, ...]:
    """A key as a line of the table."""
    asks = PRIORITY_NAMES[key.priority]
    if key.max_priority != key.priority:
        asks += f", up to {PRIORITY_NAMES[key.max_priority]}"
    return (
        key.id,
        key.name,
        state_of(key, now),
        asks,
        f"{key.weight:g}",
        str(key.requests_per_minute or "-"),
        str(key.tokens_per_minute or "-"),
        "yes" if key.is_admin else "-",
        show_time(key.created),
        "-" if key.expires is None else show_time(key.expires),
    )


@contextlib.contextmanager
def noted(act: str, target: str, where: Place) -> Iterator[None]:
    """Adds to the audit log how the act in the block ended."""
    result = "interrupted"
    try:
        yield
        result = "done"
    except LauncherError as error:
        result = f"failed: {error.message}"
        raise
    finally:
        if not AuditLog(where.audit).record(actor(), act, f"{target} in {where.keys}", result):
            click.echo(f"warning: {where.audit} cannot be written to: this is not in the audit log", err=True)


def actor() -> str:
    """The user of this process, by its id: the environment may say anything."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return f"uid {os.getuid()}"
