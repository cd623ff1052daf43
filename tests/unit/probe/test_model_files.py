"""Facts of a model from folders, from a hub on loopback that speaks the hub's paths, and from what is shipped."""

from __future__ import annotations

import json
import struct
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from launcher.plan.plan import make_plan
from launcher.probe import hub
from launcher.probe.model_files import read_model_facts, shipped_facts
from launcher.profile.model import Profile

CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 256,
    "max_position_embeddings": 1024,
    "dtype": "float32",
}


def safetensors(tensors: dict[str, tuple[str, int]], *, padding: int = 0) -> bytes:
    """A safetensors file with tensors of so many bytes each; ``padding`` makes its header longer."""
    table: dict[str, Any] = {"__metadata__": {"format": "pt", "note": "x" * padding}}
    at = 0
    for name, (dtype, size) in tensors.items():
        table[name] = {"dtype": dtype, "shape": [size], "data_offsets": [at, at + size]}
        at += size
    header = json.dumps(table).encode()
    return struct.pack("<Q", len(header)) + header + bytes(at)


def profile_of(**model: Any) -> Profile:
    return Profile.model_validate({"name": "test", "model": model, "hardware": {"gpu": "RTX 4090"}})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model folder with two weight files and an index."""
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text(json.dumps(CONFIG))
    (model / "preprocessor_config.json").write_text(json.dumps({"size": {"longest_edge": 5000000}}))
    (model / "one.safetensors").write_bytes(safetensors({"model.layers.0.w": ("BF16", 1000), "visual.w": ("BF16", 40)}))
    (model / "two.safetensors").write_bytes(safetensors({"lm_head.weight": ("F32", 200)}))
    weight_map = {
        "model.layers.0.w": "one.safetensors",
        "visual.w": "one.safetensors",
        "lm_head.weight": "two.safetensors",
    }
    (model / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return model


def test_a_folder_tells_exact_bytes_by_part_and_type(folder: Path) -> None:
    facts = read_model_facts(profile_of(path="model"), folder.parent)
    assert facts is not None
    assert facts.origin == "config.json in model"
    assert facts.config == CONFIG
    assert facts.weights is not None
    assert (facts.weights.total, facts.weights.language, facts.weights.vision) == (1240, 1200, 40)
    assert facts.weights.by_dtype == {"BF16": 1040, "F32": 200}
    assert facts.checkpoint_dtype == "bfloat16"  # what the files have, whatever config.json says
    assert facts.image_processor == {"size": {"longest_edge": 5000000}}
    assert facts.notes == ()


def test_files_beside_the_index_do_not_count(folder: Path) -> None:
    (folder / "consolidated.safetensors").write_bytes(safetensors({"w": ("BF16", 9999)}))
    facts = read_model_facts(profile_of(path="model"), folder.parent)
    assert facts is not None
    assert facts.weights is not None
    assert facts.weights.total == 1240


def test_without_an_index_every_file_counts(folder: Path) -> None:
    (folder / "model.safetensors.index.json").unlink()
    facts = read_model_facts(profile_of(path="model"), folder.parent)
    assert facts is not None
    assert facts.weights is not None
    assert facts.weights.total == 1240


def test_a_missing_part_is_told(folder: Path) -> None:
    (folder / "two.safetensors").unlink()
    facts = read_model_facts(profile_of(path="model"), folder.parent)
    assert facts is not None
    assert facts.weights is None
    assert facts.notes == (f"{folder}/two.safetensors is in the index but not there: the model is not complete.",)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "it is shorter than a safetensors header"),
        (b"\xff" * 16, "its header would be 18446744073709551615 bytes long, so it is no safetensors file"),
        (struct.pack("<Q", 2) + b"[]", "its header is not a table of tensors"),
    ],
)
def test_a_broken_file_is_told(folder: Path, content: bytes, why: str) -> None:
    (folder / "two.safetensors").write_bytes(content)
    facts = read_model_facts(profile_of(path="model"), folder.parent)
    assert facts is not None
    assert facts.notes == (f"{folder}/two.safetensors cannot be read: {why}.",)


def test_a_missing_folder_is_told_and_the_plan_says_so(tmp_path: Path) -> None:
    profile = profile_of(path="nowhere")
    facts = read_model_facts(profile, tmp_path)
    assert facts is not None
    assert facts.notes == (f"nowhere ({tmp_path}/nowhere) is not there.",)
    assert make_plan(profile, facts).verdict == "unknown"


def test_a_gguf_file_cannot_be_told(tmp_path: Path) -> None:
    (tmp_path / "model.gguf").write_bytes(b"GGUF" + bytes(96))
    profile = profile_of(path="model.gguf")
    facts = read_model_facts(profile, tmp_path)
    assert facts is not None
    plan = make_plan(profile, facts)
    assert plan.summary == "Cannot tell: no config.json is known (model.gguf, a GGUF file of 100 bytes)."


def test_shipped_facts_are_found_by_any_of_their_names() -> None:
    for name in ("zai-org/GLM-4.6V-Flash", "THUDM/glm-4v-9b", "zai-org/autoglm-phone-9b-multilingual"):
        facts = shipped_facts(name)
        assert facts is not None
        assert facts.origin == "facts shipped with the launcher, 2026-11-21"
    assert shipped_facts("zai-org/GLM-5") is None


# --- the hub ---------------------------------------------------------------------------------------------------------


class Hub:
    """A hub on loopback: files by path, and the ways in which one can fail."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.status: int | None = None
        self.requests: list[tuple[str, str | None, str | None]] = []
        self.ignores_ranges = False
        self.release = threading.Event()  # while hanging, requests wait for this
        self.hangs = False
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                wanted = self.headers.get("range")
                hub.requests.append((self.path, wanted, self.headers.get("authorization")))
                if hub.hangs:
                    hub.release.wait(30)
                    self.close_connection = True
                    return
                content = hub.files.get(self.path)
                if hub.status is not None or content is None:
                    self.send_response(hub.status or 404)
                    self.send_header("content-length", "0")
                    self.end_headers()
                    return
                status = 200
                if wanted and not hub.ignores_ranges:
                    first, _, last = wanted.removeprefix("bytes=").partition("-")
                    content, status = content[int(first) : int(last) + 1], 206
                self.send_response(status)
                self.send_header("content-length", str(len(content)))
                self.end_headers()
                try:
                    self.wfile.write(content)
                except ConnectionError:
                    self.close_connection = True  # the client has what it wanted

            def log_message(self, *what: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True)
        self.thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_address[1]}"

    def put(self, name: str, content: bytes, revision: str = "main") -> None:
        self.files[f"/someone/model/resolve/{revision}/{name}"] = content

    def close(self) -> None:
        self.release.set()
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    found = Hub()
    found.put("config.json", json.dumps(CONFIG).encode())
    monkeypatch.setenv("HF_ENDPOINT", found.url)
    monkeypatch.setenv("HF_TOKEN", "hf_test")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    yield found
    found.close()


