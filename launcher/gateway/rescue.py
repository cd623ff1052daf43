"""What happens to a stream whose engine fails: what its client has, and the attempts to go on with it elsewhere.

Decides only; the exchange that owns it does the writing and the sending.
"""

from __future__ import annotations

from launcher.gateway.reasons import Reason
from launcher.gateway.resume import Plan, continuation, resumed_comment
from launcher.gateway.splice import Continuation
from launcher.gateway.transcript import ERROR_EVENT, Transcript, before_error, error_code

MAX_RESUMES = 3  # of one stream: an answer that ends engine after engine is itself the reason
MAX_BODY = 4 * 1024 * 1024  # bytes of a request that are kept for as long as its answer streams
COMMENT_S = 10.0  # how often a client that waits is told so, lest it thinks the connection dead


class Rescue:
    """One stream's."""

    __slots__ = (
        "_default_temperature",
        "_error_passes",
        "_framed",
        "_lost",
        "_may_repeat",
        "_plan",
        "_route",
        "body",
        "continuation",
        "is_asking",
        "times",
        "transcript",
    )

    def __init__(
        self, body: bytes, route: str, *, framed: bool, whole_only: bool, default_temperature: float | None
    ) -> None:
        """``body``: as the first engine got it. ``framed``, ``whole_only``: see Transcript."""
        self.body, self._route, self._framed = body, route, framed
        self.transcript = Transcript(framed, whole_only)
        self.continuation: Continuation | None = None  # what changes the events of the engine that goes on
        self.is_asking = False  # another engine has been asked to go on, and its answer's head has not come
        self.times = 0
        self._default_temperature = default_temperature
        self._plan: Plan | None = None
        self._lost = 0
        self._may_repeat = True
        self._error_passes = False

    @property
    def is_cut_short(self) -> bool:
        """Whether an answer that goes on elsewhere ended without an end."""
        if self.continuation is None:
            return False
        self.transcript.read()
        return not (self.transcript.is_done or self.transcript.finish_reason is not None)

    def next(self, lost: int) -> Plan | Reason:
        """How to go on after replica ``lost`` failed."""
        if self.continuation is not None:
            self.continuation.broken()
        if self.times >= MAX_RESUMES:
            return Reason.ENGINE_ERROR
        plan = continuation(
            self.body,
            self._route,
            self.transcript,
            default_temperature=self._default_temperature,
            may_repeat=self._may_repeat,
        )
        if isinstance(plan, Plan):
            self._plan, self._lost, self.is_asking = plan, lost, True
            self.times += 1
        return plan

    def begin(self, found: int) -> None:
        """Replica ``found`` goes on: its answer's head has come."""
        assert self._plan is not None
        mark = resumed_comment(self._lost, found, self.transcript.event_count)
        self.transcript.begin_continuation(self._plan.events)
        self.continuation = Continuation(self.transcript, self._plan, mark)
        self.is_asking = self._framed = False

    def take(self, data: bytes) -> bytes:
        """The client's part of what the engine that goes on sends."""
        assert self.continuation is not None
        out = self.continuation.feed(data)
        if out:
            self.transcript.keep(out)
        return out

    def may_go_on(self) -> bool:
        """After ``continuation.failed``: whether another attempt may do better. Nothing new has been given out then."""
        assert self.continuation is not None
        why = self.continuation.failed
        if why is Reason.DIVERGED and self._may_repeat:
            self._may_repeat = False  # the text was cut in a way that the model does not: without that, then
            return True
        return why is Reason.ENGINE_ERROR

    def says_failed(self, piece: bytes) -> bool:
        """Whether the engine tells within the stream that it failed: vLLM does so when its core dies."""
        if self._error_passes or piece.find(ERROR_EVENT) < 0:
            return False
        self._error_passes = error_code(piece) < 500  # the request's own error is the client's to see
        return not self._error_passes

    def before_failure(self, piece: bytes) -> bytes:
        """What comes before that in the piece; kept."""
        good = before_error(piece, self._framed)
        if good:
            self.transcript.keep(good)
        return good

    def __repr__(self) -> str:
        return f"<Rescue times={self.times} {'asking' if self.is_asking else ''}>"
