"""What a request's body asks for besides its prompt: how its route is read, the answer's limit, whether it can be resumed.

Values are taken as vLLM's own models take them: ``"max_tokens": "100"`` is a hundred there too.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from launcher.gateway import readers
from launcher.gateway.prompts import Prompt
from launcher.gateway.readers import Reader

MOST_TOKENS = 1 << 40  # bound of every count that a client gives, so that its 10**30 does no harm
MOST_SEQUENCES = 16384  # of one prompt: vLLM's own limit for n
_TRUE = frozenset({"true", "1", "on", "yes", "t", "y"})


class Shape(NamedTuple):
    """How one route's bodies are read."""

    read: Reader
    limits: tuple[str, ...] = ("max_tokens",)  # the answer's limit: the first of these that is there
    default_limit: int | None = None  # where a client names none; None: what is left of the context
    generates: bool = True
    can_resume: bool = False


_SCORES = Shape(readers.read_pairs, generates=False)
_EMBEDS = Shape(readers.read_inputs, generates=False)
SHAPES: dict[str, Shape] = {
    "/v1/chat/completions": Shape(readers.read_chat, ("max_completion_tokens", "max_tokens"), can_resume=True),
    "/v1/completions": Shape(readers.read_completion, default_limit=16, can_resume=True),  # vLLM's own default
    "/v1/chat/completions/batch": Shape(readers.read_chats, ("max_completion_tokens", "max_tokens")),
    "/v1/responses": Shape(readers.read_responses, ("max_output_tokens",)),
    "/v1/messages": Shape(readers.read_chat),
    "/cohere/v2/chat": Shape(readers.read_chat),
    **dict.fromkeys(("/v1/embeddings", "/v2/embed", "/pooling", "/classify"), _EMBEDS),
    **dict.fromkeys(("/score", "/v1/score", "/rerank", "/v1/rerank", "/v2/rerank", "/generative_scoring"), _SCORES),
}
UPLOADS = frozenset({"/v1/audio/transcriptions", "/v1/audio/translations"})  # forms with a file, not JSON

# A broken stream is not continued if one of these is set: the engine would not go on from the text alone, would count
# afresh, or the answer carries more than text.
_NOT_RESUMED = frozenset({
    "tools", "functions", "tool_choice", "function_call", "logprobs", "top_logprobs", "prompt_logprobs",
    "logprob_token_ids", "response_format", "structured_outputs", "grammar", "guided_json", "guided_regex",
    "guided_choice", "guided_grammar", "guided_decoding_backend", "structural_tag", "echo", "suffix",
    "continue_final_message", "prompt_embeds", "return_token_ids", "return_tokens_as_token_ids", "use_beam_search",
    "audio", "kv_transfer_params", "repetition_detection", "min_tokens", "thinking_token_budget",
})  # fmt: skip
_AS_IF_ABSENT: tuple[Any, ...] = ([], {}, "none", "auto", {"type": "text"})


_LOOKED_AT = _NOT_RESUMED | {"modalities", "add_generation_prompt", "stream_options"}


def can_resume(asked: dict[str, Any], prompt: Prompt) -> bool:
    """Whether a stream of one sequence can be continued from the text that the client has got so far."""
    if prompt.given_tokens:
        return False
    if _LOOKED_AT.isdisjoint(asked):
        return True
    if any(_is_set(asked[name]) for name in asked.keys() & _NOT_RESUMED):
        return False
    if asked.get("modalities") not in (None, ["text"]) or asked.get("add_generation_prompt") is False:
        return False
    options = asked.get("stream_options")
    return not (type(options) is dict and is_true(options.get("continuous_usage_stats")))


def _is_set(value: Any) -> bool:
    return value is not None and value is not False and value not in _AS_IF_ABSENT


def wants_usage(asked: dict[str, Any]) -> bool:
    """Whether a stream is to end with its usage."""
    options = asked.get("stream_options")
    return type(options) is dict and is_true(options.get("include_usage"))


def answers(asked: dict[str, Any]) -> int:
    """Answers to each prompt: vLLM's n, which is also a beam search's width."""
    return min(MOST_SEQUENCES, max(1, number(asked["n"]) or 1))


def priority(asked: dict[str, Any]) -> int:
    """vLLM's own: lower is earlier; 0 if it is no number."""
    return number(asked["priority"], signed=True) or 0


def limit(asked: dict[str, Any], shape: Shape) -> int | None:
    """Longest answer that the client asked for, in tokens; None: it did not say."""
    for name in shape.limits:
        value = asked.get(name)
        if value is not None:
            return value if type(value) is int and 0 <= value < MOST_TOKENS else number(value)
    return None


def within_bounds(asked: dict[str, Any], shape: Shape, most: int | None, expected: int) -> int:
    """An answer's expected tokens, where the client has left the model less choice than its limit alone."""
    if "min_tokens" in asked:
        expected = max(expected, number(asked["min_tokens"]) or 0)
    if most is None:
        most = shape.default_limit
    elif "ignore_eos" in asked and is_true(asked["ignore_eos"]):
        return most  # benchmarks ask so: the answer is exactly as long as its limit
    return expected if most is None or expected < most else most


def number(value: Any, signed: bool = False) -> int | None:
    """A whole number, within ±MOST_TOKENS, or from 0 if not ``signed``; None: it is none."""
    kind = type(value)
    if kind is not int:
        if kind is str and len(value) < 20 and value.strip().lstrip("-").isdecimal():
            value = value.strip()
        elif kind is not bool and (kind is not float or not value.is_integer()):
            return None
        try:
            value = int(value)
        except ValueError:  # several signs
            return None
    return max(-MOST_TOKENS if signed else 0, min(MOST_TOKENS, value))  # type: ignore[no-any-return]


def is_true(value: Any) -> bool:
    """True as JSON has it, or as lenient readers do."""
    if value is True:
        return True
    return value.lower() in _TRUE if type(value) is str else type(value) in (int, float) and value == 1
