"""How the command line speaks: data to stdout (a table, or JSON), everything else to stderr, colour only where welcome."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import click

from launcher.errors import LauncherError

if TYPE_CHECKING:
    from rich.console import Console

SCHEMA_VERSION = 1  # of the JSON that -o json prints; raised when a field changes its meaning or goes

OUTPUT_OPTION = click.option(
    "-o",
    "--output",
    type=click.Choice(("table", "json")),
    default="table",
    show_default=True,
    help="How data is printed.",
)
SET_OPTION = click.option(
    "--set",
    "sets",
    multiple=True,
    metavar="KEY=VALUE",
    help="Override a key, such as engine.replicas=2; may be repeated.",
)


FILE_OPTION = click.option(
    "-o", "--output", type=click.Path(path_type=Path), help="The file to write. Default: standard output."
)


@dataclass
class Invocation:
    """What the options before the command say; one for each run of the command line, as click's ``obj``."""

    debug: bool = False
    no_color: bool = False


def may_color(stream: IO[str]) -> bool:
    """Whether colour is welcome: a terminal that can, no NO_COLOR (https://no-color.org), no --no-color."""
    context = click.get_current_context(silent=True)
    forbidden = context is not None and isinstance(context.obj, Invocation) and context.obj.no_color
    if forbidden or os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return False
    return stream.isatty()


def print_json(data: dict[str, Any]) -> None:
    """One JSON object to stdout, with ``schema_version`` first."""
    click.echo(json.dumps(with_version(data), indent=2, ensure_ascii=False))


def with_version(data: dict[str, Any]) -> dict[str, Any]:
    """The data as -o json prints it."""
    return {"schema_version": SCHEMA_VERSION, **data}


def put_text(text: str, output: Path | None, next_step: str) -> None:
    """Text to the file of FILE_OPTION, saying what to do with it; or to stdout. Raises LauncherError."""
    if output is None:
        click.echo(text, nl=False)
        return
    try:
        output.write_text(text, encoding="utf-8")
    except OSError as error:
        raise LauncherError(
            f"{output} cannot be written: {error.strerror}", "Name a file in a folder of yours."
        ) from None
    click.echo(f"{output} is written{next_step}", err=True)


def print_table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Columns to stdout, parted by two spaces and never cut or wrapped, so that other programs can read them."""
    widths = [max(len(row[index]) for row in (headers, *rows)) for index in range(len(headers))]
    for number, row in enumerate((headers, *rows)):
        line = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        click.echo(styled(line, sys.stdout, bold=True) if number == 0 else line)


def styled(text: str, stream: IO[str], **style: Any) -> str:
    """The text in colour (click.style's arguments), or as it is where colour is not welcome on ``stream``."""
    return click.style(text, **style) if may_color(stream) else text


def print_error(error: LauncherError) -> None:
    """An error as people read it: what is wrong, then what to do next."""
    report(error.message, error.hint)


def report(message: str, hint: str = "") -> None:
    """``error: message`` and ``→ hint`` to stderr."""
    click.echo(f"{styled('error:', sys.stderr, fg='red', bold=True)} {message}", err=True)
    for number, line in enumerate(hint.splitlines()):
        click.echo(f"{styled('→', sys.stderr, fg='cyan') if number == 0 else ' '} {line}", err=True)


def out_console() -> Console:
    """A rich console on stdout (imported here: rich takes longer to load than most commands to run)."""
    return _console(sys.stdout)


def err_console() -> Console:
    """A rich console on stderr, for progress."""
    return _console(sys.stderr)


def _console(stream: IO[str]) -> Console:
    from rich.console import Console

    return Console(file=stream, no_color=not may_color(stream), highlight=False, soft_wrap=not stream.isatty())
