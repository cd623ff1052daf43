"""The converter with the real transformers: the packaged model, and a file that is none."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from launcher.engine.gguf_folder import model_folder_of
from launcher.engine.model_folder import folder_faults
from launcher.engine.weights import prepare_model
from launcher.errors import PreconditionError
from launcher.probe.vllm_build import VllmBuild
from launcher.profile.model import Profile

pytestmark = pytest.mark.engine


def test_the_packaged_model_is_a_whole_folder_with_its_template(build: VllmBuild) -> None:
    profile = Profile.model_validate(
        {
            "name": "t",
            "model": {"packaged": "smollm2-135m-instruct"},
            "hardware": {"device": "cpu"},
            "engine": {"kv_cache_memory": "1GiB"},
        }
    )
    try:
        folder = Path(prepare_model(profile, Path("/"), progress=print, python=build.python).path)
    except PreconditionError as problem:
        pytest.skip(problem.message)
    assert folder_faults(folder) == []
    config = json.loads((folder / "config.json").read_text())
    assert (config["architectures"], config["tie_word_embeddings"]) == (["LlamaForCausalLM"], True)
    assert "quantization_config" not in config
    assert "<|im_start|>" in (folder / "chat_template.jinja").read_text()
    # 134.5 million weights in bfloat16, the tied embedding once
    assert 268_000_000 < (folder / "model.safetensors").stat().st_size < 270_000_000


def test_a_file_that_is_no_gguf(build: VllmBuild, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAUNCHER_CACHE", str(tmp_path / "cache"))
    file = tmp_path / "bad.gguf"
    file.write_bytes(b"GGUF" + b"x" * 100)
    with pytest.raises(PreconditionError) as caught:
        model_folder_of(file, name="bad", python=build.python, progress=print)
    assert caught.value.message.startswith(f"{file}: the file is damaged or is no GGUF: ")
    assert caught.value.hint.startswith("Download the file again")
