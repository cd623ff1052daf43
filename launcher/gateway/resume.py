"""How an answer goes on whose engine failed in the middle: the request for the rest of it, as another engine gets it.

The text that the client has is given back as an unfinished message of the assistant (``continue_final_message``), or
behind the prompt of a completion. What never happens: text that the client has is sent again, or text that belongs
between is left out. Where that cannot be held, there is no continuation (see ``Reason``).

A greedy answer is also the same as if nothing had happened, as long as the text so far is cut into the tokens that the
first engine made. It is, at the end of any event, but in two cases. In both the engine gets a little less of the text,
up to where an earlier token ended, repeats the rest, and what the client has is taken out again (``Plan.tail``):
- The text ends with blanks. Many tokenizers make two tokens of two line feeds before a word, and one of them at the
  end; many chat templates take blanks at the end off.
- There are stop strings of several characters. For these vLLM holds back characters, not tokens, always as many.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from launcher.gateway.reasons import Reason
from launcher.gateway.transcript import Transcript

MAX_TAIL = 64  # characters that an engine is made to repeat
MAX_STOP = 256  # characters of a stop string whose beginnings are looked for
COMPLETION_MAX_TOKENS = 16  # what vLLM takes for a completion that names none
CHAT, COMPLETION = "/v1/chat/completions", "/v1/completions"


class Plan:
    """A request that continues an answer."""

    __slots__ = ("body", "ending", "events", "is_anew", "tail", "tokens")

    def __init__(self, body: bytes, ending: str, tail: str, tokens: int, events: int, is_anew: bool) -> None:
        self.body = body
        self.ending = ending  # what the engine's prompt must end with; "": need not be checked
        self.tail = tail  # text that the client has and the engine will repeat
        self.tokens = tokens  # of the answer so far, in this request's prompt
        self.events = events  # of the first stream, in this request's prompt; for Transcript.begin_continuation
        self.is_anew = is_anew  # it is the original request


def continuation(
    body: bytes,
    route: str,
    transcript: Transcript,
    *,
    tokens: int | None = None,
    default_temperature: float | None = None,
    may_repeat: bool = True,
) -> Plan | Reason:
    """The request for the rest of an answer, or why there can be none.

    ``body``: of the request as the first engine got it, also where this is not the first continuation. ``tokens``: how
    many the text so far has, where that was counted (``count_request``); else the transcript's own estimate is taken.
    ``default_temperature``: of requests that name none; None: not known. ``may_repeat=False``: no part of the text is
    to be repeated, for another try after ``Reason.DIVERGED``.
    """
    transcript.read()
    if transcript.obstacle is not None:
        return transcript.obstacle
    if transcript.ends_within_event:
        return Reason.HALF_EVENT
    try:
        request = json.loads(body)
    except (ValueError, RecursionError):
        return Reason.NOT_A_STREAM
    if not isinstance(request, dict):
        return Reason.NOT_A_STREAM
    why = obstacle_in(request, route)
    if why is not None:
        return why
    if transcript.is_done or transcript.finish_reason is not None:
        return Reason.COMPLETE
    if request.get("include_stop_str_in_output") and _has_begun(transcript.text, _stops(request)):
        return Reason.STOP_STRING
    temperature = request.get("temperature")
    is_greedy = (default_temperature if temperature is None else temperature) == 0
    size, events = _cut(request, transcript, is_greedy and may_repeat)
    if tokens is None:
        tokens = transcript.tokens_of(events)
    elif size < len(transcript.text):
        tokens = max(0, tokens - 1)
    return _plan(request, route, transcript.text[:size], transcript.text[size:], tokens, events)


def _plan(request: dict[str, Any], route: str, sent: str, tail: str, tokens: int, events: int) -> Plan | Reason:
    if not sent:
        return Plan(json.dumps(request).encode(), "", tail, 0, 0, True)
    if not _lessen(request, route, tokens):
        return Reason.COMPLETE
    ending = ""
    if route == COMPLETION:
        _append_to_prompt(request, sent)
    else:
        ending = _append_to_messages(request, sent)
    return Plan(json.dumps(request).encode(), ending, tail, tokens, events, False)


def _cut(request: dict[str, Any], transcript: Transcript, exactly: bool) -> tuple[int, int]:
    """How much of the text the engine gets, and how many events those are. ``exactly``: only whole tokens."""
    text, held = transcript.text, _held_back(request)
    place, events = transcript.token_end(held, len(text))
    if not exactly:
        return len(text), events
    if text[place - 1 : place].isspace():
        place, events = transcript.token_end(held, place - 1)
    if len(text) - place <= MAX_TAIL:
        return place, events
    return len(text), transcript.token_end(held, len(text))[1]


# What a request must not ask for: Reason → whether it does.
_is_on: Callable[[Any], bool] = bool
_FIELDS: tuple[tuple[str, Callable[[Any], bool], Reason], ...] = (
    ("stream", lambda value: value is not True, Reason.NOT_A_STREAM),
    ("n", lambda value: value not in (None, 1), Reason.CHOICES),
    ("best_of", lambda value: value not in (None, 1), Reason.CHOICES),
    ("use_beam_search", _is_on, Reason.CHOICES),
    ("logprobs", lambda value: value is not None and value is not False, Reason.LOGPROBS),
    ("prompt_logprobs", lambda value: value is not None, Reason.LOGPROBS),
    ("echo", _is_on, Reason.ECHO),
    ("response_format", lambda value: value is not None and value != {"type": "text"}, Reason.STRUCTURED),
    *((name, _is_on, Reason.STRUCTURED) for name in ("structured_outputs", "guided_json", "guided_regex")),
    *((name, _is_on, Reason.STRUCTURED) for name in ("guided_choice", "guided_grammar", "structural_tag")),
    *((name, _is_on, Reason.TOKEN_IDS) for name in ("return_token_ids", "return_prompt_text", "prompt_embeds")),
    ("truncate_prompt_tokens", lambda value: value is not None, Reason.TRUNCATION),
    ("include_reasoning", lambda value: value is False, Reason.REASONING),
    ("thinking_token_budget", lambda value: value is not None, Reason.REASONING),
    ("functions", _is_on, Reason.TOOL_CALLS),
)


def obstacle_in(request: dict[str, Any], route: str) -> Reason | None:
    """Why a request's answer cannot be continued, wherever it breaks off; None: it can."""
    if route not in (CHAT, COMPLETION):
        return Reason.NOT_A_STREAM
    for name, stands_against, why in _FIELDS:
        if stands_against(request.get(name)):
            return why
    if request.get("tools") and request.get("tool_choice") != "none":
        return Reason.TOOL_CALLS
    if route == COMPLETION:
        prompt = request.get("prompt")
        if isinstance(prompt, list) and len(prompt) == 1:
            prompt = prompt[0]
        return None if isinstance(prompt, str) else Reason.TOKEN_IDS
    messages = request.get("messages")
    if not isinstance(messages, list) or not messages or not isinstance(messages[-1], dict):
        return Reason.NOT_A_STREAM
    if request.get("continue_final_message"):
        return None if isinstance(messages[-1].get("content"), str) else Reason.PREFILL
    is_prefilled = messages[-1].get("role") == "assistant" or request.get("add_generation_prompt") is False
    return Reason.PREFILL if is_prefilled else None


