"""What the engine says a request took: the usage at the end of an answer, whichever of the APIs it speaks."""

from __future__ import annotations

import re

MAX_LOOKS = 8  # how many places that look like a usage are tried, from the end
WINDOW = 1024  # bytes in which a usage's numbers lie
_KEY = b'"usage"'
_OPENS = re.compile(rb"\s*:\s*\{").match
_NUMBER = re.compile(rb"\s*:\s*(\d{1,12})").match
# /v1/messages leaves out of input_tokens what the prefix cache had.
_CACHED = (b'"cache_read_input_tokens"', b'"cache_creation_input_tokens"')


def find_usage(tail: bytes) -> tuple[int, int] | None:
    """Prompt and completion tokens from the last bytes of an answer: a whole JSON body, or a stream's last events.

    Works for what vLLM sends on chat, completions, embeddings, rerank, /v1/responses and /v1/messages; a number that such
    an answer does not have is 0. None: there is no usage in these bytes; 2,048 of them are enough where it comes last.
    The word may also stand in the answer's text: there a backslash is before each of its quotes, so it is not the key.
    """
    at = len(tail)
    for _ in range(MAX_LOOKS):
        at = tail.rfind(_KEY, 0, at)
        if at < 0:
            return None
        opened = _OPENS(tail, at + len(_KEY))
        if opened is not None:
            found = _numbers(tail, opened.end())
            if found is not None:
                return found
    return None


def _numbers(tail: bytes, start: int) -> tuple[int, int] | None:
    end = start + WINDOW
    prompt = _number(tail, b'"prompt_tokens"', start, end)
    if prompt is not None:
        return prompt, _number(tail, b'"completion_tokens"', start, end) or 0
    prompt = _number(tail, b'"input_tokens"', start, end)
    if prompt is None:
        return None
    cached = sum(_number(tail, key, start, end) or 0 for key in _CACHED)
    return prompt + cached, _number(tail, b'"output_tokens"', start, end) or 0


def _number(tail: bytes, key: bytes, start: int, end: int) -> int | None:
    at = tail.find(key, start, end)
    number = _NUMBER(tail, at + len(key)) if at >= 0 else None
    return int(number[1]) if number is not None else None
