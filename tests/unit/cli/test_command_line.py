"""The command line as a whole: help, slips, exit codes, broken pipes, Ctrl+C, our own bugs."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from launcher import __version__
from launcher.cli import COMMANDS
from launcher.errors import EXIT_CODES, EXIT_FAILURE, EXIT_INTERRUPTED, EXIT_USAGE
from launcher.gateway.build import is_compiled
from tests.unit.cli.launching import ROOT, clean_env, launch

OURS = [
    name for name, lazy in COMMANDS.items() if lazy.target.startswith(("launcher.cli.inspect", "launcher.cli.doctor"))
]


def python(code: str, *, env: dict[str, str] | None = None) -> subprocess.Popen[str]:
    """A process that runs the command line with something changed."""
    return subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=env or clean_env(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


class TestHelp:
    def test_begins_with_what_to_do_and_ends_with_the_exit_codes(self) -> None:
        done = launch("--help")
        assert done.returncode == 0
        assert "launcher up profiles/cpu-smollm2.yaml" in done.stdout
        for code, meaning in EXIT_CODES.items():
            assert re.search(rf"^ +{code} +{re.escape(meaning)}$", done.stdout, re.MULTILINE)
        for name, lazy in COMMANDS.items():
            assert re.search(rf"^  {name} +{re.escape(lazy.help)}$", done.stdout, re.MULTILINE)

    def test_imports_nothing_heavy(self) -> None:
        code = (
            "import sys; from launcher.cli import execute; execute(['--help']);"
            "print([m for m in ('pydantic', 'rich', 'httpx', 'yaml', 'huggingface_hub', 'uvloop') if m in sys.modules])"
        )
        assert python(code).communicate()[0].splitlines()[-1] == "[]"

    def test_validate_imports_neither_gateway_nor_hub(self) -> None:
        code = (
            "import sys; from launcher.cli import execute; execute(['validate', 'profiles/2x4090.yaml']);"
            "print([m for m in sys.modules if m.startswith(('launcher.gateway', 'launcher.supervise', 'launcher.up',"
            " 'huggingface_hub', 'httpx', 'rich', 'torch', 'vllm'))])"
        )
        assert python(code).communicate()[0].splitlines()[-1] == "[]"

    @pytest.mark.parametrize("name", OURS)
    def test_each_command_has_an_example(self, name: str) -> None:
        done = launch(name, "--help")
        assert done.returncode == 0
        assert f"Example: launcher {name}" in done.stdout
        assert COMMANDS[name].help.partition(".")[0] in " ".join(done.stdout.split())

    def test_version(self) -> None:
        compiled = " (gateway compiled)" if is_compiled() else ""
        assert launch("--version").stdout == f"launcher, version {__version__}{compiled}\n"

    def test_no_command_shows_the_help(self) -> None:
        done = launch()
        assert "Usage: launcher" in done.stdout + done.stderr


class TestSlips:
    def test_command(self) -> None:
        done = launch("validat", "x.yaml")
        assert done.returncode == EXIT_USAGE
        assert 'There is no command "validat". Did you mean "validate"?' in done.stderr

    def test_no_such_command(self) -> None:
        done = launch("xyzzy")
        assert done.returncode == EXIT_USAGE
        assert f"The commands are: {', '.join(COMMANDS)}." in done.stderr

    def test_option(self) -> None:
        done = launch("schema", "--kesy")
        assert done.returncode == EXIT_USAGE
        assert "--keys" in done.stderr


def test_a_reader_that_has_enough_is_no_error() -> None:
    process = python("from launcher.cli import main; main(['schema'])")
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()  # before it writes: it has yet to import everything
    assert process.wait(timeout=60) == EXIT_FAILURE
    assert process.stderr.read() == ""


def test_ctrl_c() -> None:
    code = """
import click, signal, sys, time, types
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs inherit that it is ignored
module = types.ModuleType("stuck")
@click.command()
def command():
    print("waiting", flush=True)
    while True:  # signal.pause() would miss a signal that comes just before it
        time.sleep(0.1)
module.command = command
sys.modules["stuck"] = module
import launcher.cli
launcher.cli.COMMANDS["stuck"] = launcher.cli.Lazy("stuck:command", "")
launcher.cli.main(["stuck"])
"""
    process = python(code)
    assert process.stdout is not None
    assert process.stdout.readline() == "waiting\n"
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == EXIT_INTERRUPTED
    assert "Traceback" not in said


BUG = """
import click, sys, types
module = types.ModuleType("buggy")
@click.command()
def command():
    raise KeyError("oh")
module.command = command
sys.modules["buggy"] = module
import launcher.cli
launcher.cli.COMMANDS["buggy"] = launcher.cli.Lazy("buggy:command", "")
launcher.cli.main(ARGV)
"""


class TestOurOwnBugs:
    def test_one_sentence_and_a_file(self, tmp_path: Path) -> None:
        process = python(BUG.replace("ARGV", "['buggy']"), env=clean_env(TMPDIR=str(tmp_path)))
        _, said = process.communicate(timeout=60)
        assert process.returncode == EXIT_FAILURE
        assert said.startswith("error: a bug in launcher: KeyError: 'oh'\n→ the traceback is in ")
        (kept,) = tmp_path.glob("launcher-*.traceback")
        assert str(kept) in said
        assert "KeyError" in kept.read_text()
        assert "Traceback" not in said

    def test_debug_shows_it(self, tmp_path: Path) -> None:
        process = python(BUG.replace("ARGV", "['--debug', 'buggy']"), env=clean_env(TMPDIR=str(tmp_path)))
        _, said = process.communicate(timeout=60)
        assert process.returncode == EXIT_FAILURE
        assert "Traceback (most recent call last)" in said
        assert not list(tmp_path.iterdir())

    def test_nowhere_to_write(self) -> None:
        broken = "import tempfile; tempfile.tempdir = '/nonexistent'\n"
        process = python(broken + BUG.replace("ARGV", "['buggy']"))
        _, said = process.communicate(timeout=60)
        assert "→ run it again with: launcher --debug …; please report it" in said


def test_the_installed_script_is_the_module() -> None:
    """`launcher` and `python -m launcher` are the same function."""
    import launcher.__main__
    import launcher.cli

    assert launcher.__main__.main is launcher.cli.main
    assert os.path.basename(str(launcher.__main__.__file__)) == "__main__.py"
