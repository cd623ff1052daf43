"""What a launcher adds to the metrics, from the supervisor's engines and the driver's cards."""

from __future__ import annotations

import asyncio
import threading
from types import SimpleNamespace
from typing import Any, cast

import pytest
from prometheus_client.parser import text_string_to_metric_families

from launcher.gateway.metrics import text_of
from launcher.probe.gpus import GpuUse
from launcher.supervise.state import EngineState, Phase
from launcher.supervise.supervisor import Supervisor
from launcher.up import figures
from launcher.up.figures import Cards, engine_samples


def engine(index: int, phase: Phase, **ends: int) -> SimpleNamespace:
    return SimpleNamespace(spec=SimpleNamespace(index=index), state=EngineState(phase=phase), ends=ends)


def test_how_engines_ended_and_what_is_left_to_them() -> None:
    engines = [engine(0, Phase.READY, exited=2, hung=1, start=0), engine(1, Phase.FAILED, exited=5, hung=0, start=1)]
    left = {0: 3, 1: 0}
    supervisor = SimpleNamespace(engines=engines, restarts_left=lambda one: left[one.spec.index])
    page = text_of(engine_samples(cast(Supervisor, supervisor))).decode()
    assert page.splitlines()[0].startswith("# HELP launcher_engine_ends_total ")
    found = {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
    }
    assert found["launcher_engine_ends_total", "hung", "0"] == 1
    assert found["launcher_engine_ends_total", "exited", "1"] == 5
    assert (found["launcher_engine_restarts_left", "0"], found["launcher_engine_restarts_left", "1"]) == (3, 0)
    assert (found["launcher_engine_given_up", "0"], found["launcher_engine_given_up", "1"]) == (0, 1)
    assert len(found) == 2 * (3 + 1 + 1)


async def test_cards_are_looked_at_in_a_thread_again_and_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(figures, "LOOK_EVERY_S", 0)
    looked_twice, threads = threading.Event(), list[Any]()

    def look() -> list[GpuUse]:
        threads.append(threading.current_thread())
        if len(threads) > 1:
            looked_twice.set()
        return [GpuUse(0, "RTX 4090", 20, 24, 50), GpuUse(1, "A100", 5, 40, None)]

    cards = Cards(look)
    assert list(cards.samples()) == []
    async with cards.watched():
        assert await asyncio.to_thread(looked_twice.wait, 10)
        assert list(cards.samples()) == [
            ("launcher_gpu_memory_used_bytes", ("0", "RTX 4090"), 20),
            ("launcher_gpu_memory_total_bytes", ("0", "RTX 4090"), 24),
            ("launcher_gpu_utilization_ratio", ("0", "RTX 4090"), 0.5),
            ("launcher_gpu_memory_used_bytes", ("1", "A100"), 5),
            ("launcher_gpu_memory_total_bytes", ("1", "A100"), 40),
        ]
    assert threading.main_thread() not in threads
