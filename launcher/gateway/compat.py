"""What requests and answers are changed into where a client or the profile asks for it; all else stays byte for byte.

``enable_thinking`` and ``return_reasoning`` at the top level of a chat request (where openai's ``extra_body`` puts
them) become vLLM's ``chat_template_kwargs.enable_thinking`` and ``include_reasoning``. vLLM's own places win nothing:
if both are given and differ, the request is refused, since one of the two would have to be ignored. With
``return_reasoning: true`` the reasoning is also folded into the content as ``<think>…</think>``, because
langchain-openai drops the field ``reasoning``; the field itself stays for those who read it.

``return_image_info: true`` has the answer tell what was done with each picture, in a field ``image_info``.
"""

from __future__ import annotations

import json
from typing import Any

from launcher.gateway.cutting import CUT_FROM, cut
from launcher.gateway.refusal import bad_request
from launcher.profile.model import TemplatePolicy

# Cheap searches that tell whether a body has to be parsed at all.
SWITCHES = (b'"enable_thinking"', b'"return_reasoning"', b'"return_image_info"')
IMAGE_MARK = b"image"
IMAGE_PARTS = frozenset({"image_url", "input_image", "image", "image_pil", "image_embeds"})


class Changes:
    """A request's body as it goes to the engine, and what is to be done to the answer."""

    __slots__ = (
        "body",
        "fold_reasoning",
        "image_info",
        "plain",
        "refuses_info",
        "strip",
        "tells_images",
        "touch_answer",
    )

    def __init__(
        self,
        body: bytes,
        fold_reasoning: bool = False,
        strip: tuple[str, ...] = (),
        tells_images: bool = False,
        plain: bool = False,
    ) -> None:
        self.body, self.fold_reasoning, self.strip = body, fold_reasoning, strip
        self.tells_images = tells_images  # the answer is to have the field image_info
        self.image_info: list[dict[str, Any]] | None = None  # that, once it is known
        self.refuses_info = False  # return_image_info: false
        self.plain = plain  # the answer is to be in the form of /api/v1/generate
        self.touch_answer = fold_reasoning or bool(strip) or tells_images or plain


def change_chat(body: bytes, policy: TemplatePolicy) -> Changes:
    """Applies the client's switches and the profile's template policy to a chat request. Raises Refused."""
    searched = body if len(body) < CUT_FROM else cut(body)[0]  # a search through a megabyte of picture takes 250 µs
    has_switches = SWITCHES[0] in searched or SWITCHES[1] in searched or SWITCHES[2] in searched
    arranges = (policy.image_first or policy.number_images) and IMAGE_MARK in searched
    if not has_switches and not arranges and not policy.stop:
        return Changes(body, strip=policy.strip)
    request = _decoded(body)
    if request is None:
        return Changes(body, strip=policy.strip)
    changed = "enable_thinking" in request or "return_reasoning" in request
    fold = changed and _switch_thinking(request)
    changed = changed or "return_image_info" in request
    tells = _take_flag(request, "return_image_info")
    if arranges:
        changed = arrange_images(request.get("messages"), policy) or changed
    changed = add_stops(request, policy.stop) or changed
    changes = Changes(json.dumps(request).encode() if changed else body, fold, policy.strip, bool(tells))
    changes.refuses_info = tells is False
    return changes


def as_plain(changes: Changes) -> Changes:
    """The same, its answer in the form of /api/v1/generate, which tells of pictures unless it is asked not to."""
    return Changes(changes.body, changes.fold_reasoning, changes.strip, not changes.refuses_info, plain=True)


def change_completion(body: bytes, policy: TemplatePolicy) -> Changes:
    """The same for /v1/completions, which has no messages."""
    request = _decoded(body) if policy.stop else None
    if request is not None and add_stops(request, policy.stop):
        body = json.dumps(request).encode()
    return Changes(body, strip=policy.strip)


