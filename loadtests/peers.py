"""What a request and a streamed chunk cost in CPU: the launcher's gateway beside nginx and vllm-router, in one run.

A mock engine and a load client, both in C, share one core; each proxy in turn has another one to itself. In each round
every proxy gets every load, in one order and in the next round in the reverse; what counts are the ratios within one
round, since a shared machine is faster at one time than at another. The CPU time is what the kernel counts for the
proxy's threads, so that neither a wait nor another program on that core is in it.

    python -m loadtests.peers --rounds 5
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import platform
import resource
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from loadtests.proxies import COMPILED, Place, Proxy, Running, known_proxies
from tests.gateway.media.pictures import photo, saved

SOURCES = Path(__file__).with_name("peers")
WORDS = "lorem ipsum dolor sit amet " * 30
HELD = (4000, 10000)
SPARE_FILES = 300
DIRECT = "direct"

Result = dict[str, Any]


@dataclass(frozen=True)
class Load:
    """One kind of load: what the client is told, and what is counted."""

    name: str
    what: str
    mode: str
    connections: int
    ramp_ms: int
    warm_s: float
    body: dict[str, Any]
    unit: str  # of the cost: µs of CPU for each
    per: str  # the result's key of how many there were


def picture_of(size: int) -> bytes:
    """A photo with so many bytes: what is behind a JPEG's end is of no account to anybody."""
    return saved(photo(1920, 1080), "JPEG", quality=85).ljust(size, b"\0")[:size]


