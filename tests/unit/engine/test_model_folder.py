"""A local model folder: each fault has its sentence."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from launcher.engine.model_folder import folder_faults, require_complete
from launcher.errors import PreconditionError
from tests.unit.engine.conftest import safetensors

Damage = Callable[[Path], object]


def shards(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "model-1.safetensors").write_bytes(safetensors())
    names = {"a": "model-1.safetensors", "b": "model-2.safetensors", "c": "model-3.safetensors"}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": names}))


def cut(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(safetensors(1000)[:-400])


def pointer(name: str) -> Damage:
    text = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n"
    return lambda folder: (folder / name).write_text(text)


def only_gguf(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "model.Q4.gguf")


FAULTS: list[tuple[str, Damage, str]] = [
    ("whole", lambda folder: None, ""),
    ("no config", lambda folder: (folder / "config.json").unlink(), "{folder} has no config.json"),
    (
        "config one level down",
        lambda folder: ((folder / "inner").mkdir(), (folder / "config.json").rename(folder / "inner/config.json")),
        "{folder} has no config.json; the folder inner inside it has one",
    ),
    ("bad config", lambda folder: (folder / "config.json").write_text("{"), "{folder}/config.json is no valid JSON"),
    (
        "config is a pointer",
        pointer("config.json"),
        "{folder}/config.json is no valid JSON: it is a Git LFS pointer, run `git lfs pull` in its folder",
    ),
    (
        "empty config",
        lambda folder: (folder / "config.json").write_text("{}"),
        "{folder}/config.json names no architecture",
    ),
    (
        "no weights",
        lambda folder: (folder / "model.safetensors").unlink(),
        "{folder} has no weights (looked for *.safetensors and *.bin, *.pt, *.pth)",
    ),
    (
        "shards missing",
        shards,
        "2 of 3 weight files that model.safetensors.index.json names are missing: model-2.safetensors, model-3.safetensors",
    ),
    ("cut off", cut, "{folder}/model.safetensors is cut off: 674 of 1074 bytes"),
    (
        "pointer",
        pointer("model.safetensors"),
        "{folder}/model.safetensors is a Git LFS pointer, not the file: run `git lfs pull` in its folder",
    ),
    (
        "empty file",
        lambda folder: (folder / "model.safetensors").write_bytes(b""),
        "{folder}/model.safetensors is cut off or is no safetensors file (0 MiB)",
    ),
    (
        "gguf only",
        only_gguf,
        "{folder} has its weights as GGUF only: give the file itself, model.path: {folder}/model.Q4.gguf",
    ),
    (
        "no tokenizer",
        lambda folder: (folder / "tokenizer.json").unlink(),
        "{folder} has no tokenizer (looked for tokenizer.json, tokenizer.model, tekken.json, vocab.json, spiece.model, vocab.txt)",
    ),
]


@pytest.mark.parametrize(("damage", "fault"), [row[1:] for row in FAULTS], ids=[row[0] for row in FAULTS])
def test_faults(model_folder: Path, damage: Damage, fault: str) -> None:
    damage(model_folder)
    assert folder_faults(model_folder) == ([fault.format(folder=model_folder)] if fault else [])


def test_dummy_weights_need_no_files(model_folder: Path) -> None:
    (model_folder / "model.safetensors").unlink()
    assert folder_faults(model_folder, weights=False) == []


def test_a_folder_that_is_not_there_names_its_neighbour(model_folder: Path) -> None:
    with pytest.raises(PreconditionError) as caught:
        require_complete(model_folder.parent / "modle", "model.path")
    assert (
        caught.value.message == f"model.path: {model_folder.parent}/modle does not exist, did you mean {model_folder}?"
    )


def test_a_file_is_no_folder(model_folder: Path) -> None:
    with pytest.raises(PreconditionError, match=r"neither a folder nor a \.gguf file"):
        require_complete(model_folder / "config.json", "model.path")


def test_all_faults_at_once(model_folder: Path) -> None:
    (model_folder / "tokenizer.json").unlink()
    (model_folder / "config.json").unlink()
    with pytest.raises(PreconditionError) as caught:
        require_complete(model_folder, "model.path")
    assert [line[:11] for line in caught.value.message.splitlines()] == ["model.path:", "model.path:"]
