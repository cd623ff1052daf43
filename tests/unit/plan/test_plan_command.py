"""`launcher plan` as a user runs it: in a process of its own, without GPU, network, torch or vLLM."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from launcher.cli.plan import without_secrets

ROOT = Path(__file__).parents[3]
FORBIDDEN = ("torch", "vllm", "transformers", "huggingface_hub", "httpx", "httpx2", "rich", "pynvml", "numpy")


def launcher(*arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "launcher", *arguments],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "HF_ENDPOINT": "http://127.0.0.1:1", "XDG_CACHE_HOME": "/nonexistent", **env},
        timeout=60,
        check=False,
    )


def planned(*arguments: str) -> dict[str, Any]:
    result = launcher("plan", *arguments, "-o", "json")
    data = json.loads(result.stdout)
    assert isinstance(data, dict)
    return data


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A profile of a small made-up card that the model does not fit."""
    path = tmp_path / "small.yaml"
    path.write_text(
        "version: 1\nname: small\nmodel:\n  id: zai-org/GLM-4.6V-Flash\n  max_len: 8192\nhardware:\n  gpu: RTX 3060\n"
    )
    return path


def test_nothing_heavy_is_imported() -> None:
    code = (
        "import sys; from launcher.cli import execute; code = execute(['plan', 'profiles/2x4090.yaml']); "
        f"print('IMPORTED', [name for name in {FORBIDDEN} if name in sys.modules], code)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert result.stdout.splitlines()[-1] == "IMPORTED [] 0"


def test_the_verdict_comes_first_then_all_the_rest() -> None:
    result = launcher("plan", "profiles/2x4090.yaml")
    assert result.returncode == 0
    assert result.stderr == ""
    lines = result.stdout.splitlines()
    assert lines[0].startswith("Fits: ")
    for heading in ("Memory of each card", "KV cache of one replica", "Images", "Settings (--all: defaults too)"):
        assert heading in lines
    assert "engine.tensor_parallel         2" in result.stdout
    assert "profiles/2x4090.yaml:" in result.stdout
    assert "NCCL_P2P_DISABLE=1" in result.stdout
    assert "--tensor-parallel-size 2" in result.stdout
    assert "\x1b" not in result.stdout


def test_all_shows_defaults_with_their_origin() -> None:
    few, every = launcher("plan", "profiles/2x4090.yaml"), launcher("plan", "profiles/2x4090.yaml", "--all")
    assert "restart.budget" not in few.stdout
    rows = [line.split() for line in every.stdout.splitlines() if line.startswith("restart.budget ")]
    assert rows == [["restart.budget", "5", "default"]]


def test_an_override_is_planned_and_named_as_its_origin() -> None:
    data = planned("profiles/2x4090.yaml", "--set", "engine.max_num_seqs=16")
    assert data["settings"]["engine.max_num_seqs"] == {"value": 16, "origin": "--set engine.max_num_seqs=16"}
    assert "--max-num-seqs" in data["commands"][0]["argv"]


def test_json_has_the_figures_of_the_table() -> None:
    data = planned("profiles/2x4090.yaml")
    assert data["schema_version"] == 1
    assert data["verdict"] == "fits"
    assert data["placements"] == [{"replica": 0, "gpus": [0, 1], "nodes": 1}]
    assert data["kv"]["bytes_per_token"] == 20 * 1024
    budget = data["budgets"][0]
    parts = [value for name, value in budget.items() if name not in ("stage", "visible", "requested")]
    assert sum(parts) == budget["requested"]
    assert {image["tokens"] for image in data["images"]}


def test_what_does_not_fit_exits_with_4_and_says_what_would(small: Path) -> None:
    result = launcher("plan", str(small))
    assert result.returncode == 4
    lines = result.stdout.splitlines()
    assert lines[0].startswith("Does not fit: hardware.gpu: before any KV cache a card needs ")
    assert any(line.startswith("→ Set model.quantization to bitsandbytes (") for line in lines)
    assert "−" in next(line for line in lines if line.startswith("KV cache  "))


def test_a_remedy_taken_from_the_output_makes_it_fit(small: Path) -> None:
    result = launcher("plan", str(small), "--set", "model.quantization=bitsandbytes", "-o", "json")
    assert json.loads(result.stdout)["verdict"] == "fits"


def test_a_bad_profile_exits_with_3(tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text("version: 1\nname: bad\nmodle: {}\n")
    result = launcher("plan", str(path))
    assert result.returncode == 3
    assert result.stdout == ""
    assert f"{path}:3:1" in result.stderr


def test_an_external_engine_is_not_planned() -> None:
    result = launcher("plan", "profiles/external.yaml")
    assert result.returncode == 0
    assert result.stdout.startswith("Cannot tell: nothing is started here")


def test_a_model_that_nobody_knows_cannot_be_told(tmp_path: Path) -> None:
    path = tmp_path / "unknown.yaml"
    path.write_text("version: 1\nname: unknown\nmodel:\n  id: someone/model\nhardware:\n  gpu: RTX 4090\n")
    result = launcher("plan", str(path), "--offline")
    assert result.returncode == 0
    assert result.stdout.startswith("Cannot tell: no config.json is known (nothing: the hub was not asked).")


def test_arguments_that_cannot_be_are_told_beside_the_verdict(tmp_path: Path) -> None:
    result = launcher("plan", "profiles/2x4090.yaml", "--set", 'engine.extra_args=["--port=1"]')
    assert "But it cannot be started: " in result.stdout
    assert planned("profiles/2x4090.yaml", "--set", 'engine.extra_args=["--port=1"]')["commands"][0]["argv"] is None


def test_the_help_has_an_example() -> None:
    result = launcher("plan", "--help")
    assert "Example: launcher plan profiles/2x4090.yaml" in result.stdout
    assert "Exits with 0" in result.stdout


def test_a_mapping_is_shown_by_its_members_and_secrets_are_not_shown() -> None:
    env = ("--set", "engine.env.HF_TOKEN=hf_abc", "--set", "engine.env.TOKENIZERS_PARALLELISM=false")
    result = launcher("plan", "profiles/2x4090.yaml", *env)
    keys = [line.split()[0] for line in result.stdout.splitlines() if line.startswith("engine.env")]
    assert keys == ["engine.env.NCCL_P2P_DISABLE", "engine.env.HF_TOKEN", "engine.env.TOKENIZERS_PARALLELISM"]
    assert "hf_abc" not in result.stdout
    assert "'HF_TOKEN=(hidden)'" in result.stdout
    assert "TOKENIZERS_PARALLELISM=false" in result.stdout
    data = planned("profiles/2x4090.yaml", *env)
    assert "hf_abc" not in json.dumps(data)
    assert data["settings"]["engine.env.HF_TOKEN"]["value"] == "(hidden)"


@pytest.mark.parametrize(
    ("name", "hidden"),
    [
        ("HF_TOKEN", True),
        ("AWS_SECRET_ACCESS_KEY", True),
        ("OPENAI_API_KEYS", True),
        ("DBPASSWORD", True),
        ("my_token_file", True),
        ("TOKENIZERS_PARALLELISM", False),
        ("VLLM_MAX_TOKENS", False),
        ("NCCL_P2P_DISABLE", False),
    ],
)
def test_which_names_are_secret(name: str, hidden: bool) -> None:
    assert without_secrets({name: "x"}) == {name: "(hidden)" if hidden else "x"}
    assert without_secrets({name: ""}) == {name: ""}


@pytest.mark.parametrize("profile", ["profiles/1x3060.yaml", "profiles/1x4090.yaml"])
def test_4_bits_fit_and_the_plug_in_is_a_note(profile: str) -> None:
    result = launcher("plan", profile)
    assert result.returncode == 0
    assert result.stdout.startswith("Fits: ")
    assert "cannot be started" not in result.stdout
    assert "note: bitsandbytes left vLLM in 0.28" in result.stdout


def test_a_text_model_gets_no_limits_on_images() -> None:
    data = planned("profiles/cpu-smollm2.yaml")
    assert "--limit-mm-per-prompt" not in data["commands"][0]["argv"]


def test_the_machines_memory_is_counted_with_where_the_profile_gives_none(tmp_path: Path) -> None:
    text = (ROOT / "profiles/cpu-smollm2.yaml").read_text()
    line = next(line for line in text.splitlines() if line.startswith("  memory: "))
    path = tmp_path / "cpu.yaml"
    path.write_text(text.replace(line + "\n", ""))
    assert ", this machine has " in planned(str(path))["summary"]


def test_a_chat_template_is_relative_to_the_profile(tmp_path: Path) -> None:
    (tmp_path / "t.jinja").write_text("{{ messages }}")
    path = tmp_path / "p.yaml"
    path.write_text(
        "version: 1\nname: p\nmodel:\n  id: zai-org/GLM-4.6V-Flash\n  chat_template: t.jinja\nhardware:\n  gpu: H200\n"
    )
    assert str(tmp_path / "t.jinja") in planned(str(path))["commands"][0]["argv"]
