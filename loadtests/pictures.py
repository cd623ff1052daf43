"""What a budget for pictures is worth: users who each ask about a new picture, of the bare engine and through the gateway.

    python -m loadtests.pictures profile.yaml --users 50 --seconds 15 --rounds 2 --markdown pictures.md

Starts the profile with `launcher up` and alternates: the bare engine, the gateway with pictures as they come, the bare
engine with pictures that were brought to ``--tokens`` before the run, and the gateway with that budget. Closed loop: each
user asks again as soon as the answer is whole. Every picture is new, so that no cache has it. Engine, gateway, decoding and
load share the machine. Times are of all answers, those too that come after the last question; the rate is of the last three
quarters of ``--seconds``, which should be many times an answer's length.
"""

from __future__ import annotations

import argparse
import base64
import io
import json
import random
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import uvloop
from PIL import Image

from launcher.plan.image_budget import Budget, fit
from launcher.plan.plan import make_plan
from launcher.probe.model_files import read_model_facts
from launcher.profile.load import load_profile
from loadtests.client import Client
from loadtests.deployment import ENGINE_KEY, Deployment, load_line, publish, say, stoppable
from loadtests.openloop import throughput
from loadtests.tally import Record, percentile
from loadtests.workloads import Kind, Planned
from tests.gateway.media.pictures import photo

BARE, ORIGINAL, BUDGET = "the bare engine", "the gateway, pictures as they come", "the gateway, a budget"
SCALED = "the bare engine, pictures scaled beforehand"
ARMS = {"bare": BARE, "original": ORIGINAL, "scaled": SCALED, "budget": BUDGET}
QUALITY = 85
MARGIN = 1500  # pixels by which the windows move
WARM_UP_S = 5.0
PATIENCE_S = 60.0  # for the answers that are open when the time is up
ASKED = Kind("picture", 1.0, (0, 0), 0)


_whole: dict[tuple[int, int], Image.Image] = {}  # of a process that makes bodies


@dataclass(frozen=True)
class Asked:
    """What each user asks; ``width`` and ``height`` of the picture in pixels, ``sent`` what it is scaled to before."""

    model: str
    detail: str
    width: int
    height: int
    max_tokens: int
    sent: tuple[int, int] | None = None

    def body(self, seed: int) -> bytes:
        """A request whose picture nobody has seen: a window of a large picture, each seed another."""
        key, dice = (self.width, self.height), random.Random(seed)
        if key not in _whole:
            _whole[key] = photo(self.width + MARGIN, self.height + MARGIN, 7)
        left, top = dice.randrange(MARGIN), dice.randrange(MARGIN)
        file = io.BytesIO()
        window = _whole[key].crop((left, top, left + self.width, top + self.height))
        (window if self.sent is None else window.resize(self.sent)).save(file, "JPEG", quality=QUALITY)
        url = "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()
        part = {"type": "image_url", "image_url": {"url": url, "detail": self.detail}}
        message = {"role": "user", "content": [part, {"type": "text", "text": "What is this?"}]}
        options = {"max_tokens": self.max_tokens, "ignore_eos": True, "stream": True}
        usage = {"stream_options": {"include_usage": True}}
        return json.dumps({"model": self.model, "messages": [message], **options, **usage}).encode()


class Ready:
    """A load client's Speech: requests that were made before the run, so that making them slows nobody."""

    path = "/v1/chat/completions"

    def __init__(self, bodies: list[bytes]) -> None:
        self._bodies = bodies

    def body(self, planned: Planned) -> bytes:
        return self._bodies.pop()


async def run(url: str, bodies: list[bytes], users: int, seconds: float) -> list[Record]:
    client = Client(url, Ready(bodies), lines=[f"Authorization: Bearer {ENGINE_KEY}"], any_event=True)  # type: ignore[arg-type]
    planned = [Planned(number, 0.0, ASKED, 0) for number in range(len(bodies))]
    return await client.closed_loop(planned, users, seconds, PATIENCE_S)


def figures(records: list[Record], seconds: float) -> dict[str, float]:
    """Of the answers that were whole."""
    served = [record for record in records if record.is_served and record.ended_at is not None]
    ended = [record.ended_at - record.planned.at_s for record in served if record.ended_at is not None]
    first = [record.ttft_s for record in served if record.ttft_s is not None]
    tokens = [record.prompt_tokens for record in served if record.prompt_tokens is not None]
    failed = [record for record in records if record.status and not record.is_served]
    return {
        "requests_s": throughput(records, seconds),
        "prompt_tokens": median(tokens) if tokens else 0,
        "ttft_p50_ms": 1000 * (percentile(first, 0.5) or 0),
        "p50_ms": 1000 * (percentile(ended, 0.5) or 0),
        "p99_ms": 1000 * (percentile(ended, 0.99) or 0),
        "failed": len(failed),
    }


