"""An own trace of requests, as JSON lines: one object for each, in the order of their times.

    {"at": 0.0, "prompt_tokens": 120, "output_tokens": 60}
    {"at": 0.4, "messages": [{"role": "user", "content": "Hello"}], "output_tokens": 30, "name": "greeting"}

``at``: seconds from the start; ``messages``: what is asked, or ``prompt_tokens``: a made-up prompt of that length;
``output_tokens``: the answer's length; ``name``: its row in the tables.
"""

from __future__ import annotations

import itertools
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loadtests.scenarios import Lengths, Question, Scenario, questions

KEYS = ("at", "messages", "prompt_tokens", "output_tokens", "name")


@dataclass(frozen=True)
class Traced:
    """One line."""

    number: int
    at_s: float
    prompt_tokens: int
    output_tokens: int
    name: str
    messages: list[dict[str, Any]] | None

    def question(self, nonce: str = "") -> Question:
        """What is asked; another nonce makes up another prompt."""
        if self.messages is not None:
            return Question(self.name, self.prompt_tokens, self.output_tokens, self.messages)
        made_up = Scenario(self.name, Lengths(self.prompt_tokens), Lengths(self.output_tokens))
        return next(questions(made_up, f"trace {self.number}", nonce))


def read_trace(path: Path) -> list[Traced]:
    """The lines of a trace. Raises ValueError with file, line and what is wrong."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"--trace: {path} cannot be read: {error}") from None
    found = [_traced(f"{path}:{number}", number, line) for number, line in enumerate(lines, 1) if line.strip()]
    if not found:
        raise ValueError(f"--trace: {path} has no requests")
    for earlier, later in itertools.pairwise(found):
        if later.at_s < earlier.at_s:
            raise ValueError(
                f"{path}:{later.number}: at {later.at_s:g} comes before the line above: sort the trace by its times"
            )
    return found


def _traced(place: str, number: int, line: str) -> Traced:
    try:
        value = json.loads(line)
    except ValueError as error:
        raise ValueError(f"{place}: is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise ValueError(f'{place}: must be an object, such as {{"at": 0, "prompt_tokens": 100, "output_tokens": 20}}')
    if unknown := set(value) - set(KEYS):
        raise ValueError(f"{place}: {sorted(unknown)[0]!r} is not known: there are {', '.join(KEYS)}")
    at_s, output = value.get("at"), value.get("output_tokens", 64)
    if not isinstance(at_s, int | float) or isinstance(at_s, bool) or at_s < 0:
        raise ValueError(f"{place}: at must be seconds from the start, 0 or more, not {json.dumps(at_s)}")
    messages, prompt = value.get("messages"), value.get("prompt_tokens")
    if (messages is None) == (prompt is None):
        raise ValueError(f"{place}: give messages or prompt_tokens, one of the two")
    for name, tokens in (("prompt_tokens", prompt or 1), ("output_tokens", output)):
        if not isinstance(tokens, int) or isinstance(tokens, bool) or tokens < 1:
            raise ValueError(f"{place}: {name} must be a whole number, 1 or more, not {json.dumps(tokens)}")
    return Traced(number, float(at_s), prompt or 0, output, str(value.get("name", "trace")), messages)
