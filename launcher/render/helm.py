"""Values for the Helm chart: the profile itself, and beside it what its plan knows and the chart cannot."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from launcher.engine.flags import value_of
from launcher.engine.nodes import uses_ray
from launcher.errors import PreconditionError
from launcher.plan.known_gpus import find_card
from launcher.plan.plan import Plan
from launcher.profile.load import LoadedProfile
from launcher.profile.model import Profile, VllmEngine
from launcher.profile.units import GIB, MIB, format_duration
from launcher.render import container
from launcher.render.compose_part import names_this_machine
from launcher.render.yaml_text import Note, comment, to_yaml

LARGEST_FILE = 512 * 2**10  # bytes: a ConfigMap takes 1 MiB, the profile included
# Paths that only the pod can have: a folder, a picture, secrets, another Python.
ABSOLUTE = ("model.path", "warmup.image", "gateway.tls_cert", "gateway.tls_key", "gateway.keys_file", "engine.python",
            "logging.dir")  # fmt: skip
WORDS = ("auto", "none")  # of warmup.image
# The card's product name with hyphens, as NVIDIA's GPU feature discovery labels nodes (nvidia.com/gpu.product).
PRODUCTS: dict[str, tuple[str, ...]] = {
    "RTX 3060": ("NVIDIA-GeForce-RTX-3060",),
    "RTX 3090": ("NVIDIA-GeForce-RTX-3090",),
    "RTX 3090 Ti": ("NVIDIA-GeForce-RTX-3090-Ti",),
    "RTX 4060 Ti 16GB": ("NVIDIA-GeForce-RTX-4060-Ti",),
    "RTX 4070 Ti SUPER": ("NVIDIA-GeForce-RTX-4070-Ti-SUPER",),
    "RTX 4080": ("NVIDIA-GeForce-RTX-4080",),
    "RTX 4090": ("NVIDIA-GeForce-RTX-4090",),
    "RTX 5090": ("NVIDIA-GeForce-RTX-5090",),
    "RTX A6000": ("NVIDIA-RTX-A6000",),
    "RTX 6000 Ada": ("NVIDIA-RTX-6000-Ada-Generation",),
    "RTX PRO 6000": (
        "NVIDIA-RTX-PRO-6000-Blackwell-Workstation-Edition",
        "NVIDIA-RTX-PRO-6000-Blackwell-Server-Edition",
    ),
    "T4": ("Tesla-T4",),
    "A10G": ("NVIDIA-A10G",),
    "L4": ("NVIDIA-L4",),
    "L40S": ("NVIDIA-L40S",),
    "A100 40GB": ("NVIDIA-A100-SXM4-40GB", "NVIDIA-A100-PCIE-40GB"),
    "A100 80GB": ("NVIDIA-A100-SXM4-80GB", "NVIDIA-A100-80GB-PCIe"),
    "H100 80GB": ("NVIDIA-H100-80GB-HBM3", "NVIDIA-H100-PCIe"),
    "H200": ("NVIDIA-H200",),
    "B200": ("NVIDIA-B200",),
}


def helm_values(loaded: LoadedProfile, plan: Plan, weight_bytes: int | None, *, written_by: str) -> str:
    """The values as YAML. ``weight_bytes``: of the model's checkpoint, None where that is not known.

    Raises PreconditionError for a path that a pod cannot have.
    """
    profile = loaded.profile
    if faults := [*_own_paths(loaded), *_own_servers(loaded)]:
        raise PreconditionError("\n".join(faults), "What is small and text (model.chat_template) goes along by itself.")
    written = profile.model_dump(mode="json", exclude_unset=True)
    files = _chat_template(loaded, written)
    values: dict[str, Any] = {"profile": written}
    if files:
        values["files"] = files
    if isinstance(profile.engine, VllmEngine) and (engine := _engine(loaded, plan, weight_bytes)):
        values["engine"] = engine
    head = f"Values for helm/, written by: {written_by}\nInstall them with: helm install NAME helm -f FILE"
    return comment(head) + "\n" + to_yaml(values)


def _own_paths(loaded: LoadedProfile) -> Iterator[str]:
    for key in ABSOLUTE:
        if key == "engine.python" and not isinstance(loaded.profile.engine, VllmEngine):
            continue
        written = value_of(loaded.profile, key)
        if written and not Path(written).is_absolute() and not (key == "warmup.image" and written in WORDS):
            yield (
                f"{key}: {written} is a path on this machine, which no pod has: "
                "give an absolute one, of the image or of a volume (engine.volumes, gateway.volumes)"
            )


def _own_servers(loaded: LoadedProfile) -> Iterator[str]:
    engine, tracing = loaded.profile.engine, loaded.profile.gateway.tracing
    named = {f"engine.urls: {url}": url for url in getattr(engine, "urls", ())}
    if tracing is not None:
        named[f"gateway.tracing.endpoint: {tracing.endpoint}"] = tracing.endpoint
    for told, url in named.items():
        if names_this_machine(url):
            yield f"{told} is in a pod the pod itself: name the server as the cluster reaches it"


def _chat_template(loaded: LoadedProfile, written: dict[str, Any]) -> dict[str, str]:
    """The template's text by its name; the profile is changed to find it beside itself."""
    named = loaded.profile.model.chat_template
    if named is None or Path(named).is_absolute():
        return {}
    path = loaded.resolve(named)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise PreconditionError(f"model.chat_template: {path} cannot be read: {error}", "Give a text file.") from None
    if len(text.encode()) > LARGEST_FILE:
        raise PreconditionError(
            f"model.chat_template: {path} is larger than {LARGEST_FILE // 2**10} KiB, too large for a ConfigMap",
            "Put it on a volume of the engine, and give its absolute path.",
        )
    written["model"]["chat_template"] = path.name
    return {path.name: text}