def size_within(profile: str, sets: list[str], width: int, height: int, tokens: int) -> tuple[int, int]:
    """What the gateway would bring such a picture to."""
    loaded = load_profile(Path(profile), sets=sets)
    shape = make_plan(loaded.profile, read_model_facts(loaded.profile, loaded.base_dir)).shape
    fitted = fit(shape.image if shape else None, Budget(max_tokens=tokens), width, height)
    return fitted.width, fitted.height


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m loadtests.pictures", description=__doc__.partition("\n")[0])
    add = parser.add_argument
    add("profile", help="the profile to start")
    add("--set", action="append", default=[], metavar="KEY=VALUE", help="as for `launcher up`")
    add("--tokens", type=int, default=324, help="the budget of a picture (default: 324)")
    add("--size", default="1920x1080", help="of the pictures (default: 1920x1080)")
    add("--users", type=int, default=50)
    add("--seconds", type=float, default=60)
    add("--rounds", type=int, default=2)
    add("--max-tokens", type=int, default=32, help="of each answer (default: 32)")
    add("--only", nargs="+", choices=ARMS, default=list(ARMS), help="which to compare (default: all)")
    add("--markdown", type=Path, help="a file for the table; default: the terminal")
    chosen = parser.parse_args()
    width, height = map(int, chosen.size.split("x"))
    sets = [
        f"gateway.images.detail.low={{max_tokens: {chosen.tokens}}}",
        "admission.deadline=60s",  # closed loop: each user waits as long as it takes
        *chosen.set,
    ]
    found: dict[str, list[dict[str, float]]] = {ARMS[name]: [] for name in chosen.only}
    small = size_within(chosen.profile, sets, width, height, chosen.tokens)
    seed, rates = 0, dict.fromkeys(found, 100.0)
    with Deployment(chosen.profile, sets) as deployment, ProcessPoolExecutor() as makers:
        model = json.loads(deployment.models())["data"][0]["id"]
        for number in range(chosen.rounds + 1):  # the first is the warm-up, and shows how many requests are needed
            for name in found if number % 2 else reversed(found):
                seconds = chosen.seconds if number else WARM_UP_S
                detail, sent = "low" if name == BUDGET else "auto", small if name == SCALED else None
                asked = Asked(model, detail, width, height, chosen.max_tokens, sent)
                needed = chosen.users + round(1.5 * seconds * rates[name])
                bodies = list(makers.map(asked.body, range(seed, seed + needed), chunksize=8))
                seed += needed
                url = deployment.engine if name in (BARE, SCALED) else deployment.gateway
                records = uvloop.run(run(url, bodies, chosen.users, seconds))
                if not bodies:
                    seconds = max(record.planned.at_s for record in records)
                    say(f"all requests were used up after {seconds:.1f} s: the rate is of that time")
                one = figures(records, seconds)
                deployment.until_idle()
                rates[name] = max(10.0, one["requests_s"])
                say(f"round {number}, {name}: " + ", ".join(f"{key} {value:.1f}" for key, value in one.items()))
                if number:
                    found[name].append(one)
    text = table(found)
    publish(text, chosen.markdown)


def table(found: dict[str, list[dict[str, float]]]) -> str:
    """Medians of the rounds; the ratio is of the same round, to the first row."""
    first = next(iter(found))
    lines = [f"| pictures go to | prompt tokens | requests/s | × {first} | TTFT p50 ms | p50 / p99 ms | failed |"]
    lines.append("|---|---|---|---|---|---|---|")
    for name, rounds in found.items():
        mid = {key: median(one[key] for one in rounds) for key in rounds[0]}
        times = median(
            a["requests_s"] / b["requests_s"] for a, b in zip(rounds, found[first], strict=True) if b["requests_s"]
        )
        lines.append(
            f"| {name} | {mid['prompt_tokens']:.0f} | {mid['requests_s']:.1f} | {times:.2f} | {mid['ttft_p50_ms']:,.0f} | "
            f"{mid['p50_ms']:,.0f} / {mid['p99_ms']:,.0f} | {mid['failed']:.0f} |"
        )
    return "\n".join([*lines, "", load_line(), ""])


if __name__ == "__main__":
    with stoppable():
        main()
