"""The pool: a hostile picture ends a process and nothing else; places are given back; no process is left behind."""

from __future__ import annotations

import asyncio
import io
import os
import signal
import subprocess
import sys
import wave
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from PIL import Image

from launcher.gateway.media.audio import AudioJob
from launcher.gateway.media.jobs import Job, Shrunk
from launcher.gateway.media.pool import MIB, Pool, memory_for
from launcher.gateway.refusal import Refusal, Refused
from launcher.plan.image_budget import Budget
from launcher.plan.image_tokens import ImageRule
from tests.gateway.media.pictures import corners, png_bomb, saved

ROOT = Path(__file__).parents[3]
GLM = ImageRule("glm4v", max_pixels=9633792)
JOB = Job(Budget(long_side=100), GLM)
ENDLESS = Job(Budget(), GLM, max_pixels=10**10)
PICTURE = saved(corners(400, 200), "JPEG")
HEAVY = saved(Image.effect_noise((4500, 4500), 50), "PNG", compress_level=1)  # some tenths of a second


def make(**changes: Any) -> Pool:
    settings = {"workers": 1, "memory_bytes": memory_for(10_000_000, MIB), "cpu_s": 20.0}
    return Pool(**(settings | changes))


@pytest.fixture
async def pool() -> AsyncIterator[Pool]:
    made = make()
    yield made
    await made.close()


def pids(pool: Pool) -> set[int]:
    return {worker.pid for worker in pool._workers}