def _append_to_prompt(request: dict[str, Any], text: str) -> None:
    prompt = request["prompt"]
    request["prompt"] = [prompt[0] + text] if isinstance(prompt, list) else prompt + text


def _append_to_messages(request: dict[str, Any], text: str) -> str:
    """Makes ``text`` the conversation's unfinished end. Returns that message's whole text."""
    messages = request["messages"]
    if request.get("continue_final_message"):
        text = messages[-1]["content"] + text
        request["messages"] = [*messages[:-1], {**messages[-1], "content": text}]
    else:
        request["messages"] = [*messages, {"role": "assistant", "content": text}]
    request["continue_final_message"], request["add_generation_prompt"] = True, False
    request["return_prompt_text"] = True  # comes with the first event, so that it can be checked; older vLLM ignores it
    return text


def _lessen(request: dict[str, Any], route: str, tokens: int) -> bool:
    """Takes the tokens so far off the request's limits. False: none are left."""
    if route == COMPLETION and request.get("max_tokens") is None:
        request["max_tokens"] = COMPLETION_MAX_TOKENS
    for name in ("max_tokens", "max_completion_tokens"):
        value = request.get(name)
        if isinstance(value, int):
            if value <= tokens:
                return False
            request[name] = value - tokens
    least = request.get("min_tokens")
    if isinstance(least, int):
        request["min_tokens"] = max(0, least - tokens)
    return True


