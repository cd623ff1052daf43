"""Facts of a model on the Hugging Face hub: config.json and weight headers only, in five seconds at most, cached.

huggingface_hub gives the address, the token and the rule for being offline (HF_ENDPOINT, HF_TOKEN, HF_HUB_OFFLINE); the
requests are made here, since its own retry for longer than a plan may take.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
import time
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from launcher.plan.model_shape import ModelFacts, WeightBytes
from launcher.probe.cache import cache_dir
from launcher.probe.safetensors_header import header_length, main_dtype, parse_header, weights_of

TOTAL_S = 5.0
FIRST_READ = 1 << 20  # most headers fit this, so that one request each does
CACHE_VERSION = 1
MOVING_REVISION_S = 24 * 3600.0  # a branch may move; a commit does not


class HubUnreachable(Exception):
    """The hub told nothing; the message says why, in words that fit after the model's id."""


def facts_from_hub(model_id: str, revision: str, *, total_s: float = TOTAL_S) -> ModelFacts:
    """Facts of a model on the hub. Raises HubUnreachable after ``total_s`` seconds at the latest."""
    cache = _cache_file(model_id, revision)
    if (kept := _read_cache(cache, revision)) is not None:
        return kept
    result: list[ModelFacts | HubUnreachable] = []

    def ask() -> None:
        try:
            result.append(_ask(model_id, revision, time.monotonic() + total_s))
        except HubUnreachable as error:
            result.append(error)

    # A thread, since name resolution and a server that trickles obey no timeout; it is left behind when time is up.
    thread = threading.Thread(target=ask, daemon=True, name="hub-facts")
    thread.start()
    thread.join(total_s)
    if not result:
        raise HubUnreachable(f"the hub did not answer within {total_s:g} s")
    answer = result[0]
    if isinstance(answer, HubUnreachable):
        raise answer
    _write_cache(cache, answer)
    return answer


def _ask(model_id: str, revision: str, deadline: float) -> ModelFacts:
    import httpx2
    from huggingface_hub import constants, get_token

    if constants.is_offline_mode() if hasattr(constants, "is_offline_mode") else constants.HF_HUB_OFFLINE:
        raise HubUnreachable("HF_HUB_OFFLINE is set, so the hub was not asked")
    token = get_token()
    base = f"{os.environ.get('HF_ENDPOINT', constants.ENDPOINT).rstrip('/')}/{model_id}/resolve/{revision}"
    headers = {"authorization": f"Bearer {token}"} if token else {}
    with httpx2.Client(headers=headers, follow_redirects=True) as client:
        hub = _Hub(client, base, deadline)
        config = hub.json("config.json")
        if config is None:
            raise HubUnreachable(f"the hub has no config.json at revision {revision}")
        processor = hub.json("preprocessor_config.json")
        weights, notes = _remote_weights(hub)
    return ModelFacts(
        origin=f"config.json of {model_id} at {revision} on the hub",
        config=config,
        weights=weights,
        checkpoint_dtype=main_dtype(weights) if weights else None,
        image_processor=processor,
        notes=notes,
    )


def _remote_weights(hub: _Hub) -> tuple[WeightBytes | None, tuple[str, ...]]:
    """Bytes from every header that the index names; without them, the index's own total; without that, none."""
    index = hub.json("model.safetensors.index.json")
    names = sorted(set((index or {}).get("weight_map", {}).values())) or ["model.safetensors"]
    try:
        headers = [header for name in names if (header := hub.header(name)) is not None]
        if len(headers) == len(names):
            return weights_of(headers), ()
        why = "a weight file is not there as safetensors"
    except (HubUnreachable, ValueError) as error:
        why = str(error)
    total = ((index or {}).get("metadata") or {}).get("total_size")
    if isinstance(total, int) and total > 0:
        return WeightBytes(total), (f"Weight bytes are the index's total; by part they are not known: {why}.",)
    return None, (f"Weight bytes are estimated from the shape: {why}.",)


