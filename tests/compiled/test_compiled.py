"""The gateway compiled: the wheel is built once, and the gateway's own tests run against it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]
SUFFIX = sysconfig.get_config_var("EXT_SUFFIX")
BESIDE = ("tests", "loadtests", "deploy", "profiles", "pyproject.toml", "README.md")  # what the tests read
# Of modules that are not compiled.
LEFT_OUT = (
    "test_keyfile.py", "test_audit.py",
    *(f"media/test_{name}.py" for name in ("audio", "decode", "fetch", "multipart", "pool", "store")),
)  # fmt: skip
BUILD = "import hatchling.build, sys; print(getattr(hatchling.build, sys.argv[1])(sys.argv[2]))"

pytestmark = pytest.mark.timeout(1200)


def build(folder: Path, kind: str = "build_wheel", **environment: str) -> subprocess.CompletedProcess[str]:
    """As pip does it."""
    env = {**os.environ, "LAUNCHER_COMPILE": "1", "LAUNCHER_COMPILE_LEVEL": "0", **environment}
    command = [sys.executable, "-c", BUILD, kind, str(folder)]
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)


@pytest.fixture(scope="session")
def hook() -> Iterator[ModuleType]:
    """The build hook's module."""
    sys.path.insert(0, str(ROOT))
    try:
        import hatch_build

        yield hatch_build
    finally:
        sys.path.remove(str(ROOT))


@pytest.fixture(scope="session")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the compiled package, and the tests beside it."""
    has_headers = Path(sysconfig.get_path("include"), "Python.h").exists()
    if not has_headers or shutil.which((sysconfig.get_config_var("CC") or "gcc").split()[0]) is None:
        pytest.skip("there is no C compiler, or no Python.h")
    folder = tmp_path_factory.mktemp("compiled")
    done = build(folder)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-5000:]
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as file:
        file.extractall(folder)
    for name in BESIDE:
        source = ROOT / name
        copy = shutil.copytree if source.is_dir() else shutil.copy
        copy(source, folder / name)
    return folder


def inside(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """Runs Python there, so that it is the compiled package that is imported."""
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | {"LAUNCHER_TEST_LOOP": "uvloop"}
    return subprocess.run([sys.executable, *command], cwd=folder, env=env, capture_output=True, text=True)


def test_all_that_is_to_be_compiled_is(compiled: Path, hook: ModuleType) -> None:
    code = (
        "import importlib, sys\n"
        "for name in sys.argv[1:]: print(name, importlib.import_module('launcher.gateway.' + name).__file__)"
    )
    done = inside(compiled, "-c", code, *hook.MODULES)
    assert done.returncode == 0, done.stderr
    found = dict(line.split(" ", 1) for line in done.stdout.splitlines())
    assert found == {name: str(compiled / "launcher" / "gateway" / f"{name}{SUFFIX}") for name in hook.MODULES}


def test_it_says_so(compiled: Path) -> None:
    assert inside(compiled, "-m", "launcher", "--version").stdout.endswith(" (gateway compiled)\n")


def test_the_wheel_is_for_this_python_and_machine(compiled: Path) -> None:
    (wheel,) = compiled.glob("*.whl")
    assert not wheel.stem.endswith("-none-any")
    with zipfile.ZipFile(wheel) as file:
        about = next(name for name in file.namelist() if name.endswith(".dist-info/WHEEL"))
        assert "Root-Is-Purelib: false" in file.read(about).decode()


def test_nothing_is_left_in_the_sources(compiled: Path) -> None:
    assert [*ROOT.glob("*.so"), *(ROOT / "launcher").rglob("*.so"), *(ROOT / "launcher").rglob("*.c")] == []


def test_the_gateways_tests_pass(compiled: Path) -> None:
    ignored = [f"--ignore=tests/gateway/{name}" for name in LEFT_OUT]
    done = inside(
        compiled, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *ignored, "tests/gateway", "tests/fuzz"
    )
    assert done.returncode == 0, done.stdout[-20_000:] + done.stderr[-5000:]
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed is not None, done.stdout[-5000:]
    assert int(passed[1]) > 1000, done.stdout[-5000:]  # not just those that happened to be found


def test_without_a_compiler_it_says_what_to_do(tmp_path: Path) -> None:
    done = build(tmp_path, CC="no-such-compiler")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert done.stderr.startswith(
        "error: compiling the gateway needs the C compiler no-such-compiler, which is not there"
    )
    assert "apt-get install gcc" in done.stderr
    assert "LAUNCHER_COMPILE unset" in done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("kind", "environment", "said"),
    [
        ("build_wheel", {"LAUNCHER_COMPILE": "yes"}, "LAUNCHER_COMPILE: 'yes' is not understood"),
        ("build_wheel", {"LAUNCHER_COMPILE_LEVEL": "4"}, "LAUNCHER_COMPILE_LEVEL: '4' is not a level of optimisation"),
        ("build_editable", {}, "an editable install cannot be compiled"),
    ],
)
def test_what_cannot_be_is_said(tmp_path: Path, kind: str, environment: dict[str, str], said: str) -> None:
    done = build(tmp_path, kind, **environment)
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: {said}")


@pytest.mark.parametrize("value", ["", "0"])
def test_nothing_is_compiled_unless_asked(tmp_path: Path, value: str) -> None:
    done = build(tmp_path, LAUNCHER_COMPILE=value)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().endswith("-py3-none-any.whl")