def _stops(request: dict[str, Any]) -> list[str]:
    stop = request.get("stop")
    return [one for one in (stop if isinstance(stop, list) else [stop]) if isinstance(one, str) and one]


def _held_back(request: dict[str, Any]) -> int:
    """Characters that vLLM holds back, since a stop string may have begun with them."""
    longest = max(map(len, _stops(request)), default=1)
    return 0 if request.get("include_stop_str_in_output") else longest - 1


def _has_begun(text: str, stops: list[str]) -> bool:
    """Whether ``text`` ends with the beginning of a stop string: its rest would not be recognised. Long ones may have."""
    if any(len(stop) > MAX_STOP for stop in stops):
        return True
    return any(text.endswith(stop[:size]) for stop in stops for size in range(1, len(stop)))


# Beside the continuation.


def count_request(body: bytes, transcript: Transcript) -> bytes:
    """A request to /tokenize that counts the text so far; ``count`` in its answer is exact where the events are not."""
    transcript.read()
    model = json.loads(body).get("model")
    count = {"prompt": transcript.text, "add_special_tokens": False}
    return json.dumps(count if model is None else {"model": model, **count}).encode()


def finish_events(body: bytes, route: str, transcript: Transcript, prompt_tokens: int | None = None) -> bytes:
    """What is missing of an answer to which no token is (``Reason.COMPLETE``).

    Usage is sent where it was asked for and the prompt's tokens are known, from the stream or as ``prompt_tokens``.
    """
    if transcript.is_done:
        return b""
    kind = "text_completion" if route == COMPLETION else "chat.completion.chunk"
    frame = {"id": transcript.id, "object": kind, "created": transcript.created, "model": transcript.model}
    out = b""
    if transcript.finish_reason is None:
        empty: dict[str, Any] = {"text": ""} if route == COMPLETION else {"delta": {"content": ""}}
        choice = {"index": 0, **empty, "logprobs": None, "finish_reason": "length", "stop_reason": None}
        out = event(frame | {"choices": [choice]})
    options = json.loads(body).get("stream_options")
    prompt = transcript.prompt_tokens if transcript.prompt_tokens is not None else prompt_tokens
    if isinstance(options, dict) and options.get("include_usage") and not transcript.has_usage and prompt is not None:
        made = transcript.tokens_of(transcript.event_count)
        usage = {"prompt_tokens": prompt, "total_tokens": prompt + made, "completion_tokens": made}
        out += event(frame | {"choices": [], "usage": usage})
    return out + b"data: [DONE]\n\n"


def event(value: dict[str, Any]) -> bytes:
    """An event as vLLM writes it, but for ASCII: half of a surrogate pair cannot be written otherwise."""
    return b"data: " + json.dumps(value, separators=(",", ":")).encode() + b"\n\n"


def waiting_comment() -> bytes:
    """Keeps a client's connection alive that waits for an engine; by the rules of SSE nobody sees a comment."""
    return b": launcher waits for an engine to continue this answer\n\n"


def resumed_comment(lost: int, found: int, events: int) -> bytes:
    """Marks in the stream where it was put together; ``lost`` and ``found`` are the replicas' numbers."""
    return b": launcher resumed from replica %d on replica %d after %d events\n\n" % (lost, found, events)