class _Hub:
    """One revision of one model, with the time that is left."""

    def __init__(self, client: Any, base: str, deadline: float) -> None:
        self._client, self._base, self._deadline = client, base, deadline

    def get(self, name: str, byte_range: tuple[int, int] | None = None) -> bytes | None:
        """A file's bytes, or the given range of them; None if there is no such file."""
        import httpx2

        left = self._deadline - time.monotonic()
        if left <= 0:
            raise HubUnreachable("the hub took too long")
        headers = {"range": f"bytes={byte_range[0]}-{byte_range[1]}"} if byte_range else {}
        wanted = byte_range[1] - byte_range[0] + 1 if byte_range else None
        content = b""
        try:
            with self._client.stream("GET", f"{self._base}/{name}", headers=headers, timeout=left) as response:
                if response.status_code == 404:
                    return None
                _refuse(response.status_code)
                for chunk in response.iter_bytes():
                    content += chunk
                    if wanted is not None and len(content) >= wanted:
                        break  # a server that ignores ranges would send the whole file
        except httpx2.HTTPError as error:
            raise HubUnreachable(f"the hub cannot be reached ({type(error).__name__}: {error})") from None
        skipped = byte_range[0] if byte_range and response.status_code == 200 else 0
        if skipped:
            raise HubUnreachable("the hub ignores byte ranges")
        return content if wanted is None else content[:wanted]

    def json(self, name: str) -> dict[str, Any] | None:
        """A JSON file's table; None if there is no such file."""
        content = self.get(name)
        if content is None:
            return None
        try:
            value = json.loads(content)
        except ValueError:
            raise HubUnreachable(f"the hub's {name} is not JSON") from None
        return value if isinstance(value, dict) else None

    def header(self, name: str) -> dict[str, Any] | None:
        """The table of tensors of a safetensors file; None if there is no such file."""
        first = self.get(name, (0, FIRST_READ - 1))
        if first is None:
            return None
        length = header_length(first)
        if length + 8 > len(first):
            rest = self.get(name, (len(first), length + 7))
            first += rest or b""
        return parse_header(first[8 : 8 + length])


def _refuse(status: int) -> None:
    if status in (401, 403):
        raise HubUnreachable(
            f"the hub refused with {status}: the model is private, gated or misspelt (set HF_TOKEN if you have access)"
        )
    if status >= 400:
        raise HubUnreachable(f"the hub answered with {status}")


def _cache_file(model_id: str, revision: str) -> Path:
    endpoint = os.environ.get("HF_ENDPOINT", "")
    digest = hashlib.sha256(f"{endpoint} {model_id} {revision}".encode()).hexdigest()[:16]
    return cache_dir() / "facts" / f"{model_id.replace('/', '--')}-{digest}.json"


def _read_cache(path: Path, revision: str) -> ModelFacts | None:
    with suppress(OSError, ValueError, KeyError, TypeError):
        is_commit = len(revision) == 40 and all(letter in "0123456789abcdef" for letter in revision)
        if not is_commit and time.time() - path.stat().st_mtime > MOVING_REVISION_S:
            return None
        kept = json.loads(path.read_text(encoding="utf-8"))
        if kept.pop("version") != CACHE_VERSION:
            return None
        weights, notes = kept.pop("weights"), tuple(kept.pop("notes"))
        origin = f"{kept.pop('origin')} (cached in {path})"
        return ModelFacts(origin=origin, weights=WeightBytes(**weights) if weights else None, notes=notes, **kept)
    return None


def _write_cache(path: Path, facts: ModelFacts) -> None:
    """Keep the facts; a cache that cannot be written only costs the next plan its time."""
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(f".{os.getpid()}.part")
        temporary.write_text(json.dumps({"version": CACHE_VERSION, **asdict(facts)}), encoding="utf-8")
        temporary.replace(path)