def _decoded(body: bytes) -> dict[str, Any] | None:
    try:
        request = json.loads(body)
    except (ValueError, RecursionError):  # the engine's own words for it are better than ours
        return None
    return request if isinstance(request, dict) else None


def add_stops(request: dict[str, Any], stops: tuple[str, ...]) -> bool:
    """Adds the profile's stop strings to those of the request. True: something was added."""
    asked = request.get("stop")
    own = [asked] if isinstance(asked, str) else [] if asked is None else asked
    if not isinstance(own, list):  # no stop strings: the engine refuses it
        return False
    more = [stop for stop in stops if stop not in own]
    if more:
        request["stop"] = own + more
    return bool(more)


def _switch_thinking(request: dict[str, Any]) -> bool:
    """Moves the two switches to where vLLM reads them. True: the reasoning is to be folded into the content."""
    thinking, returns = _take_flag(request, "enable_thinking"), _take_flag(request, "return_reasoning")
    if thinking is not None:
        kwargs = request.get("chat_template_kwargs")
        if kwargs is None:
            kwargs = {}
        if not isinstance(kwargs, dict):
            raise bad_request("bad_value", "chat_template_kwargs must be an object.", "chat_template_kwargs")
        _agree(thinking, kwargs.get("enable_thinking"), "enable_thinking", "chat_template_kwargs.enable_thinking")
        request["chat_template_kwargs"] = {**kwargs, "enable_thinking": thinking}
    if returns is not None:
        _agree(returns, request.get("include_reasoning"), "return_reasoning", "include_reasoning")
        request["include_reasoning"] = returns
    return bool(returns)


def _take_flag(request: dict[str, Any], name: str) -> bool | None:
    """Removes a switch and returns it; None: it is absent or null."""
    value = request.pop(name, None)
    if value is not None and not isinstance(value, bool):
        raise bad_request("bad_value", f"{name} must be true or false, not {json.dumps(value)[:80]}.", name)
    return value


def _agree(value: bool, other: Any, name: str, other_name: str) -> None:
    if other is not None and other is not value:
        told, other_told = json.dumps(value), json.dumps(other)[:80]
        message = f"{name} is {told} but {other_name} is {other_told}: give one of them, or the same value in both."
        raise bad_request("conflicting_values", message, name)


def arrange_images(messages: Any, policy: TemplatePolicy) -> bool:
    """Images first, and numbered, as far as the profile says so. True: something changed."""
    changed = policy.image_first and put_images_first(messages)
    return (policy.number_images and number_images(messages)) or changed


def number_images(messages: Any) -> bool:
    """Writes 'Image 1:' and so on before each image, through all messages, if there are several. True: there are."""
    several = [
        message
        for message in (messages if isinstance(messages, list) else ())
        if isinstance(message, dict) and isinstance(message.get("content"), list)
    ]
    if sum(_is_image(part) for message in several for part in message["content"]) < 2:
        return False
    number = 0
    for message in several:
        parts: list[Any] = []
        for part in message["content"]:
            if _is_image(part):
                number += 1
                parts.append({"type": "text", "text": f"Image {number}:"})
            parts.append(part)
        message["content"] = parts
    return True


def put_images_first(messages: Any) -> bool:
    """Puts the image parts of each message before its other parts, each kind in its order. True: something moved."""
    moved = False
    for message in messages if isinstance(messages, list) else ():
        parts = message.get("content") if isinstance(message, dict) else None
        if not isinstance(parts, list):
            continue
        ordered = sorted(parts, key=lambda part: not _is_image(part))  # stable
        if any(a is not b for a, b in zip(parts, ordered, strict=True)):
            message["content"] = ordered
            moved = True
    return moved


def _is_image(part: Any) -> bool:
    if not isinstance(part, dict):
        return False
    kind = part.get("type")
    return "image_url" in part if kind is None else isinstance(kind, str) and kind in IMAGE_PARTS
