"""What is known of a model before it is loaded: from a local folder, from the hub, or from the facts shipped here."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from launcher.plan.model_shape import ModelFacts, WeightBytes
from launcher.probe.safetensors_header import header_length, main_dtype, parse_header, weights_of
from launcher.profile.model import ExternalEngine, Profile


def read_model_facts(profile: Profile, base_dir: Path, *, offline: bool = False) -> ModelFacts | None:
    """Facts of the profile's model; None for an external engine or a model of which nothing could be learnt.

    A local folder is read from disk. For a hub id the shipped facts come first, unless a revision is pinned; else the hub
    is asked (config.json and the headers of the weight files, five seconds at most, cached), unless ``offline``.
    """
    model = profile.model
    if isinstance(profile.engine, ExternalEngine):
        return None
    if model.path is not None:
        return _from_path(base_dir / Path(model.path).expanduser(), model.path)
    if model.packaged is not None:
        return shipped_facts(model.packaged)
    assert model.id is not None
    shipped = shipped_facts(model.id)
    if shipped is not None and model.revision is None:
        return shipped
    if offline:
        return _instead(shipped, model.id, "the hub was not asked")
    from launcher.probe.hub import HubUnreachable, facts_from_hub

    try:
        return facts_from_hub(model.id, model.revision or "main")
    except HubUnreachable as error:
        return _instead(shipped, model.id, str(error))


def _instead(shipped: ModelFacts | None, model_id: str, why: str) -> ModelFacts | None:
    if shipped is None:
        return ModelFacts(f"nothing: {why}", notes=(f"{model_id}: {why}.",))
    note = f"{model_id}: {why}, so the shipped facts are used; they may differ from the pinned revision."
    return ModelFacts(
        shipped.origin,
        shipped.config,
        shipped.weights,
        shipped.checkpoint_dtype,
        shipped.image_processor,
        (*shipped.notes, note),
    )


def shipped_facts(name: str) -> ModelFacts | None:
    """The facts that come with the launcher for this hub id or package name; None if there are none."""
    wanted = name.lower()
    for file in sorted(resources.files("launcher.plan").joinpath("facts").iterdir(), key=lambda entry: entry.name):
        if not file.name.endswith(".json"):
            continue
        facts = json.loads(file.read_text(encoding="utf-8"))
        if wanted in (known.lower() for known in facts["ids"]):
            notes = (f"{name}: {facts['note']}.",) if "note" in facts else ()
            return ModelFacts(
                origin=f"facts shipped with the launcher, {facts['read_on']}",
                config=facts["config"],
                weights=WeightBytes(**facts["weights"]),
                checkpoint_dtype=facts["checkpoint_dtype"],
                image_processor=facts["image_processor"],
                notes=notes,
            )
    return None


def _from_path(path: Path, written: str) -> ModelFacts | None:
    if path.is_file() and path.suffix == ".gguf":
        size = path.stat().st_size
        origin = f"{written}, a GGUF file of {size} bytes"
        return ModelFacts(
            origin, notes=(f"{written}: a GGUF file is only read when it is turned into a model folder.",)
        )
    if not path.is_dir():
        what = "is not a folder" if path.exists() else "is not there"
        return ModelFacts(f"{written}, which {what}", notes=(f"{written} ({path}) {what}.",))
    notes: list[str] = []
    config = _read_json(path / "config.json", notes)
    weights = _local_weights(path, notes)
    return ModelFacts(
        origin=f"config.json in {written}",
        config=config,
        weights=weights,
        checkpoint_dtype=main_dtype(weights) if weights else None,
        image_processor=_read_json(path / "preprocessor_config.json", []),
        notes=tuple(notes),
    )


def _read_json(path: Path, notes: list[str]) -> Mapping[str, Any] | None:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        notes.append(f"{path} is not there.")
        return None
    except (OSError, ValueError) as error:
        notes.append(f"{path} cannot be read: {error}.")
        return None
    if not isinstance(value, dict):
        notes.append(f"{path} holds no table of settings.")
        return None
    return value


def _local_weights(folder: Path, notes: list[str]) -> WeightBytes | None:
    """Bytes from the headers of the files that the index names, or of every safetensors file."""
    index = folder / "model.safetensors.index.json"
    if index.exists():
        listed = _read_json(index, notes) or {}
        names = sorted(set((listed.get("weight_map") or {}).values()))
        files = [folder / name for name in names]
    else:
        files = sorted(folder.glob("*.safetensors"))
    if not files:
        return None
    headers = []
    for file in files:
        try:
            with file.open("rb") as stream:
                headers.append(parse_header(stream.read(header_length(stream.read(8)))))
        except FileNotFoundError:
            notes.append(f"{file} is in the index but not there: the model is not complete.")
            return None
        except (OSError, ValueError) as error:
            notes.append(f"{file} cannot be read: {error}.")
            return None
    try:
        return weights_of(headers)
    except ValueError as error:
        notes.append(f"{folder}: a weight file cannot be read: {error}.")
        return None