HUB_PROFILE = {"id": "someone/model"}


def test_the_hub_is_asked_for_headers_not_for_weights(server: Hub, tmp_path: Path) -> None:
    server.put("model.safetensors", safetensors({"model.w": ("BF16", 3_000_000), "visual.w": ("BF16", 500)}))
    facts = read_model_facts(profile_of(**HUB_PROFILE), tmp_path)
    assert facts is not None
    assert facts.weights is not None
    assert (facts.weights.language, facts.weights.vision) == (3_000_000, 500)
    assert facts.origin == "config.json of someone/model at main on the hub"
    ranges = {path.rpartition("/")[2]: wanted for path, wanted, _ in server.requests}
    assert ranges["model.safetensors"] == "bytes=0-1048575"
    assert {authorization for _, _, authorization in server.requests} == {"Bearer hf_test"}


def test_a_long_header_takes_a_second_range(server: Hub, tmp_path: Path) -> None:
    server.put("model.safetensors", safetensors({"w": ("F16", 64)}, padding=hub.FIRST_READ))
    facts = read_model_facts(profile_of(**HUB_PROFILE), tmp_path)
    assert facts is not None
    assert facts.weights is not None
    assert facts.weights.by_dtype == {"F16": 64}
    wanted = [wanted for path, wanted, _ in server.requests if path.endswith(".safetensors")]
    assert len(wanted) == 2
    assert wanted[1] is not None
    assert wanted[1].startswith("bytes=1048576-")


def test_a_server_that_ignores_ranges_does_not_send_it_all(server: Hub, tmp_path: Path) -> None:
    server.ignores_ranges = True
    server.put("model.safetensors", safetensors({"w": ("F16", 8_000_000)}))
    facts = read_model_facts(profile_of(**HUB_PROFILE), tmp_path)
    assert facts is not None
    assert facts.weights is not None
    assert facts.weights.total == 8_000_000


def test_the_index_names_the_files_and_serves_where_headers_fail(server: Hub, tmp_path: Path) -> None:
    index = {"metadata": {"total_size": 12345}, "weight_map": {"a": "one.safetensors", "b": "two.safetensors"}}
    server.put("model.safetensors.index.json", json.dumps(index).encode())
    server.put("one.safetensors", safetensors({"a": ("BF16", 10)}))
    facts = read_model_facts(profile_of(**HUB_PROFILE), tmp_path)
    assert facts is not None
    assert facts.weights is not None
    assert (facts.weights.total, facts.weights.language) == (12345, None)
    assert facts.notes == (
        "Weight bytes are the index's total; by part they are not known: a weight file is not there as safetensors.",
    )


def test_without_weight_files_the_shape_must_do(server: Hub, tmp_path: Path) -> None:
    facts = read_model_facts(profile_of(**HUB_PROFILE), tmp_path)
    assert facts is not None
    assert facts.weights is None
    assert facts.notes == ("Weight bytes are estimated from the shape: a weight file is not there as safetensors.",)


