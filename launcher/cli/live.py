"""The verbs that change a deployment while it runs: mode and replica. They speak to its gateway's admin socket."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import click

from launcher.cli.figures import ask
from launcher.cli.output import OUTPUT_OPTION, print_json
from launcher.cli.run import choose
from launcher.supervise.rundir import Found, find_all

MODES = ("low-latency", "balanced", "high-throughput")


@click.command("mode", epilog="Example: launcher mode high-throughput")
@click.argument("words", metavar="[NAME] [MODE]", nargs=-1)
@OUTPUT_OPTION
def mode_command(words: Sequence[str], output: str) -> None:
    """Show or switch the mode of a running deployment.

    MODE is low-latency, balanced or high-throughput; without it, the present one is shown. NAME is needed where several
    deployments run. What waits in the queue keeps the deadline that it was given.
    """
    found, wanted = deployment_and_mode(words)
    if wanted is None:
        mode = ask(found, "GET", "/admin/state")["mode"]
        tell(output, f"{found.name}: {mode}", {"name": found.name, "mode": mode})
        return
    done = ask(found, "PUT", "/admin/mode", {"mode": wanted})
    was = f" (was {done['before']})" if done["before"] != done["mode"] else ""
    tell(output, f"{found.name}: {done['mode']}{was}", {"name": found.name, **done})


def deployment_and_mode(words: Sequence[str]) -> tuple[Found, str | None]:
    """What ``[NAME] [MODE]`` means; one word alone is a mode if it is one, else a name."""
    if len(words) > 2:
        raise click.UsageError(f"{' '.join(words)}: too many words. Write: launcher mode [NAME] [MODE]")
    if not words:
        return choose(None), None
    *name, last = words
    if last in MODES:
        return choose(name[0] if name else None), last
    modes = f"the modes are {', '.join(MODES)}"
    if name:
        raise click.UsageError(f"{last!r} is not a mode: {modes}.")
    running = [found.name for found in find_all()]
    if last not in running and not last.endswith((".yaml", ".yml")):
        raise click.UsageError(
            f"{last!r} is neither a mode ({modes}) nor running ({', '.join(running) or 'nothing is'})."
        )
    return choose(last), None


@click.group("replica", epilog="Example: launcher replica add http://10.0.0.5:8000")
def replica_command() -> None:
    """Let replicas of a running deployment join and leave, or rest.

    NAME is needed where several deployments run; INDEX is the engine's number in `launcher ps`.
    """


def verb(name: str, what: str, example: str) -> Callable[[Callable[[Found, str], dict[str, Any]]], click.Command]:
    """Makes ``launcher replica NAME [DEPLOYMENT] WHAT`` of a function."""

    def make(act: Callable[[Found, str], dict[str, Any]]) -> click.Command:
        @click.argument("words", metavar=f"[NAME] {what}", nargs=-1)
        @OUTPUT_OPTION
        def command(words: Sequence[str], output: str) -> None:
            if not 1 <= len(words) <= 2:
                said = f"{' '.join(words)}: too many words" if words else f"{what} is missing"
                raise click.UsageError(f"{said}. Write: launcher replica {name} [NAME] {what}")
            found = choose(words[0] if len(words) == 2 else None)
            done = act(found, words[-1])
            tell(output, f"{found.name}: {done['note']}", {"name": found.name, **done})

        command.__doc__ = act.__doc__
        return replica_command.command(name, epilog=f"Example: launcher replica {name} {example}")(command)

    return make


def path_of(index: str) -> str:
    """A replica's path on the admin socket."""
    if not (index.isascii() and index.isdigit() and len(index) <= 6):
        raise click.UsageError(f"{index!r} is not an engine's number, such as 0; `launcher ps` shows them.")
    return f"/admin/replicas/{index}"


@verb("add", "URL", "http://10.0.0.5:8000")
def add_command(found: Found, url: str) -> dict[str, Any]:
    """Let a server that runs elsewhere join; URL is its base, without /v1.

    It gets requests as soon as its health path answers. It must serve the same model. Servers of a profile with
    engine.api_key_env are sent that key.
    """
    return ask(found, "POST", "/admin/replicas", {"url": url})


@verb("drain", "INDEX", "0")
def drain_command(found: Found, index: str) -> dict[str, Any]:
    """Send a replica nothing new; what it has is finished. An engine of the launcher's own goes on running."""
    return ask(found, "POST", f"{path_of(index)}/drain")


@verb("undrain", "INDEX", "0")
def undrain_command(found: Found, index: str) -> dict[str, Any]:
    """Send a drained replica requests again."""
    return ask(found, "POST", f"{path_of(index)}/undrain")


@verb("remove", "INDEX", "1")
def remove_command(found: Found, index: str) -> dict[str, Any]:
    """Let a server leave: it finishes what it has, gets nothing new, and is forgotten. It goes on running."""
    return ask(found, "DELETE", path_of(index))


def tell(output: str, line: str, data: dict[str, Any]) -> None:
    """The line, or the data as JSON."""
    if output == "json":
        print_json(data)
    else:
        click.echo(line)
