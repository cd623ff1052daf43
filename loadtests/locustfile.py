"""Load tests with Locust, for any server that speaks OpenAI's chat API.

    locust -f loadtests/locustfile.py --host http://127.0.0.1:8000
    locust -f loadtests/locustfile.py --host http://127.0.0.1:8000 --headless -u 20 -t 1m --scenario mixed
    locust -f loadtests/locustfile.py --host http://127.0.0.1:8000 --headless --load-shape ramp
    locust -f loadtests/locustfile.py --host http://127.0.0.1:8000 --headless --open-loop 4 --seconds 60 --slo ttft=1,itl=0.06

What the rows of Locust's table are: E2E, TTFT (first piece with text) and ITL (mean gap between an answer's pieces), by scenario,
in milliseconds; REFUSED are answers 429 and 503 with the time that they took, which are no failures; LAG is how much later than
due a request was sent. At the end a table with exact percentiles, tokens and goodput is printed, and with --summary kept as JSON.
No run asks what an earlier one asked, so that no cache helps; a seed stands for the same lengths and times.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import random
import secrets
import sys
import time
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import Request, urlopen

import gevent
from gevent.pool import Pool
from locust import LoadTestShape, User, events, task
from locust.env import Environment
from locust.runners import MasterRunner, WorkerRunner

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # Locust puts only this file's own folder there

from loadtests.figures import Figures, limits_of
from loadtests.files import write_whole
from loadtests.scenarios import MIXED, SCENARIOS, Question, Scenario, answered, draw, mixed, questions
from loadtests.shapes import SHAPES, parse_shape
from loadtests.streaming import Answer, Connection
from loadtests.trace import Traced, read_trace

PATH = "/v1/chat/completions"
MOST_LAG_S = 0.05  # p99: beyond it an open-loop run says more of the load generator than of the server
PATIENCE_S = 90.0  # how long is waited for the answers after the last request; without it the longest would be missing
MOST_PAUSE_S = 120.0  # after a refusal, whatever Retry-After says
SPARE_TOKENS = 64  # of the context, for the chat template


class Run:
    """What the options come to, and what has come of the run so far; one for each process of Locust."""

    def __init__(self, environment: Environment) -> None:
        chosen = environment.parsed_options
        assert chosen is not None
        self.environment, self.chosen = environment, chosen
        self.limits = limits_of(chosen.slo)
        self.figures = Figures(self.limits)
        self.trace: list[Traced] = read_trace(Path(chosen.trace)) if chosen.trace else []
        self.numbers, self.nonce = itertools.count(), ""
        self.model = chosen.model
        self.scenarios = dict(SCENARIOS)
        self.is_closed_loop = not (chosen.open_loop or self.trace)
        for option, value, least in (
            ("--open-loop", chosen.open_loop, 0),
            ("--think", chosen.think, 0),
            ("--seconds", chosen.seconds, 1e-9),
            ("--scale", chosen.scale or 1, 1e-9),
        ):
            if not least <= value < math.inf:
                raise ValueError(f"{option} {value:g}: must be a number, {'0 or more' if not least else 'more than 0'}")
        if chosen.open_loop and SCENARIOS["dialogue"].name in self.names:
            raise ValueError(
                "--scenario dialogue needs users (-u): an open loop does not wait for the answers that its turns need"
            )

    def start(self) -> None:
        """Another run begins: with new prompts, and what the web form says."""
        self.nonce = secrets.token_hex(8)
        self.figures.begin(time.perf_counter(), limits_of(self.chosen.slo))
        if not self.is_closed_loop:
            self.figures.sent_for_s = self.trace[-1].at_s if self.trace else self.chosen.seconds

    def learn(self) -> None:
        """The model's name and context, asked of the server; scenarios are made to fit, and that is said."""
        host = self.environment.host or ""
        headers = {"Authorization": f"Bearer {self.chosen.key}"} if self.chosen.key else {}
        try:
            with urlopen(Request(host.rstrip("/") + "/v1/models", headers=headers), timeout=20) as response:
                (found, *_) = json.load(response)["data"]
        except (URLError, OSError, ValueError, KeyError) as error:
            raise SystemExit(
                f"{host}/v1/models cannot be read: {error}. Is --host right, and is --key needed?"
            ) from None
        self.model = self.model or found["id"]
        context = found.get("max_model_len")
        factor = self.chosen.scale
        used = [SCENARIOS[name] for name in self.names]
        if factor is None and context is not None and not self.trace:
            longest = max(one.longest for one in used)
            factor = min(1.0, (context - SPARE_TOKENS) / longest)
            if factor < 1:
                say(
                    f"{self.model} takes {context} tokens: all lengths are {factor:.2f} of what the scenario says (--scale)"
                )
        self.scenarios = {name: one.scaled(factor or 1.0) for name, one in SCENARIOS.items()}
        for name in self.names:
            one = self.scenarios[name]
            say(f"{name}: prompts of {one.prompt} tokens, answers of {one.output}")
            draw(one)  # now: it would hold up all users later

    @property
    def names(self) -> tuple[str, ...]:
        """The scenarios in use."""
        name = self.chosen.scenario
        return tuple(mixed_name for mixed_name, _ in MIXED) if name == "mixed" else (name,)

    def connection(self) -> Connection:
        return Connection(self.environment.host or "", self.chosen.key, any_event=self.chosen.any_event)

    def ask(self, connection: Connection, question: Question, due_at: float | None = None) -> Answer:
        """One request, with all that it says to Locust."""
        headers = {"X-Mode": self.chosen.mode} if self.chosen.mode else None
        answer = connection.ask(PATH, question.body(self.model, self.chosen.ignore_eos), due_at, headers)
        self.figures.add(question.scenario, answer)
        self.tell(question.scenario, answer)
        return answer

    def unfinished(self, question: Question, began_at: float) -> None:
        """A request whose answer nobody waits for any longer."""
        why = f"unfinished after {self.environment.stop_timeout or PATIENCE_S:g} s"
        self.figures.add(question.scenario, Answer(began_at, began_at, time.perf_counter(), reason=why))

    def tell(self, name: str, answer: Answer) -> None:
        fire = self.environment.events.request.fire
        rows: list[tuple[str, float, int, Exception | None]] = []
        if answer.is_refused:
            rows.append(("REFUSED", answer.e2e_s, 0, None))
            name = f"{name} {answer.reason}"
        elif not answer.is_served:
            rows.append(("E2E", answer.e2e_s, 0, RuntimeError(answer.reason)))
        else:
            rows.append(("E2E", answer.e2e_s, answer.output_tokens, None))
            if answer.ttft_s is not None:
                rows.append(("TTFT", answer.ttft_s, 0, None))
            if gaps := answer.itl_s:
                rows.append(("ITL", sum(gaps) / len(gaps), 0, None))
        if not self.is_closed_loop:
            rows.append(("LAG", answer.lag_s, 0, None))
        for kind, seconds, length, error in rows:
            fire(
                request_type=kind, name=name, response_time=seconds * 1000, response_length=length, exception=error,
                context={},
            )  # fmt: skip


