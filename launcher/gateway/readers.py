"""Where in a body of each route the prompt is, in the order in which chat templates render it: tools, system, messages.

Lenient where vLLM is strict: a field of a wrong type is passed over, since the engine refuses the request anyway.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from launcher.gateway.prompts import Prompt

MAX_DEPTH = 4  # contents within contents: a tool_result of /v1/messages may hold pictures

Reader = Callable[[Prompt, dict[str, Any]], int]  # returns how many prompts there are

# Content: a string, or parts, each read by its type.


def _image_url(prompt: Prompt, part: dict[str, Any], depth: int) -> None:
    url = part.get("image_url")
    holder, key = (url, "url") if type(url) is dict else (part, "image_url")
    if type(holder.get(key)) is str:
        prompt.picture(holder, key, holder.get("detail"))
    else:
        prompt.unseen_picture()  # the engine has it already, by its uuid


def _image(prompt: Prompt, part: dict[str, Any], depth: int) -> None:
    """/v1/messages: ``source`` with the base64 alone, or a URL."""
    source = part.get("source")
    if type(source) is dict:
        is_bare = source.get("type") != "url" and type(source.get("data")) is str
        if is_bare or "url" in source:
            prompt.picture(source, "data" if is_bare else "url", is_bare=is_bare)


def _audio_url(prompt: Prompt, part: dict[str, Any], depth: int) -> None:
    url = part.get("audio_url")
    if type(url) is dict:
        prompt.sound(url, "url")
    else:
        prompt.sound(part, "audio_url")


def _input_audio(prompt: Prompt, part: dict[str, Any], depth: int) -> None:
    audio = part.get("input_audio")
    if type(audio) is dict:
        prompt.sound(audio, "data", is_bare=True)


def _video_url(prompt: Prompt, part: dict[str, Any], depth: int) -> None:
    url = part.get("video_url")
    prompt.video(url.get("url") if type(url) is dict else url)


def _tool_use(prompt: Prompt, part: dict[str, Any], depth: int) -> None:
    prompt.text(part.get("name"))
    prompt.json(part.get("input"))


def _tool_result(prompt: Prompt, part: dict[str, Any], depth: int) -> None:
    read_content(prompt, part.get("content"), depth + 1)


_PartReader = Callable[[Prompt, dict[str, Any], int], None]
_PARTS: dict[str, _PartReader] = {
    **{
        kind: lambda prompt, part, depth: prompt.text(part.get("text"))
        for kind in ("text", "input_text", "output_text")
    },
    "refusal": lambda prompt, part, depth: prompt.text(part.get("refusal")),
    "thinking": lambda prompt, part, depth: prompt.text(part.get("thinking")),
    "tool_reference": lambda prompt, part, depth: prompt.text(part.get("name")),
    "image_url": _image_url,
    "input_image": _image_url,
    "image": _image,
    "image_embeds": lambda prompt, part, depth: prompt.unseen_picture(),
    "audio_url": _audio_url,
    "audio_embeds": lambda prompt, part, depth: prompt.unseen_sound(),
    "input_audio": _input_audio,
    "video_url": _video_url,
    "video_embeds": lambda prompt, part, depth: prompt.video(None),
    "tool_use": _tool_use,
    "tool_result": _tool_result,
}
_MEDIA_KEYS = ("image_url", "audio_url", "input_audio", "video_url")
_READ_AS = {"input_image": "image_url"}  # what a type's reader looks at, where that is named otherwise
# vLLM takes a part without a type by the key that it has.
_BY_KEY = ("image_url", "image_embeds", "audio_embeds", "video_embeds", "audio_url", "input_audio", "video_url", "text")


def read_content(prompt: Prompt, content: Any, depth: int = 0) -> None:
    """What stands under "content", and where the scoring routes take a text or parts."""
    if type(content) is str:
        prompt.text(content)
    elif type(content) is list and depth < MAX_DEPTH:
        for part in content:
            if type(part) is dict:
                kind = part.get("type")
                if type(kind) is not str:
                    kind = next((key for key in _BY_KEY if key in part), "")
                read = _PARTS.get(kind)
                if read is not None:
                    read(prompt, part, depth)
                if len(part) > 2:  # vLLM may go by the keys instead of the type
                    for key in _MEDIA_KEYS:
                        if key != kind and key in part and _READ_AS.get(kind) != key:
                            _PARTS[key](prompt, part, depth)
            else:
                prompt.text(part)


def _read_messages(prompt: Prompt, messages: Any) -> None:
    if type(messages) is not list:
        return
    add = prompt.text if prompt.body.cuts else prompt.pieces.append
    for message in messages:
        if type(message) is dict:
            prompt.messages += 1
            role, content = message.get("role"), message.get("content")
            if type(role) is str:
                add(role)
            if type(content) is str:
                add(content)
            else:
                read_content(prompt, content)
            if len(message) > 2 or content is None:
                _read_calls(prompt, message)


def _read_calls(prompt: Prompt, message: dict[str, Any]) -> None:
    """What a message has besides content. Earlier reasoning is left out: templates drop it but for the last turn."""
    for key in ("name", "arguments", "output"):  # the last two: items of /v1/responses
        prompt.text(message.get(key))
    if type(message.get("output")) is list:
        read_content(prompt, message["output"])
    calls = message.get("tool_calls")
    for call in calls if type(calls) is list else ():
        called = call.get("function") if type(call) is dict else None
        if type(called) is dict:
            prompt.text(called.get("name"))
            arguments = called.get("arguments")
            if type(arguments) is str:
                prompt.text(arguments)
            else:
                prompt.json(arguments)


# Routes: how each one's body is read.


def read_chat(prompt: Prompt, body: dict[str, Any]) -> int:
    """/v1/chat/completions, /v1/messages and cohere's."""
    for key in ("tools", "functions", "documents"):
        if key in body:
            prompt.json(body[key])
    if "system" in body:
        read_content(prompt, body["system"])
    _read_messages(prompt, body.get("messages"))
    prompt.messages += 1  # the template's opening of the answer
    return 1


