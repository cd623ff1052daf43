"""What must hold of every plan, whatever the profile."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from launcher.plan.finding import Case, make_case
from launcher.plan.image_tokens import ImageRule
from launcher.plan.known_gpus import CARDS
from launcher.plan.model_shape import ModelFacts
from launcher.profile.model import Profile
from launcher.profile.units import format_duration, format_size, parse_duration, parse_size
from tests.unit.plan.profiles import facts_of, llama

MODELS: list[ModelFacts] = [
    facts_of("zai-org/GLM-4.1V-9B-Thinking"),
    facts_of("smollm2-135m-instruct"),
    llama(),
    llama(kv_lora_rank=512, qk_rope_head_dim=64),
    llama(layer_types=["full_attention", "sliding_attention"] * 16, sliding_window=4096),
    llama(n_routed_experts=8, num_experts_per_tok=2, moe_intermediate_size=2048),
    llama(quantization_config={"quant_method": "awq", "bits": 4, "group_size": 128}),
]

models = st.sampled_from(MODELS)
cards = st.sampled_from([card.name for card in CARDS])
lengths = st.integers(64, 8192)
sequences = st.integers(1, 2048)
batches = st.integers(2048, 32768)
shares = st.floats(0.05, 0.99)
fast = settings(max_examples=150, deadline=None)


def case_of(facts: ModelFacts, gpu: str, *, max_len: int = 4096, gpus: int = 1, **engine: Any) -> Case:
    engine = {"max_num_batched_tokens": 4096, "max_num_seqs": 64, **engine}
    profile = Profile.model_validate(
        {
            "name": "test",
            "model": {"id": "someone/model", "max_len": max_len},
            "hardware": {"gpu": gpu, "gpus": gpus},
            "engine": engine,
        }
    )
    return make_case(profile, facts)


@fast
@given(models, cards, shares, shares)
def test_more_utilization_never_gives_less_kv(facts: ModelFacts, gpu: str, one: float, other: float) -> None:
    low, high = sorted((one, other))
    less, more = (case_of(facts, gpu, gpu_memory_utilization=share) for share in (low, high))
    assert less.tightest.kv <= more.tightest.kv
    assert less.kv_tokens <= more.kv_tokens


@fast
@given(models, cards, lengths, lengths)
def test_longer_requests_are_never_more_at_once(facts: ModelFacts, gpu: str, one: int, other: int) -> None:
    low, high = sorted((one, other))
    short, long = (case_of(facts, gpu, max_len=length) for length in (low, high))
    assert short.requests_at_full_length >= long.requests_at_full_length


@fast
@given(models, cards, sequences, sequences)
def test_more_sequences_never_give_more_kv(facts: ModelFacts, gpu: str, one: int, other: int) -> None:
    low, high = sorted((one, other))
    fewer, more = (case_of(facts, gpu, max_num_seqs=n, max_num_batched_tokens=4096) for n in (low, high))
    assert fewer.tightest.kv >= more.tightest.kv


@fast
@given(models, cards, batches, batches)
def test_a_larger_batch_never_gives_more_kv(facts: ModelFacts, gpu: str, one: int, other: int) -> None:
    low, high = sorted((one, other))
    small, large = (case_of(facts, gpu, max_num_batched_tokens=n) for n in (low, high))
    assert small.tightest.kv >= large.tightest.kv


@fast
@given(models, cards, shares, sequences, batches, lengths)
def test_kv_and_all_else_are_what_was_asked_for(
    facts: ModelFacts, gpu: str, share: float, seqs: int, batch: int, length: int
) -> None:
    case = case_of(
        facts, gpu, max_len=length, gpu_memory_utilization=share, max_num_seqs=seqs, max_num_batched_tokens=batch
    )
    for budget in case.budgets:
        assert budget.visible is not None
        assert budget.requested is not None
        assert budget.kv + budget.before_kv == budget.requested <= budget.visible + 1
        assert min(budget.weights, budget.buffers, budget.encoder_cache, budget.activations, budget.sampler_extra) >= 0
        assert case.kv_tokens * case.token_bytes(budget.stage) <= max(0, budget.kv)


@fast
@given(models, cards, st.sampled_from([1, 2, 4]))
def test_more_tensor_parallel_never_means_more_weights_a_card(facts: ModelFacts, gpu: str, tensor: int) -> None:
    fewer = case_of(facts, gpu, gpus=8, tensor_parallel=tensor)
    more = case_of(facts, gpu, gpus=8, tensor_parallel=2 * tensor)
    assert more.tightest.weights <= fewer.tightest.weights
    assert more.token_bytes() <= fewer.token_bytes()


@fast
@given(models, cards, lengths)
def test_the_longest_that_fits_fits_and_one_block_more_does_not(facts: ModelFacts, gpu: str, length: int) -> None:
    case = case_of(facts, gpu, max_len=length)
    longest = case.longest_that_fits
    if longest:
        assert case.request_bytes(longest) <= case.tightest.kv
    if longest + case.block_tokens <= case.shape.longest:
        assert case.request_bytes(longest + case.block_tokens) > case.tightest.kv


@fast
@given(models, cards, st.sampled_from(["auto", "fp8"]), lengths)
def test_fp8_halves_the_cache_of_a_token(facts: ModelFacts, gpu: str, dtype: str, length: int) -> None:
    plain = case_of(facts, gpu, max_len=length)
    halved = case_of(facts, gpu, max_len=length, kv_cache_dtype="fp8")
    assert halved.token_bytes() * 2 == plain.token_bytes()


rules = st.builds(
    ImageRule,
    st.sampled_from(["glm4v", "qwen_vl"]),
    patch=st.sampled_from([14, 16]),
    min_pixels=st.sampled_from([3136, 12544, 65536]),
    max_pixels=st.integers(200_000, 20_000_000),
)
sides = st.integers(28, 5000)


@fast
@given(rules, sides, sides)
def test_no_image_exceeds_its_rule(rule: ImageRule, width: int, height: int) -> None:
    if max(width, height) / min(width, height) > 100:
        return
    seen_width, seen_height = rule.resized(width, height)
    tokens = rule.tokens(width, height)
    assert seen_width % rule.factor == seen_height % rule.factor == 0
    assert tokens * rule.factor**2 == seen_width * seen_height
    if min(seen_width, seen_height) > rule.factor:  # a strip that is one token wide cannot be made narrower
        assert 1 <= tokens <= rule.largest_tokens
    assert rule.frames * seen_width * seen_height <= rule.max_pixels


@fast
@given(rules, sides, sides)
def test_what_the_model_sees_stays_as_it_is(rule: ImageRule, width: int, height: int) -> None:
    """An image already of a seen size is not scaled again: the gateway may scale first without a second loss."""
    if max(width, height) / min(width, height) > 100:
        return
    seen = rule.resized(width, height)
    assert rule.resized(*seen) == seen


@given(st.integers(0, 2**50))
def test_sizes_survive_a_round_trip(size: int) -> None:
    assert parse_size(format_size(size)) == size


@given(st.integers(0, 10**9))
def test_durations_survive_a_round_trip(milliseconds: int) -> None:
    seconds = milliseconds / 1000
    assert abs(parse_duration(format_duration(seconds)) - seconds) <= 1e-5 * max(1.0, seconds)
