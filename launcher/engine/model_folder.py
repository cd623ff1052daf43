"""Checks a local model folder before the engine reads it: config, weights (all shards, none cut off) and tokenizer."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

from launcher.errors import PreconditionError
from launcher.profile.units import format_gib

TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "tekken.json", "vocab.json", "spiece.model", "vocab.txt")
OTHER_WEIGHTS = ("*.bin", "*.pt", "*.pth")
INDEXES = ("model.safetensors.index.json", "pytorch_model.bin.index.json", "consolidated.safetensors.index.json")
LFS_POINTER = b"version https://git-lfs"


def require_complete(folder: Path, key: str, *, weights: bool = True) -> None:
    """Raises PreconditionError that lists every fault of ``folder``. ``key`` is where the profile names it.

    ``weights=False`` for model.load_format: dummy, which makes weights up.
    """
    if not folder.exists():
        near = _neighbour(folder)
        raise PreconditionError(
            f"{key}: {folder} does not exist" + (f", did you mean {near}?" if near else ""),
            "Give a model folder (with config.json), a .gguf file, or use model.id to take it from the Hugging Face hub.",
        )
    if not folder.is_dir():
        raise PreconditionError(
            f"{key}: {folder} is neither a folder nor a .gguf file",
            "Give the folder that holds config.json and the weights.",
        )
    if faults := folder_faults(folder, weights=weights):
        raise PreconditionError(
            "\n".join(f"{key}: {fault}" for fault in faults),
            "Copy or download the model again; a hub download is complete once `model.id` has been served from it.",
        )


def folder_faults(folder: Path, *, weights: bool = True) -> list[str]:
    """What keeps vLLM from reading ``folder``, as sentences. Reads headers and names only, never the weights."""
    faults = _config_faults(folder)
    if weights:
        faults += _weight_faults(folder)
    if not any((folder / name).exists() for name in TOKENIZER_FILES):
        faults.append(f"{folder} has no tokenizer (looked for {', '.join(TOKENIZER_FILES)})")
    return faults


def _config_faults(folder: Path) -> list[str]:
    path = folder / "config.json"
    if not path.exists():
        nested = sorted(found.parent.name for found in folder.glob("*/config.json"))
        inside = f"; the folder {nested[0]} inside it has one" if nested else ""
        mistral = "; it has params.json, Mistral's own format" if (folder / "params.json").exists() else ""
        return [] if mistral else [f"{folder} has no config.json{inside}"]
    config = _json(path)
    if config is None:
        return [f"{path} is no valid JSON" + _pointer(path)]
    return [] if config.get("architectures") or config.get("model_type") else [f"{path} names no architecture"]


def _weight_faults(folder: Path) -> list[str]:
    for name in INDEXES:
        if (folder / name).exists():
            index = _json(folder / name)
            if index is None or not isinstance(index.get("weight_map"), dict):
                return [f"{folder / name} is no valid index" + _pointer(folder / name)]
            return _shard_faults(folder, name, sorted(set(index["weight_map"].values())))
    tensors = sorted(folder.glob("*.safetensors"))
    if tensors:
        return [fault for path in tensors if (fault := safetensors_fault(path))]
    if any(next(folder.glob(pattern), None) for pattern in OTHER_WEIGHTS):
        return []
    if ggufs := sorted(folder.glob("*.gguf")):
        return [f"{folder} has its weights as GGUF only: give the file itself, model.path: {ggufs[0]}"]
    return [f"{folder} has no weights (looked for *.safetensors and {', '.join(OTHER_WEIGHTS)})"]


def _shard_faults(folder: Path, index: str, shards: list[str]) -> list[str]:
    missing = [shard for shard in shards if not (folder / shard).exists()]
    faults = []
    if missing:
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        faults.append(
            f"{len(missing)} of {len(shards)} weight files that {index} names are missing: {', '.join(missing[:3])}{more}"
        )
    present = [folder / shard for shard in shards if shard not in missing and shard.endswith(".safetensors")]
    return faults + [fault for path in present if (fault := safetensors_fault(path))]


def safetensors_fault(path: Path) -> str | None:
    """Whether the file is as long as its header says (8 bytes of length, the JSON header, then the data)."""
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(8)
        if start and LFS_POINTER.startswith(start):
            return f"{path} is a Git LFS pointer, not the file: run `git lfs pull` in its folder"
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
        if not 2 <= length <= max(size - 8, 0):
            return f"{path} is cut off or is no safetensors file ({format_gib(size)})"
        try:
            header = json.loads(file.read(length))
            end = max(entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__")
        except (ValueError, KeyError, TypeError, IndexError):
            return f"{path} is no safetensors file: its header cannot be read"
    wanted = 8 + length + end
    return f"{path} is cut off: {size} of {wanted} bytes" if size < wanted else None


def _json(path: Path) -> dict[str, Any] | None:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None


def _pointer(path: Path) -> str:
    with path.open("rb") as file:
        is_pointer = file.read(len(LFS_POINTER)) == LFS_POINTER
    return ": it is a Git LFS pointer, run `git lfs pull` in its folder" if is_pointer else ""


def _neighbour(folder: Path) -> str | None:
    """A name beside the missing one that is nearly it."""
    import difflib

    try:
        names = [entry.name for entry in folder.parent.iterdir()]
    except OSError:
        return None
    near = difflib.get_close_matches(folder.name, names, n=1, cutoff=0.6)
    return str(folder.parent / near[0]) if near else None
