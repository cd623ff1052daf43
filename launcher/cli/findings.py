"""What doctor looks at: each check is a function that gives findings, with a remedy for all that is not well."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import resource
import shutil
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

from launcher.cli.model_findings import Finding, is_complete, model_findings
from launcher.engine.hub import hub_cache
from launcher.errors import LauncherError
from launcher.profile.load import LoadedProfile
from launcher.profile.model import Profile, VllmEngine
from launcher.profile.units import GIB, MIB, format_gib

HUB_DISK_BYTES = 30 * GIB  # a 9B model in 16 bits is 20 to 28 GB
PACKAGED_DISK_BYTES = 2 * GIB
SHM_BYTES = GIB  # NCCL and vLLM pass data between the processes of a replica through /dev/shm
OPEN_FILES = 4096  # each request holds a connection to the client and one to the engine
BNB_LEFT_VLLM = (0, 28)


def examine(loaded: LoadedProfile | None, *, offline: bool) -> list[Finding]:
    """All findings. Without a profile: what the machine has; with one: whether that is what the profile needs."""
    found = [_python(), *_open_files()]
    profile = loaded.profile if loaded else None
    if loaded is None or isinstance(loaded.profile.engine, VllmEngine):
        found += _vllm(loaded)
        found += _cpu(profile) if profile and profile.hardware.device == "cpu" else _cards(profile)
        found += [*_shared_memory(profile), *_disk(profile)]
    if loaded is not None:
        found += [*_port(loaded), *model_findings(loaded, offline=offline), *_peer_to_peer(loaded.profile)]
    return found


def _python() -> Finding:
    version = platform.python_version()
    if sys.version_info >= (3, 15):
        return Finding("python", "warn", f"{version}: vLLM has been seen on 3.11 to 3.14", "make up PYTHON=python3.12")
    return Finding("python", "ok", f"{version} at {sys.executable}")


def _open_files() -> Iterator[Finding]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    shown = "unlimited" if soft == resource.RLIM_INFINITY else str(soft)
    if soft != resource.RLIM_INFINITY and soft < OPEN_FILES:
        remedy = f"ulimit -n {OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, 65536)}"
        yield Finding(
            "open files", "warn", f"ulimit -n is {shown}: enough for some {soft // 2} requests at once", remedy
        )
    else:
        yield Finding("open files", "ok", f"ulimit -n is {shown}")


def _vllm(loaded: LoadedProfile | None) -> Iterator[Finding]:
    from launcher.engine.flags import NEWEST, OLDEST
    from launcher.probe.vllm_build import engine_python, find_vllm

    profile = loaded.profile if loaded else None
    try:
        build = find_vllm(engine_python(loaded.profile, loaded.base_dir) if loaded else None)
    except LauncherError as error:
        yield Finding("vllm", "fail", error.message, error.hint)
        return
    known = f"{OLDEST[0]}.{OLDEST[1]} to {NEWEST[0]}.{NEWEST[1]}"
    extra = "cpu" if profile and profile.hardware.device == "cpu" else "gpu"
    target = f"make up PROFILE={loaded.path}" if loaded else "make up"
    install = f"{target} installs it, or: pip install 'vllm-profile-launcher[{extra}]'"
    if build is None:
        yield Finding("vllm", "fail" if profile else "warn", "is not installed", install)
    elif build.release < OLDEST:
        yield Finding("vllm", "fail", f"{build} is too old: {known} are known", install)
    elif profile and build.device != profile.hardware.device:
        wanted = profile.hardware.device
        yield Finding("vllm", "fail", f"{build} runs on {build.device}, hardware.device is {wanted}", install)
    elif build.release > NEWEST:
        yield Finding("vllm", "warn", f"{build} is newer than what is known ({known})", "run `launcher plan` first")
    else:
        yield Finding("vllm", "ok", f"{build} in {build.python}")
    if build and profile and build.device == profile.hardware.device and build.release >= BNB_LEFT_VLLM:
        yield from _bitsandbytes(profile)


def _bitsandbytes(profile: Profile) -> Iterator[Finding]:
    elsewhere = isinstance(profile.engine, VllmEngine) and profile.engine.python  # vLLM itself says so at the start
    if profile.model.quantization != "bitsandbytes" or elsewhere:
        return
    try:
        version = importlib.metadata.version("vllm-bnb-plugin")
        yield Finding("bitsandbytes", "ok", f"vllm-bnb-plugin {version}")
    except importlib.metadata.PackageNotFoundError:
        message = "model.quantization is bitsandbytes, which from vLLM 0.28 on is a plugin, and that is not installed"
        yield Finding("bitsandbytes", "fail", message, "pip install vllm-bnb-plugin")


def _cards(profile: Profile | None) -> Iterator[Finding]:
    from launcher.plan.known_gpus import find_card
    from launcher.plan.placement import gpus_needed
    from launcher.probe.gpus import find_gpus

    try:
        present = find_gpus()
    except LauncherError as error:
        yield Finding("cards", "fail" if profile else "warn", error.message, error.hint)
        return
    needed = gpus_needed(profile) if profile else 0
    if len(present) < needed or not present:
        short = f"{len(present)} found" + (f", {needed} needed" if needed else "")
        remedy = "check nvidia-smi, and CUDA_VISIBLE_DEVICES; without a card: profiles/cpu-smollm2.yaml"
        yield Finding("cards", "fail" if needed else "warn", short, remedy)
    wanted = find_card(profile.hardware.gpu) if profile and profile.hardware.gpu else None
    for card in present:
        has = f"{card.index}: {card.name}, {format_gib(card.total_bytes)}, {format_gib(card.used_bytes)} in use"
        if wanted and (there := find_card(card.name)) and there.name != wanted.name:
            remedy = f"set hardware.gpu: {there.name}, and see what `launcher plan` says"
            yield Finding("cards", "warn", f"{has}; the profile is for {wanted.name}", remedy)
        elif card.used_bytes > card.total_bytes // 20:
            yield Finding("cards", "warn", has, "the plan counts on an empty card: see nvidia-smi for what is on it")
        else:
            yield Finding("cards", "ok", has)


def _cpu(profile: Profile) -> Iterator[Finding]:
    flags = _cpu_flags()
    if flags is None:
        yield Finding("cpu", "ok", f"{platform.machine()}, {os.cpu_count()} cores")
    elif "avx512f" in flags:
        yield Finding("cpu", "ok", f"{os.cpu_count()} cores with AVX-512")
    elif "avx2" in flags:
        yield Finding("cpu", "warn", f"{os.cpu_count()} cores with AVX2, without AVX-512", "works, more slowly")
    else:
        yield Finding("cpu", "fail", "has neither AVX2 nor AVX-512, which vLLM needs", "use another machine")
    yield from _main_memory(profile)


def _cpu_flags() -> set[str] | None:
    """The flags of the first core; None where Linux on x86 does not tell."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return None
    return next((set(line.partition(":")[2].split()) for line in lines if line.startswith("flags")), None)


