"""The options that say which of an engine's hosts this one is, for `up` and `engine`."""

from __future__ import annotations

import functools
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from launcher.profile.model import ExternalEngine, Profile

if TYPE_CHECKING:
    from launcher.engine.nodes import Node


class NodeOptions(NamedTuple):
    """As given; None: not at all."""

    rank: int | None
    head: str | None
    once: bool

    def place(self, profile: Profile, verb: str, path: Path, sets: Sequence[str]) -> Node | None:
        """This host's place; None where the engine has no other host. Raises LauncherError with what to write.

        ``verb``, ``path`` and ``sets`` are what the user wrote beside these options.
        """
        engine = profile.engine
        if self.rank is None and self.head is None and (isinstance(engine, ExternalEngine) or engine.nodes == 1):
            if self.once:
                raise click.UsageError("--once goes with --node-rank: it is for the hosts of one engine.")
            return None  # without the imports below
        from launcher.up.nodes import node_of

        words = ["launcher", verb, str(path), *(word for one in sets for word in ("--set", one))]
        return node_of(profile, shlex.join(words), self.rank, self.head)

    def words(self) -> list[str]:
        """The same as arguments."""
        rank = [] if self.rank is None else ["--node-rank", str(self.rank)]
        return [*rank, *(["--head", self.head] if self.head else []), *(["--once"] if self.once else [])]


_OPTIONS = (
    click.option(
        "--node-rank",
        type=int,
        envvar="LAUNCHER_NODE_RANK",
        help="With engine.nodes: which host this is. 0 is the head, which answers requests.",
    ),
    click.option(
        "--head",
        metavar="ADDRESS[:PORT]",
        envvar="LAUNCHER_HEAD",
        help="With engine.nodes: where host 0 is. Its port (29501) and the next one are used.",
    ),
    click.option(
        "--once", is_flag=True, help="With --node-rank above 0: leave when the head stops, rather than wait for it."
    ),
)


def node_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds --node-rank, --head and --once, given to the command as one ``node``."""

    @functools.wraps(command)
    def given(*args: Any, node_rank: int | None, head: str | None, once: bool, **others: Any) -> Any:
        return command(*args, node=NodeOptions(node_rank, head, once), **others)

    for option in reversed(_OPTIONS):
        given = option(given)
    return given
