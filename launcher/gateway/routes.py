"""Which path is served by whom. One table; what is not in it is refused, with a list of what is."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum

from launcher.gateway.refusal import Refusal, Refused


class Kind(Enum):
    """What happens to a request."""

    OWN = "answered here"
    PAGE = "a file of the web page, answered here too"
    INFERENCE = "an engine's work: takes a slot, may wait"
    QUERY = "an engine's quick answer: goes to any ready one, takes no slot"
    UPLOAD = "a picture that is sent ahead, kept here"
    CONTROL = "the control app's, which runs in a process of its own"


NEEDS_ENGINE = frozenset((Kind.INFERENCE, Kind.QUERY))


@dataclass(frozen=True, slots=True)
class Route:
    """A path that exists. ``name`` is its label in the metrics."""

    name: str
    kind: Kind
    methods: tuple[bytes, ...]
    is_chat: bool = False  # speaks chat messages: the thinking switches and the template policy apply
    has_choices: bool = False  # answers with choices: residue is taken out
    is_plain: bool = False  # /api/v1/generate: becomes a chat request, and its answer a plain one

    @property
    def engine_path(self) -> str:
        """The engine's route for it, by which its body is read."""
        return "/v1/chat/completions" if self.is_plain else self.name


_GET, _POST = (b"GET", b"HEAD"), (b"POST",)
# fmt: off
_ROUTES = (
    Route("/", Kind.OWN, _GET), Route("/health", Kind.OWN, _GET),
    Route("/ready", Kind.OWN, _GET), Route("/metrics", Kind.OWN, _GET), Route("/api/about", Kind.OWN, _GET),
    Route("/ops", Kind.PAGE, _GET), Route("/favicon.ico", Kind.PAGE, _GET),
    Route("/v1/chat/completions", Kind.INFERENCE, _POST, is_chat=True, has_choices=True),
    Route("/v1/completions", Kind.INFERENCE, _POST, has_choices=True),
    Route("/api/v1/generate", Kind.INFERENCE, _POST, is_plain=True),
    Route("/api/upload", Kind.UPLOAD, _POST),
    *(Route(path, Kind.INFERENCE, _POST) for path in (
        "/v1/chat/completions/batch", "/v1/responses", "/v1/messages", "/cohere/v2/chat",
        "/v1/embeddings", "/v2/embed", "/v1/audio/transcriptions", "/v1/audio/translations",
        "/pooling", "/classify", "/score", "/v1/score", "/rerank", "/v1/rerank", "/v2/rerank",
        "/generative_scoring", "/v1/systemone",
    )),
    *(Route(path, Kind.QUERY, _POST) for path in ("/tokenize", "/detokenize", "/v1/messages/count_tokens")),
    Route("/v1/models", Kind.QUERY, _GET), Route("/version", Kind.QUERY, _GET),
    Route("/ping", Kind.QUERY, (*_GET, b"POST")),
)
# fmt: on
_CONTROL = Route("/api/{path}", Kind.CONTROL, (b"GET", b"HEAD", b"POST", b"PUT", b"PATCH", b"DELETE"))
_FILES = Route("/ui/{path}", Kind.PAGE, _GET)
_BELOW = ((b"/api/", _CONTROL), (b"/ui/", _FILES))  # whatever comes after
_PATTERNS = (
    (re.compile(rb"/v1/responses/resp_[A-Za-z0-9_-]{1,128}").fullmatch, Route("/v1/responses/{id}", Kind.QUERY, _GET)),
    (
        re.compile(rb"/v1/responses/resp_[A-Za-z0-9_-]{1,128}/cancel").fullmatch,
        Route("/v1/responses/{id}/cancel", Kind.QUERY, _POST),
    ),
    (re.compile(rb"/api/upload/[^/]{1,128}").fullmatch, Route("/api/upload/{id}", Kind.UPLOAD, _GET)),
)
# What vLLM serves and this gateway does not pass on: it concerns one engine, not the endpoint, or could stop it.
# fmt: off
NEVER = frozenset({
    "/load", "/invocations", "/server_info", "/sleep", "/wake_up", "/is_sleeping", "/release_kv_cache_memory",
    "/collective_rpc", "/reset_prefix_cache", "/reset_mm_cache", "/reset_encoder_cache", "/start_profile",
    "/stop_profile", "/scale_elastic_ep", "/is_scaling_elastic_ep", "/fault_tolerance/apply",
    "/fault_tolerance/status", "/pause", "/resume", "/is_paused", "/abort_requests", "/init_weight_transfer_engine",
    "/shutdown_weight_transfer_engine", "/start_weight_update", "/start_draft_weight_update", "/update_weights",
    "/finish_weight_update", "/update_weight_version", "/weight_info", "/weight_checker", "/get_world_size",
    "/kv_event_sources", "/tokenizer_info", "/v1/load_lora_adapter", "/v1/unload_lora_adapter", "/v1/realtime",
    "/cohere/v2/chat/render", "/inference/v1/generate", "/inference/v1/abort_requests", "/v1/chat/completions/render",
    "/v1/messages/render", "/v1/responses/render",
    "/v1/completions/render", "/v1/chat/completions/derender", "/v1/completions/derender",
})
# fmt: on
ROUTES = {route.name.encode("ascii"): route for route in _ROUTES}
NAMES = tuple(sorted(route.name for route in {*_ROUTES, *[route for _, route in (*_PATTERNS, *_BELOW)]}))


def find_route(method: bytes, target: bytes) -> Route:
    """The route of a request. Raises Refused with 404 or 405."""
    path = target.partition(b"?")[0] if b"?" in target else target
    route = ROUTES.get(path)
    if route is None:
        route = next((route for matches, route in _PATTERNS if matches(path)), None)
    if route is None:
        route = next((route for start, route in _BELOW if path.startswith(start)), None)
    if route is None:
        shown = path.decode("latin-1")
        message = f"{shown[:200]} is not served here. What is: {', '.join(NAMES)}."
        if shown in NEVER:
            message = f"{shown} belongs to a single engine and is not passed on. What is served: {', '.join(NAMES)}."
        raise Refused(Refusal(404, "unknown_path", message))
    if method not in route.methods:
        allow = ", ".join(name.decode() for name in route.methods)
        message = f"{route.name} does not take {method.decode('latin-1')}. It takes {allow}."
        raise Refused(Refusal(405, "method_not_allowed", message, allow=allow))
    return route
