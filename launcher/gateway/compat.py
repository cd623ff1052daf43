"""What requests and answers are changed into where a client or the profile asks for it; all else stays byte for byte.

``enable_thinking`` and ``return_reasoning`` at the top level of a chat request (where openai's ``extra_body`` puts
them) become vLLM's ``chat_template_kwargs.enable_thinking`` and ``include_reasoning``. vLLM's own places win nothing:
if both are given and differ, the request is refused, since one of the two would have to be ignored. With
``return_reasoning: true`` the reasoning is also folded into the content as ``<think>…</think>``, because
langchain-openai drops the field ``reasoning``; the field itself stays for those who read it.
"""

from __future__ import annotations

import json
from typing import Any

from launcher.gateway.cutting import CUT_FROM, cut
from launcher.gateway.refusal import bad_request
from launcher.profile.model import TemplatePolicy

# Cheap searches that tell whether a body has to be parsed at all.
THINKING_KEYS = (b'"enable_thinking"', b'"return_reasoning"')
IMAGE_MARK = b"image"
IMAGE_PARTS = frozenset({"image_url", "input_image", "image", "image_pil", "image_embeds"})


class Changes:
    """A request's body as it goes to the engine, and what is to be done to the answer."""

    __slots__ = ("body", "fold_reasoning", "strip", "touch_answer")

    def __init__(self, body: bytes, fold_reasoning: bool = False, strip: tuple[str, ...] = ()) -> None:
        self.body, self.fold_reasoning, self.strip = body, fold_reasoning, strip
        self.touch_answer = fold_reasoning or bool(strip)


def change_chat(body: bytes, policy: TemplatePolicy) -> Changes:
    """Applies the client's thinking switches and the profile's template policy to a chat request. Raises Refused."""
    searched = body if len(body) < CUT_FROM else cut(body)[0]  # a search through a megabyte of picture takes 250 µs
    has_switches = THINKING_KEYS[0] in searched or THINKING_KEYS[1] in searched
    reorders = policy.image_first and IMAGE_MARK in searched
    if not has_switches and not reorders:
        return Changes(body, strip=policy.strip)
    try:
        request = json.loads(body)
    except (ValueError, RecursionError):  # the engine's own words for it are better than ours
        return Changes(body, strip=policy.strip)
    if not isinstance(request, dict):
        return Changes(body, strip=policy.strip)
    changed = "enable_thinking" in request or "return_reasoning" in request
    fold = changed and _switch_thinking(request)
    if reorders:
        changed = put_images_first(request.get("messages")) or changed
    return Changes(json.dumps(request).encode() if changed else body, fold, policy.strip)


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
    return kind in IMAGE_PARTS if kind is not None else "image_url" in part
