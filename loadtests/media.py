"""What decoding pictures costs, and what it does to everything else: ratios within one run.

    python -m loadtests.media --markdown media.md

Three tables: how fast a JPEG is brought to a long side of 512 pixels, and how well, beside Pillow's full decode (the last
row encodes the result too, the others do not); how long the event loop stands still while 50 uploads are decoded, in
processes and in threads; memory for 200 uploads at once. The pictures are made: soft areas, detail on every scale, edges, a
little noise. Nothing else may run on the machine meanwhile.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import io
import math
import os
import sys
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median

import uvloop
from PIL import Image, ImageChops, ImageStat

from launcher.gateway.media import decode
from launcher.gateway.media.decode import shrink
from launcher.gateway.media.jobs import Job, Shrunk
from launcher.gateway.media.pool import MIB, Pool, memory_for
from launcher.plan.image_budget import Budget
from launcher.plan.image_tokens import ImageRule
from tests.gateway.media.pictures import photo, saved

LONG_SIDE = 512
JOB = Job(Budget(long_side=LONG_SIDE), ImageRule("glm4v", max_pixels=9633792))
SIZES = ((1920, 1080), (4000, 3000))
UPLOADS, AT_ONCE = 50, 200
TICK_S = 0.001
Row = list[str]
Way = Callable[[bytes, tuple[int, int]], Image.Image]


def full(filter_: Image.Resampling) -> Way:
    """Pillow: every pixel decoded, then scaled. No convert("RGB"), which copies them all."""

    def way(data: bytes, size: tuple[int, int]) -> Image.Image:
        return Image.open(io.BytesIO(data)).resize(size, filter_)

    return way


def draft(data: bytes, size: tuple[int, int]) -> Image.Image:
    """Pillow's own scaled decoding: 1/2, 1/4 or 1/8."""
    image = Image.open(io.BytesIO(data))
    image.draft("RGB", size)
    return image.resize(size, Image.Resampling.BICUBIC)


def ours(data: bytes, size: tuple[int, int]) -> Image.Image:
    """What a worker does, but for the encoding."""
    image = decode._opened(data, "jpeg")
    decode._orientation(image)
    return decode._resized(decode._decoded(image, data, "jpeg", size), size)


def whole(data: bytes, size: tuple[int, int]) -> Image.Image:
    """All that a worker does."""
    shrunk = shrink(data, JOB)
    assert isinstance(shrunk, Shrunk)
    assert (shrunk.width, shrunk.height) == size
    return Image.open(io.BytesIO(shrunk.data))


WAYS: dict[str, Way] = {
    "Pillow: all pixels, Lanczos": full(Image.Resampling.LANCZOS),
    "Pillow: all pixels, bicubic": full(Image.Resampling.BICUBIC),
    "Pillow: scaled (draft), bicubic": draft,
    "ours: scaled (simplejpeg), bicubic": ours,
    "ours: the whole of shrink, encoded too": whole,
}


def decoding(rounds: int) -> list[Row]:
    """CPU time for each way, alternating; and how near the result is to the uncompressed picture, scaled."""
    rows = []
    for width, height in SIZES:
        original = photo(width, height)
        data = saved(original, "JPEG", quality=90)
        size = (LONG_SIDE, round(LONG_SIDE * height / width))
        wanted = original.resize(size, Image.Resampling.BICUBIC)
        times: dict[str, list[float]] = {name: [] for name in WAYS}
        for _ in range(rounds):
            for name, way in WAYS.items():
                started = time.process_time()
                way(data, size)
                times[name].append(time.process_time() - started)
        base = times[next(iter(WAYS))]
        for name, taken in times.items():
            ratio = median(first / this for first, this in zip(base, taken, strict=True))
            quality = psnr(WAYS[name](data, size), wanted)
            kind = f"{width}×{height}, {len(data) // 1000} kB"
            rows.append([kind, name, f"{median(taken) * 1000:.1f}", f"{ratio:.2f}×", f"{quality:.1f}"])
    return rows


def psnr(a: Image.Image, b: Image.Image) -> float:
    stat = ImageStat.Stat(ImageChops.difference(a, b))
    return 10 * math.log10(255**2 / (sum(stat.sum2) / sum(stat.count)))


async def watched(work: Callable[[], Awaitable[object]]) -> tuple[float, list[float]]:
    """How long some work takes, and how late the event loop was meanwhile, sorted, in seconds."""
    late: list[float] = []

    async def tick() -> None:
        while True:
            started = time.perf_counter()
            await asyncio.sleep(TICK_S)
            late.append(time.perf_counter() - started - TICK_S)

    ticking = asyncio.ensure_future(tick())
    started = time.perf_counter()
    await work()
    taken = time.perf_counter() - started
    ticking.cancel()
    return taken, sorted(late)


