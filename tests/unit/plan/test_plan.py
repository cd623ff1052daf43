"""The plan as a whole: verdicts, KV arithmetic by kind of attention, CPU, external engines, unknown models."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from launcher.plan.known_gpus import CARDS, find_card, visible_bytes
from launcher.plan.model_shape import ModelFacts
from launcher.plan.placement import Placement, place
from launcher.plan.plan import make_plan
from launcher.probe.model_files import read_model_facts, shipped_facts
from launcher.profile.load import load_profile
from launcher.profile.model import HardwareSection, Profile
from launcher.profile.units import GIB, MIB
from tests.unit.plan.profiles import codes, llama, plan_of, profile_of, said

PROFILES = sorted(Path(__file__).parents[3].glob("profiles/*.yaml"))


def test_grouped_query_attention_of_glm() -> None:
    """40 layers × 2 KV heads × 128 × key and value × 2 bytes = 40 KiB, not the 512 KiB of all 32 heads."""
    plan = plan_of()
    assert plan.shape is not None
    assert (plan.shape.attention, plan.kv_bytes_per_token) == ("grouped-query", 40 * 1024)


@pytest.mark.parametrize(
    ("changes", "engine", "attention", "bytes_per_token"),
    [
        ({}, {}, "grouped-query", 32 * 2 * 8 * 128 * 2),
        ({"num_key_value_heads": 32}, {}, "multi-head", 32 * 2 * 32 * 128 * 2),
        ({"num_key_value_heads": 1}, {}, "multi-query", 32 * 2 * 1 * 128 * 2),
        ({"kv_lora_rank": 512, "qk_rope_head_dim": 64}, {}, "latent", 32 * (512 + 64) * 2),
        ({}, {"kv_cache_dtype": "fp8"}, "grouped-query", 32 * 2 * 8 * 128),
        (
            {"layer_types": ["full_attention", "sliding_attention"] * 16, "sliding_window": 1024},
            {},
            "mixed",
            32 * 2 * 8 * 128 * 2,
        ),
        ({"layer_types": ["full_attention", "linear_attention"] * 16}, {}, "mixed", 16 * 2 * 8 * 128 * 2),
    ],
)
def test_kv_bytes_by_attention(
    changes: dict[str, Any], engine: dict[str, Any], attention: str, bytes_per_token: int
) -> None:
    plan = plan_of(engine=engine, facts=llama(**changes))
    assert plan.shape is not None
    assert (plan.shape.attention, plan.kv_bytes_per_token) == (attention, bytes_per_token)


def test_tensor_parallel_divides_the_cache_until_heads_run_out() -> None:
    for tensor, share in ((1, 1), (2, 2), (4, 2)):
        plan = plan_of(hardware={"gpus": tensor}, engine={"tensor_parallel": tensor})
        assert plan.kv_bytes_per_token == 40 * 1024 // share


def test_latent_attention_is_not_divided() -> None:
    facts = llama(kv_lora_rank=512, qk_rope_head_dim=64)
    one, two = plan_of(facts=facts), plan_of(hardware={"gpus": 2}, engine={"tensor_parallel": 2}, facts=facts)
    assert one.kv_bytes_per_token == two.kv_bytes_per_token


def test_a_sliding_window_lets_more_long_requests_in() -> None:
    sliding = llama(layer_types=["sliding_attention"] * 32, sliding_window=1024)
    plan, full = plan_of({"max_len": 65536}, facts=sliding), plan_of({"max_len": 65536}, facts=llama())
    assert plan.requests_at_full_length is not None
    assert full.requests_at_full_length is not None
    # 1,024 tokens of window and 8,192 of a batch instead of 65,536
    assert plan.requests_at_full_length / full.requests_at_full_length == pytest.approx(65536 / 9216, rel=0.01)


def test_images_off_frees_the_vision_encoder() -> None:
    on, off = plan_of(), plan_of({"images_per_prompt": 0})
    assert on.budget is not None
    assert off.budget is not None
    assert off.budget.weights_vision == off.budget.encoder_cache == off.budget.vision_extra == 0
    assert off.budget.kv > on.budget.kv + 1.6 * GIB
    assert not off.image_tokens


def test_the_lines_add_up() -> None:
    for engine in ({}, {"max_num_seqs": 8}, {"compile": "eager"}, {"kv_cache_memory": "4GiB"}):
        budget = plan_of(engine=engine).budget
        assert budget is not None
        assert budget.requested == budget.before_kv + budget.kv


def test_eager_has_no_graphs() -> None:
    budget = plan_of(engine={"compile": "eager"}).budget
    assert budget is not None
    assert budget.cuda_graphs == 0


def test_a_pipeline_is_as_tight_as_its_tightest_stage() -> None:
    plan = plan_of(hardware={"gpus": 2}, engine={"pipeline_parallel": 2})
    assert [budget.stage for budget in plan.budgets] == [0, 1]
    assert plan.budget is not None
    assert plan.budget.kv == min(budget.kv for budget in plan.budgets)


def cpu_profile(**hardware: Any) -> Profile:
    return Profile.model_validate(
        {
            "name": "cpu",
            "model": {"packaged": "smollm2-135m-instruct", "max_len": 2048},
            "hardware": {"device": "cpu", **hardware},
            "engine": {"kv_cache_memory": "1GiB", "max_num_seqs": 8, "compile": "eager"},
        }
    )


def test_cpu_fits_main_memory() -> None:
    plan = make_plan(cpu_profile(memory="8GiB"), shipped_facts("smollm2-135m-instruct"))
    assert plan.verdict == "fits"
    assert plan.placements == (Placement(0, ()),)
    assert plan.kv_bytes_per_token == 30 * 2 * 3 * 64 * 2
    assert plan.kv_tokens == GIB // (30 * 2 * 3 * 64 * 2) // 128 * 128


def test_cpu_without_a_stated_memory_cannot_be_told() -> None:
    plan = make_plan(cpu_profile(), shipped_facts("smollm2-135m-instruct"))
    assert plan.verdict == "unknown"
    assert plan.summary.startswith("Cannot tell: it takes about ")
    assert "hardware.memory does not say what there is" in plan.summary


def test_cpu_without_a_stated_memory_counts_with_the_machine() -> None:
    facts = shipped_facts("smollm2-135m-instruct")
    plan = make_plan(cpu_profile(), facts, machine_memory=16 * GIB)
    assert plan.verdict == "fits"
    assert ", this machine has 16.00 GiB; " in plan.summary
    stated = make_plan(cpu_profile(memory="8GiB"), facts, machine_memory=16 * GIB)
    assert ", hardware.memory is 8.00 GiB; " in stated.summary
    small = make_plan(cpu_profile(), facts, machine_memory=GIB)
    assert small.verdict == "does_not_fit"
    assert said(small, "main-memory").endswith(
        "but this machine has 1.00 GiB. → Lower engine.kv_cache_memory or engine.replicas."
    )


def test_video_for_models_without_arithmetic_or_without_video() -> None:
    text = plan_of({"videos_per_prompt": 2}, facts=llama())
    assert said(text, "no-video") == (
        "warning model.videos_per_prompt: 2, but LlamaForCausalLM takes no video. → Set model.videos_per_prompt to 0."
    )
    assert text.is_text_only
    assert not plan_of().is_text_only


def test_cards_that_talk_hold_memory_before_vllm_looks() -> None:
    """0.99 of an H200 is free for one card; with NCCL's buffers it is not."""
    engine = {"gpu_memory_utilization": 0.99, "tensor_parallel": 2}
    assert "utilization-above-free" not in codes(plan_of({}, {"gpus": 2}, {"gpu_memory_utilization": 0.99}))
    assert "utilization-above-free" in codes(plan_of({}, {"gpus": 2}, engine))


