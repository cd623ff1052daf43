"""deploy/bootstrap.py: what it has pip install, and when. pip itself is a program that only writes down its arguments."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
PIP = """#!/bin/sh
if [ "$2" = pip ]; then echo "compile=$LAUNCHER_COMPILE $*" >> "$(dirname "$0")/pip.log"; exit "${PIP_EXIT:-0}"; fi
exec "$REAL_PYTHON" "$@"
"""

HAS_COMPILER = shutil.which("gcc") and Path(sysconfig.get_path("include"), "Python.h").exists()
pytestmark = pytest.mark.skipif(not HAS_COMPILER, reason="as root, bootstrap would install a C compiler")


class Checkout:
    """A copy of what bootstrap reads, and an environment with that pip."""

    def __init__(self, folder: Path) -> None:
        self.root, self.venv = folder / "checkout", folder / "venv"
        (self.root / "launcher").mkdir(parents=True)
        (self.root / "deploy").mkdir()
        for name in ("deploy/bootstrap.py", "hatch_build.py", "pyproject.toml", "launcher/__init__.py"):
            shutil.copy(ROOT / name, self.root / name)
        python = self.venv / "bin" / "python"
        python.parent.mkdir(parents=True)
        python.write_text(PIP)
        python.chmod(python.stat().st_mode | stat.S_IXUSR)
        self._log = python.with_name("pip.log")
        self.said = ""

    def bootstrap(self, *extras: str, code: int = 0, **environment: str) -> list[str]:
        """Runs it; returns what pip was told."""
        self._log.write_text("")
        done = subprocess.run(
            [sys.executable, str(self.root / "deploy" / "bootstrap.py"), str(self.venv), "none", *extras],
            env={**os.environ, "REAL_PYTHON": sys.executable, "LAUNCHER_COMPILE": "1", **environment},
            capture_output=True,
            text=True,
        )
        self.said = done.stderr
        assert done.returncode == code, done.stderr
        start = "-m pip install -q --disable-pip-version-check "
        return [line.replace(start, "") for line in self._log.read_text().splitlines()]

    def change(self, name: str = "launcher/__init__.py") -> None:
        with (self.root / name).open("a") as file:
            file.write("# changed\n")


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path)


def plain(checkout: Checkout, extras: str = "", options: str = "") -> str:
    return f"compile=0 -e {checkout.root}{extras}{options}"


def compiled(checkout: Checkout) -> str:
    return f"compile=1 --no-build-isolation --no-deps --force-reinstall {checkout.root}"


def test_the_plain_one_is_installed_once_whatever_the_environment_says(checkout: Checkout) -> None:
    assert checkout.bootstrap() == [plain(checkout)]
    assert checkout.bootstrap() == []
    checkout.change()  # an editable install needs no other
    assert checkout.bootstrap() == []


def test_compile_comes_after_the_plain_one_and_once(checkout: Checkout) -> None:
    assert checkout.bootstrap("compile") == [plain(checkout, "[compile]"), compiled(checkout)]
    assert "compiling the gateway: about" in checkout.said
    assert checkout.bootstrap("compile") == []
    assert checkout.said == ""


def test_it_stays_compiled_while_the_sources_are_the_same(checkout: Checkout) -> None:
    checkout.bootstrap("compile")
    cache = checkout.root / "launcher" / "__pycache__"
    cache.mkdir()
    (cache / "x.pyc").write_bytes(b"new")
    assert checkout.bootstrap() == []


@pytest.mark.parametrize("name", ["launcher/__init__.py", "launcher/new.py", "hatch_build.py"])
def test_changed_sources_are_installed_as_they_are(checkout: Checkout, name: str) -> None:
    checkout.bootstrap("compile")
    checkout.change(name)
    assert checkout.bootstrap() == [plain(checkout, options=" --no-deps")]
    assert "the sources have changed since the gateway was compiled" in checkout.said
    assert "the gateway is plain Python again: `make compile` compiles it" in checkout.said
    assert checkout.bootstrap() == []


def test_changed_sources_are_compiled_again(checkout: Checkout) -> None:
    checkout.bootstrap("compile")
    checkout.change()
    assert checkout.bootstrap("compile") == [compiled(checkout)]


def test_a_further_extra_makes_it_plain_and_says_so(checkout: Checkout) -> None:
    checkout.bootstrap("compile")
    assert checkout.bootstrap("bnb") == [plain(checkout, "[bnb]")]
    assert "plain Python again" in checkout.said
    assert checkout.bootstrap("compile") == [compiled(checkout)]


def test_what_could_not_be_compiled_is_tried_again(checkout: Checkout) -> None:
    checkout.bootstrap("compile")
    checkout.change()
    assert checkout.bootstrap("compile", PIP_EXIT="1", code=1) == [compiled(checkout)]
    assert "the gateway could not be compiled" in checkout.said
    assert checkout.bootstrap("compile") == [compiled(checkout)]


def test_without_a_compiler_it_says_what_to_install(checkout: Checkout, tmp_path: Path) -> None:
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in ("sh", "dirname"):
        (tools / name).symlink_to(shutil.which(name) or "")
    assert checkout.bootstrap("compile", PATH=str(tools), code=1) == [plain(checkout, "[compile]")]
    assert "compiling the gateway needs a C compiler; install it first: sudo apt-get install gcc" in checkout.said
