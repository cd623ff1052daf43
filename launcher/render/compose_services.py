"""The services of one profile in a compose file: an engine for each replica, and the gateway in front of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from launcher.plan.placement import Placement
from launcher.profile.model import ExternalEngine
from launcher.profile.units import MIB
from launcher.render import container
from launcher.render.compose_image import image_of
from launcher.render.compose_part import Part
from launcher.render.compose_words import literal, seconds, size
from launcher.render.placed_files import ENGINE, GATEWAY, SECRETS, PlacedFile, host_path, placed_files
from launcher.render.yaml_text import Alias, Inline, Note

HUB_TOKEN = "hf-token"
# Of the shell in which compose runs; unset ones stay unset.
HUB = ("HF_ENDPOINT", "HF_HUB_OFFLINE")
GATEWAY_START_S = 60  # its engines are ready before it starts
ENGINE_KEY, CLIENT_KEYS = "LAUNCHER_ENGINE_KEY", "LAUNCHER_API_KEYS"
ROOM = (
    "vLLM's queues want more than Docker's own 64 MiB. Not ipc: host: that opens them to every process of the host, and\n"
    "leaves them in its memory when an engine is killed."
)
OPEN = "It listens for all of its network, and asks for no key: only this machine reaches the port that is published."
CHECK_EVERY = {"interval": "10s", "timeout": "5s", "retries": 3, "start_interval": "2s"}


def engine_services(part: Part) -> dict[str, Any]:
    """One service for each replica: which cards are its own can be said of a service, not of one of its containers."""
    return {name: _engine(part, placement) for name, placement in part.engines.items()}


def _engine(part: Part, placement: Placement) -> dict[str, Any]:
    files = list(placed_files(part.loaded, ENGINE))
    start_s = container.start_period_s(part.profile, part.given.weight_bytes)
    return {
        "<<": Alias("container"),
        **image_of(part, "engine"),
        "command": _engine_command(part, files),
        "environment": {**_hub_environment(part), ENGINE_KEY: None},
        "volumes": [*_mounts(part, files), f"models:{container.MODELS}", f"caches:{container.CACHES}"],
        **_secrets(part, files),
        "networks": {part.network: Inline(aliases=["engine"])},
        **_memory(part),
        **_cards(placement),
        "ulimits": {"nofile": container.OPEN_FILES},
        **_health(["test", "-f", container.READY_FILE], start_s),
        **_stop(container.engine_grace_s(part.profile), "the notice to gateways, timeouts.drain and timeouts.stop"),
        "logging": _logging(part),
    }


def gateway_service(part: Part) -> dict[str, Any]:
    """The gateway; it finds the engines by the one name that all of them answer to."""
    files = list(placed_files(part.loaded, GATEWAY))
    return {
        "<<": Alias("container"),
        **image_of(part, "gateway"),
        **({Note(OPEN): None} if _is_open(part) else {}),
        "command": _gateway_command(part, files),
        "environment": _gateway_environment(part),
        "volumes": [*_mounts(part, files), f"{part.state}:{container.STATE}"],
        **_secrets(part, files),
        **_reached_at(part),
        **_after_engines(part),
        "ulimits": {"nofile": _open_files(part)},
        **_health([container.PYTHON, "-c", _is_ready(part)], GATEWAY_START_S),
        **_stop(container.gateway_grace_s(part.profile), "timeouts.drain"),
        "logging": _logging(part),
    }


def _settings(part: Part, files: list[PlacedFile]) -> list[str]:
    """What is said over the file: by the command line that rendered, then where mounted files lie."""
    own = [file.setting for file in files]
    if part.profile.logging.dir is not None:
        own.append(f"logging.dir={container.STATE}/logs")
    return [f"--set={setting}" for setting in (*part.given.sets, *own)]


def _engine_command(part: Part, files: list[PlacedFile]) -> list[str]:
    listen = f"--listen=0.0.0.0:{container.PORT}"
    options = [listen, f"--ready-file={container.READY_FILE}", f"--notice={container.NOTICE_S}s"]
    return [literal(word) for word in ("engine", container.PROFILE, *options, *_settings(part, files))]


def _gateway_command(part: Part, files: list[PlacedFile]) -> list[str]:
    command = ["gateway", container.PROFILE]
    if part.engines:
        command.append(f"--engines=dns+http://engine:{container.PORT}")
    if not part.on_host_network:
        command.append(f"--listen=0.0.0.0:{container.PORT}")
    settings = _settings(part, files)
    if _is_open(part):
        settings.append("--set=gateway.auth=none")
    return [literal(word) for word in command + settings]


def _is_open(part: Part) -> bool:
    """Whether no key is asked for since nobody but this machine reaches the port: what auto means outside of containers."""
    wants_none = part.profile.gateway.auth == "auto" and not _asks_for_keys(part)
    return wants_none and part.is_private and not part.on_host_network


def _asks_for_keys(part: Part) -> bool:
    gateway = part.profile.gateway
    return gateway.auth == "keys" or (gateway.auth == "auto" and gateway.keys_file is not None)


def _gateway_environment(part: Part) -> dict[str, Any]:
    engine = part.profile.engine
    named = [engine.api_key_env] if isinstance(engine, ExternalEngine) and engine.api_key_env else []
    keys = [CLIENT_KEYS] if _asks_for_keys(part) or not part.is_private else []
    own = [ENGINE_KEY] if part.engines else []
    return {**_hub_environment(part), **dict.fromkeys((*own, *keys, *named))}


def _hub_environment(part: Part) -> dict[str, Any]:
    if part.profile.model.id is None:
        return {}
    return {"HF_TOKEN_PATH": f"{SECRETS}/{HUB_TOKEN}", **dict.fromkeys(HUB)}


def _mounts(part: Part, files: list[PlacedFile]) -> list[dict[str, Any]]:
    """The profile and what it names on the host, all read only. What is missing is an error, not an empty folder."""
    pairs = [(part.loaded.path, container.PROFILE), *((f.source, f.target) for f in files if not f.is_secret)]
    return [
        {
            "type": "bind",
            "source": literal(host_path(source, part.folder)),
            "target": literal(target),
            "read_only": True,
            "bind": Inline(create_host_path=False),
        }
        for source, target in pairs
    ]


def _secrets(part: Part, files: list[PlacedFile]) -> dict[str, Any]:
    names = [HUB_TOKEN] if part.profile.model.id is not None else []
    names += [f"{file.secret_name}{part.suffix}" for file in files if file.is_secret]
    return {"secrets": [_secret(part, name) for name in names]} if names else {}


def _secret(part: Part, name: str) -> str | dict[str, str]:
    target = name.removesuffix(part.suffix) if part.suffix else name
    return name if target == name else {"source": name, "target": target}


def secret_files(part: Part) -> dict[str, str]:
    """The secrets of the file that come from this profile: name → path on the host."""
    token = {HUB_TOKEN: "${HF_TOKEN_FILE:-/dev/null}"} if part.profile.model.id is not None else {}
    placed = [file for file in placed_files(part.loaded, GATEWAY) if file.is_secret]
    return token | {f"{f.secret_name}{part.suffix}": literal(host_path(f.source, part.folder)) for f in placed}


def _reached_at(part: Part) -> dict[str, Any]:
    if part.on_host_network:
        return {Note("The servers of engine.urls are on this machine's own loopback."): None, "network_mode": "host"}
    host, port = part.published
    ports = Inline(target=container.PORT, **({"published": port} if port else {}), host_ip=host)
    return {"ports": [ports], "networks": {part.network: Inline(aliases=["gateway"])}}


def _after_engines(part: Part) -> dict[str, Any]:
    if not part.engines:
        return {}
    why = (
        "Stopped before them, too. Until they are warm the port is closed; alone it would answer 503 with Retry-After."
    )
    return {Note(why): None, "depends_on": {name: Inline(condition="service_healthy") for name in part.engines}}


def _memory(part: Part) -> dict[str, Any]:
    shm = container.shm_bytes(part.profile)
    memory = part.profile.hardware.memory if part.kind == "cpu" else None
    limit = {} if memory is None else {"mem_limit": size(memory // len(part.engines) + shm)}
    return {Note(ROOM): None, "ipc": "private", "shm_size": size(shm), **limit}


def _cards(placement: Placement) -> dict[str, Any]:
    if not placement.gpus:
        return {}
    cards = Inline(driver="nvidia", device_ids=[str(card) for card in placement.gpus], capabilities=["gpu"])
    return {"deploy": {"resources": {"reservations": {"devices": [cards]}}}}


def _health(command: list[str], start_period_s: int) -> dict[str, Any]:
    """Healthy means ready: what waits for it may use it. Nothing is restarted for being unhealthy."""
    return {
        Note("Until the start period is over, failing does not count."): None,
        "healthcheck": {"test": ["CMD", *command], **CHECK_EVERY, "start_period": seconds(start_period_s)},
    }


def _stop(grace_s: int, covered: str) -> Mapping[str, Any]:
    return {Note(f"Above {covered}: nothing that still runs is killed."): None, "stop_grace_period": seconds(grace_s)}


def _open_files(part: Part) -> int:
    """A descriptor for each client and one towards its engine, and some for everything else."""
    return 2 * part.profile.gateway.max_connections + 1024


def _is_ready(part: Part) -> str:
    gateway = part.profile.gateway
    host, port = part.published if part.on_host_network else ("127.0.0.1", str(container.PORT))
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    where = f"{'https' if gateway.tls_cert else 'http'}://{f'[{host}]' if ':' in host else host}:{port}/ready"
    # Straight there: Docker may hand a proxy for the outer world to every container. The certificate names another host.
    modules, handlers = "urllib.request as u", "u.ProxyHandler({})"
    if gateway.tls_cert:
        modules, handlers = f"ssl, {modules}", f"{handlers}, u.HTTPSHandler(context=ssl._create_unverified_context())"
    return f"import {modules}; u.build_opener({handlers}).open('{where}', timeout=4)"


def _logging(part: Part) -> dict[str, Any]:
    section = part.profile.logging
    size = f"{max(1, section.max_size // MIB)}m"
    return {"driver": "json-file", "options": Inline({"max-size": size, "max-file": str(section.keep + 1)})}