def say(line: str) -> None:
    sys.stderr.write(line + "\n")
    sys.stderr.flush()


run: Run  # made when Locust has read its options


class ClosedLoopUser(User):
    """Asks, reads the answer, asks again."""

    def on_start(self) -> None:
        worker = getattr(self.environment.runner, "worker_index", 0)
        number = f"{run.chosen.seed} {worker} {next(run.numbers)}"
        self._connection, self._pause_s = run.connection(), 0.0
        self._names = (
            mixed(run.names, number) if run.chosen.scenario == "mixed" else itertools.repeat(run.chosen.scenario)
        )
        self._questions = {name: questions(run.scenarios[name], number, run.nonce) for name in run.names}
        self._dice = random.Random(number)

    def wait_time(self) -> float:
        """Seconds until the next question: as clients do, they wait as told, or a moment."""
        think = run.chosen.think
        return self._pause_s + (self._dice.expovariate(1 / think) if think else 0.0)

    def on_stop(self) -> None:
        self._connection.close()

    @task
    def ask(self) -> None:
        question, began_at = next(self._questions[next(self._names)]), time.perf_counter()
        try:
            answer = run.ask(self._connection, question)
        except gevent.GreenletExit:  # the run's patience is over
            run.unfinished(question, began_at)
            raise
        if answer.is_served:
            answered(question, answer.text)
        is_turned_away = answer.is_refused or not answer.status
        self._pause_s = min(answer.retry_after_s or 1.0, MOST_PAUSE_S) if is_turned_away else 0.0


class OpenLoopUser(User):
    """All requests of the run, each when it is due, whether or not the earlier ones have been answered."""

    fixed_count = 1

    @task
    def arrivals(self) -> None:
        pool, started_at = Pool(), time.perf_counter()
        for at_s, question in self._due():
            wait_s = started_at + at_s - time.perf_counter()
            if wait_s > 0:
                gevent.sleep(wait_s)
            pool.spawn(self._one, question, started_at + at_s)
        pool.join(timeout=PATIENCE_S)
        pool.kill()
        self.environment.runner.quit()  # type: ignore[union-attr]

    def _due(self) -> Any:
        if run.trace:
            return ((one.at_s, one.question(run.nonce)) for one in run.trace)
        chosen = run.chosen
        return poisson(chosen.open_loop, chosen.seconds, run.names, run.scenarios, str(chosen.seed), run.nonce)

    @staticmethod
    def _one(question: Question, due_at: float) -> None:
        connection = run.connection()
        try:
            run.ask(connection, question, due_at)
        except gevent.GreenletExit:  # the run's patience is over
            run.unfinished(question, due_at)
        finally:
            connection.close()