async def stalls(rounds: int, workers: int) -> list[Row]:
    """50 uploads of 1080p at once: nothing, processes, threads, in turn; the middle round of each counts."""
    data = saved(photo(1920, 1080), "JPEG", quality=90)
    pool = Pool(workers=workers, memory_bytes=memory_for(JOB.max_pixels, len(data)), cpu_s=10)
    threads, loop = ThreadPoolExecutor(workers), asyncio.get_running_loop()

    async def in_processes() -> None:
        await asyncio.gather(*(pool.shrink(data, JOB) for _ in range(UPLOADS)))

    async def in_threads() -> None:
        await asyncio.gather(*(loop.run_in_executor(threads, shrink, data, JOB) for _ in range(UPLOADS)))

    ways = {"nothing": lambda: asyncio.sleep(0.5), "processes": in_processes, "threads": in_threads}
    found: dict[str, list[tuple[float, float, float, float]]] = {name: [] for name in ways}
    await in_processes()
    for _ in range(rounds):
        for name, way in ways.items():
            taken, late = await watched(way)
            found[name].append((UPLOADS / taken, late[len(late) // 2], late[len(late) * 99 // 100], late[-1]))
    await pool.close()
    rows = []
    for name, runs in found.items():
        rate, *times = (median(column) for column in zip(*runs, strict=True))
        per_s = f"{rate:.0f}" if name != "nothing" else ""
        rows.append([f"{name} ({workers})" if per_s else name, per_s, *(f"{seconds * 1000:.2f}" for seconds in times)])
    return rows


async def memory(workers: int) -> list[Row]:
    """200 uploads of 1080p, each with bytes of its own, at once."""
    picture = saved(photo(1920, 1080), "JPEG", quality=90)
    pool = Pool(workers=workers, memory_bytes=memory_for(JOB.max_pixels, len(picture)), cpu_s=10)
    await asyncio.gather(*(pool.shrink(picture, JOB) for _ in range(workers)))
    gc.collect()
    before = rss(os.getpid())
    uploads = [picture + bytes([number]) for number in range(AT_ONCE)]
    held = rss(os.getpid())
    peak, found = held, []

    async def one(upload: bytes) -> None:
        nonlocal peak
        found.append(await pool.shrink(upload, JOB))
        peak = max(peak, rss(os.getpid()))

    await asyncio.gather(*(one(upload) for upload in uploads))
    assert all(isinstance(shrunk, Shrunk) for shrunk in found)
    processes = [rss(worker.pid) for worker in pool._workers]
    await pool.close()
    mib = [f"{value / MIB:.0f}" for value in (held - before, peak - held, max(processes))]
    return [[f"{AT_ONCE} × {len(picture) // 1000} kB", *mib]]


def rss(pid: int) -> int:
    """Resident memory in bytes; of a worker the most that it has had."""
    status = Path(f"/proc/{pid}/status").read_text()
    field = "VmRSS:" if pid == os.getpid() else "VmHWM:"
    return int(status.partition(field)[2].split()[0]) * 1024


def table(title: str, head: Row, rows: list[Row]) -> str:
    lines = [f"**{title}**", "", *(f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows))]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m loadtests.media", description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=7, help="how often each is measured (default: 7)")
    parser.add_argument("--workers", type=int, default=2, help="processes or threads (default: 2)")
    parser.add_argument("--markdown", type=Path, help="a file for the tables; default: the terminal")
    chosen = parser.parse_args()
    load = os.getloadavg()[0]
    tables = [
        table(
            f"A JPEG (quality 90, 4:2:0) to a long side of {LONG_SIDE}, {'with' if decode.simd else 'without'} SIMD",
            ["picture", "way", "CPU ms", "faster", "PSNR dB"],
            decoding(chosen.rounds),
        ),
        table(
            f"{UPLOADS} uploads of 1080p at once",
            ["decoded in", "pictures/s", "loop late: p50 ms", "p99 ms", "longest ms"],
            uvloop.run(stalls(chosen.rounds, chosen.workers)),
        ),
        table(
            "Memory",
            ["uploads at once", "their bytes, MiB", "on top in the gateway, MiB", "most in a process, MiB"],
            uvloop.run(memory(chosen.workers)),
        ),
    ]
    text = "\n".join([*tables, f"Load average {load:.1f} before, {os.getloadavg()[0]:.1f} after."])
    if chosen.markdown:
        chosen.markdown.write_text(text + "\n")
    else:
        sys.stdout.write(text + "\n")


if __name__ == "__main__":
    main()