def is_there(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def of_process(pid: int) -> tuple[bytes, list[str]]:
    """Its environment, and its open files."""
    folder = Path(f"/proc/{pid}")
    return (folder / "environ").read_bytes(), [
        os.readlink(file) for file in sorted((folder / "fd").iterdir(), key=lambda file: int(file.name))
    ]


def start(*argv: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(argv, stdout=subprocess.PIPE, cwd=ROOT)


async def refusal(pool: Pool, data: bytes, job: Job = JOB, param: str | None = None) -> Refusal:
    with pytest.raises(Refused) as caught:
        await pool.shrink(data, job, param)
    return caught.value.refusal


async def until(condition: Any) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 — a process's state has no event
            await asyncio.sleep(0.005)


async def test_pictures_come_back(pool: Pool) -> None:
    assert repr(pool) == "<Pool workers=0/1 busy=0 waiting=0 deaths=0>"
    shrunk = await pool.shrink(PICTURE, JOB)
    assert (shrunk.width, shrunk.height, shrunk.mime) == (100, 50, "image/png")
    assert Image.open(io.BytesIO(shrunk.data)).size == (100, 50)
    assert repr(pool) == "<Pool workers=1/1 busy=0 waiting=0 deaths=0>"


async def test_large_ones_too(pool: Pool) -> None:
    data = saved(Image.effect_noise((1600, 1600), 90), "PNG")
    assert len(data) > 2_000_000
    assert (await pool.shrink(data, Job(Budget(), GLM))).is_untouched
    large = await pool.shrink(data, Job(Budget(long_side=1500), GLM, quality=100))
    assert len(large.data) > 1_000_000


async def test_clips_go_the_same_way(pool: Pool) -> None:
    pytest.importorskip("soundfile")
    wav = io.BytesIO()
    with wave.open(wav, "wb") as file:
        file.setnchannels(1), file.setsampwidth(2), file.setframerate(8000), file.writeframes(bytes(16_000))
    job = AudioJob(tokens_per_second=10, max_tokens=512)
    cut = await pool.cut(wav.getvalue(), job)
    assert (cut.seconds_in, cut.tokens) == (1.0, 10)
    with pytest.raises(Refused) as caught:
        await pool.cut(b"no clip", job, "input_audio")
    assert (caught.value.refusal.status, caught.value.refusal.param) == (400, "input_audio")


async def test_faults_are_refusals_that_name_the_part(pool: Pool) -> None:
    found = await refusal(pool, png_bomb(50_000, 50_000), param="messages")
    assert (found.status, found.reason, found.param) == (400, "picture_too_large", "messages")
    found = await refusal(pool, b"")
    assert (found.status, found.reason, found.param) == (400, "picture_empty", None)
    assert pool.deaths == 0


async def test_many_at_once_use_all_processes_and_no_more() -> None:
    pool = make(workers=2)
    found = await asyncio.gather(*(pool.shrink(PICTURE, JOB) for _ in range(40)))
    assert {shrunk.width for shrunk in found} == {100}
    assert repr(pool) == "<Pool workers=2/2 busy=0 waiting=0 deaths=0>"
    left = pids(pool)
    await pool.close()
    assert not any(map(is_there, left))


async def test_memory_is_limited_and_only_that_picture_is_refused(pool: Pool) -> None:
    """50,000×50,000 pixels let through by the limit on pixels: the process has no room for them."""
    await pool.shrink(PICTURE, JOB)
    others = [asyncio.ensure_future(pool.shrink(PICTURE, JOB)) for _ in range(3)]
    found = await refusal(pool, png_bomb(50_000, 50_000), ENDLESS, "messages")
    assert (found.status, found.reason, found.param) == (400, "picture_too_heavy", "messages")
    assert [shrunk.width for shrunk in await asyncio.gather(*others)] == [100] * 3
    assert (await pool.shrink(PICTURE, JOB)).width == 100


async def test_processor_time_is_limited() -> None:
    pool = make(cpu_s=0.05)
    try:
        found, fine = await asyncio.gather(refusal(pool, HEAVY, param="messages"), pool.shrink(PICTURE, JOB))
        assert (found.status, found.reason, found.param) == (400, "picture_too_heavy", "messages")
        assert "more than 0.05 s of a processor" in found.message
        assert isinstance(fine, Shrunk)
        assert pool.deaths == 1
    finally:
        await pool.close()


async def test_time_is_limited_too() -> None:
    """A process that stands still uses no processor."""
    pool = make(wall_s=0.2)
    try:
        await pool.shrink(PICTURE, JOB)
        (pid,) = pids(pool)
        os.kill(pid, signal.SIGSTOP)
        found = await refusal(pool, PICTURE)
        assert (found.status, found.reason) == (503, "not_decoded")
        assert "within 0.2 s: the machine is busy" in found.message
        assert found.retry_after_s
        assert (await pool.shrink(PICTURE, JOB)).width == 100
        assert pids(pool) != {pid}
    finally:
        await pool.close()


@pytest.mark.parametrize(
    ("number", "status", "reason", "words"),
    [
        (signal.SIGSEGV, 400, "picture_broken", "decoder crashed on it"),
        (signal.SIGKILL, 503, "not_decoded", "ended from outside, perhaps for want of memory"),
    ],
)
async def test_a_process_that_dies_is_replaced(
    pool: Pool, number: signal.Signals, status: int, reason: str, words: str, caplog: pytest.LogCaptureFixture
) -> None:
    await pool.shrink(PICTURE, JOB)
    (pid,) = pids(pool)
    os.kill(pid, signal.SIGSTOP)
    asked = asyncio.ensure_future(refusal(pool, PICTURE))
    waiting = asyncio.ensure_future(pool.shrink(PICTURE, JOB))
    await until(lambda: "busy=1 waiting=1" in repr(pool))
    os.kill(pid, number)
    os.kill(pid, signal.SIGCONT)
    found = await asked
    assert (found.status, found.reason) == (status, reason)
    assert words in found.message
    assert (await waiting).width == 100
    assert pids(pool) != {pid}
    assert f"(pid {pid}) was killed by {number.name}; the next file gets another" in caplog.text


async def test_one_that_dies_idle_refuses_nobody(pool: Pool) -> None:
    await pool.shrink(PICTURE, JOB)
    (pid,) = pids(pool)
    os.kill(pid, signal.SIGKILL)
    await until(lambda: pool.deaths == 1)
    assert (await pool.shrink(PICTURE, JOB)).width == 100


async def test_a_caller_that_goes_leaves_the_queue() -> None:
    pool = make(max_waiting=1)
    try:
        await pool.shrink(PICTURE, JOB)
        (pid,) = pids(pool)
        os.kill(pid, signal.SIGSTOP)
        running = asyncio.ensure_future(pool.shrink(PICTURE, JOB))
        waiting = asyncio.ensure_future(pool.shrink(PICTURE, JOB))
        await until(lambda: "busy=1 waiting=1" in repr(pool))
        full = await refusal(pool, PICTURE, param="messages")
        assert (full.status, full.param) == (503, "messages")
        assert full.message == "1 files wait to be decoded already. Send it again later."
        waiting.cancel()
        await asyncio.wait([waiting])
        assert "waiting=0" in repr(pool)
        later = asyncio.ensure_future(pool.shrink(PICTURE, JOB))
        running.cancel()
        await asyncio.wait([running])
        os.kill(pid, signal.SIGCONT)  # its answer has no taker; the next picture gets its own
        assert (await later).width == 100
        assert pool.deaths == 0
    finally:
        await pool.close()


async def test_work_that_nobody_waits_for_is_ended_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("launcher.gateway.media.pool.ABANDONED_S", 0.05)
    pool = make()
    try:
        await pool.shrink(PICTURE, JOB)
        (pid,) = pids(pool)
        os.kill(pid, signal.SIGSTOP)
        running = asyncio.ensure_future(pool.shrink(PICTURE, JOB))
        await until(lambda: "busy=1" in repr(pool))
        running.cancel()
        assert (await pool.shrink(PICTURE, JOB)).width == 100
        assert pids(pool) != {pid}
    finally:
        await pool.close()


async def test_close_refuses_what_waits_and_ends_what_runs() -> None:
    pool = make()
    asked = [asyncio.ensure_future(refusal(pool, PICTURE)) for _ in range(3)]
    await until(lambda: len(pids(pool)) == 1)
    left = pids(pool)
    await pool.close()
    for found in await asyncio.gather(*asked):
        assert (found.status, found.message) == (503, "The gateway is stopping.")
    assert not any(map(is_there, left))
    assert (await refusal(pool, PICTURE)).status == 503
    assert not pool._lives
    await pool.close()


async def test_where_no_process_can_start(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    for executable, words in (("/nowhere/python", "No such file"), ("/bin/false", "exited with 1")):
        monkeypatch.setattr(sys, "executable", executable)
        pool = make()
        found = await asyncio.gather(*(refusal(pool, PICTURE) for _ in range(3)))
        assert {each.status for each in found} == {503}
        assert "no process for it can be started, the gateway's log says why" in found[0].message
        assert words in caplog.text
        await pool.close()


async def test_a_bug_of_a_worker_is_told_and_logged(pool: Pool, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(Refused) as caught:
        await pool.shrink(PICTURE, "no job")  # type: ignore[arg-type]
    assert caught.value.refusal.status == 500
    assert "msgspec.ValidationError" in caplog.text
    assert (await pool.shrink(PICTURE, JOB)).width == 100


async def test_an_answer_of_another_type_is_not_believed(pool: Pool, caplog: pytest.LogCaptureFixture) -> None:
    """A process that was taken over by what it read cannot make the gateway read more than the types say."""
    with pytest.raises(Refused) as caught:
        await pool.run("picture", PICTURE, JOB, msgspec.msgpack.Decoder(int))
    assert caught.value.refusal.status == 500
    assert "answered what cannot be read, and is killed" in caplog.text
    await until(lambda: pool.deaths == 1)
    assert (await pool.shrink(PICTURE, JOB)).width == 100


PARENT = """
import asyncio, os
from launcher.gateway.media.pool import Pool
from launcher.gateway.media.jobs import Job

async def main():
    pool = Pool(workers=1, memory_bytes=10**9, cpu_s=60)
    data = open({file!r}, "rb").read()
    await pool.shrink(data, Job())
    print(*(worker.pid for worker in pool._workers), flush=True)
    await asyncio.gather(*(pool.shrink(data, Job()) for _ in range(1000)))

asyncio.run(main())
"""


async def test_nothing_outlives_a_gateway_that_was_killed(tmp_path: Path) -> None:
    (tmp_path / "picture.png").write_bytes(HEAVY)
    parent = start(sys.executable, "-c", PARENT.format(file=str(tmp_path / "picture.png")))
    assert parent.stdout is not None
    with parent, parent.stdout:
        pid = int(await asyncio.to_thread(parent.stdout.readline))
        assert is_there(pid)
        parent.kill()
    await until(lambda: not is_there(pid))


async def test_a_process_has_no_secrets_of_ours(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "secret")
    await pool.shrink(PICTURE, JOB)
    (pid,) = pids(pool)
    environment, files = of_process(pid)
    assert b"PYTHONPATH" in environment
    assert b"secret" not in environment
    assert files[2] == "/dev/null"  # hostile files cannot fill the log
    assert sum(file.startswith("socket:") for file in files) == 1  # nothing of the gateway's but the link


LARGEST: dict[str, tuple[str, dict[str, Any]]] = {
    "JPEG": ("RGB", {"progressive": True, "subsampling": 0}),
    "PNG": ("RGBA", {"compress_level": 1}),
    "WEBP": ("RGBA", {"method": 0}),
    "TIFF": ("RGB", {}),
    "AVIF": ("RGBA", {"speed": 10}),
}


async def test_memory_for_the_largest_pictures_is_enough() -> None:
    """Each format at the limit of pixels, decoded at full size, with as many channels as it has."""
    picture = corners(3000, 1000)
    pool = make(memory_bytes=memory_for(3_000_000, MIB))
    try:
        for kind, (mode, options) in LARGEST.items():
            job = Job(Budget(long_side=2990), GLM, max_pixels=3_000_000)
            assert (await pool.shrink(saved(picture.convert(mode), kind, **options), job)).width == 2990
        assert pool.deaths == 0
    finally:
        await pool.close()
