"""The rules that tools can hold: direction of imports, style, types; and that the README tells the truth."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from launcher.errors import EXIT_CODES

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()


@pytest.mark.parametrize(
    "command",
    [
        ["ruff", "check", "."],
        ["ruff", "format", "--check", "."],
        ["mypy"],
        ["lint-imports"],
    ],
    ids=" ".join,
)
def test_tools_find_nothing(command: list[str]) -> None:
    tool = Path(sys.executable).with_name(command[0])
    done = subprocess.run([str(tool), *command[1:]], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


# module → distribution, where the names differ
DISTRIBUTIONS = {
    "PIL": "pillow", "cykooz_resizer": "cykooz-resizer", "huggingface_hub": "huggingface-hub", "prometheus_client": "prometheus-client",
    "python_multipart": "python-multipart", "yaml": "pyyaml", "opentelemetry": "opentelemetry-sdk",
}  # fmt: skip
IN_THE_ENGINES_PYTHON = {"launcher/engine/convert_gguf.py", "launcher/probe/parser_dump.py"}  # run where vLLM is


def test_what_is_imported_is_declared() -> None:
    """Another package may bring a module along today and not tomorrow."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    lines = [*project["dependencies"], *extras["audio"], *extras["otel"]]  # without the latter two it says so
    declared = {re.split(r"[<>=\[]", line)[0] for line in lines}
    undeclared = {
        f"{path.relative_to(ROOT)}: {module}"
        for path in (ROOT / "launcher").rglob("*.py")
        if str(path.relative_to(ROOT)) not in IN_THE_ENGINES_PYTHON
        for module in imported(path)
        if DISTRIBUTIONS.get(module, module) not in declared | {"launcher"} | sys.stdlib_module_names
    }
    assert undeclared == set()


def imported(path: Path) -> set[str]:
    """The first names of all absolute imports in a file, also of those within functions."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.partition(".")[0])
    return found


def console_block(command: str) -> list[str]:
    """What the README shows below ``$ command``."""
    found = re.search(rf"```console\n\$ {re.escape(command)}\n(.*?)```", README, re.DOTALL)
    assert found, f"the README does not show {command}"
    return found[1].splitlines()


def test_the_readme_shows_the_plan_as_it_is() -> None:
    """Line by line and in order; … stands for lines left out."""
    said = subprocess.run(
        [sys.executable, "-m", "launcher", "plan", "profiles/2x4090.yaml"], cwd=ROOT, capture_output=True, text=True
    ).stdout
    lines = iter(said.splitlines())
    for shown in console_block("launcher plan profiles/2x4090.yaml"):
        assert shown == "…" or any(line == shown for line in lines), f"the plan does not say (here): {shown}"


def test_the_readme_shows_the_faults_as_they_are(tmp_path: Path) -> None:
    bad = "name: broken\nmodel:\n  id: zai-org/GLM-4.6V-Flash\n  max_lenght: 8192\nengine:\n  tensor_paralel: 2\n"
    (tmp_path / "broken.yaml").write_text(f"{bad}  max_model_len: 4096\ntimeouts:\n  start: 15\n")
    done = subprocess.run(
        [sys.executable, "-m", "launcher", "validate", "broken.yaml"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env={"PYTHONPATH": str(ROOT), "NO_COLOR": "1"},
    )
    assert done.returncode == 3
    assert (done.stdout + done.stderr).splitlines() == console_block("launcher validate broken.yaml")


def test_the_readme_lists_the_exit_codes() -> None:
    rows = dict(re.findall(r"^\| (\d+) \| (.*?) \|$", README, re.MULTILINE))
    assert rows == {str(code): meaning for code, meaning in EXIT_CODES.items()}


def test_the_readme_lists_every_profile() -> None:
    linked = set(re.findall(r"\(profiles/([\w-]+)\.yaml\)", README))
    assert linked == {path.stem for path in (ROOT / "profiles").glob("*.yaml")}


def test_every_module_says_what_it_is_for() -> None:
    silent = [
        str(path.relative_to(ROOT))
        for path in (ROOT / "launcher").rglob("*.py")
        if path.read_text().strip() and not path.read_text().startswith('"""')
    ]
    assert silent == []
