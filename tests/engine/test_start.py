"""One real start with the command that we make: the packaged model, its stages in the log, an answer, a drained stop."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from launcher.engine.command import engine_command
from launcher.engine.diagnose import diagnose
from launcher.engine.stages import Stage, stage_of
from launcher.engine.weights import prepare_model
from launcher.errors import PreconditionError
from launcher.plan.placement import Placement
from launcher.probe.arguments import check_arguments
from launcher.probe.vllm_build import VllmBuild
from launcher.profile.model import Profile

pytestmark = [pytest.mark.engine, pytest.mark.timeout(400)]


def profile(**engine: object) -> Profile:
    return Profile.model_validate(
        {
            "name": "start",
            "model": {"packaged": "smollm2-135m-instruct", "dtype": "float32", "max_len": 2048},
            "hardware": {"device": "cpu"},
            "engine": {"kv_cache_memory": "512MiB", "compile": "eager", **engine},
        }
    )


@pytest.fixture(scope="module")
def model(build: VllmBuild) -> str:
    if build.device != "cpu":
        pytest.skip("the installed vLLM is for CUDA")
    try:
        return prepare_model(profile(), Path("/"), progress=print, python=build.python).path
    except PreconditionError as problem:
        if "not installed" in problem.message:
            pytest.skip(problem.message)
        raise


def started(made: Profile, build: VllmBuild, model: str) -> tuple[subprocess.Popen[str], str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = engine_command(made, Placement(0, ()), port=port, model_path=model, build=build)
    assert check_arguments(build, command.argv) == []
    process = subprocess.Popen(
        command.argv,
        env=command.environment(os.environ),
        cwd="/",
        text=True,
        errors="replace",
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    return process, command.url


@pytest.fixture
def cleanup() -> Iterator[list[subprocess.Popen[str]]]:
    processes: list[subprocess.Popen[str]] = []
    yield processes
    for process in processes:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def wait_for_health(url: str, deadline_s: float = 30.0) -> None:
    """uvicorn tells of its start a moment before it listens."""
    end = time.monotonic() + deadline_s
    while True:
        try:
            with urllib.request.urlopen(f"{url}/health", timeout=deadline_s):
                return
        except urllib.error.URLError:
            if time.monotonic() > end:
                raise
            time.sleep(0.05)


def ask(url: str, question: str) -> str:
    body = {
        "model": "smollm2-135m-instruct",
        "max_tokens": 16,
        "temperature": 0,
        "messages": [{"role": "user", "content": question}],
    }
    request = urllib.request.Request(
        f"{url}/v1/chat/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=120) as answer:
        return str(json.load(answer)["choices"][0]["message"]["content"])


def test_a_start_an_answer_and_a_stop(build: VllmBuild, model: str, cleanup: list[subprocess.Popen[str]]) -> None:
    process, url = started(profile(), build, model)
    cleanup.append(process)
    assert process.stdout is not None
    stages: list[Stage] = []
    lines: list[str] = []
    for line in process.stdout:
        lines.append(line)
        if stage := stage_of(line):
            stages.append(stage)
            if stage.text == "HTTP server up":
                break
    assert stages, diagnose(lines, profile(), process.poll())
    assert stages[-1].text == "HTTP server up", diagnose(lines, profile(), process.poll())
    facts = {name: value for stage in stages for name, value in stage.facts.items()}
    # 512 MiB of 30 layers × 2 × 3 heads × 64 × 4 bytes: 11,650 tokens, in blocks of 128 at most
    assert 11_650 - 128 < facts["kv_tokens"] <= 11_650
    assert [stage.name for stage in stages if stage.name in ("loading", "cache", "serving")]
    wait_for_health(url)
    assert "Paris" in ask(url, "What is the capital of France?")
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
