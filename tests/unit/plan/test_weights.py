"""Weight bytes: by arithmetic against counts published by others, over cards, and in every precision."""

from __future__ import annotations

import pytest

from launcher.plan.model_shape import ModelFacts, ModelShape, WeightBytes, shape_of
from launcher.plan.weights import layers_of_stage, parameters, rotary_bytes, weight_bytes
from launcher.profile.model import Profile
from launcher.profile.units import GIB
from tests.unit.plan.profiles import facts_of, llama, profile_of

GLM_9B_OVERRIDES = {"architectures": ["GLM4VForCausalLM"]}


def shape(name: str, profile: Profile | None = None) -> ModelShape:
    return shape_of(facts_of(name), profile or profile_of())


def test_glm_4v_9b_has_the_parameters_that_a_user_counted() -> None:
    """13,906,320,896 in all (github.com/zai-org/GLM-4, issue 500): the arithmetic gives each of them."""
    profile = profile_of(model={"hf_overrides": GLM_9B_OVERRIDES})
    assert parameters(shape("zai-org/glm-4v-9b", profile)) == 13_906_320_896


def test_glm_4_1v_has_10_29_billion_parameters() -> None:
    found = shape("zai-org/GLM-4.1V-9B-Thinking")
    assert parameters(found) == 10_292_777_472
    assert parameters(found, "vision") == 892_498_432


def test_smollm2_has_the_bytes_of_its_folder() -> None:
    assert parameters(shape("smollm2-135m-instruct")) * 2 == 269_030_016


def test_llama_3_1_8b_has_its_published_size() -> None:
    assert parameters(shape_of(llama(), profile_of())) == 8_030_261_248


@pytest.mark.parametrize(
    "name",
    ["zai-org/GLM-4.1V-9B-Thinking", "zai-org/GLM-4.6V-Flash", "zai-org/AutoGLM-Phone-9B", "smollm2-135m-instruct"],
)
def test_shipped_bytes_agree_with_the_arithmetic(name: str) -> None:
    facts = facts_of(name)
    assert facts.weights is not None
    assert parameters(shape(name)) * 2 == facts.weights.total


def test_shipped_bytes_of_glm_4v_9b_agree_part_by_part() -> None:
    facts = facts_of("zai-org/glm-4v-9b")
    found = shape("zai-org/glm-4v-9b", profile_of(model={"hf_overrides": GLM_9B_OVERRIDES}))
    assert facts.weights is not None
    assert parameters(found, "vision") * 2 == facts.weights.vision
    assert parameters(found, "language") * 2 == facts.weights.language


def in_all(profile: Profile, facts: ModelFacts) -> int:
    found = shape_of(facts, profile)
    return weight_bytes(profile, found, facts.weights, "language") + weight_bytes(
        profile, found, facts.weights, "vision"
    )


@pytest.mark.parametrize(
    ("quantization", "gib"),
    [(None, 19.234), ("fp8", 10.831), ("bitsandbytes", 7.155)],
)
def test_quantised_while_loading(quantization: str | None, gib: float) -> None:
    """Linear layers shrink; embeddings, the head, norms, convolutions and the rotary table do not."""
    assert in_all(profile_of(model={"quantization": quantization}), facts_of()) / GIB == pytest.approx(gib, abs=0.001)


def test_float32_doubles() -> None:
    half, full = profile_of(), profile_of(model={"dtype": "float32"})
    rotary = rotary_bytes(shape_of(facts_of(), half))
    assert in_all(full, facts_of()) - rotary == 2 * (in_all(half, facts_of()) - rotary)


def test_files_tell_more_than_arithmetic() -> None:
    """A checkpoint whose files are a tenth larger than its shape takes a tenth more."""
    facts = llama()
    profile = profile_of()
    plain = parameters(shape_of(facts, profile)) * 2
    larger = ModelFacts("a test", facts.config, WeightBytes(plain * 11 // 10))
    rotary = rotary_bytes(shape_of(facts, profile))
    assert in_all(profile, larger) - rotary == pytest.approx(plain * 1.1, rel=1e-6)


def test_a_quantised_checkpoint_takes_what_its_files_take() -> None:
    quantized = {"quant_method": "awq", "bits": 4, "group_size": 128}
    facts = llama(quantization_config=quantized)
    files = ModelFacts("a test", facts.config, WeightBytes(5_730_000_000))
    rotary = rotary_bytes(shape_of(facts, profile_of()))
    assert in_all(profile_of(), files) - rotary == pytest.approx(5_730_000_000, rel=1e-6)
    assert in_all(profile_of(), facts) - rotary == pytest.approx(5_730_000_000, rel=0.01)  # by arithmetic alone


def test_two_cards_hold_half_each_but_for_norms() -> None:
    one, two = profile_of(), profile_of(hardware={"gpus": 2}, engine={"tensor_parallel": 2})
    rotary = rotary_bytes(shape_of(facts_of(), one))
    halves = 2 * (in_all(two, facts_of()) - rotary) / (in_all(one, facts_of()) - rotary)
    assert 1.0 < halves < 1.01


def test_stages_of_a_pipeline_hold_all_layers_once() -> None:
    for layers, stages in ((40, 3), (30, 4), (32, 5), (40, 2)):
        assert sum(layers_of_stage(layers, stages, stage) for stage in range(stages)) == layers


def test_a_pipeline_holds_the_model_once() -> None:
    one = profile_of()
    three = profile_of(hardware={"gpus": 3}, engine={"pipeline_parallel": 3})
    found = shape_of(facts_of(), one)
    rotary = rotary_bytes(found)
    parts = sum(
        weight_bytes(three, found, None, part, stage) - (rotary if part == "language" else 0)
        for stage in range(3)
        for part in ("language", "vision")
    )
    assert parts == pytest.approx(in_all(one, facts_of()) - rotary, abs=4096)
