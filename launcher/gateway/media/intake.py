"""Pictures on their way in: what is refused before anything is done, and what is made smaller before the engine sees it.

A request is admitted by its price first; only then are its pictures decoded, while it waits for an engine or holds its
place there. A picture whose first bytes say that it is within its budget is not decoded at all.
"""

from __future__ import annotations

import asyncio
import os
from binascii import Error as Base64Error
from binascii import a2b_base64, b2a_base64
from collections.abc import Sequence
from typing import NamedTuple

from launcher.gateway.media.found import Found
from launcher.gateway.media.jobs import Job, Shrunk
from launcher.gateway.media.pool import Pool, memory_for
from launcher.gateway.media.sniff import HEAD_BYTES, MEDIA_TYPES, kind_of
from launcher.gateway.prompts import Prompt
from launcher.gateway.refusal import bad_request
from launcher.profile.images import ImagesSection

MOST_WORKERS = 4  # unless the profile says otherwise
HEAD_LETTERS = HEAD_BYTES // 3 * 4 + 4  # of base64, for the first bytes


class Done(NamedTuple):
    """What became of a request's pictures."""

    body: bytes  # of the request, as it goes on
    report: bytes  # the value of X-Launcher-Images
    shrunk: Sequence[Shrunk]  # those that were looked at


class Intake:
    """What one gateway does with pictures. ``per_prompt``: most that the engine takes in a prompt; None: not known."""

    def __init__(self, settings: ImagesSection, per_prompt: int | None) -> None:
        self._settings, self._per_prompt = settings, per_prompt
        self.pool = Pool(
            workers=settings.workers or min(MOST_WORKERS, max(1, (os.cpu_count() or 2) // 2)),
            memory_bytes=memory_for(settings.max_pixels, settings.max_bytes),
            cpu_s=settings.timeout,
        )

    def check(self, prompt: Prompt) -> None:
        """Looks at numbers and first bytes only. Raises Refused."""
        settings, pictures, most = self._settings, prompt.found, self._settings.max_count
        if most is None and self._per_prompt is not None:
            most = self._per_prompt * prompt.count
        if most is not None and len(pictures) > most:
            message = f"The request has {len(pictures)} pictures: {most} is the most here."
            if most == 0:
                message = "Pictures are not taken here (model.images_per_prompt is 0)."
            raise bad_request("too_many_pictures", message, "messages")
        for number, picture in enumerate(pictures, 1):
            if picture.link:
                continue
            kind = kind_of(_head(picture))
            if kind in MEDIA_TYPES and kind not in settings.formats:
                allowed = ", ".join(settings.formats)
                raise bad_request(
                    "picture_format", f"Picture {number} is {kind}: what is taken is {allowed}.", "messages"
                )
            if picture.bytes_in > settings.max_bytes:
                size, limit = f"{picture.bytes_in / 2**20:.1f} MiB", f"{settings.max_bytes / 2**20:g} MiB"
                raise bad_request(
                    "picture_too_large", f"Picture {number} has {size}: {limit} is the most here.", "messages"
                )
            if picture.size is not None and picture.size[0] * picture.size[1] > settings.max_pixels:
                width, height = picture.size
                raise bad_request(
                    "picture_too_large",
                    f"Picture {number} has {width}×{height} pixels: {settings.max_pixels / 1e6:g} million is the most here.",
                    "messages",
                )

    async def bring_down(self, prompt: Prompt) -> Done:
        """Makes what is too large smaller, all pictures of a request at once. Raises Refused; then nothing goes on."""
        pictures = [picture for picture in prompt.found if picture.needs_work]
        tasks = [asyncio.ensure_future(self._shrink(picture)) for picture in pictures]
        try:
            shrunk = await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
        results = dict(zip(pictures, shrunk, strict=True))
        body = rewritten(prompt, {picture: done for picture, done in results.items() if not done.is_untouched})
        return Done(body, b", ".join([_told(picture, results.get(picture)) for picture in prompt.found]), shrunk)

    async def _shrink(self, picture: Found) -> Shrunk:
        settings, costs = self._settings, picture.costs
        job = Job(costs.budget, costs.rule, settings.formats, settings.max_pixels, settings.quality, is_base64=True)
        return await self.pool.shrink(picture.data[picture.start : picture.end], job, "messages")

    async def close(self) -> None:
        await self.pool.close()

    def __repr__(self) -> str:
        return f"<Intake {self.pool!r}>"


def rewritten(prompt: Prompt, shrunk: dict[Found, Shrunk]) -> bytes:
    """The body with the smaller pictures in the place of those that came; all other bytes stay, where that can be."""
    body = prompt.body
    if not shrunk:
        return body.raw
    if any(picture.data is not body.raw or picture.is_bare for picture in shrunk):
        return _written_anew(prompt, shrunk)
    pieces: list[bytes] = []
    done = 0
    for picture in sorted(shrunk, key=lambda one: one.start):
        opens = body.raw.rfind(b'"', 0, picture.start) + 1
        pieces += (body.raw[done:opens], _data_url(shrunk[picture]))
        done = picture.end
    return b"".join([*pieces, body.raw[done:]])


def _written_anew(prompt: Prompt, shrunk: dict[Found, Shrunk]) -> bytes:
    """As JSON once more: small bodies, whose pictures were not cut out of them, and /v1/messages with its media types."""
    for picture, done in shrunk.items():
        if picture.is_bare:
            picture.holder[picture.key] = b2a_base64(done.data, newline=False).decode()
            if isinstance(picture.holder, dict) and "media_type" in picture.holder:
                picture.holder["media_type"] = done.mime
        else:
            picture.holder[picture.key] = _data_url(done).decode()
    return prompt.body.json(prompt.body.value).encode("utf-8", "surrogatepass")


def _data_url(done: Shrunk) -> bytes:
    return b"data:%b;base64,%b" % (done.mime.encode(), b2a_base64(done.data, newline=False))


def _head(picture: Found) -> bytes:
    try:
        return a2b_base64(picture.data[picture.start : min(picture.end, picture.start + HEAD_LETTERS)])
    except Base64Error:
        return b""


def _told(picture: Found, done: Shrunk | None) -> bytes:
    """What was done with one, such as ``1920x1080>672x364=314``; ``=`` is followed by its prompt tokens."""
    if done is not None:
        size_in, size, tokens = (done.width_in, done.height_in), (done.width, done.height), done.tokens
    elif picture.size is not None:
        size_in, size, tokens = picture.size, picture.size, picture.costs.of(picture.size)
    else:
        return b"?"
    changed = b">%dx%d" % size if size != size_in else b""
    return b"%dx%d%b=%d" % (*size_in, changed, tokens)
