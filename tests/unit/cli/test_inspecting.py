"""validate, schema and completion, as processes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from launcher.cli import COMMANDS
from launcher.errors import EXIT_PROFILE, EXIT_USAGE
from launcher.profile.keys import markdown_table, profile_keys
from launcher.profile.schema import build_schema
from tests.unit.cli.launching import COLOUR, ROOT, clean_env, launch, launch_on_terminal

SHIPPED = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "profiles").glob("*.yaml"))
BAD = "name: X\nmodel: {id: a/b}\nengine: {replicass: 2}\n"


@pytest.fixture
def bad(tmp_path: Path) -> Path:
    path = tmp_path / "bad.yaml"
    path.write_text(BAD)
    return path


class TestValidate:
    def test_all_that_are_shipped(self) -> None:
        done = launch("validate", *SHIPPED)
        assert (done.returncode, done.stderr) == (0, "")
        lines = done.stdout.splitlines()
        assert len(lines) == len(SHIPPED) == 8
        assert "ok  profiles/cpu-smollm2.yaml  cpu-smollm2  smollm2-135m-instruct" in lines
        assert "ok  profiles/external.yaml  external  my-model" in lines

    def test_a_bad_one_among_good_ones(self, bad: Path) -> None:
        done = launch("validate", SHIPPED[0], str(bad))
        assert done.returncode == EXIT_PROFILE
        assert done.stdout.splitlines() == ["ok  profiles/1x3060.yaml  1x3060  zai-org/glm-4v-9b"]
        assert done.stderr.splitlines() == [
            f"{bad}:1:7: name: 'X' is not a name: use lower-case letters, digits and hyphens, 52 at most, such as 2x4090",
            f'{bad}:3:10: engine.replicass: there is no such key; did you mean "replicas"?',
            f"error: {bad} has 2 faults",
            f"→ `launcher schema --keys` lists every key; check again with: launcher validate {bad}",
        ]

    def test_missing(self) -> None:
        done = launch("validate", "profiles/2x4090.yml")
        assert done.returncode == EXIT_PROFILE
        assert done.stderr.startswith("error: profiles/2x4090.yml: there is no such file\n→ did you mean")

    def test_json(self, bad: Path) -> None:
        done = launch("validate", SHIPPED[0], str(bad), "nowhere.yaml", "-o", "json")
        assert (done.returncode, done.stderr) == (EXIT_PROFILE, "")
        told = json.loads(done.stdout)
        assert told["schema_version"] == 1
        assert told["valid"] is False
        good, faulty, missing = told["profiles"]
        assert (good["valid"], good["name"], good["faults"]) == (True, "1x3060", [])
        assert faulty["faults"][1] == {
            "file": str(bad),
            "line": 3,
            "column": 10,
            "source": f"{bad}:3:10",
            "key": "engine.replicass",
            "message": 'there is no such key; did you mean "replicas"?',
        }
        assert missing["message"] == "nowhere.yaml: there is no such file"

    def test_overrides_count(self) -> None:
        path = "profiles/2x4090.yaml"
        assert launch("validate", path, "--set", "engine.replicas=0").returncode == EXIT_PROFILE
        done = launch("validate", path, env=clean_env(LAUNCHER__ENGINE__REPLICAS="0"))
        assert done.stderr.startswith("env LAUNCHER__ENGINE__REPLICAS: engine.replicas: 0 is too small: 1 or more\n")

    def test_colour_on_a_terminal_only(self, bad: Path) -> None:
        assert COLOUR not in launch("validate", str(bad)).stderr
        code, shown = launch_on_terminal("validate", SHIPPED[0], str(bad))
        assert code == EXIT_PROFILE
        assert f"{COLOUR}32mok" in shown
        assert f"{COLOUR}31m" in shown

    @pytest.mark.parametrize("how", ["NO_COLOR", "--no-color", "dumb"])
    def test_no_colour_where_it_is_not_wanted(self, how: str, bad: Path) -> None:
        env = clean_env(**({"NO_COLOR": "1"} if how == "NO_COLOR" else {"TERM": "dumb"} if how == "dumb" else {}))
        code, shown = launch_on_terminal(
            *(["--no-color"] if how == "--no-color" else []), "validate", str(bad), env=env
        )
        assert code == EXIT_PROFILE
        assert "has 2 faults" in shown
        assert COLOUR not in shown

    def test_no_colour_in_an_error_that_ends_the_command(self) -> None:
        assert COLOUR in launch_on_terminal("doctor", "nowhere.yaml")[1]
        code, shown = launch_on_terminal("--no-color", "doctor", "nowhere.yaml")
        assert code == EXIT_PROFILE
        assert "nowhere.yaml: there is no such file" in shown
        assert COLOUR not in shown


class TestSchema:
    def test_prints_the_schema(self) -> None:
        assert json.loads(launch("schema").stdout) == build_schema()

    def test_needs_no_pydantic(self) -> None:
        code = "import sys; from launcher.cli import execute; execute(['schema']); print('pydantic' in sys.modules)"
        done = subprocess.run(
            [sys.executable, "-c", code], env=clean_env(), cwd=ROOT, capture_output=True, text=True, check=True
        )
        assert done.stdout.splitlines()[-1] == "False"

    def test_table(self) -> None:
        lines = launch("schema", "--keys").stdout.splitlines()
        assert lines[0].split() == ["KEY", "TYPE", "DEFAULT", "MEANING"]
        assert [line.split()[0] for line in lines[1:]] == [key.path for key in profile_keys()]

    def test_one_key(self) -> None:
        shown = launch("schema", "--key", "timeouts.drain").stdout
        assert shown.startswith("timeouts.drain\n")
        assert "  type:    duration\n  default: 30s\n" in shown

    def test_one_section_as_json(self) -> None:
        told = json.loads(launch("schema", "--key", "restart", "-o", "json").stdout)
        assert told["schema_version"] == 1
        assert [key["path"] for key in told["keys"]] == [
            "restart.backoff",
            "restart.max_backoff",
            "restart.budget",
            "restart.window",
        ]

    def test_markdown(self) -> None:
        assert launch("schema", "--markdown").stdout == markdown_table(profile_keys())

    @pytest.mark.parametrize(
        ("slip", "meant"),
        [("max_len", "model.max_len"), ("engine.replica", "engine.replicas"), ("drian", "timeouts.drain")],
    )
    def test_a_slip(self, slip: str, meant: str) -> None:
        done = launch("schema", "--key", slip)
        assert done.returncode == EXIT_USAGE
        assert f'There is no key "{slip}". Did you mean "{meant}"?' in done.stderr


class TestCompletion:
    @pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
    def test_script(self, shell: str) -> None:
        done = launch("completion", shell)
        assert (done.returncode, done.stderr) == (0, "")
        assert "_LAUNCHER_COMPLETE" in done.stdout
        assert f"{shell}_complete" in done.stdout

    def test_bash_takes_the_script(self) -> None:
        script = launch("completion", "bash").stdout
        subprocess.run(["bash", "-c", script + "\ncomplete -p launcher"], check=True, capture_output=True)

    def complete(self, words: str, position: int) -> list[str]:
        env = clean_env(COMP_WORDS=words, COMP_CWORD=str(position), _LAUNCHER_COMPLETE="bash_complete")
        return [line.partition(",")[2] for line in launch(env=env).stdout.splitlines()]

    def test_commands(self) -> None:
        assert self.complete("launcher ", 1) == list(COMMANDS)
        assert self.complete("launcher d", 1) == ["down", "doctor"]

    def test_options(self) -> None:
        assert "--keys" in self.complete("launcher schema --k", 2)

    def test_says_where_to_put_it(self) -> None:
        code, shown = launch_on_terminal("completion", "zsh")
        assert code == 0
        assert "~/.zfunc/_launcher" in shown