def read_chats(prompt: Prompt, body: dict[str, Any]) -> int:
    """Several conversations in one request."""
    chats = body.get("messages")
    for messages in chats if type(chats) is list else ():
        _read_messages(prompt, messages)
        prompt.messages += 1
    return max(1, len(chats)) if type(chats) is list else 1


def read_responses(prompt: Prompt, body: dict[str, Any]) -> int:
    """/v1/responses. What a ``previous_response_id`` stands for is only known to the engine, and not priced."""
    prompt.json(body.get("tools"))
    prompt.text(body.get("instructions"))
    given = body.get("input")
    prompt.messages += 1
    prompt.text(given)
    _read_messages(prompt, given)
    return 1


def read_completion(prompt: Prompt, body: dict[str, Any]) -> int:
    """/v1/completions: text or token ids, one or several."""
    prompt.text(body.get("suffix"))
    return max(1, _read_prompts(prompt, body.get("prompt")))


def read_inputs(prompt: Prompt, body: dict[str, Any]) -> int:
    """Embeddings, classification, pooling: as a completion's prompt, as messages, or in cohere's three fields."""
    count = 0
    if "messages" in body:
        _read_messages(prompt, body["messages"])
        count = 1
    for key in ("input", "texts", "inputs", "data"):
        if key in body:
            count += _read_prompts(prompt, body[key])
    images = body.get("images")
    if type(images) is list:
        for index in range(len(images)):
            prompt.picture(images, index)
        count += len(images)
    return max(1, count)


_PAIRS = (("query", "documents"), ("queries", "documents"), ("queries", "items"), ("query", "items"),
          ("text_1", "text_2"), ("data_1", "data_2"))  # fmt: skip


def read_pairs(prompt: Prompt, body: dict[str, Any]) -> int:
    """Scoring and reranking: one on the left is read with each on the right, several are paired off."""
    for one, many in _PAIRS:
        if one in body and many in body:
            left, right = _listed(body[one]), _listed(body[many])
            prompt.text(body.get("instruction"))
            before = len(prompt.pieces)
            for item in left:
                _read_prompts(prompt, item)
            if len(left) == 1:
                _repeat(prompt, before, len(right) - 1)
            for item in right:
                _read_prompts(prompt, item)
            return max(1, len(right))
    return 1


def _repeat(prompt: Prompt, before: int, times: int) -> None:
    # By arithmetic: a long query beside many documents must not become gigabytes here.
    texts = prompt.pieces[before:]
    characters = sum(map(len, texts))
    excess = sum(len(text.encode("utf-8", "surrogatepass")) for text in texts) - characters
    times = max(0, times)
    prompt.repeated = (characters * times, excess * times)
    prompt.given_tokens += prompt.given_tokens * times


def _listed(value: Any) -> list[Any]:
    is_many = type(value) is list and not (value and type(value[0]) is int)
    return value if is_many else [value]


def _read_prompts(prompt: Prompt, value: Any) -> int:
    """A text, token ids, a content, or several of them. Returns how many."""
    if type(value) is str:
        prompt.text(value)
        return 1
    if type(value) is dict:
        if "role" in value:
            _read_messages(prompt, [value])
        else:
            read_content(prompt, value.get("content"))
        return 1
    if type(value) is not list or not value:
        return 0
    if type(value[0]) is int:
        prompt.ids(value)
        return 1
    for item in value:
        if type(item) is list and item and type(item[0]) is int:
            prompt.ids(item)
        elif type(item) is list:
            _read_messages(prompt, item)
        else:
            _read_prompts(prompt, item)
    return len(value)
