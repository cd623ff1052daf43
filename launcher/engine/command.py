"""One replica of the plan as the process to start: its arguments, what is added to its environment, and its port."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from launcher.engine.extra_args import env_faults, extra_faults, extra_notes, full_name
from launcher.engine.flags import (
    ENV_SPANS,
    MEDIA_REDIRECTS,
    NEWEST,
    OLDEST,
    PLUGIN_OF,
    TABLE,
    FlagRow,
    value_of,
    why_unknown,
)
from launcher.engine.media_urls import fetch_notes, no_domains
from launcher.engine.nodes import Node, has_nodes, node_arguments, node_environment, uses_ray
from launcher.errors import PreconditionError, ProfileError
from launcher.plan.placement import Placement
from launcher.probe.arguments import groups
from launcher.probe.vllm_build import VllmBuild
from launcher.profile.model import Profile, VllmEngine
from launcher.profile.units import GIB

HOST = "127.0.0.1"
QUEUE_CAP, QUEUE_CAP_SINCE = "--max-num-queued-reqs", (0, 32)
SERVE_VLLM_CPU = Path(__file__).with_name("serve_vllm_cpu.py")
GLM_SHORTEST_EDGE = 12544  # GLM-4.xV's own least area, where the model's files are not at hand to say


@dataclass(frozen=True)
class EngineCommand:
    """How one replica is started. ``env`` is added to the inherited environment, ``unset`` is taken out of it."""

    argv: tuple[str, ...]
    env: Mapping[str, str] = field(repr=False)  # with the engine's API key
    host: str
    port: int
    served_name: str
    arguments: tuple[str, ...]  # the part of argv that vLLM's parser reads, without the model
    unset: tuple[str, ...] = ()
    notes: tuple[str, ...] = field(default=())

    @property
    def url(self) -> str:
        """Where the launcher itself reaches it: every-interface addresses are no destination."""
        host = {"0.0.0.0": HOST, "::": "::1"}.get(self.host, self.host)
        return f"http://{f'[{host}]' if ':' in host else host}:{self.port}"

    @property
    def headers(self) -> dict[str, str]:
        """What every request to the engine needs."""
        key = self.env.get("VLLM_API_KEY")
        return {"Authorization": f"Bearer {key}"} if key else {}

    def environment(self, inherited: Mapping[str, str]) -> dict[str, str]:
        """The whole environment of the engine's process."""
        return {name: value for name, value in inherited.items() if name not in self.unset} | dict(self.env)


def engine_command(
    profile: Profile,
    placement: Placement,
    *,
    port: int,
    model_path: str,
    build: VllmBuild,
    host: str = HOST,
    base_dir: Path | None = None,
    environ: Mapping[str, str] | None = None,
    text_only: bool = False,
    api_key: str = "",
    node: Node | None = None,
) -> EngineCommand:
    """The command for ``placement`` on ``port`` of ``host``, with the model in the folder ``model_path``.

    ``base_dir`` (default: the working directory) is the folder of the profile's file, where relative paths start.
    ``environ`` (default: our own) is read for CUDA_VISIBLE_DEVICES only: cards are counted within it, as CUDA does.
    ``text_only``: the model is known to take text alone, so no limits on images and videos are written.
    ``api_key``: what the engine is to ask for, unless engine.env says another. It goes by the environment, which no other
    user can read, not by the arguments, which `ps` shows to all.
    ``node``: this host's place, where the engine runs over several; all but the first listen on no port.
    Raises ProfileError for extra_args or env that cannot be, PreconditionError for what ``build`` does not know.
    """
    engine = profile.engine
    if not isinstance(engine, VllmEngine):
        raise ProfileError("engine.kind is external: there is nothing to start", "Use its urls as they are.")
    values = _values(profile, Path(model_path), base_dir or Path.cwd(), text_only)
    _refuse_unknown(profile, build, values)
    keys_set = [row.key for row, _ in values]
    if faults := [*extra_faults(engine, keys_set), *env_faults(engine)]:
        raise ProfileError("\n".join(faults), "`launcher plan` shows every argument that the launcher writes itself.")
    served_name = profile.model.public_name or ""
    arguments = [] if node is None else node_arguments(node)
    if node is None or node.is_head:
        arguments += ["--host", host, "--port", str(port), *_quiet_probes(engine)]
    arguments += [*no_domains(engine), *_backstop(profile, engine, build)]
    for row, value in values:
        arguments += row.write(row.flag, value)
    arguments += engine.extra_args
    inherited = os.environ if environ is None else environ
    return EngineCommand(
        argv=(*_program(build, model_path, node), *arguments),
        env={**_own_env(profile, placement, build, inherited, api_key, node), **engine.env},
        host=host,
        port=port,
        served_name=served_name,
        arguments=tuple(arguments),
        unset=("VLLM_CPU_KVCACHE_SPACE",) if profile.hardware.device == "cpu" else (),
        notes=(*_notes(profile, build, keys_set), *_plugin_notes(build, values)),
    )