def test_cpu_that_lacks_main_memory() -> None:
    plan = make_plan(cpu_profile(memory="2GiB"), shipped_facts("smollm2-135m-instruct"))
    assert plan.verdict == "does_not_fit"
    assert said(plan, "main-memory").endswith(
        "Lower engine.kv_cache_memory or engine.replicas, or raise hardware.memory if the machine has more."
    )


def test_cpu_cache_too_small_for_one_request() -> None:
    profile = cpu_profile(memory="8GiB")
    engine = profile.engine.model_copy(update={"kv_cache_memory": 32 * MIB})
    plan = make_plan(profile.model_copy(update={"engine": engine}), shipped_facts("smollm2-135m-instruct"))
    assert said(plan, "kv-below-max-len").startswith(
        "error model.max_len: one request of 2048 tokens takes 45 MiB of KV cache"
    )


def test_an_external_engine_has_a_trivial_plan() -> None:
    profile = Profile.model_validate({"name": "x", "engine": {"kind": "external", "urls": ["http://127.0.0.1:30000"]}})
    plan = make_plan(profile, None)
    assert (plan.verdict, plan.placements, plan.findings) == ("unknown", (), ())
    assert plan.summary == "Cannot tell: nothing is started here; 1 server(s) run already and are only watched."


def test_an_unknown_model_still_has_its_cards_counted() -> None:
    plan = make_plan(profile_of({"id": "someone/something"}), None)
    assert plan.verdict == "unknown"
    assert plan.summary == "Cannot tell: nothing is known of the model someone/something."
    assert plan.placements == (Placement(0, (0,)),)
    crowded = make_plan(profile_of({"id": "someone/something"}, engine={"replicas": 2}), None)
    assert crowded.verdict == "does_not_fit"