def test_the_second_time_the_cache_answers(server: Hub, tmp_path: Path) -> None:
    server.put("model.safetensors", safetensors({"w": ("BF16", 64)}))
    first = read_model_facts(profile_of(**HUB_PROFILE), tmp_path)
    asked = len(server.requests)
    again = read_model_facts(profile_of(**HUB_PROFILE), tmp_path)
    assert first is not None
    assert again is not None
    assert len(server.requests) == asked
    assert again.weights == first.weights
    assert again.origin.startswith("config.json of someone/model at main on the hub (cached in ")
    read_model_facts(profile_of(**HUB_PROFILE, revision="other"), tmp_path)
    assert len(server.requests) > asked


def test_a_branch_is_asked_again_after_a_day_a_commit_never(server: Hub, tmp_path: Path) -> None:
    import os

    commit = "0123456789abcdef" * 2 + "01234567"
    for revision, is_asked_again in (("main", True), (commit, False)):
        server.put("config.json", json.dumps(CONFIG).encode(), revision)
        hub.facts_from_hub("someone/model", revision)
        cache = hub._cache_file("someone/model", revision)
        old = time.time() - 2 * hub.MOVING_REVISION_S
        os.utime(cache, (old, old))
        asked = len(server.requests)
        hub.facts_from_hub("someone/model", revision)
        assert (len(server.requests) > asked) is is_asked_again


@pytest.mark.parametrize("content", [b"not json", b"{}", b'{"version": 0}', b'{"version": 1, "weights": 3}'])
def test_a_broken_cache_is_as_none(server: Hub, tmp_path: Path, content: bytes) -> None:
    hub.facts_from_hub("someone/model", "main")
    hub._cache_file("someone/model", "main").write_bytes(content)
    assert hub.facts_from_hub("someone/model", "main").config == CONFIG


@pytest.mark.parametrize(
    ("status", "why"),
    [
        (401, "the hub refused with 401: the model is private, gated or misspelt (set HF_TOKEN if you have access)"),
        (403, "the hub refused with 403: the model is private, gated or misspelt (set HF_TOKEN if you have access)"),
        (404, "the hub has no config.json at revision main"),
        (500, "the hub answered with 500"),
    ],
)
def test_a_refusal_is_told(server: Hub, tmp_path: Path, status: int, why: str) -> None:
    server.status = status
    profile = profile_of(**HUB_PROFILE)
    facts = read_model_facts(profile, tmp_path)
    assert facts is not None
    assert facts.notes == (f"someone/model: {why}.",)
    assert make_plan(profile, facts).verdict == "unknown"


def test_a_hub_that_hangs_is_left_behind(server: Hub, tmp_path: Path) -> None:
    server.hangs = True
    with pytest.raises(hub.HubUnreachable, match=r"the hub (did not answer within 0\.2 s|cannot be reached)"):
        hub.facts_from_hub("someone/model", "main", total_s=0.2)
    assert not server.release.is_set()  # it was still hanging when we went on


def test_a_hub_that_is_not_there_is_told(server: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:1")
    facts = read_model_facts(profile_of(**HUB_PROFILE), tmp_path)
    assert facts is not None
    assert facts.notes[0].startswith("someone/model: the hub cannot be reached (ConnectError: ")


def test_a_pinned_revision_of_a_known_model_falls_back_to_the_shipped_facts(server: Hub, tmp_path: Path) -> None:
    server.status = 500
    profile = profile_of(id="zai-org/GLM-4.6V-Flash", revision="abc")
    facts = read_model_facts(profile, tmp_path)
    assert facts is not None
    assert facts.origin == "facts shipped with the launcher, 2026-11-21"
    assert facts.notes[-1] == (
        "zai-org/GLM-4.6V-Flash: the hub answered with 500, so the shipped facts are used; they may differ from the pinned "
        "revision."
    )
    assert server.requests


def test_a_known_model_is_not_asked_for(server: Hub, tmp_path: Path) -> None:
    read_model_facts(profile_of(id="zai-org/GLM-4.6V-Flash"), tmp_path)
    assert server.requests == []


def test_offline_asks_nobody(server: Hub, tmp_path: Path) -> None:
    facts = read_model_facts(profile_of(**HUB_PROFILE), tmp_path, offline=True)
    assert facts is not None
    assert facts.notes == ("someone/model: the hub was not asked.",)
    assert server.requests == []


def test_hf_hub_offline_is_honoured(server: Hub, tmp_path: Path) -> None:
    """In a process of its own: huggingface_hub reads the variable when it is imported."""
    import os
    import subprocess
    import sys

    code = (
        "from launcher.probe import hub\n"
        "try:\n    hub.facts_from_hub('someone/model', 'main')\n"
        "except hub.HubUnreachable as error:\n    print(error)\n"
    )
    env = {**os.environ, "HF_HUB_OFFLINE": "1"}
    result = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    assert result.stdout == "HF_HUB_OFFLINE is set, so the hub was not asked\n"
    assert server.requests == []