def _main_memory(profile: Profile) -> Iterator[Finding]:
    engine = profile.engine
    if not isinstance(engine, VllmEngine) or engine.kv_cache_memory is None:
        return
    fields = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    available = int(fields["MemAvailable"].split()[0]) * 1024
    kv = engine.replicas * engine.kv_cache_memory
    has = f"{format_gib(available)} available, {format_gib(kv)} of it for the KV cache"
    if kv + GIB > available:
        yield Finding("memory", "fail", has, "lower engine.kv_cache_memory, or end other programs")
    else:
        yield Finding("memory", "ok", has)


def _shared_memory(profile: Profile | None) -> Iterator[Finding]:
    shm = Path("/dev/shm")
    if not shm.is_dir():
        return
    total = shutil.disk_usage(shm).total
    engine = profile.engine if profile else None
    parallel = isinstance(engine, VllmEngine) and engine.tensor_parallel * engine.pipeline_parallel > 1
    if total >= SHM_BYTES or (total > 64 * MIB and not parallel):
        yield Finding("/dev/shm", "ok", format_gib(total))
    else:
        needs = "; engines over several cards need 1 GiB" if parallel else ""
        remedy = "in a container: --shm-size=8g or --ipc=host; else: mount -o remount,size=8G /dev/shm"
        yield Finding("/dev/shm", "fail" if parallel else "warn", format_gib(total) + needs, remedy)


def _disk(profile: Profile | None) -> Iterator[Finding]:
    folder = hub_cache()
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    fetched = profile is not None and profile.model.id is not None and not is_complete(profile)
    wanted = HUB_DISK_BYTES if fetched else PACKAGED_DISK_BYTES
    if free < wanted:
        remedy = "free some, or set HF_HOME to a folder on a larger disk"
        yield Finding(
            "disk", "warn", f"{format_gib(free)} free in {folder}, {format_gib(wanted)} may be needed", remedy
        )
    else:
        yield Finding("disk", "ok", f"{format_gib(free)} free in {folder}")


def _port(loaded: LoadedProfile) -> Iterator[Finding]:
    listen = loaded.profile.gateway.listen
    host, _, port = listen.rpartition(":")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host.strip("[]"), int(port)))
        except OSError as error:
            other = f"--set gateway.listen={host}:{int(port) + 1 if int(port) < 65535 else 0}"
            yield Finding("port", "fail", f"{listen}: {error.strerror}", f"`launcher ps` shows what runs; or: {other}")
            return
    yield Finding("port", "ok", f"{listen} is free")


def _peer_to_peer(profile: Profile) -> Iterator[Finding]:
    from launcher.plan.known_gpus import find_card

    engine, hardware = profile.engine, profile.hardware
    if not isinstance(engine, VllmEngine) or hardware.device != "cuda" or engine.tensor_parallel == 1:
        return
    card = find_card(hardware.gpu) if hardware.gpu else None
    reach = hardware.peer_to_peer if hardware.peer_to_peer is not None else (card.peer_to_peer if card else None)
    if reach is not False:
        return
    told = engine.env.get("NCCL_P2P_DISABLE") == "1" and "--disable-custom-all-reduce" in engine.extra_args
    if told:
        yield Finding("peer-to-peer", "ok", "the cards have none, and NCCL and vLLM are told so")
    else:
        remedy = 'engine.env.NCCL_P2P_DISABLE: "1" and engine.extra_args: [--disable-custom-all-reduce]; or replicas'
        yield Finding("peer-to-peer", "warn", "the cards have none; the engines may hang while they start", remedy)