def poisson(
    rate: float, seconds: float, names: tuple[str, ...], scenarios: dict[str, Scenario], seed: str, nonce: str
) -> Any:
    """Arrivals at ``rate`` a second in the mean: (seconds from the start, question)."""
    clock, picks = (
        random.Random(f"arrivals {seed}"),
        mixed(names, seed) if len(names) > 1 else itertools.repeat(names[0]),
    )
    asked = {name: questions(scenarios[name], f"{seed} open", nonce) for name in names}
    at_s = 0.0
    while True:
        at_s += clock.expovariate(rate)
        if at_s >= seconds:
            return
        yield at_s, next(asked[next(picks)])


class ShapeOf(LoadTestShape):
    """One of SHAPES, as Locust wants it."""

    abstract = True

    def __init__(self, text: str) -> None:
        super().__init__()
        self._shape = parse_shape(text)

    def tick(self) -> tuple[int, float] | None:
        return self._shape.at(self.get_run_time())


@events.init_command_line_parser.add_listener
def add_options(parser: Any) -> None:
    add = parser.add_argument
    add("--scenario", choices=(*SCENARIOS, "mixed"), default="chat", help="What users ask (default: chat)")
    add(
        "--load-shape",
        default="",
        include_in_web_ui=False,
        metavar="NAME[:FIGURES]",
        help=f"{', '.join(SHAPES)}; ramp is 50 to 200 users in 2 minutes",
    )
    add(
        "--open-loop",
        type=float,
        default=0.0,
        include_in_web_ui=False,
        metavar="RATE",
        help="So many requests a second (Poisson) instead of users",
    )
    add(
        "--trace",
        default="",
        include_in_web_ui=False,
        metavar="FILE",
        help="Requests with their times, as JSON lines: see loadtests/trace.py",
    )
    add(
        "--slo",
        default="",
        metavar="ttft=1,itl=0.06,e2e=10",
        help="What counts as good, in seconds; goodput is reported",
    )
    add("--seconds", type=float, default=60.0, help="How long --open-loop sends; then it waits for the answers")
    add("--seed", type=int, default=1, help="Another seed, other requests (default: 1)")
    add("--scale", type=float, default=None, help="Times all lengths (default: so that they fit the model's context)")
    add("--model", default="", help="The model's name (default: the first that the server names)")
    add("--key", default="", env_var="OPENAI_API_KEY", is_secret=True, help="API key")
    add("--mode", default="", help="X-Mode of every request: low-latency, balanced or high-throughput")
    add("--think", type=float, default=0.0, help="Mean seconds (exponential) between an answer and the next question")
    add(
        "--ignore-eos",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="Answers of full length (default: yes)",
    )
    add("--any-event", action="store_true", help="Events without text count as pieces: for random weights")
    add("--summary", default="", include_in_web_ui=False, metavar="FILE", help="Keep the figures as JSON")


@events.init.add_listener
def begin(environment: Environment, **_: Any) -> None:
    global run
    try:
        run = Run(environment)
        if run.chosen.load_shape and run.is_closed_loop:
            environment.shape_class = ShapeOf(run.chosen.load_shape)
    except ValueError as error:
        raise SystemExit(str(error)) from None
    if not run.is_closed_loop and run.chosen.run_time:
        raise SystemExit("-t cuts answers off: --open-loop takes --seconds, and --trace has an end of its own")
    if not run.is_closed_loop and isinstance(environment.runner, MasterRunner | WorkerRunner):
        raise SystemExit("--open-loop and --trace send from one process: leave out --processes, --master and --worker")
    environment.user_classes = [ClosedLoopUser if run.is_closed_loop else OpenLoopUser]
    if run.is_closed_loop and not environment.stop_timeout:
        environment.stop_timeout = PATIENCE_S


@events.test_start.add_listener
def start(environment: Environment, **_: Any) -> None:
    if not isinstance(environment.runner, MasterRunner):
        run.learn()
    try:
        run.start()
    except ValueError as error:  # from the web form
        raise SystemExit(str(error)) from None


@events.test_stopping.add_listener
def stopping(environment: Environment, **_: Any) -> None:
    if run.is_closed_loop and environment.runner is not None and environment.runner.user_count:
        say(f"waiting for the answers that are open, at most {environment.stop_timeout:g} s (--stop-timeout)")


@events.report_to_master.add_listener
def to_master(client_id: str, data: dict[str, Any]) -> None:
    data["figures"] = run.figures.take()


@events.worker_report.add_listener
def from_worker(client_id: str, data: dict[str, Any]) -> None:
    run.figures.merge(data["figures"])


@events.quitting.add_listener
def finish(environment: Environment, **_: Any) -> None:
    if isinstance(environment.runner, WorkerRunner):
        return
    sys.stdout.write(run.figures.table())
    sys.stdout.flush()
    if run.chosen.summary:
        write_whole(Path(run.chosen.summary), json.dumps({"model": run.model, **run.figures.data()}) + "\n")
    lag_s = run.figures.lag_p99_s
    if not run.is_closed_loop and lag_s is not None and lag_s > MOST_LAG_S:
        say(
            f"This run does not count: requests were sent up to {lag_s * 1000:.0f} ms late (p99; {MOST_LAG_S * 1000:.0f} ms at most)."
        )
        environment.process_exit_code = 1