def body(picture_bytes: int = 0, **more: Any) -> dict[str, Any]:
    """A chat request."""
    content: Any = WORDS
    if picture_bytes:
        url = "data:image/jpeg;base64," + base64.b64encode(picture_of(picture_bytes * 3 // 4)).decode()
        content = [{"type": "text", "text": WORDS}, {"type": "image_url", "image_url": {"url": url}}]
    return {"model": "m", "messages": [{"role": "user", "content": content}], **more}


_STREAM = {"stream": True, "max_tokens": 100}
LOADS = {
    load.name: load
    for load in (
        Load("W1", "short requests, 64 connections", "n", 64, 0, 1.0, body(max_tokens=100), "request", "requests"),
        Load(
            "W2b",
            "200 streams, 100 chunks, 10 ms gap",
            "s",
            200,
            1000,
            1.5,
            body(**_STREAM, seed=10),
            "chunk",
            "chunks",
        ),
        Load(
            "W4", "1 MB bodies, 16 connections", "n", 16, 0, 1.0, body(1_000_000, max_tokens=100), "request", "requests"
        ),
    )
}
HOLD = Load("W5", "idle open streams", "h", 0, 0, 2.0, body(**_STREAM, seed=60_000), "stream", "open")


class Bench:
    """The mock engine, the load client and what they are built from."""

    def __init__(self, folder: Path, load_core: int, proxy_core: int) -> None:
        self.folder, self._core, self.proxy_core = folder, str(load_core), proxy_core
        self.files = raise_file_limit()
        for name in ("mock", "load"):
            build = ["gcc", "-O2", "-Wall", "-o", str(folder / name), str(SOURCES / f"{name}.c")]
            subprocess.run(build, check=True)
        for load in (*LOADS.values(), HOLD):
            (folder / f"{load.name}.json").write_text(json.dumps(load.body))
        self.engine_port = free_port()
        self._mock = subprocess.Popen(["taskset", "-c", self._core, str(folder / "mock"), str(self.engine_port)])

    def close(self) -> None:
        self._mock.kill()
        self._mock.wait()

    def start(self, proxy: Proxy) -> Running:
        folder = self.folder / f"{proxy.name}-{time.monotonic_ns()}"
        return Running(proxy, Place(free_port(), self.engine_port, folder, self.files), self.proxy_core)

    def _command(
        self, port: int, load: Load, connections: int, ramp_ms: int, seconds: float, pids: list[int]
    ) -> list[str]:
        client = ["taskset", "-c", self._core, str(self.folder / "load"), str(port), load.mode, str(connections)]
        body_file = str(self.folder / f"{load.name}.json")
        return [*client, str(seconds), body_file, str(ramp_ms), str(load.warm_s), *map(str, pids)]

    def measure(self, load: Load, port: int, pids: list[int], seconds: float) -> Result:
        """One load on one port. ``us`` in the result is the cost of each, in µs of CPU."""
        command = self._command(port, load, load.connections, load.ramp_ms, seconds, pids)
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"The load client failed: {done.stderr}")
        result: Result = json.loads(done.stdout)
        result["us"] = 1e6 * result["cpu_s"] / max(1, result[load.per])
        return result

    def hold(self, proxy: Proxy, count: int) -> Result:
        """A fresh proxy with ``count`` open streams: their memory, and how many were really open."""
        running = self.start_warm(proxy)
        try:
            before = running.rss_kb
            command = self._command(running.port, HOLD, count, 5 * count // 4, 1.0, running.pids)
            with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as client:
                assert client.stdout is not None
                result: Result = json.loads(client.stdout.readline())
                result["kb"] = (running.rss_kb - before) / max(1, result["open"])
            return result
        finally:
            running.stop()

    def start_warm(self, proxy: Proxy) -> Running:
        """A fresh proxy that has loaded all that it needs."""
        running = self.start(proxy)
        self.measure(LOADS["W1"], running.port, running.pids, 0.5)
        return running


def raise_file_limit() -> int:
    """How many files each process may open from now on."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for limit in (max(hard, 2 * max(HELD) + 10 * SPARE_FILES), hard):
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
            return limit
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def free_port() -> int:
    """A port that is free, as is the next one."""
    while True:
        with socket.socket() as first, socket.socket() as second:
            first.bind(("127.0.0.1", 0))
            port: int = first.getsockname()[1]
            with contextlib.suppress(OSError, OverflowError):
                second.bind(("127.0.0.1", port + 1))
                return port


Results = dict[tuple[str, str], list[Result]]


def run_rounds(bench: Bench, proxies: list[Proxy], loads: list[Load], rounds: int, seconds: float) -> Results:
    """Every load on every proxy, in every round."""
    results: Results = {}
    with contextlib.ExitStack() as stack:
        running = []
        for proxy in proxies:
            one = bench.start(proxy)
            stack.callback(one.stop)
            running.append(one)
        for number in range(rounds):
            order = running if number % 2 == 0 else running[::-1]
            for load in loads:
                if load.mode == "s":
                    results.setdefault((load.name, DIRECT), []).append(
                        bench.measure(load, bench.engine_port, [], seconds)
                    )
                for one in order:
                    result = bench.measure(load, one.port, one.pids, seconds)
                    results.setdefault((load.name, one.name), []).append(result)
                    bad = result["errors"] + result["not_200"]
                    click.echo(
                        f"round {number + 1} {load.name:3} {one.name:12} {result['us']:8.2f} µs of CPU a {load.unit}, "
                        f"{result[load.per] / result['seconds']:8.0f} {load.unit}s/s{f', {bad} FAILED' if bad else ''}",
                        err=True,
                    )
    return results


def spread(values: list[float], form: str) -> str:
    """The median, and from which to which."""
    if len(values) == 1:
        return f"{values[0]:{form}}"
    return f"{statistics.median(values):{form}} ({min(values):{form}}–{max(values):{form}})"


def compare(results: Results, load: Load, names: list[str]) -> list[list[str]]:
    """A table: the costs in one load, with the ratios to the peers within each round."""
    peers = [name for name in ("nginx", "vllm-router") if name in names]
    more = ["added TTFT p50, p99 (ms)", "added chunk delay p99 (ms)"] if load.mode == "s" else [f"{load.unit}s/s"]
    rows = [[f"{load.name}: {load.what}", f"µs of CPU a {load.unit}", *(f"÷ {peer}" for peer in peers), *more]]
    for name in names:
        own = results[load.name, name]
        row = [name, spread([one["us"] for one in own], ".1f")]
        for peer in peers:
            pairs = zip(own, results[load.name, peer], strict=True)
            row.append(spread([mine["us"] / its["us"] for mine, its in pairs], ".2f"))
        if load.mode == "s":
            direct = results[load.name, DIRECT]
            added: Callable[[str], float] = lambda key: statistics.median(  # noqa: E731
                (mine[key] - its[key]) / 1e3
                for mine, its in zip(own, direct, strict=True)  # noqa: B023
            )
            row += [f"{added('ttft_p50'):.2f}, {added('ttft_p99'):.2f}", f"{added('delay_p99'):.2f}"]
        else:
            row.append(f"{statistics.median(one[load.per] / one['seconds'] for one in own):,.0f}")
        failed = sum(one["errors"] + one["not_200"] for one in own)
        rows.append([*row[:-1], f"{row[-1]}; {failed} FAILED" if failed else row[-1]])
    return rows


def hold_all(bench: Bench, proxies: list[Proxy]) -> list[list[str]]:
    """A table: the memory of open streams."""
    rows = [["W5: idle open streams", *(f"{count:,}: open, kB of RSS each" for count in HELD)]]
    for proxy in proxies:
        row = [proxy.name]
        for count in HELD:
            able = min(count, (bench.files - SPARE_FILES) // 2)  # two sockets each
            result = bench.hold(proxy, able)
            less = "" if able == count else f" (no more: the machine allows {bench.files:,} files a process)"
            row.append(f"{result['open']:,} of {able:,}{less}, {result['kb']:.1f}")
            click.echo(f"W5 {proxy.name:12} {row[-1]}", err=True)
        rows.append(row)
    return rows


def as_text(rows: list[list[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def as_markdown(rows: list[list[str]]) -> str:
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([lines[0], "|---" * len(rows[0]) + "|", *lines[1:]])


def machine() -> str:
    """What it ran on."""
    names = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    name = names[0].partition(":")[2].strip() if names else platform.machine()
    busy = os.getloadavg()[1]
    return f"{os.cpu_count()} × {name}, Linux {platform.release()}, Python {platform.python_version()}, load {busy:.1f}"


@contextlib.contextmanager
def a_bench(load_core: int, proxy_core: int) -> Iterator[Bench]:
    cores = os.sched_getaffinity(0)
    if load_core == proxy_core or not {load_core, proxy_core} <= cores:
        raise click.UsageError(f"Two cores are needed: --load-core and --proxy-core, of {sorted(cores)}.")
    for tool, package in (("gcc", "gcc and libc6-dev"), ("taskset", "util-linux")):
        if shutil.which(tool) is None:
            raise click.UsageError(f"{tool} is not installed: apt-get install {package}.")
    os.sched_setaffinity(0, {load_core})
    with tempfile.TemporaryDirectory(prefix="peers-") as folder:
        Path(folder).chmod(0o755)
        bench = Bench(Path(folder), load_core, proxy_core)
        try:
            yield bench
        finally:
            bench.close()


@click.command(help=(__doc__ or "").partition("\n\n    ")[0])
@click.option("--rounds", default=5, show_default=True, type=click.IntRange(1))
@click.option("--seconds", default=3.0, show_default=True, help="Length of each measurement.")
@click.option("--loads", default="W1,W2b,W4,W5", show_default=True, help="W5 is measured once, on fresh processes.")
@click.option(
    "--only",
    default="",
    help="Of nginx, vllm-router, launcher, launcher-compiled, litellm: those, with commas. Default: all.",
)
@click.option("--vllm-router", metavar="PROGRAM", help="Where it is, if not in PATH.")
@click.option(
    "--litellm", metavar="PROGRAM", help="Measures LiteLLM too, in W1 alone: it takes hundreds of times as long."
)
@click.option(
    "--launcher-compiled",
    metavar="PYTHON",
    help="Of an environment made by `make compile`; measured beside the plain one.",
)
@click.option("--load-core", default=0, show_default=True)
@click.option("--proxy-core", default=1, show_default=True)
def main(
    rounds: int,
    seconds: float,
    loads: str,
    only: str,
    vllm_router: str,
    litellm: str,
    launcher_compiled: str,
    load_core: int,
    proxy_core: int,
) -> None:
    wanted = [name for name in only.split(",") if name]
    wanted = [COMPILED if name == "launcher-compiled" else name for name in wanted]
    known = known_proxies(vllm_router, litellm, launcher_compiled)
    chosen = [proxy for proxy in known if not wanted or proxy.name in wanted]
    for proxy in chosen:
        if not proxy.program:
            click.echo(f"{proxy.name} is not installed and is left out. To get it: {proxy.get}.", err=True)
    proxies = [proxy for proxy in chosen if proxy.program]
    names = loads.split(",")
    if unknown := set(names) - {*LOADS, HOLD.name}:
        raise click.UsageError(f"--loads: {', '.join(sorted(unknown))} is none of {', '.join((*LOADS, HOLD.name))}.")
    fast = [proxy for proxy in proxies if proxy.name != "litellm"]
    tables = []
    with a_bench(load_core, proxy_core) as bench:
        several = [LOADS[name] for name in names if name in LOADS]
        if several and fast:
            results = run_rounds(bench, fast, several, rounds, seconds)
            tables += [compare(results, load, [proxy.name for proxy in fast]) for load in several]
        if HOLD.name in names:
            tables.append(hold_all(bench, fast))
        if tables:
            say_it(fast, tables, f"{rounds} rounds of {seconds:g} s")
        for slow in proxies:
            if slow not in fast:
                results = run_rounds(bench, [slow], [LOADS["W1"]], 1, 3 * seconds)
                say_it([slow], [compare(results, LOADS["W1"], [slow.name])], f"one run of {3 * seconds:g} s")


def say_it(proxies: list[Proxy], tables: list[list[list[str]]], how: str) -> None:
    """The tables, for the eye and for RESULTS.md."""
    versions = ", ".join(f"{proxy.name} {proxy.version(proxy.program)}" for proxy in proxies)
    command = " ".join(["python -m loadtests.peers", *sys.argv[1:]])
    about = (
        f"{time.strftime('%Y-%m-%d')}, {machine()}.\n{versions}.\nMedian of {how} (lowest–highest); ratios are of the same "
        f"round. The launcher as `launcher up` starts it, with everything on, and room for all.\nCommand: `{command}`."
    )
    for form in (as_text, as_markdown):
        click.echo("\n\n".join(["", about, *(form(rows) for rows in tables)]))


if __name__ == "__main__":
    main()
