"""What doctor finds of the profile's model: here and whole, or to be had, or why not."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, NamedTuple

from launcher.engine.gguf_folder import packaged_gguf
from launcher.engine.hub import endpoint, hub_cache, is_offline, local_snapshot
from launcher.engine.model_folder import folder_faults, require_complete
from launcher.errors import LauncherError
from launcher.probe.vllm_build import engine_python
from launcher.profile.load import LoadedProfile
from launcher.profile.model import Profile

Status = Literal["ok", "warn", "fail"]

HUB_ANSWER_S = 5.0
ELSEWHERE = "fetch it where there is a network and set model.path to the folder"


class Finding(NamedTuple):
    """One line of doctor's report."""

    check: str
    status: Status
    message: str
    remedy: str = ""


def model_findings(loaded: LoadedProfile, *, offline: bool) -> Iterator[Finding]:
    """The model, and the chat template if the profile names one. ``offline``: do not ask the hub."""
    profile, model = loaded.profile, loaded.profile.model
    if profile.engine.kind == "vllm":
        try:
            yield Finding("model", "ok", _here(loaded)) if _is_local(profile) else _on_the_hub(profile, offline)
        except LauncherError as error:
            yield Finding("model", "fail", error.message, error.hint)
    if model.chat_template is not None and not loaded.resolve(model.chat_template).is_file():
        template = loaded.resolve(model.chat_template)
        yield Finding("template", "fail", f"{template} is not there", f"set model.chat_template in {loaded.path}")


def is_complete(profile: Profile) -> bool:
    """Whether a model from the hub is in its cache, whole."""
    snapshot = local_snapshot(profile.model.id or "", profile.model.revision) if profile.model.id else None
    return snapshot is not None and not folder_faults(snapshot, weights=profile.model.load_format != "dummy")


def _is_local(profile: Profile) -> bool:
    return profile.model.id is None or is_complete(profile)


def _here(loaded: LoadedProfile) -> str:
    """Where the model is. Raises LauncherError if it is not, or not whole."""
    model = loaded.profile.model
    if model.packaged is not None:
        return str(packaged_gguf(model.packaged, engine_python(loaded.profile, loaded.base_dir) or sys.executable))
    if model.path is not None:
        path = loaded.resolve(model.path)
        if path.suffix != ".gguf":
            require_complete(path, "model.path", weights=model.load_format != "dummy")
        elif not path.is_file():
            raise LauncherError(f"model.path: {path} does not exist", f"set model.path in {loaded.path}")
        return str(path)
    return f"{model.id} is in {hub_cache()}"


def _on_the_hub(profile: Profile, offline: bool) -> Finding:
    """What the hub says of a model that is not here: it can be had, not without a token, not at all."""
    model_id = profile.model.id
    if offline or is_offline():
        return Finding("model", "fail", f"{model_id} is not in {hub_cache()}, and the hub may not be asked", ELSEWHERE)
    import httpx2

    hub, token = endpoint(), _token()
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    try:
        status = httpx2.get(f"{hub}/api/models/{model_id}", headers=headers, timeout=HUB_ANSWER_S).status_code
    except httpx2.HTTPError as error:
        reason = str(error) or type(error).__name__
        return Finding("model", "fail", f"{model_id} is not here, and {hub} does not answer ({reason})", ELSEWHERE)
    if status == httpx2.codes.OK:
        return Finding("model", "ok", f"{model_id} can be had from {hub}")
    if status in (httpx2.codes.UNAUTHORIZED, httpx2.codes.FORBIDDEN):
        given = "the token that is set has no right to it" if token else "HF_TOKEN is not set"
        remedy = f"check the name; if it is gated, accept its terms at {hub}/{model_id} and set HF_TOKEN"
        return Finding("model", "fail", f"{hub} does not show {model_id} (status {status}); {given}", remedy)
    return Finding("model", "fail", f"{hub} answers {status} for {model_id}", f"check model.id; or {ELSEWHERE}")


def _token() -> str | None:
    """The hub's token: HF_TOKEN, or the file that `hf auth login` writes."""
    file = Path(os.environ.get("HF_TOKEN_PATH") or hub_cache().parent / "token")
    return os.environ.get("HF_TOKEN") or (file.read_text().strip() if file.is_file() else None)
