"""How fast one engine works, learnt from what passes: prompt tokens a second, time between tokens, length of a stay. Pure."""

from __future__ import annotations

DECAY = 0.98  # of a sample's weight with each further one: about the last 50 count
# A token of an answer takes an engine about as long as so many of a prompt (an H200: 250 to 500). In the simulation 200 to
# 400 are alike; far above, too much is sent, far below too little.
TOKEN_PROMPTS = 300
FASTEST_S, SLOWEST_S = 1e-6, 0.1  # a prompt token, whatever a few odd samples say


class Mean:
    """A mean in which older samples fade."""

    __slots__ = ("total", "weight")

    def __init__(self) -> None:
        self.total = self.weight = 0.0

    def add(self, value: float, weight: float = 1.0) -> None:
        self.total = self.total * DECAY + value
        self.weight = self.weight * DECAY + weight

    @property
    def value(self) -> float | None:
        return self.total / self.weight if self.weight else None


class Pace:
    """One engine's pace. Written by the dispatcher alone.

    A stream shows when its prompt was done: its first token. The engine takes prompts in turn, so the time between two
    first tokens, as long as it had prompts all the time, is what the second one's prompt took (or less: prompts that
    end in the same step come together, which the sums even out).

    An answer that comes as a whole shows only its end. How long its prompt took is taken from how long such answers stay
    and the usual proportion of prompt and answer: rough, but it cannot run away. Where too much is sent answers stay
    longer, so that prompts are taken to be in hand for longer, and less is sent.
    """

    __slots__ = ("_busy_from", "prefill", "stay", "token", "whole_stay")

    def __init__(self) -> None:
        self._busy_from = 0.0
        self.prefill = Mean()  # seconds a prompt token
        self.token = Mean()  # seconds between the pieces of a stream
        self.stay = Mean()  # seconds from sending to the end
        self.whole_stay = Mean()  # the same, of answers that come as a whole

    def began(self, now: float) -> None:
        """A prompt was sent to an engine that had none."""
        self._busy_from = now

    def busy_s(self, now: float) -> float:
        """How long the engine has been at the prompts that it has in hand, since the last one was done."""
        return max(0.0, now - self._busy_from)

    def prefilled(self, tokens: int, now: float) -> None:
        """A stream's first token came."""
        self.prefill.add(now - self._busy_from, tokens)
        self._busy_from = now

    def prompt_done_s(self, in_hand: int, output_tokens: int) -> float | None:
        """How long after it is sent the prompt of an answer that comes as a whole is probably done. None: not known yet.

        ``in_hand``: prompt tokens that the engine has then, its own among them.
        """
        stay = self.whole_stay.value
        return None if stay is None else stay * in_hand / (in_hand + TOKEN_PROMPTS * output_tokens)

    @property
    def prefill_s(self) -> float | None:
        """Seconds a prompt token; None: not known yet."""
        value = self.prefill.value
        return None if value is None else min(max(value, FASTEST_S), SLOWEST_S)

    def __repr__(self) -> str:
        rate = 1 / self.prefill_s if self.prefill_s else 0
        return f"<Pace prefill={rate:.0f}/s stay={self.stay.value or 0:.2f}s>"
