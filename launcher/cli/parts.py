"""`launcher engine` and `launcher gateway`: the two halves of `launcher up`, for containers and for several machines."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from launcher.cli.nodes import NodeOptions, node_options
from launcher.cli.output import SET_OPTION
from launcher.errors import EXIT_INTERRUPTED, LauncherError, ProfileError
from launcher.profile.load import LoadedProfile, load_profile
from launcher.profile.model import ExternalEngine
from launcher.profile.units import parse_duration

if TYPE_CHECKING:
    from launcher.engine.nodes import Node

PROFILE = click.argument("profile", type=click.Path(path_type=Path))
FORCE = click.option("--force", is_flag=True, help="Start although the plan says that it does not fit.")


@click.command("engine", epilog="Example: launcher engine profiles/2x4090.yaml --listen 0.0.0.0:8000")
@PROFILE
@SET_OPTION
@click.option(
    "--listen", default="127.0.0.1:8000", show_default=True, help="Where vLLM listens. The next port is taken too."
)
@click.option(
    "--ready-file", type=click.Path(path_type=Path), help="A file that is there while the engine is warmed and well."
)
@click.option(
    "--notice",
    default="3s",
    show_default=True,
    help="When told to stop: how long gateways are given to hear of it, before the engine takes no more requests.",
)
@FORCE
@node_options
def engine_command(
    profile: Path,
    sets: Sequence[str],
    listen: str,
    ready_file: Path | None,
    notice: str,
    force: bool,
    node: NodeOptions,
) -> None:
    """Run one engine of a profile without a gateway: planned, checked, warmed, watched and restarted as `up` does it.

    For a container, or for a machine whose gateway is elsewhere (`launcher gateway`). On the port after that of
    --listen, GET /ready says whether the engine may be used; where LAUNCHER_ENGINE_KEY is set, the engine asks for it.
    A first SIGTERM or Ctrl+C lets running requests finish (timeouts.drain), a second one ends them.

    Over several hosts (engine.nodes) it runs on each, with --node-rank and --head: only host 0 listens; the file of the
    others is there while their part runs.
    """
    host, port = address_of(listen)
    notice_s = seconds_of(notice, "--notice")
    loaded = load_profile(profile, sets=sets)
    if isinstance(loaded.profile.engine, ExternalEngine):
        raise ProfileError(
            f"{profile}: engine.kind is external: there is no engine to start",
            f"`launcher gateway {profile}` puts a gateway in front of those servers.",
        )
    place = node.place(loaded.profile, "engine", profile, sets)
    if place is not None and not place.is_head:
        stopped_at_once = run_part(loaded, place, ready_file, node.once, force)
    else:
        stopped_at_once = run_engine(loaded, host, port, ready_file, notice_s, force, place)
    if stopped_at_once:
        sys.exit(EXIT_INTERRUPTED)


def run_engine(
    loaded: LoadedProfile,
    host: str,
    port: int,
    ready_file: Path | None,
    notice_s: float,
    force: bool,
    node: Node | None = None,
) -> bool:
    """Plan, prepare, run; whether it was told twice to stop. ``node``: this is the head of several hosts."""
    from launcher.cli.audience import PlainAudience  # these bring the supervisor: only here
    from launcher.cli.serve import run_to_end, say_plan
    from launcher.gateway.auth import is_loopback
    from launcher.up.alone import LoneEngine, one_replica
    from launcher.up.keys import ENGINE_KEY
    from launcher.up.prepare import make_checked_plan, prepare_engine
    from launcher.up.status import Status

    end_politely()
    alone = one_replica(loaded)
    status = Status(ready_file)
    audience = PlainAudience(keeps_stdout_clear=True)
    if not is_loopback(f"{host}:{port}") and not os.environ.get(ENGINE_KEY):
        audience.said(f"warning: whoever reaches {host}:{port} may use the engine → set {ENGINE_KEY} here and there")
    plan = make_checked_plan(alone, force=force)
    say_plan(plan, audience)
    prepared = prepare_engine(alone, plan, f"{host}:{port}", audience.said, node)
    running = LoneEngine(alone, prepared, audience, host=host, port=port, status=status, notice_s=notice_s)
    return run_to_end(running, audience)


def run_part(loaded: LoadedProfile, node: Node, ready_file: Path | None, once: bool, force: bool) -> bool:
    """The same for a host beyond the first, whose part answers nobody."""
    from launcher.cli.audience import PlainAudience
    from launcher.cli.serve import run_to_end, say_plan
    from launcher.up.following import Following
    from launcher.up.prepare import make_checked_plan, prepare_model_and_build
    from launcher.up.status import Status

    end_politely()
    status = Status(ready_file)
    audience = PlainAudience(keeps_stdout_clear=True)
    plan = make_checked_plan(loaded, force=force)
    say_plan(plan, audience)
    prepared = prepare_model_and_build(loaded, plan, audience.said, node)
    return run_to_end(Following(loaded, prepared, audience, status=status, leaves_with_head=once), audience)


@click.command(
    "gateway",
    epilog="Example: launcher gateway profiles/2x4090.yaml --engines http://10.0.0.5:8000,http://10.0.0.6:8000",
)
@PROFILE
@SET_OPTION
@click.option(
    "--engines",
    help="Where `launcher engine` runs for this profile: base URLs parted by commas; dns+http://name:8000 is every address behind a name.",
)
@click.option("--listen", help="Where clients connect. Default: gateway.listen.")
@click.option("--peers", help="A name whose addresses are the gateways that share the engines. Default: gateway.peers.")
def gateway_command(
    profile: Path, sets: Sequence[str], engines: str | None, listen: str | None, peers: str | None
) -> None:
    """Run a profile's gateway alone, its engines being elsewhere (`launcher engine`), or servers of engine.urls.

    Engines may come and go meanwhile; until one is ready, requests get 503 with Retry-After. Its log goes to stderr and
    one line a request to stdout. A first SIGTERM or Ctrl+C lets running requests finish, a second one cuts them off.
    """
    given = [f"gateway.listen={listen}"] * bool(listen) + [f"gateway.peers={peers}"] * bool(peers)
    loaded = load_profile(profile, sets=[*sets, *given])
    is_external = isinstance(loaded.profile.engine, ExternalEngine)
    if is_external and engines:
        raise click.UsageError("engine.kind is external, and engine.urls names the servers: leave --engines out.")
    if not is_external and not engines:
        raise click.UsageError(
            "--engines is missing: where do this profile's engines run? Such as --engines http://10.0.0.5:8000. "
            f"`launcher up {profile}` runs engines and gateway together."
        )
    if run_gateway(loaded, urls_of(engines or "")):
        sys.exit(EXIT_INTERRUPTED)


def run_gateway(loaded: LoadedProfile, engines: tuple[str, ...]) -> bool:
    """Prepare and run; whether it was told twice to stop."""
    from launcher.cli.audience import PlainAudience
    from launcher.cli.serve import keep_plan, run_to_end
    from launcher.supervise.rundir import RunDir
    from launcher.up.deployment import Deployment
    from launcher.up.prepare import prepare_gateway

    end_politely()
    rundir = RunDir.claim(loaded.profile.name)
    try:
        audience = PlainAudience(keeps_stdout_clear=True)
        prepared = prepare_gateway(loaded, engines)
        keep_plan(rundir, loaded, prepared.plan)
        return run_to_end(Deployment(loaded, prepared, rundir, audience, logs_to_console=True), audience)
    finally:
        rundir.release()


def end_politely() -> None:
    """Until the event loop has handlers of its own: SIGTERM during a download ends it as Ctrl+C does."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)


def urls_of(written: str) -> tuple[str, ...]:
    """The base URLs of --engines, checked. Raises click.BadParameter."""
    from launcher.supervise.external import checked_source

    try:
        return tuple(checked_source(url.strip()) for url in written.split(",") if url.strip())
    except LauncherError as error:
        raise click.BadParameter(f"{error.message}. {error.hint}", param_hint="--engines") from None


def address_of(written: str) -> tuple[str, int]:
    """Host and port. Raises click.BadParameter."""
    host, _, port = written.rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 65535:
        raise click.BadParameter(
            f"{written!r} is not an address: write host:port, such as 0.0.0.0:8000, with a port below 65535.",
            param_hint="--listen",
        )
    return host.strip("[]"), int(port)


def seconds_of(written: str, option: str) -> float:
    """A duration in seconds. Raises click.BadParameter."""
    try:
        return parse_duration(written)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint=option) from None
