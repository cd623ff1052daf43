"""vLLM's tensor parallel over two hosts, which are network namespaces: an answer, a dead engine, a dead host, a stop."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from tests.e2e.conftest import require_vllm
from tests.e2e.endpoint import wait_for
from tests.e2e.host import is_gone
from tests.e2e.namespaces import NamespaceHost, two_hosts
from tests.e2e.tiny_llama import make

pytestmark = pytest.mark.cluster

START_S = 300  # 40 s on an idle machine
# fork: each of vLLM's processes would else import it anew. A clean-up is waited for as long as vLLM itself would take.
PROFILE = """\
name: two
model: {{path: {model}, load_format: dummy, served_name: tiny, dtype: float32, max_len: 512}}
hardware: {{device: cpu}}
engine:
  tensor_parallel: 2
  nodes: 2
  compile: eager
  kv_cache_memory: 64MiB
  max_num_seqs: 4
  env: {{VLLM_WORKER_MULTIPROC_METHOD: fork}}
gateway: {{listen: "127.0.0.1:8000"}}
restart: {{backoff: 100ms}}
"""
ASK = """
import json, urllib.request
body = {"model": "tiny", "max_tokens": 8, "ignore_eos": True, "temperature": 0, "messages": [{"role": "user", "content": "Hi"}]}
request = urllib.request.Request(
    "http://127.0.0.1:8000/v1/chat/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
)
print(urllib.request.urlopen(request, timeout=120).read().decode())
"""


def answer(head: NamespaceHost) -> str:
    """Through the gateway, asked on the head, whose loopback it listens on."""
    said = json.loads(head.run(sys.executable, "-c", ASK, timeout_s=150))
    assert said["usage"]["completion_tokens"] == 8
    return str(said["choices"][0]["message"]["content"])


def test_two_hosts_start_fail_and_stop_together(tmp_path: Path) -> None:
    require_vllm()
    make(tmp_path / "model")
    profile = tmp_path / "two.yaml"
    profile.write_text(PROFILE.format(model=tmp_path / "model"))
    with two_hosts(tmp_path, "two") as (head, other):
        head.begin(profile)
        other.begin(profile)
        head.wait_said("Ready:", within_s=START_S)
        text = answer(head)

        parts = head.part(), other.part()
        assert min(map(len, parts)) >= 3  # a guard, vLLM, and its worker that holds half of each layer
        other.kill_engine()
        other.wait_said("node 1: running\n", times=2)
        head.wait_said("engine: starting the engine (attempt 2)", within_s=START_S)
        assert "node 1: the engine was killed with SIGKILL" in head.log_tail()
        assert all(map(is_gone, parts))

        started = head.part()
        other.lose_power()
        head.wait_said("engine: waiting for node 1 (attempt 3)")
        assert other.pids() == set()
        wait_for("the head's part to be gone", lambda: is_gone(started), within_s=30)
        other.begin(profile)
        head.wait_said("engine: ready again", within_s=START_S)
        assert answer(head) == text

        parts = head.part(), other.part()
        assert (head.end(), other.end()) == (0, 0)
        assert all(map(is_gone, parts))
        assert head.pids() == other.pids() == set()
