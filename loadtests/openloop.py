"""An open-loop load client: requests come when they are due, whether or not the earlier ones have been answered.

    python -m loadtests.openloop --url http://127.0.0.1:8000 --workload cpu --rate 4 --seconds 30 --slo short=0.5,long=2
    python -m loadtests.openloop --url http://127.0.0.1:8000 --workload cpu --users 16 --seconds 30    closed loop

Every request has a connection of its own and streams. Its TTFT counts from when it was due. Needs only Python (uvloop
is used where it is there), so that it runs beside any vLLM; one process, which --pin binds to a core.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from loadtests.client import PATIENCE_S, Client
from loadtests.tally import Record, summary
from loadtests.workloads import (
    OPENING,
    WORDS,
    WORKLOADS,
    Kind,
    Speech,
    mix,
    poisson,
    single_tokens,
    with_limits,
)

# Finding out how to speak to a model.


def ask(url: str, path: str, value: Any = None, lines: Sequence[str] = ()) -> Any:
    """A plain GET or POST of JSON; for what is not measured. Raises SystemExit with what the server said against it."""
    data = None if value is None else json.dumps(value).encode()
    headers = dict(line.split(": ", 1) for line in ("Content-Type: application/json", *lines))
    try:
        with urllib.request.urlopen(
            urllib.request.Request(url.rstrip("/") + path, data, headers), timeout=120
        ) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as error:
        raise SystemExit(f"{url}{path}: {error.code} {error.read().decode(errors='replace')[:500]}") from None


def learn_speech(url: str, api: str, lines: Sequence[str] = ()) -> Speech:
    """How to make prompts of exact length: words that the model's tokenizer takes whole, and what the template adds."""
    name = ask(url, "/v1/models", None, lines)["data"][0]["id"]
    if api != "chat":
        return Speech(name, api)
    text = {"model": name, "prompt": " ".join(("", *WORDS)), "add_special_tokens": False, "return_token_strs": True}
    words = single_tokens(WORDS, ask(url, "/tokenize", text, lines)["token_strs"])
    if len(words) < 30:
        raise SystemExit(f"Only {len(words)} of {len(WORDS)} words are one token for {name}: use --api completions.")

    def count(*said: str) -> int:
        content = " ".join((OPENING, *said))
        body = {"model": name, "messages": [{"role": "user", "content": content}], "max_tokens": 1}
        return int(ask(url, Speech(name).path, body, lines)["usage"]["prompt_tokens"])

    overhead = count(*words) - len(words)
    if count(*words, *reversed(words)) - 2 * len(words) != overhead:
        raise SystemExit(f"Words do not keep their length in {name}'s prompts: use --api completions.")
    return Speech(name, api, words, overhead)


# Runs.


async def run_open(
    url: str, speech: Speech, kinds: Sequence[Kind], *, rate: float, seconds: float, seed: int, retries: int = 0,
    patience_s: float = PATIENCE_S, **how: Any,
) -> list[Record]:  # fmt: skip
    """One open-loop run; ``how``: the client's ``lines`` and ``any_event``."""
    client = Client(url, speech, retries=retries, **how)
    return await client.open_loop(poisson(kinds, rate, seconds, seed), patience_s)


async def run_closed(
    url: str, speech: Speech, kinds: Sequence[Kind], *, users: int, seconds: float, seed: int, **how: Any
) -> list[Record]:
    """One closed-loop run; ``how`` as above."""
    client = Client(url, speech, **how)
    return await client.closed_loop(mix(kinds, seed), users, seconds)


def throughput(records: Sequence[Record], seconds: float, skip: float = 0.25) -> float:
    """Answers a second of a closed-loop run, its beginning left out, in which the engine was not yet full."""
    start = skip * seconds
    ended = [record for record in records if record.is_served and record.ended_at is not None]
    return sum(start <= record.ended_at <= seconds for record in ended if record.ended_at) / (seconds - start)