def test_a_config_that_lacks_a_key_cannot_be_told() -> None:
    plan = make_plan(
        profile_of(), ModelFacts("a test", {"architectures": ["LlamaForCausalLM"], "num_hidden_layers": 2})
    )
    assert plan.verdict == "unknown"
    assert "config.json has no usable num_attention_heads: None" in plan.summary


def test_an_unknown_card_cannot_be_told() -> None:
    plan = plan_of(hardware={"gpu": "RTX 9999"})
    assert plan.verdict == "unknown"
    assert plan.summary.startswith("Cannot tell: the card's memory is not known; name the card in hardware.gpu")
    assert plan.kv_tokens is None


def test_placement_uses_neighbouring_cards() -> None:
    profile = profile_of(hardware={"gpus": 8}, engine={"replicas": 2, "tensor_parallel": 2, "pipeline_parallel": 2})
    assert place(profile) == (Placement(0, (0, 1, 2, 3)), Placement(1, (4, 5, 6, 7)))


@pytest.mark.parametrize("name", ["RTX 4090", "rtx4090", "NVIDIA GeForce RTX 4090", "nvidia-geforce-rtx-4090"])
def test_a_card_by_any_of_its_names(name: str) -> None:
    card = find_card(name)
    assert card is not None
    assert card.name == "RTX 4090"


def test_cards_that_share_a_beginning_are_told_apart() -> None:
    for card in CARDS:
        found = find_card(f"NVIDIA {card.name}")
        assert found == card
    assert find_card("RTX 3090 Ti") != find_card("RTX 3090")
    assert find_card("A100") is None  # 40 or 80 GB?


def test_the_driver_keeps_some_memory() -> None:
    for card in CARDS:
        assert 0 < card.reserved_bytes < 0.06 * card.total_mib * MIB, card.name
    named = HardwareSection.model_validate({"gpu": "RTX 4090", "gpu_memory": "24564MiB"})
    assert visible_bytes(named) == pytest.approx(23.52 * GIB, abs=MIB)
    unnamed = HardwareSection.model_validate({"gpu_memory": "100GiB"})
    assert visible_bytes(unnamed) == pytest.approx(97.8 * GIB, abs=MIB)


def test_a_plan_is_the_same_each_time() -> None:
    assert dataclasses.asdict(plan_of()) == dataclasses.asdict(plan_of())


@pytest.mark.parametrize("path", PROFILES, ids=lambda path: path.stem)
def test_every_shipped_profile_has_a_plan_without_errors(path: Path) -> None:
    loaded = load_profile(path, env={})
    facts = read_model_facts(loaded.profile, loaded.base_dir, offline=True)
    plan = make_plan(loaded.profile, facts)
    assert plan.verdict != "does_not_fit", plan.summary
    assert "model-unknown" not in codes(plan)


def test_float32_on_a_cpu_is_only_noted() -> None:
    profile = cpu_profile(memory="8GiB")
    model = profile.model.model_copy(update={"dtype": "float32"})
    plan = make_plan(profile.model_copy(update={"model": model}), shipped_facts("smollm2-135m-instruct"))
    assert said(plan, "dtype-disagrees") == (
        "note model.dtype: float32, but the checkpoint is bfloat16: weights take 0.50 GiB instead of 0.25 GiB, and sums keep "
        "their precision. → "
    )