def shell_line(command: EngineCommand) -> str:
    """The command as one line that a shell takes: unset, environment and arguments."""
    unset = [word for name in command.unset if name not in command.env for word in ("-u", name)]
    env = [f"{name}={value}" for name, value in command.env.items()]
    return shlex.join((["env", *unset, *env] if unset or env else []) + list(command.argv))


def _backstop(profile: Profile, engine: VllmEngine, build: VllmBuild) -> list[str]:
    """vLLM's own cap on requests, well above what the gateway lets through: for the day when our count is wrong.

    Nothing where vLLM does not have it, where the profile does not say how many run at once, or says it itself.
    """
    most = profile.admission.max_in_flight or engine.max_num_seqs
    written = {full_name(group) for group in groups(engine.extra_args)}
    if most is None or build.release < QUEUE_CAP_SINCE or QUEUE_CAP in written:
        return []
    return [QUEUE_CAP, str(2 * most + 16)]


def _program(build: VllmBuild, model_path: str, node: Node | None) -> list[str]:
    """The `serve` command where the distribution `vllm` is; the module where only vllm-cpu is.

    `serve` is run as a module too: that is certain to use build.python, while a `vllm` script may lie elsewhere or be
    missing. Under vllm-cpu `serve` dies, since it asks for the version of a distribution called vllm. Over several hosts
    it is needed all the same, for the module heeds no --headless: there a file of ours tells it that version.
    """
    if build.distribution == "vllm":
        return [build.python, "-m", "vllm.entrypoints.cli.main", "serve", model_path]
    if node is not None:
        return [build.python, "-P", str(SERVE_VLLM_CPU), "serve", model_path]
    return [build.python, "-m", "vllm.entrypoints.openai.api_server", "--model", model_path]


def _values(profile: Profile, model: Path, base_dir: Path, text_only: bool) -> list[tuple[FlagRow, Any]]:
    """The rows of the table that the profile sets, with their values."""
    values = []
    for row in TABLE:
        value = value_of(profile, row.key)
        if row.key == "model.served_name":
            value = profile.model.public_name
        elif row.key == "model.image_longest_edge" and value is not None:
            value = processor_kwargs(model, value)
        elif row.key == "model.images_per_prompt":
            value = None if text_only else media_limits(profile)
        elif row.key == "model.chat_template" and value is not None:
            value = _template_path(base_dir, value)
        if value not in row.unset:
            values.append((row, value))
    return values


def media_limits(profile: Profile) -> dict[str, int] | None:
    """--limit-mm-per-prompt: always with videos, for which vLLM would else reserve memory; with images where given.

    None where the profile gives neither key and engine.extra_args says it already.
    """
    model = profile.model
    assert isinstance(profile.engine, VllmEngine)
    if model.images_per_prompt is None and "videos_per_prompt" not in model.model_fields_set:
        written = {full_name(group) for group in groups(profile.engine.extra_args)}
        if written & {"--limit-mm-per-prompt", "--language-model-only"}:
            return None
    images = {} if model.images_per_prompt is None else {"image": model.images_per_prompt}
    return {**images, "video": model.videos_per_prompt}