def _engine(loaded: LoadedProfile, plan: Plan, weight_bytes: int | None) -> dict[Any, Any]:
    profile = loaded.profile
    card = find_card(profile.hardware.gpu) if profile.hardware.gpu else None
    entries: dict[Any, Any] = {}
    if card is not None:
        entries[Note(f"Nodes with {card.name}, as GPU feature discovery labels them.")] = None
        entries["gpuProducts"] = list(PRODUCTS[card.name])
    if profile.hardware.memory is None and profile.hardware.device == "cpu" and plan.budget and plan.budget.requested:
        entries[Note("By the plan.")] = None
        entries["memory"] = f"{math.ceil(plan.budget.requested / MIB)}Mi"
    entries[Note("vLLM's queues between its processes, and NCCL's buffers.")] = None
    entries["shmSize"] = f"{math.ceil(container.shm_bytes(profile) / MIB)}Mi"
    if weight_bytes is not None and profile.model.id is not None:
        fetch_s = max(container.SHORTEST_FETCH_S, math.ceil(weight_bytes / container.SLOW_LINE))
        entries[Note(f"{weight_bytes / GIB:.1f} GiB of weights over a line of 100 Mbit/s.")] = None
        entries["fetchTime"] = format_duration(fetch_s)
    return entries | _cache(profile, weight_bytes)


def _cache(profile: Profile, weight_bytes: int | None) -> dict[Any, Any]:
    entries: dict[Any, Any] = {}
    cache: dict[str, Any] = {}
    if uses_ray(profile) and isinstance(profile.engine, VllmEngine) and profile.engine.nodes > 1:
        entries[Note("On Ray one of the pods fetches the model, and all read it.")] = None
        cache |= {"kind": "pvc", "accessModes": ["ReadWriteMany"]}
    if weight_bytes is not None and profile.model.id is not None:
        entries[Note("Twice the weights: a new revision comes before the old one goes.")] = None
        cache["size"] = f"{math.ceil(2 * weight_bytes / GIB)}Gi"
    return entries | ({"cache": cache} if cache else {})