def unloaded_ttft_s(records: Sequence[Record]) -> dict[str, float]:
    """The median TTFT of each kind, in a run with one user."""
    found: dict[str, float] = {}
    for kind in {record.planned.kind for record in records}:
        mine = sorted(r.ttft_s for r in records if r.planned.kind == kind and r.is_served and r.ttft_s is not None)
        if mine:
            found[kind.name] = mine[len(mine) // 2]
    return found


def run_loop(main: Any) -> Any:
    """asyncio.run, on uvloop where that is installed."""
    try:
        import uvloop
    except ImportError:
        return asyncio.run(main)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(main)


def parse_limits(text: str) -> dict[str, float]:
    """short=0.5,long=2 → seconds by kind."""
    try:
        return {name: float(value) for name, value in (part.split("=") for part in text.split(",") if part)}
    except ValueError:
        raise SystemExit(f"--slo: {text!r} is not like short=0.5,long=2 (seconds)") from None


def arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m loadtests.openloop", description=__doc__.split("\n")[0])
    parser.add_argument("--url", required=True, help="the server, without /v1")
    parser.add_argument("--workload", choices=sorted(WORKLOADS), default="h200")
    parser.add_argument("--api", choices=("chat", "completions"), default="chat", help="completions: prompts as ids")
    parser.add_argument("--rate", type=float, help="open loop: requests a second")
    parser.add_argument("--users", type=int, help="closed loop: so many at once")
    parser.add_argument("--seconds", type=float, default=15.0)
    parser.add_argument("--seed", type=int, default=1, help="of lengths and arrivals")
    parser.add_argument("--text-seed", type=int, default=0, help="of the words; another one for each run on one engine")
    parser.add_argument("--slo", default="", help="short=0.5,long=2: seconds to the first token, by kind")
    parser.add_argument("--retries", type=int, default=0, help="times that a 429 or 503 is asked again, as told")
    parser.add_argument("--patience", type=float, default=PATIENCE_S, help="seconds for answers after the last request")
    parser.add_argument("--header", action="append", default=[], help="'Name: value', for every request")
    parser.add_argument("--first-token", choices=("text", "event"), default="text", help="event: random weights")
    parser.add_argument("--pin", type=int, help="the CPU core to run on")
    parser.add_argument("--speech", type=Path, help="take the model's words from this file, or write them there")
    parser.add_argument("--json", type=Path, help="write the figures here (else to the terminal)")
    parser.add_argument("--records", action="store_true", help="with every single request")
    chosen = parser.parse_args(argv)
    if (chosen.rate is None) == (chosen.users is None):
        parser.error("give one of --rate (open loop) and --users (closed loop)")
    return chosen


def speech_for(chosen: argparse.Namespace) -> Speech:
    """The way to speak, asked of the server once and then kept in --speech: asking costs time of the engine."""
    if chosen.speech and chosen.speech.exists():
        kept = json.loads(chosen.speech.read_text())
        return replace(Speech(**{**kept, "words": tuple(kept["words"])}), text_seed=chosen.text_seed)
    speech = learn_speech(chosen.url, chosen.api, chosen.header)
    if chosen.speech:
        chosen.speech.write_text(json.dumps(asdict(speech)))
    return replace(speech, text_seed=chosen.text_seed)


def main(argv: Sequence[str] | None = None) -> None:
    chosen = arguments(argv)
    if chosen.pin is not None:
        os.sched_setaffinity(0, {chosen.pin})
    kinds = with_limits(WORKLOADS[chosen.workload], parse_limits(chosen.slo))
    speech = speech_for(chosen)
    common: dict[str, Any] = {"seconds": chosen.seconds, "seed": chosen.seed, "lines": chosen.header}
    common["any_event"] = chosen.first_token == "event"
    if chosen.rate is not None:
        run = run_open(chosen.url, speech, kinds, rate=chosen.rate, retries=chosen.retries,
                       patience_s=chosen.patience, **common)  # fmt: skip
        records = run_loop(run)
        figures = summary(records, chosen.seconds)
    else:
        records = run_loop(run_closed(chosen.url, speech, kinds, users=chosen.users, **common))
        figures = summary(records, chosen.seconds)
        figures["throughput_per_s"] = round(throughput(records, chosen.seconds), 3)
        figures["median_ttft_s"] = unloaded_ttft_s(records)
    figures["client_cpu_s"] = round(sum(os.times()[:2]), 2)
    if chosen.records:
        figures["records"] = [asdict(record) for record in records]
    text = json.dumps(figures, indent=1) + "\n"
    if chosen.json:
        chosen.json.write_text(text)
    else:
        sys.stdout.write(text)


if __name__ == "__main__":
    main()
