"""The command line: which commands there are, and what becomes of an error. Each command is imported when it is called."""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import NamedTuple, NoReturn

import click
from click.shell_completion import CompletionItem

from launcher import __version__
from launcher.cli.output import Invocation, print_error, report
from launcher.errors import EXIT_CODES, EXIT_FAILURE, EXIT_INTERRUPTED, EXIT_OK, LauncherError


class Lazy(NamedTuple):
    """Where a command is, and its line in the help, so that the help imports none."""

    target: str  # module:attribute
    help: str


COMMANDS = {
    "validate": Lazy(
        "launcher.cli.inspect:validate_command", "Check profiles: every fault, with its place and remedy."
    ),
    "plan": Lazy("launcher.cli.plan:plan_command", "Say whether and how a profile fits, before anything starts."),
    "up": Lazy("launcher.cli.run:up_command", "Start a profile: engines, warm-up, gateway."),
    "ps": Lazy("launcher.cli.run:ps_command", "List running deployments and their engines."),
    "top": Lazy("launcher.cli.top:top_command", "Watch a deployment: engines, queue, memory, latencies, refusals."),
    "bench": Lazy("launcher.cli.bench:bench_command", "Load-test an endpoint and write a report."),
    "mode": Lazy("launcher.cli.live:mode_command", "Show or switch the mode of a running deployment."),
    "replica": Lazy("launcher.cli.live:replica_command", "Let replicas join and leave while a deployment runs."),
    "logs": Lazy("launcher.cli.run:logs_command", "Show the logs of a deployment."),
    "down": Lazy("launcher.cli.run:down_command", "Stop a deployment; running requests finish first."),
    "key": Lazy("launcher.cli.key:key_group", "Make, list and revoke the API keys of a deployment."),
    "engine": Lazy(
        "launcher.cli.parts:engine_command", "Run one engine of a profile without a gateway: in a container."
    ),
    "gateway": Lazy(
        "launcher.cli.parts:gateway_command", "Run a profile's gateway alone, its engines being elsewhere."
    ),
    "render": Lazy(
        "launcher.cli.render:render_group", "Write a profile down for compose, Helm, systemd, Slurm or Ray."
    ),
    "doctor": Lazy("launcher.cli.doctor:doctor_command", "Check this machine: vLLM, cards, memory, disk, ports."),
    "schema": Lazy("launcher.cli.inspect:schema_command", "Print the profile's JSON Schema, or a table of its keys."),
    "completion": Lazy("launcher.cli.inspect:completion_command", "Print a completion script for bash, zsh or fish."),
}

QUICK_START = """Turn a YAML profile into a served vLLM endpoint.

\b
  launcher plan profiles/cpu-smollm2.yaml    what would be started, and whether it fits
  launcher up profiles/cpu-smollm2.yaml      start it on http://127.0.0.1:8000
  launcher doctor                            what this machine has and lacks
"""

EPILOG = "\b\nExit codes:\n" + "\n".join(f"  {code:<4} {meaning}" for code, meaning in EXIT_CODES.items())


class LazyGroup(click.Group):
    """A group that knows its commands by name and imports one when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[cmd_name].target.partition(":")
        command = getattr(importlib.import_module(module), attribute)
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            near = get_close_matches(args[0], COMMANDS, n=1)
            guess = f' Did you mean "{near[0]}"?' if near else f" The commands are: {', '.join(COMMANDS)}."
            raise click.UsageError(f'There is no command "{args[0]}".{guess}', ctx)
        return super().resolve_command(ctx, args)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Names from the table: a press of Tab imports no command."""
        names = [CompletionItem(n, help=lazy.help) for n, lazy in COMMANDS.items() if n.startswith(incomplete)]
        return names + click.Command.shell_complete(self, ctx, incomplete)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, lazy.help) for name, lazy in COMMANDS.items()])


def show_version(context: click.Context, _: click.Parameter, is_asked: bool) -> None:
    """Prints the version, and that the gateway is compiled where it is, and exits."""
    if is_asked:
        from launcher.gateway.build import is_compiled  # here: a command that needs no gateway imports none of it

        click.echo(f"launcher, version {__version__}{' (gateway compiled)' if is_compiled() else ''}")
        context.exit()


@click.command(cls=LazyGroup, help=QUICK_START, epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--debug", is_flag=True, help="Show the traceback of an error too.")
@click.option("--no-color", is_flag=True, help="No colour; the same as setting NO_COLOR.")
@click.option(
    "--version",
    is_flag=True,
    expose_value=False,
    is_eager=True,
    callback=show_version,
    help="Show the version and exit.",
)
@click.pass_obj
def cli(invocation: Invocation, debug: bool, no_color: bool) -> None:
    invocation.debug, invocation.no_color = debug, no_color


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """The entry point: run and exit with one of ``EXIT_CODES``."""
    sys.exit(execute(argv))


def execute(argv: Sequence[str] | None = None) -> int:
    """Runs the command line (`run` is a module here); returns the exit code, having told the user about any error."""
    invocation = Invocation()
    try:
        result = cli.main(argv, prog_name="launcher", standalone_mode=False, obj=invocation)
        sys.stdout.flush()  # a reader that has gone shows here, not while Python shuts down
        return result if isinstance(result, int) and not isinstance(result, bool) else EXIT_OK
    except LauncherError as error:
        with click.Context(cli, obj=invocation):  # the one of the run is gone, and with it --no-color
            print_error(error)
        if invocation.debug:
            traceback.print_exc()
        return error.exit_code
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except BrokenPipeError:
        # Whoever read our output has enough (`launcher schema | head`). What is still buffered goes nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_FAILURE
    except (KeyboardInterrupt, click.Abort):
        click.echo("", err=True)
        return EXIT_INTERRUPTED
    except Exception as error:
        return _report_bug(error, invocation)


def _report_bug(error: Exception, invocation: Invocation) -> int:
    said = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    if invocation.debug:
        traceback.print_exc()
        kept = "the traceback is above"
    else:
        where = _write_traceback()
        kept = f"the traceback is in {where}" if where else "run it again with: launcher --debug …"
    with click.Context(cli, obj=invocation):
        report(f"a bug in launcher: {said}", f"{kept}; please report it")
    return EXIT_FAILURE


def _write_traceback() -> Path | None:
    """The traceback in a file of its own, in the temporary folder; None where that cannot be written."""
    with contextlib.suppress(OSError):
        name = f"launcher-{time.strftime('%Y%m%d-%H%M%S')}-"
        descriptor, path = tempfile.mkstemp(prefix=name, suffix=".traceback")
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(f"launcher {__version__}, Python {sys.version}\n{traceback.format_exc()}")
        return Path(path)
    return None
