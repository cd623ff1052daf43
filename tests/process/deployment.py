"""The whole command line over the fake engine, for tests of `up`, `ps`, `logs` and `down`."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from tests.e2e.endpoint import Endpoint

FAKE_PYTHON = Path(__file__).resolve().parents[1] / "fakes" / "python-with-vllm"
CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 1000,
    "max_position_embeddings": 4096,
    "torch_dtype": "float32",
}
PROFILE = """\
name: fake
model: {{path: model, load_format: dummy, served_name: smollm2}}
hardware: {{device: cpu}}
engine: {{kv_cache_memory: 64MiB, python: {python}, replicas: {replicas}}}
gateway: {{listen: "127.0.0.1:0"}}
timeouts: {{start: 30s, warmup: 10s, stall: 3s, probe_interval: 500ms, probe: 5s, drain: 20s, stop: 2s}}
restart: {{backoff: 10ms, budget: 2}}
"""


def write_profile(folder: Path, replicas: int = 1) -> Path:
    """PROFILE in a folder, with the model that it names. Its engines need FAKE_ENGINE_PYTHON in their environment."""
    (folder / "model").mkdir()
    (folder / "model" / "config.json").write_text(json.dumps(CONFIG))
    (folder / "model" / "tokenizer.json").write_text("{}")
    path = folder / "fake.yaml"
    path.write_text(PROFILE.format(python=FAKE_PYTHON, replicas=replicas))
    return path


class FakeEndpoint(Endpoint):
    """A profile of its own whose engines are fake ones; ``behave`` says how they do."""

    def __init__(self, folder: Path, replicas: int = 1) -> None:
        super().__init__(folder / "state", "fake")
        self.profile = write_profile(folder, replicas)
        self.environment["FAKE_ENGINE_PYTHON"] = sys.executable
        self.environment["PYTHONPATH"] = os.getcwd()

    def behave(self, **behaviour: Any) -> None:
        """How engines started from now on behave (tests/fakes/behaviour.py)."""
        self.environment["FAKE_ENGINE"] = json.dumps(behaviour)
