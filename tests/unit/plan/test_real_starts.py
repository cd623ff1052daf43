"""The plan against real starts: H200s, vLLM 0.24, GLM-4.xV-9B with random weights in bfloat16, utilization 0.85.

Starts of two kinds. Validation: predicted with the code as it stood before the start, kept here as it was then. Calibration:
starts that constants in launcher/plan/measured.py were taken from afterwards; that they come out right proves nothing more.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest

from launcher.plan.plan import Plan
from launcher.profile.units import GIB
from tests.unit.plan.profiles import codes, plan_of, said

NO_PEER_TO_PEER = {"env": {"NCCL_P2P_DISABLE": "1"}, "extra_args": ["--disable-custom-all-reduce"]}


@dataclass(frozen=True)
class Start:
    """A start, in GiB as vLLM logged them. ``before``: predicted before it; None where nothing was."""

    name: str
    kv: float
    before: float | None = None
    peak: float | None = None
    graphs: float | None = None
    outside: float | None = None
    weights: float = 19.26
    model: dict[str, Any] = field(default_factory=dict)
    engine: dict[str, Any] = field(default_factory=dict)


STARTS = (
    Start("A", 97.94, 97.88, 1.00, 0.40, 0.24, engine={"max_num_seqs": 256, "max_num_batched_tokens": 2048}),
    Start("B", 97.22, 97.18, 1.96, 0.16, 0.24, engine={"max_num_batched_tokens": 16384}),
    Start("D", 106.52, 106.51, 1.03, None, 0.24, 10.91, model={"quantization": "fp8"}),
    Start("F", 97.88, 97.83, 1.30, 0.16, 0.24, model={"image_longest_edge": 1204224}),
    Start("launcher up", 97.88, 97.84, None, 0.40, model={"max_len": 8192}, engine={"max_num_seqs": 256}),
    Start("launcher up, 64 sequences", 98.12, 98.13, model={"max_len": 8192}),
    # vLLM took 0.44 GiB more than was counted; why is not known
    Start("no images", 99.52, 99.96, weights=17.58, model={"max_len": 8192, "images_per_prompt": 0}),
    # with a video, which the plan did not know of then
    Start("V", 94.39, None, 4.79, 0.16, 0.24, model={"videos_per_prompt": 1}),
    Start(
        "A with video",
        94.15,
        None,
        4.79,
        0.40,
        0.24,
        model={"videos_per_prompt": 1},
        engine={"max_num_seqs": 256, "max_num_batched_tokens": 2048},
    ),
    Start("C with video", 94.55, None, 4.79, 0, 0.24, model={"videos_per_prompt": 1}, engine={"compile": "eager"}),
    # the three that the formulas were first fitted to
    Start("1024 sequences", 96.48, None, None, 0.54, engine={"max_num_seqs": 1024}),
    Start("8 sequences", 98.27, engine={"max_num_seqs": 8}),
    Start("1 sequence", 98.29, engine={"max_num_seqs": 1}),
    # two cards; J has the settings of profiles/2x4090.yaml
    Start("G", 107.58, 106.28, 0.79, 0.19, 0.56, 9.72, engine={"tensor_parallel": 2}),
    Start("H", 105.15, 104.33, 2.31, 1.50, 0.15, 9.72, engine={"tensor_parallel": 2, "max_num_seqs": 1024, **NO_PEER_TO_PEER}),
    Start(
        "J",
        107.67,
        106.45,  # by the code of then, though worked out after the start
        0.44,
        0.85,
        0.15,
        9.72,
        model={"max_len": 8192, "images_per_prompt": 10, "image_longest_edge": 5_000_000},
        engine={"tensor_parallel": 2, "max_num_seqs": 128, "max_num_batched_tokens": 4096, **NO_PEER_TO_PEER},
    ),
)  # fmt: skip
# Predicted too low by 1.2 and 1.1 %: NCCL's buffers were counted within what vLLM asks for, and they are beside it
MISSED_BY_MORE_THAN_ONE_PER_CENT = ("G", "J")
NAMED = {start.name: start for start in STARTS}
every = pytest.mark.parametrize("start", STARTS, ids=NAMED)


def plan_for(start: Start) -> Plan:
    return plan_of(
        {"max_len": 65536, "images_per_prompt": 4, **start.model},
        {"gpus": 2},
        {"gpu_memory_utilization": 0.85, "max_num_seqs": 64, "max_num_batched_tokens": 8192, **start.engine},
    )


@pytest.mark.parametrize("start", [start for start in STARTS if start.before], ids=lambda start: start.name)
def test_what_was_predicted_before_the_start(start: Start) -> None:
    assert start.before is not None
    is_within = abs(start.before / start.kv - 1) <= 0.01
    assert is_within != (start.name in MISSED_BY_MORE_THAN_ONE_PER_CENT)
    if start.engine.get("tensor_parallel") is None:
        assert start.before == pytest.approx(start.kv, rel=0.005 if start.name == "no images" else 0.001)


@every
def test_the_kv_cache_as_it_is_counted_now(start: Start) -> None:
    plan = plan_for(start)
    assert plan.budget is not None
    loose = start.engine.get("tensor_parallel") or start.model.get("videos_per_prompt")
    allowed = 0.005 if start.name == "no images" else 0.003 if loose else 0.001
    assert plan.budget.kv / GIB == pytest.approx(start.kv, rel=allowed)


@every
def test_the_parts(start: Start) -> None:
    budget = plan_for(start).budget
    assert budget is not None
    assert budget.weights / GIB == pytest.approx(start.weights, rel=0.008)  # fp8 keeps scales that are not counted
    if start.peak is not None:
        assert budget.peak / GIB == pytest.approx(start.peak, abs=0.15)
    if start.graphs is not None:
        assert budget.cuda_graphs / GIB == pytest.approx(start.graphs, abs=0.05)
    if start.outside is not None:
        assert budget.outside_torch / GIB == pytest.approx(start.outside, abs=0.005)


@pytest.mark.parametrize(
    ("name", "tokens"), [("A", 2_567_440), ("launcher up", 2_565_904), ("D", 2_792_432), ("J", 5_644_880)]
)
def test_tokens(name: str, tokens: int) -> None:
    assert plan_for(NAMED[name]).kv_tokens == pytest.approx(tokens, rel=0.001)


def test_the_reported_tokens_follow_from_the_reported_bytes() -> None:
    """96.48 GiB in blocks of 16 tokens at 40 KiB each: the arithmetic from bytes to tokens is exact, not fitted."""
    tokens = int(96.48 * GIB) // (16 * 40960) * 16
    assert tokens == pytest.approx(2_529_248, abs=160)  # 96.48 is rounded to the second decimal


@pytest.mark.parametrize(("name", "gone"), [("A", 0.51), ("G", 1.53), ("H", 1.05), ("J", 1.05)])
def test_what_is_gone_before_vllm_looks(name: str, gone: float) -> None:
    """'worker init memory snapshot': cuda_memory."""
    budget = plan_for(NAMED[name]).budget
    assert budget is not None
    assert budget.held / GIB == pytest.approx(gone, abs=0.03)


def test_the_same_encoder_budget() -> None:
    """'a budget of 8192 tokens, and profiled with 1 image items'; with video '30000 tokens … 1 video items'."""
    plan = plan_for(NAMED["8 sequences"])
    assert plan.shape is not None
    assert plan.shape.image is not None
    assert plan.budget is not None
    assert plan.budget.encoder_cache == plan.shape.image.profiled_tokens * 4096 * 2
    video = plan_for(NAMED["V"])
    assert video.budget is not None
    assert video.budget.encoder_cache == 30000 * 4096 * 2


def test_a_video_costs_and_the_plan_says_so() -> None:
    plan, without = plan_for(NAMED["V"]), plan_for(Start("V without", 0))
    assert plan.budget is not None
    assert without.budget is not None
    gained = (without.budget.kv - plan.budget.kv) / GIB
    without_in_fact = NAMED["launcher up"].kv + 0.40 - 0.16  # the same but for the CUDA graphs of more sequences
    assert gained == pytest.approx(without_in_fact - 94.39, rel=0.03)
    assert said(plan, "video-memory") == (
        f"warning model.videos_per_prompt: vLLM reserves memory for the longest video, 30000 tokens: {gained:.2f} GiB a card "
        "that the KV cache does not get (an estimate). → Set model.videos_per_prompt to 0 where no video is sent."
    )
    assert "video-memory" not in codes(without)


def test_a_video_no_longer_than_an_image_costs_nothing() -> None:
    """`launcher up` ran with max_len 8192 and no limit on videos: '1 video items', and the memory of one image."""
    start = NAMED["launcher up"]
    with_video = Start("", 0, model={**start.model, "videos_per_prompt": 1}, engine=start.engine)
    assert plan_for(with_video).budget == plan_for(start).budget
    assert "video-memory" not in codes(plan_for(with_video))


def test_no_images_and_no_videos_load_no_vision_encoder() -> None:
    """E: 'Model loading took 17.58 GiB'."""
    budget = plan_for(Start("E", 0, model={"images_per_prompt": 0})).budget
    assert budget is not None
    assert budget.weights / GIB == pytest.approx(17.58, rel=0.002)
    assert budget.weights_vision == budget.encoder_cache == budget.vision_extra == 0
