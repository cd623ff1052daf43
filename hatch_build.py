"""Builds a wheel whose gateway is compiled with mypyc, where LAUNCHER_COMPILE=1 asks for it; `make compile` does.

Without it the wheel is plain Python, and that is also what a checkout runs. LAUNCHER_COMPILE_LEVEL is the C compiler's
level of optimisation: 0 builds in a third of the time, for tests.
"""

from __future__ import annotations

import os
import shutil
import sys
import sysconfig
import tempfile
import tomllib
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

SWITCH, LEVEL = "LAUNCHER_COMPILE", "LAUNCHER_COMPILE_LEVEL"
GROUP = "launcher"  # the shared library with all the machine code: launcher__mypyc
# In the path of a request or of a piece of its answer. The others would gain nothing; msgspec's structs (events, access)
# cannot be compiled.
MODULES = (
    "admit", "answers", "asked", "auth", "bodies", "books", "compat", "cutting", "deadline", "dispatch", "forecast",
    "framing", "generate", "heads", "histograms", "http1", "ingest", "known_heads",
    "learning", "ledger", "limit", "metrics", "modes", "order", "pace",
    "pool", "prefix", "price", "prompts", "pump", "rate", "readers", "reasons", "refusal", "relay", "replicas", "requests",
    "rescue", "routes", "server", "shares", "sse", "ticket", "timing", "transcript", "upstream", "usage",
)  # fmt: skip


class CompileGateway(BuildHookInterface[Any]):
    """Puts the compiled modules beside their sources into the wheel; nothing is left in the source tree."""

    def dependencies(self) -> list[str]:
        """The compiler, and what it has to see of the packages that the gateway imports."""
        if not is_asked_for():
            return []
        project = tomllib.loads(Path(self.root, "pyproject.toml").read_text())["project"]
        return [*project["optional-dependencies"]["compile"], *project["dependencies"]]

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if not is_asked_for():
            return
        if version == "editable":
            stop(f"an editable install cannot be compiled: leave {SWITCH} unset, or install without -e.")
        level = optimisation()
        need_compiler()
        self._folder = tempfile.TemporaryDirectory(prefix="launcher-compile-")
        built = compile_modules(Path(self.root), Path(self._folder.name), level)
        build_data["force_include"].update({str(path): name for name, path in built.items()})
        build_data["pure_python"], build_data["infer_tag"] = False, True

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        if is_asked_for():
            self._folder.cleanup()


def is_asked_for() -> bool:
    """Whether the environment asks for a compiled gateway."""
    value = os.environ.get(SWITCH, "")
    if value not in ("", "0", "1"):
        stop(f"{SWITCH}: {value!r} is not understood: 1 compiles the gateway; 0, or leaving it unset, does not.")
    return value == "1"


def optimisation() -> str:
    value = os.environ.get(LEVEL, "2")
    if value not in ("0", "1", "2", "3"):
        stop(f"{LEVEL}: {value!r} is not a level of optimisation: 0, 1, 2 or 3.")
    return value


def need_compiler() -> None:
    """Without a C compiler, or Python's headers, this cannot go on."""
    program = (os.environ.get("CC") or sysconfig.get_config_var("CC") or "gcc").split()[0]
    header = Path(sysconfig.get_path("include"), "Python.h")
    for is_there, what in ((shutil.which(program), f"the C compiler {program}"), (header.exists(), f"{header}")):
        if not is_there:
            packages = "gcc libc6-dev python{}.{}-dev".format(*sys.version_info[:2])
            stop(
                f"compiling the gateway needs {what}, which is not there: sudo apt-get install {packages}, "
                f"or leave {SWITCH} unset and install the gateway as plain Python."
            )


def compile_modules(root: Path, folder: Path, level: str) -> dict[str, Path]:
    """The machine code of MODULES: each file's name within the wheel, and where it lies."""
    from mypyc.build import mypycify
    from setuptools import Distribution
    from setuptools.command.build_ext import build_ext

    before = Path.cwd()
    os.chdir(root)  # mypy tells a module's name by its path from here
    try:
        extensions = mypycify(
            [
                f"--config-file={root / 'pyproject.toml'}",
                f"--cache-dir={folder / 'cache'}",
                *(f"launcher/gateway/{name}.py" for name in MODULES),
            ],
            opt_level=level,
            debug_level="0",
            target_dir=str(folder / "c"),
            group_name=GROUP,
        )
        command = build_ext(Distribution({"name": GROUP, "ext_modules": extensions}))
        command.build_lib, command.build_temp = str(folder / "lib"), str(folder / "temp")
        command.ensure_finalized()
        command.run()
    finally:
        os.chdir(before)
    library, suffix = folder / "lib", sysconfig.get_config_var("EXT_SUFFIX")
    return {str(path.relative_to(library)): path for path in library.rglob(f"*{suffix}")}


def stop(sentence: str) -> None:
    """Ends the build with one sentence: a traceback would hide it."""
    raise SystemExit(f"error: {sentence}")