def _template_path(base_dir: Path, named: str) -> str:
    """Absolute, since the engine does not run in the profile's folder."""
    path = (base_dir / Path(named).expanduser()).absolute()
    if not path.is_file():
        raise ProfileError(
            f"model.chat_template: {path} does not exist",
            "Give the path of a Jinja file, relative to the profile's file.",
        )
    return str(path)


def processor_kwargs(model: Path, longest_edge: int) -> dict[str, Any]:
    """--mm-processor-kwargs for an image's largest area. vLLM replaces `size` whole, so the least area goes with it.

    The least area is the model's own (preprocessor_config.json, processor_config.json), or GLM-4.xV's where its files
    are not there. `max_pixels`, as some model cards have it, is ignored by the processors of transformers 5.
    """
    size = _image_size(model)
    shortest = size.get("shortest_edge", GLM_SHORTEST_EDGE)
    if size and "longest_edge" not in size:
        raise ProfileError(
            f"model.image_longest_edge: the image processor in {model} has no longest_edge (its size is {json.dumps(size)})",
            "Leave model.image_longest_edge out: this model scales every image to a size of its own.",
        )
    if longest_edge < shortest:
        raise ProfileError(
            f"model.image_longest_edge: {longest_edge} is less than the model's shortest_edge, {shortest}",
            f"Both are areas: give {shortest} or more.",
        )
    return {"size": {"shortest_edge": shortest, "longest_edge": longest_edge}}


