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

from deploy import bootstrap

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


APT_GET = """#!/bin/sh
echo "$*" >> "$(dirname "$0")/apt-get.log"
case "$1" in install) exit "${APT_EXIT:-0}";; esac
"""


class Machine:
    """One with these programs and no others; what apt-get was told is kept."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self.folder, self._patch = folder, patch
        folder.mkdir()
        for name in ("sh", "dirname"):
            (folder / name).symlink_to(shutil.which(name) or "")
        patch.setenv("PATH", str(folder))
        self.of_user(0)

    def has(self, name: str, script: str = "#!/bin/sh\n") -> None:
        (self.folder / name).write_text(script)
        (self.folder / name).chmod(0o755)

    def of_user(self, number: int) -> None:
        self._patch.setattr(os, "geteuid", lambda: number)

    @property
    def asked(self) -> list[str]:
        log = self.folder / "apt-get.log"
        return log.read_text().splitlines() if log.exists() else []


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(tmp_path / "bin", monkeypatch)


NO_BROWSER = "no Chromium is here, so tests in a browser will be skipped; for them: sudo apt-get install chromium"


def test_root_gets_a_browser(machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    machine.has("apt-get", APT_GET)
    bootstrap.need_browser()
    assert machine.asked == ["update -qq", "install -y -qq chromium"]
    assert capsys.readouterr().err == "bootstrap: installing the Debian package chromium\n"


@pytest.mark.parametrize("name", bootstrap.BROWSERS)
def test_the_browser_that_is_there_will_do(name: str, machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    machine.has("apt-get", APT_GET)
    machine.has(name)
    bootstrap.need_browser()
    assert machine.asked == []
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(("user", "apt_get", "code"), [(1000, True, "0"), (0, False, "0"), (0, True, "100")])
def test_without_a_browser_it_goes_on(
    user: int,
    apt_get: bool,
    code: str,
    machine: Machine,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    machine.of_user(user)
    monkeypatch.setenv("APT_EXIT", code)
    if apt_get:
        machine.has("apt-get", APT_GET)
    bootstrap.need_browser()
    assert bool(machine.asked) == (code != "0")
    assert NO_BROWSER in capsys.readouterr().err


def test_root_gets_what_makes_two_hosts_of_one(machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    machine.has("apt-get", APT_GET)
    bootstrap.need_namespaces()
    assert machine.asked == ["update -qq", "install -y -qq iproute2"]
    machine.has("ip")
    bootstrap.need_namespaces()
    assert len(machine.asked) == 2


def test_without_it_it_goes_on(machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    machine.of_user(1000)
    bootstrap.need_namespaces()
    assert capsys.readouterr().err == (
        "bootstrap: no ip is here, so tests over two hosts will be skipped; for them, as root: apt-get install iproute2\n"
    )


def test_several_packages_are_asked_for_at_once(machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    machine.has("apt-get", APT_GET)
    assert bootstrap.install_packages("gcc", "libc6-dev")
    assert machine.asked == ["update -qq", "install -y -qq gcc libc6-dev"]
    assert "installing the Debian packages gcc, libc6-dev" in capsys.readouterr().err


def test_only_tests_need_a_browser(checkout: Checkout, machine: Machine) -> None:
    installed, *_ = checkout.bootstrap("test")  # after it, on x86-64, helm is asked for
    assert installed == plain(checkout, "[test]")
    assert NO_BROWSER in checkout.said
    checkout.bootstrap("bnb")
    assert NO_BROWSER not in checkout.said


NO_PROMTOOL = "no promtool is here, so tests that need it will be skipped; for them: sudo apt-get install prometheus"
# Writes a package that unpacks to promtool, once the lists are there.
DOWNLOADING = """#!/bin/sh
echo "$*" >> "$(dirname "$0")/apt-get.log"
lists="$(dirname "$0")/lists"
case "$1" in update) : > "$lists";; download) [ -e "$lists" ] && : > prometheus_2.42.0_amd64.deb;; esac
"""
UNPACKING = """#!/bin/sh
mkdir -p usr/bin && echo "$2" > usr/bin/promtool
"""


@pytest.fixture
def environment(tmp_path: Path) -> bootstrap.Environment:
    (tmp_path / "venv" / "bin").mkdir(parents=True)
    return bootstrap.Environment(str(tmp_path / "venv"))


def test_root_gets_promtool_without_the_server_that_it_comes_with(
    machine: Machine, environment: bootstrap.Environment, capsys: pytest.CaptureFixture[str]
) -> None:
    machine.has("apt-get", DOWNLOADING)
    machine.has("dpkg", UNPACKING)
    (machine.folder / "mkdir").symlink_to("/bin/mkdir")
    bootstrap.need_promtool(environment)
    assert Path(environment.path, "bin", "promtool").read_text() == "prometheus_2.42.0_amd64.deb\n"
    assert machine.asked == ["download -qq prometheus", "update -qq", "download -qq prometheus"]
    assert capsys.readouterr().err == "bootstrap: taking promtool out of the Debian package prometheus\n"
    bootstrap.need_promtool(environment)
    assert len(machine.asked) == 3


@pytest.mark.parametrize(("user", "apt_get"), [(1000, True), (0, False), (0, True)])
def test_without_promtool_it_goes_on(
    user: int,
    apt_get: bool,
    machine: Machine,
    environment: bootstrap.Environment,
    capsys: pytest.CaptureFixture[str],
) -> None:
    machine.of_user(user)
    if apt_get:
        machine.has("apt-get", "#!/bin/sh\nexit 100\n")
    bootstrap.need_promtool(environment)
    assert NO_PROMTOOL in capsys.readouterr().err
    assert not Path(environment.path, "bin", "promtool").exists()


def test_the_promtool_that_is_there_will_do(machine: Machine, environment: bootstrap.Environment) -> None:
    machine.has("apt-get", DOWNLOADING)
    machine.has("promtool")
    bootstrap.need_promtool(environment)
    assert machine.asked == []
