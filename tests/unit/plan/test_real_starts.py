"""The plan against real starts: one H200, vLLM 0.24, GLM-4.xV-9B with random weights in bfloat16, utilization 0.85."""

from __future__ import annotations

import pytest

from launcher.profile.units import GIB
from tests.unit.plan.profiles import plan_of

# max_num_seqs (None: vLLM's default, 1024) → 'Available KV cache memory' in GiB
STARTS = [(None, 96.48), (8, 98.27), (1, 98.29)]


@pytest.mark.parametrize(("max_num_seqs", "kv_gib"), STARTS)
def test_kv_cache_is_within_one_per_cent(max_num_seqs: int | None, kv_gib: float) -> None:
    plan = plan_of(engine={"gpu_memory_utilization": 0.85, "max_num_seqs": max_num_seqs})
    assert plan.budget is not None
    assert plan.budget.kv / GIB == pytest.approx(kv_gib, rel=0.01)


def test_kv_tokens_are_within_one_per_cent() -> None:
    plan = plan_of(engine={"gpu_memory_utilization": 0.85})
    assert plan.kv_tokens == pytest.approx(2_529_248, rel=0.01)


def test_the_reported_tokens_follow_from_the_reported_bytes() -> None:
    """96.48 GiB in blocks of 16 tokens at 40 KiB each: the arithmetic from bytes to tokens is exact, not fitted."""
    tokens = int(96.48 * GIB) // (16 * 40960) * 16
    assert tokens == pytest.approx(2_529_248, abs=160)  # 96.48 is rounded to the second decimal


def test_weights_are_within_two_thousandths() -> None:
    """19.26 GiB as loaded; the shape gives 19.23 with the rotary table, and no figure in it was fitted."""
    plan = plan_of()
    assert plan.budget is not None
    assert plan.budget.weights / GIB == pytest.approx(19.26, rel=0.002)


def test_the_estimate_of_cuda_graphs() -> None:
    plan = plan_of(engine={"gpu_memory_utilization": 0.85})
    assert plan.budget is not None
    assert plan.budget.cuda_graphs / GIB == pytest.approx(0.54, rel=0.01)


def test_the_same_encoder_budget() -> None:
    """'profiled with one image of the largest size at max_num_batched_tokens 8192'."""
    plan = plan_of()
    assert plan.shape is not None
    assert plan.shape.image is not None
    assert plan.budget is not None
    assert plan.budget.encoder_cache == plan.shape.image.profiled_tokens * 4096 * 2