def _image_size(model: Path) -> dict[str, Any]:
    for name in ("preprocessor_config.json", "processor_config.json"):
        try:
            config = json.loads((model / name).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        config = config.get("image_processor", config)
        if isinstance(config.get("size"), dict):
            return dict(config["size"])
        if "min_pixels" in config and "max_pixels" in config:  # older Qwen-VL
            return {"shortest_edge": config["min_pixels"], "longest_edge": config["max_pixels"]}
    return {}


def _refuse_unknown(profile: Profile, build: VllmBuild, values: list[tuple[FlagRow, Any]]) -> None:
    """Raises PreconditionError unless ``build`` runs on the profile's device and knows every flag and value."""
    if build.device != profile.hardware.device:
        raise PreconditionError(
            f"hardware.device is {profile.hardware.device}, but {build} in {build.python} runs on {build.device}",
            "Install the other build with `make up PROFILE=…`, or name a Python that has it in engine.python.",
        )
    if build.release < OLDEST:
        raise PreconditionError(
            f"{build} is too old: vLLM {OLDEST[0]}.{OLDEST[1]} to {NEWEST[0]}.{NEWEST[1]} are known",
            f'Install a newer one: {build.python} -m pip install "{build.distribution}>={OLDEST[0]}.{OLDEST[1]}"',
        )
    # A build that is still to be installed can get its plug-in with it: that is a note, not a fault.
    plugins = build.plugins if build.installed else tuple(PLUGIN_OF.values())
    faults = [fault for row, value in values if (fault := why_unknown(row, value, build.release, plugins))]
    if faults:
        message = "\n".join(f"{sentence}; here is {build}" for sentence, _ in faults)
        raise PreconditionError(message, " ".join(dict.fromkeys(hint for _, hint in faults if hint)))


def _quiet_probes(engine: VllmEngine) -> list[str]:
    """/health and /metrics are asked every few seconds: without this they would fill the engine's log."""
    if any("access-log" in item.replace("_", "-") for item in engine.extra_args):
        return []
    return ["--disable-access-log-for-endpoints", "/health,/metrics"]


def _own_env(
    profile: Profile,
    placement: Placement,
    build: VllmBuild,
    inherited: Mapping[str, str],
    api_key: str,
    node: Node | None,
) -> dict[str, str]:
    """What the launcher sets: cards, quick restarts, telemetry off, the engine's key, no redirects, no colours in the log."""
    env = {
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_API_KEY": api_key,
        "VLLM_LOGGING_COLOR": "0",
        MEDIA_REDIRECTS: "0",
        "VLLM_ENABLE_STARTUP_PLAN": "1",
    }
    if not may_keep_plans(profile):
        del env["VLLM_ENABLE_STARTUP_PLAN"]
    env = {name: value for name, value in env.items() if build.release in ENV_SPANS[name]} | tracing_env(profile)
    if node is not None:
        env |= node_environment(node, profile.hardware.device, inherited)
    if uses_ray(profile):  # it gives out the cards; and vLLM must find the cluster that runs, not start one of its own
        env["RAY_ADDRESS"] = inherited.get("RAY_ADDRESS") or "auto"
    elif profile.hardware.device == "cuda":
        # CUDA numbers cards by speed unless told; NVML, which the plan reads, numbers them by PCI bus.
        env["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"
        env["CUDA_VISIBLE_DEVICES"] = visible_cards(placement, inherited.get("CUDA_VISIBLE_DEVICES"))
    elif isinstance(profile.engine, VllmEngine) and (profile.engine.kv_cache_memory or 1) % GIB == 0:
        # Whole GiB only, and it says what --kv-cache-memory-bytes says: kept for those who look for it.
        env["VLLM_CPU_KVCACHE_SPACE"] = str((profile.engine.kv_cache_memory or 0) // GIB)
    return env


def may_keep_plans(profile: Profile) -> bool:
    """Whether vLLM may keep its memory profile between starts. Not over several hosts: each has a cache of its own, and
    one that skips the profiling run would leave the others waiting for it in there."""
    return not has_nodes(profile) and not uses_ray(profile)


def tracing_env(profile: Profile) -> dict[str, str]:
    """What OpenTelemetry's SDK in vLLM reads: HTTP, which vLLM takes for gRPC unless told, and no traces of its own accord.

    Without the latter it would trace what the gateway has not sampled, and every warm-up and probe of ours.
    """
    if profile.gateway.tracing is None:
        return {}
    return {
        "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/protobuf",
        "OTEL_TRACES_SAMPLER": "parentbased_always_off",
        "OTEL_SERVICE_NAME": f"{profile.name}-engine",
    }


def visible_cards(placement: Placement, outer: str | None) -> str:
    """CUDA_VISIBLE_DEVICES for a replica: its cards, counted within the launcher's own CUDA_VISIBLE_DEVICES if set."""
    if outer is None:
        return ",".join(str(card) for card in placement.gpus)
    visible = [name.strip() for name in outer.split(",") if name.strip()]
    if placement.gpus and max(placement.gpus) >= len(visible):
        raise PreconditionError(
            f"replica {placement.replica} needs card {max(placement.gpus)} (counted from 0), but CUDA_VISIBLE_DEVICES={outer!r} "
            f"leaves {len(visible)}",
            "Unset CUDA_VISIBLE_DEVICES, or let fewer cards do: engine.replicas, engine.tensor_parallel.",
        )
    return ",".join(visible[card] for card in placement.gpus)


def _notes(profile: Profile, build: VllmBuild, keys_set: list[str]) -> list[str]:
    notes = ["vLLM's usage statistics are off (VLLM_NO_USAGE_STATS=1)"]
    if not build.installed:
        notes.append(f"{build}: the arguments have not been checked against its parser")
    if build.release > NEWEST:
        notes.append(
            f"{build} is newer than {NEWEST[0]}.{NEWEST[1]}, the newest known here: its own parser checks the arguments"
        )
    if build.release in ENV_SPANS["VLLM_ENABLE_STARTUP_PLAN"] and may_keep_plans(profile):
        notes.append("memory profiling is kept between starts (VLLM_ENABLE_STARTUP_PLAN=1)")
    if isinstance(profile.engine, VllmEngine):
        notes += [*extra_notes(profile.engine, keys_set), *fetch_notes(profile.engine)]
    return notes


def _plugin_notes(build: VllmBuild, values: list[tuple[FlagRow, Any]]) -> list[str]:
    """Plug-ins to install together with a build that is not there yet."""
    return [
        f"{row.key}: {value} needs the package {PLUGIN_OF[str(value)]} beside {build}"
        for row, value in values
        if not build.installed and str(value) in PLUGIN_OF and why_unknown(row, value, build.release)
    ]
