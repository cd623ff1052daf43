"""Puts pictures and clips that were made ready into the body of their request, in the place of those that came."""

from __future__ import annotations

from binascii import b2a_base64
from typing import TYPE_CHECKING

from launcher.gateway.media.found import Found
from launcher.gateway.prompts import Prompt

if TYPE_CHECKING:
    from launcher.gateway.media.intake import Got


def rewritten(prompt: Prompt, made: dict[Found, Got]) -> bytes:
    """The body as it goes on; all bytes but theirs stay, where that can be."""
    body = prompt.body
    if not made:
        return body.raw
    if any(found.data is not body.raw or found.is_bare for found in made):
        return _written_anew(prompt, made)
    pieces: list[bytes] = []
    done = 0
    for found in sorted(made, key=lambda one: one.start):
        opens = body.raw.rfind(b'"', 0, found.start) + 1
        pieces += (body.raw[done:opens], _data_url(made[found]))
        done = found.end
    return b"".join([*pieces, body.raw[done:]])


def _written_anew(prompt: Prompt, made: dict[Found, Got]) -> bytes:
    """As JSON once more: small bodies, whose pictures were not cut out of them, what a URL named, and what has a label of its
    own beside it: media_type in /v1/messages, format in input_audio."""
    for found, one in made.items():
        holder = found.holder
        if not found.is_bare:
            holder[found.key] = _data_url(one).decode()
            continue
        holder[found.key] = b2a_base64(one.data, newline=False).decode()
        if isinstance(holder, dict) and "media_type" in holder:
            holder["media_type"] = one.mime
        elif isinstance(holder, dict) and "format" in holder:
            holder["format"] = one.mime.partition("/")[2]
    return prompt.body.json(prompt.body.value).encode("utf-8", "surrogatepass")


def _data_url(one: Got) -> bytes:
    return b"data:%b;base64,%b" % (one.mime.encode(), b2a_base64(one.data, newline=False))
