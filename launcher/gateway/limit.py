"""The adaptive limit: moves what a replica may have in hand, within half and twice, by what TTFT and ITL show. Pure.

The profile says what the engine's batch token budget is, and is right where the launcher started the engine. Elsewhere
(an external server, a batch that shares its card) the right amount has to be found: too little in hand leaves gaps
between the engine's steps, too much makes everybody wait behind everybody. So, only while requests wait for room (else
nothing can be told), every few seconds a step is tried: up is kept if prompts were done faster by GAIN, down if
they were not done slower by LOSS (the first tokens come sooner then). While the time between tokens is beyond
ITL_GROWTH of the best seen, steps go down only.
"""

from __future__ import annotations

LOW, HIGH = 0.5, 2.0
STEP = 1.25
EPOCH_S = 2.0
EPOCH_TOKENS = 24  # first tokens; fewer tell nothing
GAIN, LOSS = 1.05, 0.97
ITL_GROWTH = 4.0
REST_EPOCHS = 8  # after a step that was taken back


class AdaptiveLimit:
    """One replica's. ``scale`` is what its caps are multiplied with. Written by the dispatcher alone."""

    __slots__ = (
        "_before",
        "_best_itl",
        "_first_tokens",
        "_itl",
        "_itl_weight",
        "_rest",
        "_since",
        "_tokens",
        "_up_next",
        "_was",
        "scale",
    )

    def __init__(self) -> None:
        self.scale = 1.0
        self._was: float | None = None  # the scale before the step on trial; None: none is
        self._before = 0.0  # prompt tokens a second at that scale
        self._up_next = True
        self._rest = 0
        self._best_itl = float("inf")
        self._begin(None)

    def _begin(self, now: float | None) -> None:
        self._since = now
        self._tokens = self._first_tokens = 0
        self._itl = self._itl_weight = 0.0

    def streamed(self, tokens: int, seconds: float) -> None:
        """A stream ended: so many tokens after its first took so long."""
        self._itl += seconds
        self._itl_weight += tokens

    def first_token(self, prompt_tokens: int, waiting: bool, now: float) -> bool:
        """A prompt is done. ``waiting``: requests wait for room. True: the scale has moved."""
        if not waiting:
            self._since = None
            return False
        if self._since is None:
            self._begin(now)
            return False
        self._tokens += prompt_tokens
        self._first_tokens += 1
        elapsed = now - self._since
        if elapsed < EPOCH_S or self._first_tokens < EPOCH_TOKENS:
            return False
        moved = self._decide(self._tokens / elapsed)
        self._begin(now)
        return moved

    def _decide(self, rate: float) -> bool:
        """What becomes of the step on trial, and which comes next."""
        itl = self._itl / self._itl_weight if self._itl_weight else 0.0
        if itl:
            self._best_itl = min(self._best_itl, itl)
        is_slow = itl > ITL_GROWTH * self._best_itl
        before = self.scale
        if self._was is not None:
            went_up = self.scale > self._was
            kept = rate >= self._before * (GAIN if went_up else LOSS) and not (went_up and is_slow)
            if not kept:
                self.scale, self._rest = self._was, REST_EPOCHS
            self._up_next = went_up if kept else not went_up
            self._was = None
            if not kept:
                return True
        if self._rest:
            self._rest -= 1
            return False
        self._was, self._before = self.scale, rate
        up = self._up_next and not is_slow
        self.scale = min(HIGH, self.scale * STEP) if up else max(LOW, self.scale / STEP)
        if self.scale == self._was:  # at a bound: the other way next time
            self._was, self._up_next = None, not self._up_next
        return self.scale != before

    def __repr__(self) -> str:
        return f"<AdaptiveLimit ×{self.scale:.2f}>"
