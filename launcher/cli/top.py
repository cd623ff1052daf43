"""`launcher top`: one deployment as it is now, again and again."""

from __future__ import annotations

import signal
import sys

import click

from launcher.cli.output import OUTPUT_OPTION, out_console, print_json
from launcher.cli.run import choose
from launcher.cli.top_view import picture
from launcher.control.watch import Watch
from launcher.errors import LauncherError
from launcher.supervise.rundir import ENDED, Found


@click.command("top", epilog="Example: launcher top --once -o json")
@click.argument("name", required=False)
@click.option("--once", is_flag=True, help="Show it once and end.")
@click.option(
    "--every", type=click.FloatRange(min=0.2), default=2.0, show_default=True, help="Seconds between two looks."
)
@OUTPUT_OPTION
def top_command(name: str | None, once: bool, every: float, output: str) -> None:
    """Watch a deployment: engines, queue, memory, latencies, refusals.

    PREFILL is prompt work in hand of what an engine may have, KV CACHE how full it is by its own word (the mean of its
    inner engines), TTFT and ITL are of the last minute. A card whose memory grows steadily is told of before it is full.
    Ends with Ctrl+C, or with the deployment.
    """
    found = choose(name)
    watch = Watch.of(found)
    if output == "json":
        if not once:
            raise click.UsageError("-o json shows one moment: add --once")
        print_json(watch.look())
        return
    if once or not sys.stdout.isatty():
        if not once:
            raise click.UsageError("top draws on a terminal; for a file or a pipe add --once")
        out_console().print(picture(watch.look()))
        return
    if draw(watch, every):
        tell_end(found)


def draw(watch: Watch, every: float) -> bool:
    """Until Ctrl+C, or the deployment's end; whether it was that.

    Ctrl+C is waited for, not caught: raised in the midst of a look, in a destructor say, it would be lost.
    """
    from rich.live import Live

    ctrl_c = {signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, ctrl_c)
    try:
        with Live(screen=True, auto_refresh=False) as live:
            while (seen := watch.look())["state"] != "dead":
                live.update(picture(seen), refresh=True)
                if signal.sigtimedwait(ctrl_c, every):
                    return False
        return True
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, ctrl_c)


def tell_end(found: Found) -> None:
    """A sentence once it runs no more. Raises LauncherError if its launcher was killed."""
    found = found.again()  # the last look may have read the record just before its end was written
    if found.record.get("state", ENDED) != ENDED:
        raise LauncherError(
            f"{found.name} runs no more: its launcher was killed", f"`launcher down {found.name}` cleans up."
        )
    click.echo(f"{found.name}: the deployment has ended", err=True)
