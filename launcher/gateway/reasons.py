"""Why a stream whose engine failed is not continued: words for the metrics and the access log, with what each means."""

from __future__ import annotations

from enum import Enum


class Reason(Enum):
    """The word, as ``launcher_stream_resumes{outcome}`` and the access log have it."""

    # The request asks for what cannot be put together from two halves.
    NOT_A_STREAM = "not_a_stream"  # not a streamed chat or completion, or a body that cannot be read
    CHOICES = "choices"  # more than one answer, or beam search
    LOGPROBS = "logprobs"  # the second engine's would be those of another prompt
    TOOL_CALLS = "tool_calls"  # asked for, or begun
    STRUCTURED = "structured"  # a grammar begins anew with the continuation
    ECHO = "echo"  # the prompt is repeated in the answer
    TOKEN_IDS = "token_ids"  # the prompt is given as ids, or ids are to be returned
    TRUNCATION = "truncation"  # the longer prompt would be cut elsewhere
    PREFILL = "prefill"  # the conversation ends with the assistant, not as an unfinished message
    REASONING = "reasoning"  # begun, or hidden from us: the text so far is not all that the engine said
    # What the client has.
    REFUSAL = "refusal"  # the answer is one, which is no content
    UNREADABLE = "unreadable"  # an event that is not understood
    HALF_EVENT = "half_event"  # which nothing can be put behind
    STOP_STRING = "stop_string"  # the text so far ends with the beginning of one: its rest would not be recognised
    TOO_LONG = "too_long"
    ENGINE_ERROR = "engine_error"  # the engine's own error has been passed on; or, of a continuation, came again
    COMPLETE = "complete"  # nothing is missing but the end: finish_events()
    # What the second engine sent.
    ALTERED = "altered"  # its chat template changes the text so far
    DIVERGED = "diverged"  # it did not repeat the end of the text that it was to repeat
