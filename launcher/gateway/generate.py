"""POST /api/v1/generate: a picture and a question as plain JSON, for those who have no OpenAI client at hand.

    {"image": "iVBORw0KGgo…", "prompt": "What is this?", "max_tokens": 100}    →    {"text": "A cat.", …}

``image`` is base64 as it is, a data: URL, an upload: one, or an https URL where the profile allows it; several go as a list
in ``images``. Whatever else the object has (temperature, stream, stop, …) goes on as a chat request has it.
"""

from __future__ import annotations

import json
from typing import Any

import msgspec

from launcher.gateway.cutting import decode
from launcher.gateway.refusal import bad_request

NOT_HERE = ("tools", "functions", "logprobs", "top_logprobs", "prompt_logprobs", "return_token_ids")
OWN = ("image", "images", "prompt", "system")
LINKS = ("data:", "upload:", "http:", "https:", "file:", "ftp:")
_encode = msgspec.json.Encoder().encode


def chat_of(body: bytes) -> bytes:
    """The chat request that it stands for. Raises Refused."""
    asked = decode(body)
    if type(asked) is not dict:
        raise bad_request(
            "bad_json", 'The body must be a JSON object, such as {"prompt": "What is this?", "image": "…"}.'
        )
    if "messages" in asked:
        raise bad_request("bad_value", "messages belong to /v1/chat/completions: give a prompt here.", "messages")
    for name in NOT_HERE:
        if asked.get(name):
            message = f"{name}: the plain answer has no place for that; /v1/chat/completions has."
            raise bad_request("bad_value", message, name)
    if asked.get("n", 1) not in (None, 1):
        raise bad_request("bad_value", "n: one answer is given here; /v1/chat/completions gives several.", "n")
    prompt, system = asked.get("prompt"), asked.get("system")
    if type(prompt) is not str:
        raise bad_request("bad_value", "prompt must be a text: what is to be answered.", "prompt")
    if system is not None and type(system) is not str:
        raise bad_request("bad_value", "system must be a text, or left out.", "system")
    content: Any = [{"type": "image_url", "image_url": {"url": url}} for url in _images(asked)]
    content = [*content, {"type": "text", "text": prompt}] if content else prompt
    messages = [{"role": "user", "content": content}]
    if system is not None:
        messages.insert(0, {"role": "system", "content": system})
    chat = {name: value for name, value in asked.items() if name not in OWN}
    chat["messages"] = messages
    if asked.get("stream") is True:
        chat.setdefault("stream_options", {"include_usage": True})
    if b"NaN" in body or b"Infinity" in body:
        return json.dumps(chat).encode()
    try:
        return _encode(chat)
    except (ValueError, msgspec.MsgspecError):  # lone surrogates
        return json.dumps(chat).encode()


def _images(asked: dict[str, Any]) -> list[str]:
    one, several = asked.get("image"), asked.get("images")
    if one is not None and several is not None:
        raise bad_request("conflicting_values", "Give image for one picture or images for several, not both.", "images")
    if several is not None and type(several) is not list:
        raise bad_request("bad_value", "images must be a list of pictures; image takes a single one.", "images")
    found = [one] if one is not None else several or []
    name = "image" if one is not None else "images"
    for picture in found:
        if type(picture) is not str or not picture:
            raise bad_request(
                "bad_value", f"{name}: a picture is a text: its base64, or a data:, upload: or https: URL.", name
            )
    # What base64 without a label is, its bytes tell: nobody looks at the label.
    return [picture if picture.startswith(LINKS) else "data:image/jpeg;base64," + picture for picture in found]


def plain_answer(answer: dict[str, Any]) -> dict[str, Any]:
    """A whole chat answer as /api/v1/generate gives it; one that is none (an error) stays as it is."""
    choices = answer.get("choices")
    if type(choices) is not list or not choices or type(choices[0]) is not dict:
        return answer
    message = choices[0].get("message")
    content = message.get("content") if type(message) is dict else None
    told = {"id": answer.get("id"), "model": answer.get("model"), "text": content or ""}
    told |= {"finish_reason": choices[0].get("finish_reason"), "usage": answer.get("usage")}
    return told | _info(answer)


def plain_event(event: dict[str, Any]) -> dict[str, Any] | None:
    """An event of a chat stream as /api/v1/generate gives it; None: it has nothing to say there."""
    choices = event.get("choices")
    told = _info(event)
    if type(choices) is list and choices and type(choices[0]) is dict:
        delta, reason = choices[0].get("delta"), choices[0].get("finish_reason")
        text = delta.get("content") if type(delta) is dict else None
        if text:
            told["text"] = text
        if reason is not None:
            told["finish_reason"] = reason
    elif type(choices) is not list:
        return event  # an error
    if event.get("usage") is not None:
        told["usage"] = event["usage"]
    return told or None


def _info(answer: dict[str, Any]) -> dict[str, Any]:
    return {"image_info": answer["image_info"]} if "image_info" in answer else {}
