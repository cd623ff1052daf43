"""A model of one vLLM engine, step by step, paced like the H200 of the evidence; a fake clock drives it.

What a step computes, as vLLM's scheduler does it: one token for each sequence that decodes, then prompt tokens of the
requests in the order of their arrival, chunked, up to the batch token budget B; at most S sequences run; a request
enters only when its prompt and answer fit into the KV cache (vLLM takes it earlier, and preempts; that is not modelled).
A sequence's first token comes at the end of the step that completes its prefill, one more with each further step.
The scheduler works ahead (async scheduling, vLLM's default on a GPU): a step's content is settled when the step before
it begins, so that a request which arrives during a step is computed in the second one after it.

How long a step takes, for P prompt tokens, D decoding sequences, and A = Σ over the prompt tokens of their context:

    step = step_s + max(weights_s, (P + D) · token_s) + A · context_s

| constant  | value      | where it comes from |
|---|---|---|
| step_s    | 4.3 ms     | with weights_s the 6.6 ms a token of a single stream (row max_num_seqs 1: (22,153 − 21,738) / 63) |
| weights_s | 2.3 ms     | what of it is hidden behind the computing of many tokens: fitted with token_s |
| token_s   | 1 / 53,000 | fitted to the closed loop at 384 tokens (91.4 and 96.0 requests/s; 88 % of the card's matrix limit) |
| context_s | 6.2 ns     | fitted to the open loop, whose prompts of 4,096 cost more a token: 129 ms each, or 31,700 tokens/s |
| entry_s   | 5 ms       | from the sender to the scheduler (HTTP, tokenizer): fitted, and the evidence hardly depends on it |
| B, S, KV  | 8192, 1024, 2,529,248 | vLLM's defaults on this card, and the evidence's start |

Fitted by random search over the 19 rows, all at once. How well each row is met, and which are not: test_pacing.py.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from dataclasses import dataclass, field

from tests.simulation.workload import BLOCK, Request


@dataclass(frozen=True, slots=True)
class Pace:
    """The constants of one engine; the defaults are the H200's."""

    batch_tokens: int = 8192
    sequences: int = 1024
    kv_tokens: int = 2_529_248
    step_s: float = 0.0043
    weights_s: float = 0.0023
    token_s: float = 1 / 53_000
    context_s: float = 6.2e-9
    entry_s: float = 0.005

    def cost_s(self, request: Request) -> float:
        """The engine's time that one request takes of a saturated engine; the fixed cost of a step is taken as nothing."""
        return (request.prompt + request.output) * self.token_s + request.prompt**2 / 2 * self.context_s


H200 = Pace()


@dataclass(slots=True, eq=False)
class Work:
    """One request within an engine."""

    owner: Request
    prompt: int
    output: int
    session: int | None = None
    cached: int = 0  # prompt tokens that were in the prefix cache
    done: int = 0  # prompt tokens computed or cached


@dataclass(slots=True)
class _Step:
    """What one step computes."""

    ends_at: float = 0.0
    prefill: int = 0  # prompt tokens
    attended: int = 0  # for each of these, the tokens before it
    firsts: list[Work] = field(default_factory=list)  # whose prefill it completes


class PacedEngine:
    """One engine. ``add`` hands it a request, ``advance`` is to be called at ``next_event``."""

    def __init__(self, pace: Pace) -> None:
        self.pace = pace
        self.steps = 0
        self.busy_s = 0.0
        self.prefilled = 0  # prompt tokens computed
        self.prompts = 0  # requests whose first token has not come
        self._arriving: deque[tuple[float, Work]] = deque()
        self._waiting: deque[Work] = deque()
        self._partial: Work | None = None
        self._running = 0  # sequences between the first chunk of their prefill and their end
        self._decoding = 0
        self._kv_used = 0
        self._ending: dict[int, list[Work]] = {}  # number of the step that makes their last token
        self._current: _Step | None = None
        self._next: _Step | None = None
        self._cache: OrderedDict[int, int] = OrderedDict()
        self._cache_tokens = 0

    def add(self, work: Work, now: float) -> None:
        self.prompts += 1
        self._arriving.append((now + self.pace.entry_s, work))

    def next_event(self) -> float | None:
        """When advance has something to do: the end of a step, or what reaches an engine that does nothing."""
        if self._current is not None:
            return self._current.ends_at
        return self._arriving[0][0] if self._arriving else None

    def advance(self, now: float) -> tuple[list[Work], list[Work]]:
        """Ends the step and begins the next. Returns whose first token and whose last token has come."""
        while self._arriving and self._arriving[0][0] <= now:
            self._waiting.append(self._arriving.popleft()[1])
        firsts: list[Work] = []
        finished: list[Work] = []
        if self._current is not None:
            self.steps += 1
            firsts = self._current.firsts
            self.prompts -= len(firsts)
            for work in firsts:
                self._decoding += 1
                self._ending.setdefault(self.steps + work.output - 1, []).append(work)
            finished = self._ending.pop(self.steps, [])
            for work in finished:
                self._end(work)
        step = self._next or self._compose(0)
        if not step.prefill and not self._decoding:
            step = self._compose(0)
        if step.prefill or self._decoding:
            self._begin(step, now)
        else:
            self._current = self._next = None
        return firsts, finished

    def _begin(self, step: _Step, now: float) -> None:
        duration = self._duration_s(step)
        step.ends_at = now + duration
        self.busy_s += duration
        self.prefilled += step.prefill
        self._current = step
        self._next = self._compose(len(step.firsts))

    def _duration_s(self, step: _Step) -> float:
        pace = self.pace
        compute_s = max(pace.weights_s, (step.prefill + self._decoding) * pace.token_s)
        return pace.step_s + compute_s + step.attended * pace.context_s

    def _compose(self, coming: int) -> _Step:
        """Settles the content of a step. ``coming``: sequences that decode by then and do not yet."""
        step = _Step()
        budget = self.pace.batch_tokens - self._decoding - coming
        while budget > 0 and (work := self._partial or self._take()) is not None:
            chunk = min(work.prompt - work.done, budget)
            step.attended += chunk * (2 * work.done + chunk) // 2
            step.prefill += chunk
            work.done += chunk
            budget -= chunk
            if work.done == work.prompt:
                step.firsts.append(work)
                self._partial = None
            else:
                self._partial = work
        return step

    def _take(self) -> Work | None:
        if not self._waiting or self._running >= self.pace.sequences:
            return None
        work = self._waiting[0]
        if self._kv_used + work.prompt + work.output > self.pace.kv_tokens:
            return None
        self._waiting.popleft()
        self._running += 1
        self._kv_used += work.prompt + work.output
        if work.session is not None:
            work.cached = min(self._cache.get(work.session, 0), work.prompt - 1) // BLOCK * BLOCK
        work.done = work.cached
        return work

    def _end(self, work: Work) -> None:
        self._decoding -= 1
        self._running -= 1
        self._kv_used -= work.prompt + work.output
        if work.session is not None:
            self._remember(work.session, work.prompt + work.output)

    def _remember(self, session: int, tokens: int) -> None:
        self._cache_tokens += tokens - self._cache.pop(session, 0)
        self._cache[session] = tokens
        while self._cache_tokens + self._kv_used > self.pace.kv_tokens and self._cache:
            self._cache_tokens -= self._cache.popitem(last=False)[1]
