"""Real requests before an engine counts as ready: text, a picture for a model that sees, and a canary question.

They run the paths that users' first requests would otherwise pay for, and put the system prompt's prefix in the cache.
"""

from __future__ import annotations

import asyncio
import base64
import struct
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from launcher.errors import LauncherError
from launcher.profile.model import WarmupSection
from launcher.supervise.engine_client import EngineClient, EngineRefused

PICTURE_SIDE = 448  # pixels; a usual size after scaling, and a multiple of every patch size in use (14, 16, 28, 32)
SQUARE = 28
MEDIA_TYPES = {
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".webp": "image/webp",
    ".gif": "image/gif",
}


class WarmupFailed(LauncherError):
    """An engine that is up does not answer as it should. ``retry_helps``: whether a new process may do better."""

    def __init__(self, message: str, hint: str, *, retry_helps: bool = True) -> None:
        super().__init__(message, hint)
        self.retry_helps = retry_helps


def made_picture(side: int = PICTURE_SIDE) -> bytes:
    """A PNG of ``side`` × ``side`` pixels, a board of coloured squares, made without an imaging library."""

    def row(y: int) -> bytes:
        return b"\0" + b"".join(bytes((x * 37 & 255, y * 53 & 255, (x ^ y) * 29 & 255)) for x in squares)

    squares = [x // SQUARE for x in range(side)]
    rows = b"".join(row(y) * SQUARE for y in range(side // SQUARE)) + row(side // SQUARE) * (side % SQUARE)

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)  # 8 bits a channel, RGB
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def picture_url(image: str, base_dir: Path) -> str:
    """``warmup.image`` as a data URL; ``auto`` is the made picture."""
    if image == "auto":
        data, media_type = made_picture(), "image/png"
    else:
        path = base_dir / image
        try:
            data = path.read_bytes()
        except OSError as error:
            raise WarmupFailed(
                f"warmup.image: {path} cannot be read: {error.strerror}",
                "Give another file, or auto for a made picture.",
                retry_helps=False,
            ) from None
        media_type = MEDIA_TYPES.get(path.suffix.lower(), "image/png")
    return f"data:{media_type};base64,{base64.b64encode(data).decode()}"


@dataclass(frozen=True)
class WarmupRequest:
    """One request of the warm-up; ``answer`` is what it must contain, where that is known."""

    what: str
    messages: Sequence[Mapping[str, Any]]
    max_tokens: int
    answer: str = ""


def warmup_requests(section: WarmupSection, *, sees_images: bool, base_dir: Path) -> list[WarmupRequest]:
    """Everything that ``section`` asks for, in order. Raises WarmupFailed for a picture that cannot be read."""
    requests = [WarmupRequest("text", _messages(section, prompt), section.max_tokens) for prompt in section.prompts]
    if sees_images and section.image != "none":
        picture = {"type": "image_url", "image_url": {"url": picture_url(section.image, base_dir)}}
        content: list[Mapping[str, Any]] = [picture, {"type": "text", "text": "Describe the picture."}]
        requests.append(WarmupRequest("image", _messages(section, content), section.max_tokens))
    if (canary := section.canary) is not None:
        # asked bare: a system prompt that forbids such questions must not make a sound engine look broken
        question = [{"role": "user", "content": canary.prompt}]
        requests.append(WarmupRequest("canary", question, canary.max_tokens, canary.contains))
    return requests


async def warm_up(
    client: EngineClient, requests: Sequence[WarmupRequest], *, timeout_s: float, on_step: Callable[[str], None]
) -> None:
    """Send ``requests`` one after another. Raises WarmupFailed with the reason and the remedy."""
    try:
        async with asyncio.timeout(timeout_s):
            for number, request in enumerate(requests, 1):
                on_step(f"warming up {number}/{len(requests)}: {request.what}")
                _check(request, await _ask(client, request, timeout_s))
    except TimeoutError:
        raise WarmupFailed(
            f"warm-up was not done within {timeout_s:g} s",
            "Raise timeouts.warmup, or shorten warmup.prompts and warmup.max_tokens.",
        ) from None
    except EngineRefused as error:
        is_final = error.status is not None and 400 <= error.status < 500  # the next process would refuse it too
        raise WarmupFailed(
            f"warm-up request failed: {error.message}",
            "`launcher logs` shows the engine's side.",
            retry_helps=not is_final,
        ) from None


def _check(request: WarmupRequest, answer: str) -> None:
    if request.answer.casefold() not in answer.casefold():
        raise WarmupFailed(
            f"canary: asked {request.messages[-1]['content']!r}, the engine answered {answer.strip()[:200]!r}, "
            f"which does not contain {request.answer!r}",
            "The model or its precision is wrong: try model.dtype: float32 or engine.compile: eager, "
            "or correct warmup.canary.",
            retry_helps=False,
        )


def _messages(section: WarmupSection, content: str | Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    system = [{"role": "system", "content": section.system_prompt}] if section.system_prompt else []
    return [*system, {"role": "user", "content": content}]


async def _ask(client: EngineClient, request: WarmupRequest, timeout_s: float) -> str:
    try:
        return await client.chat(request.messages, request.max_tokens, timeout_s)
    except EngineRefused as error:
        last = request.messages[-1]["content"]
        if error.status == 400 and "chat template" in error.message and isinstance(last, str):
            # a base model: it continues text, it does not chat
            return await client.complete(last, request.max_tokens, timeout_s)
        raise
