"""The model that a profile names, from wherever it is, as a local folder that vLLM reads."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from launcher.engine.gguf_folder import PACKAGES, model_folder_of, packaged_gguf
from launcher.engine.hub import download, local_snapshot
from launcher.engine.model_folder import require_complete
from launcher.errors import PreconditionError
from launcher.profile.model import Profile


@dataclass(frozen=True)
class PreparedModel:
    """A model folder that is there and complete. ``origin`` is for people: where it came from."""

    path: str
    origin: str


def prepare_model(
    profile: Profile,
    base_dir: Path,
    *,
    progress: Callable[[str], None],
    python: str | None = None,
    offline: bool | None = None,
) -> PreparedModel:
    """Makes the profile's model ready to serve: downloads, converts or checks it. Blocks; run it in a thread.

    ``base_dir`` is the folder of the profile's file, ``python`` the engine's (default: ours), ``offline`` forbids the
    network (default: HF_HUB_OFFLINE). Raises PreconditionError with a sentence for everything that can go wrong.
    """
    model, engine_python = profile.model, python or sys.executable
    weights = model.load_format != "dummy"
    if model.packaged is not None:
        gguf = packaged_gguf(model.packaged, engine_python)
        folder = model_folder_of(gguf, name=model.packaged, python=engine_python, progress=progress)
        distribution, version, _ = PACKAGES[model.packaged]
        return PreparedModel(str(folder), f"the package {distribution} {version}")
    if model.path is not None:
        path = local_path(model.path, base_dir)
        if path.suffix == ".gguf":
            folder = model_folder_of(path, name=path.stem, python=engine_python, progress=progress)
            return PreparedModel(str(folder), f"the file {path}")
        require_complete(path, "model.path", weights=weights)
        return PreparedModel(str(path), f"the folder {path}")
    if model.id is not None:
        folder = download(model.id, model.revision, progress=progress, offline=offline, weights=weights)
        return PreparedModel(str(folder), f"the hub's {model.id}, commit {folder.name[:12]}")
    raise PreconditionError(
        "model names no model", "Give one of model.id (hub), model.path (folder) and model.packaged."
    )


def planned_model_path(profile: Profile, base_dir: Path) -> str:
    """What `plan` shows as the model argument: the folder where it is known, else the id or name. Reads no network."""
    model = profile.model
    if model.id is not None:
        snapshot = local_snapshot(model.id, model.revision)
        return str(snapshot) if snapshot else model.id
    return str(local_path(model.path, base_dir)) if model.path else model.packaged or ""


def local_path(named: str, base_dir: Path) -> Path:
    """``model.path`` as an absolute path: relative to the profile's folder, ``~`` allowed."""
    return (base_dir / Path(named).expanduser()).absolute()
