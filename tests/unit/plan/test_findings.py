"""Every finding's exact words."""

from __future__ import annotations

from typing import Any

import pytest

from launcher.plan.model_shape import ModelFacts
from tests.unit.plan.profiles import codes, facts_of, llama, plan_of, said

TWO_4090 = {"gpu": "RTX 4090", "gpus": 2}
GLM_9B = {"id": "zai-org/glm-4v-9b"}
GLM_9B_READY = {**GLM_9B, "hf_overrides": {"architectures": ["GLM4VForCausalLM"]}, "trust_remote_code": True}


def section(**values: Any) -> dict[str, Any]:
    return values


# code, model, hardware, engine, facts (None: the shipped ones), what is said
CASES: list[tuple[str, dict[str, Any], dict[str, Any], dict[str, Any], ModelFacts | None, str]] = [
    (
        "too-few-gpus",
        {},
        section(gpus=2),
        section(replicas=2, tensor_parallel=2),
        None,
        "error hardware.gpus: engine.replicas 2 × engine.tensor_parallel 2 × engine.pipeline_parallel 1 need 4 cards, but "
        "hardware.gpus is 2. → Set hardware.gpus to 4 if the machine has them, or lower engine.replicas.",
    ),
    (
        "heads-not-divided",
        {},
        section(gpus=3),
        section(tensor_parallel=3),
        None,
        "error engine.tensor_parallel: 3 does not divide the model's 32 attention heads. → "
        "Set engine.tensor_parallel to 1, 2 or 4.",
    ),
    (
        "kv-heads-not-divided",
        {},
        section(gpus=4),
        section(tensor_parallel=4),
        llama(num_key_value_heads=6, num_attention_heads=24),
        "error engine.tensor_parallel: 4 neither divides the model's 6 KV heads nor is a multiple of them. → "
        "Set engine.tensor_parallel to 1, 2, 3 or 6.",
    ),
    (
        "kv-heads-replicated",
        {},
        section(gpus=4),
        section(tensor_parallel=4),
        None,
        "warning engine.tensor_parallel: 4 cards share 2 KV heads: each head's cache is kept 2 times, so more cards hold no "
        "more tokens than 2 do. → Set engine.tensor_parallel to 2 and engine.replicas to 2.",
    ),
    (
        "vision-heads-not-divided",
        {},
        section(gpus=8),
        section(tensor_parallel=8),
        None,
        "error engine.tensor_parallel: 8 does not divide the vision encoder's 12 heads. → Set engine.tensor_parallel to 1, 2 "
        "or 4. Or keep it and put --mm-encoder-tp-mode=data into engine.extra_args, if the model supports it.",
    ),
    (
        "more-stages-than-layers",
        {},
        section(gpus=41),
        section(pipeline_parallel=41),
        None,
        "error engine.pipeline_parallel: 41 stages for a model of 40 layers. → Set engine.pipeline_parallel to 40 or fewer.",
    ),
    (
        "max-len-above-model",
        section(max_len=100000),
        {},
        {},
        None,
        "error model.max_len: 100000 tokens, but the model was made for 65536. → Set model.max_len to 65536 or fewer, or "
        "extend the positions in model.hf_overrides (rope_parameters).",
    ),
    (
        "batch-below-seqs",
        section(max_len=8192),
        section(gpu="RTX 4090"),
        section(max_num_seqs=4096),
        None,
        "error engine.max_num_batched_tokens: 2048 tokens a step for engine.max_num_seqs 4096: vLLM wants a token for each "
        "sequence. → Set engine.max_num_seqs to 2048, or engine.max_num_batched_tokens to 4096 or more.",
    ),
    (
        "batch-below-max-len",
        {},
        {},
        section(max_num_batched_tokens=4096, chunked_prefill=False),
        None,
        "error engine.max_num_batched_tokens: 4096 tokens a step, but without chunked prefill a prompt of model.max_len 65536 "
        "must fit one step. → Set engine.max_num_batched_tokens to 65536, or engine.chunked_prefill to true.",
    ),
    (
        "many-steps-a-prompt",
        section(max_len=65536),
        {},
        section(max_num_batched_tokens=2048),
        None,
        "warning engine.max_num_batched_tokens: a prompt of model.max_len 65536 takes 32 steps of 2048 tokens, each with the "
        "whole batch's delay. → Raise engine.max_num_batched_tokens to 8192, or lower model.max_len.",
    ),
    (
        "image-above-batch",
        section(max_len=8192),
        {},
        section(max_num_batched_tokens=4096, extra_args=["--disable-chunked-mm-input"]),
        None,
        "error engine.max_num_batched_tokens: an image has up to 6084 tokens and must fit one step of 4096, since "
        "engine.extra_args has --disable-chunked-mm-input. → Set engine.max_num_batched_tokens to 6084, or set "
        "model.image_longest_edge to 6422528 so that images are scaled down to 4096 tokens.",
    ),
    (
        "image-above-max-len",
        section(**GLM_9B_READY, max_len=1024),
        {},
        {},
        None,
        "error model.max_len: every image has 1602 tokens, more than model.max_len 1024: no image could be served. → Set "
        "model.max_len to 2114 or more, or model.images_per_prompt to 0.",
    ),
    (
        "large-images-refused",
        section(max_len=4096),
        {},
        {},
        None,
        "warning model.max_len: an image has up to 6144 tokens, more than model.max_len 4096: vLLM refuses such requests. → "
        "Raise model.max_len, or set model.image_longest_edge to 6422528 so that images are scaled down to 4096 tokens.",
    ),
    (
        "image-above-encoder-cache",
        section(max_len=8192),
        {},
        section(max_num_batched_tokens=4096),
        None,
        "warning engine.max_num_batched_tokens: vLLM sizes its encoder cache for a square image, 6084 tokens, but some images "
        "have up to 6144 (a 2:3 one of the largest area): it refuses them. → Set engine.max_num_batched_tokens to 6144, or "
        "set model.image_longest_edge to 6422528 so that images are scaled down to 4096 tokens.",
    ),
    (
        "one-image-a-prompt",
        section(**GLM_9B_READY, images_per_prompt=4),
        {},
        {},
        None,
        "warning model.images_per_prompt: 4, but vLLM's GLM-4V-9B takes one image a prompt and refuses more. → Set "
        "model.images_per_prompt to 1.",
    ),
    (
        "chatglm-with-vision",
        section(**GLM_9B),
        {},
        {},
        None,
        "error model.hf_overrides: the checkpoint calls itself ChatGLMModel, which vLLM reads as a model without eyes and "
        'stops. → Set model.hf_overrides to {architectures: ["GLM4VForCausalLM"]}.',
    ),
    (
        "remote-code",
        section(**GLM_9B),
        {},
        {},
        None,
        "error model.trust_remote_code: the checkpoint's tokenizer is Python code that comes with it, and running that is not "
        "allowed. → Set model.trust_remote_code to true if you trust the model's publisher, and pin model.revision.",
    ),
    (
        "dtype-disagrees",
        section(dtype="float16"),
        {},
        {},
        None,
        "warning model.dtype: float16, but the checkpoint is bfloat16: each weight is converted while loading, and values "
        "outside its range are lost. → Set model.dtype to auto or bfloat16.",
    ),
    (
        "dtype-disagrees",
        section(dtype="float32"),
        {},
        {},
        None,
        "warning model.dtype: float32, but the checkpoint is bfloat16: weights take 38.41 GiB instead of 19.23 GiB, and gain "
        "no precision. → Set model.dtype to auto or bfloat16.",
    ),
    (
        "no-bfloat16",
        {},
        section(gpu="T4"),
        {},
        None,
        "error model.dtype: T4 (compute capability 7.5) does not compute in bfloat16. → Set model.dtype to float16.",
    ),
    (
        "not-quantized",
        section(quantization="awq_marlin"),
        {},
        {},
        None,
        "error model.quantization: awq_marlin, but the checkpoint is not quantised (its config.json has no "
        "quantization_config). → Name a quantised copy of the model, or set model.quantization to fp8 or bitsandbytes, which "
        "vLLM makes from 16-bit weights.",
    ),
    (
        "quantized-otherwise",
        section(quantization="fp8"),
        {},
        {},
        llama(quantization_config={"quant_method": "awq", "bits": 4, "group_size": 128}),
        "error model.quantization: fp8, but the checkpoint is quantised already, with awq. → Leave model.quantization out: "
        "vLLM reads the method from the checkpoint.",
    ),
    (
        "bitsandbytes-plugin",
        section(quantization="bitsandbytes"),
        {},
        {},
        None,
        "note model.quantization: bitsandbytes left vLLM in 0.28: from there on it is in the package vllm-bnb-plugin, which "
        "`make up` installs for this profile. → ",
    ),
    (
        "no-fp8-arithmetic",
        section(quantization="fp8"),
        section(gpu="RTX 3090"),
        {},
        None,
        "warning model.quantization: RTX 3090 (compute capability 8.6) does not multiply fp8 numbers: weights take half the "
        "memory, but are widened for each step. → Keep it for the memory; expect no speed-up.",
    ),
    (
        "no-fp8-cache",
        {},
        section(gpu="RTX 3090"),
        section(kv_cache_dtype="fp8"),
        None,
        "warning engine.kv_cache_dtype: RTX 3090 has no fp8 arithmetic; whether an attention backend of vLLM reads an fp8 "
        "cache there depends on the version. → Set engine.kv_cache_dtype to auto if the engine stops for want of a backend.",
    ),
    (
        "no-peer-to-peer",
        section(max_len=8192),
        TWO_4090,
        section(tensor_parallel=2, env={"NCCL_P2P_DISABLE": "1"}),
        None,
        "warning engine.tensor_parallel: 2 × RTX 4090 without peer-to-peer: vLLM trusts the driver's word and may hang at the "
        "start without an error. → Add --disable-custom-all-reduce to engine.extra_args.",
    ),
    (
        "utilization-above-free",
        {},
        {},
        section(gpu_memory_utilization=1.0),
        None,
        "error engine.gpu_memory_utilization: 1 asks for 139.81 GiB, but about 139.32 GiB of 139.81 GiB are free on an empty "
        "card: vLLM stops at the start. → Set engine.gpu_memory_utilization to 0.99 or less.",
    ),
    (
        "vllm-defaults",
        {},
        {},
        {},
        None,
        "note engine: Left to vLLM's defaults: model.max_len 65536, engine.max_num_batched_tokens 8192, engine.max_num_seqs "
        "1024, engine.gpu_memory_utilization 0.92, model.images_per_prompt 999. → ",
    ),
    (
        "facts",
        {},
        {},
        {},
        None,
        "note model: The model's shape is from facts shipped with the launcher, 2026-11-21. → ",
    ),
]


@pytest.mark.parametrize(
    ("code", "model", "hardware", "engine", "facts", "sentence"),
    CASES,
    ids=[f"{case[0]}-{n}" for n, case in enumerate(CASES)],
)
def test_the_words(
    code: str,
    model: dict[str, Any],
    hardware: dict[str, Any],
    engine: dict[str, Any],
    facts: ModelFacts | None,
    sentence: str,
) -> None:
    plan = plan_of(model, hardware, engine, facts)
    assert said(plan, code) == sentence
    if sentence.startswith("error"):
        assert plan.verdict == "does_not_fit"


def test_kv_below_max_len_names_lengths_that_fit() -> None:
    plan = plan_of({"max_len": 65536}, {"gpu": "RTX 4090"}, {"max_num_seqs": 8, "max_num_batched_tokens": 2048})
    assert plan.budget is not None
    sentence = said(plan, "kv-below-max-len")
    assert sentence.startswith("error model.max_len: one request of 65536 tokens takes 2.50 GiB of KV cache, but only ")
    longest = int(sentence.partition("Set model.max_len to ")[2].split()[0])
    fits = plan_of({"max_len": longest}, {"gpu": "RTX 4090"}, {"max_num_seqs": 8, "max_num_batched_tokens": 2048})
    longer = plan_of(
        {"max_len": longest + 64}, {"gpu": "RTX 4090"}, {"max_num_seqs": 8, "max_num_batched_tokens": 2048}
    )
    assert fits.verdict == "fits"
    assert longer.verdict == "does_not_fit"


def test_no_room_for_kv_says_what_would_make_room() -> None:
    plan = plan_of(GLM_9B_READY, {"gpu": "RTX 3060"}, {"max_num_seqs": 2})
    sentence = said(plan, "no-room-for-kv")
    assert sentence.startswith("error hardware.gpu: before any KV cache a card needs 26.")
    assert "10.70 GiB are to be had (0.92 of 11.63 GiB)." in sentence
    assert "Set model.quantization to bitsandbytes (" in sentence


@pytest.mark.parametrize("gpu", ["RTX 3060", "RTX 4090"])
def test_every_remedy_for_memory_works(gpu: str) -> None:
    """What the remedy says to set is set, and then the profile fits."""
    plan = plan_of(GLM_9B_READY, {"gpu": gpu}, {"max_num_seqs": 2})
    remedy = said(plan, "no-room-for-kv").partition(" → ")[2]
    for choice in remedy.removeprefix("Set ").rstrip(".").split(", or "):
        changes: dict[str, dict[str, Any]] = {"model": dict(GLM_9B_READY), "engine": {"max_num_seqs": 2}}
        for setting in choice.partition(" (")[0].split(" and "):
            key, _, value = setting.partition(" to ")
            part, _, name = key.partition(".")
            changes[part][name] = int(value) if value.isdigit() else value
        fixed = plan_of(changes["model"], {"gpu": gpu}, changes["engine"])
        assert fixed.verdict == "fits", choice


def test_a_model_that_no_setting_saves() -> None:
    plan = plan_of(hardware={"gpu": "RTX 3060"}, engine={"max_num_seqs": 1}, facts=llama(num_hidden_layers=160))
    assert said(plan, "no-room-for-kv").endswith(
        "No single setting makes it fit: use a smaller or a quantised model, or a card with more memory."
    )


def test_kv_cache_memory_above_the_card() -> None:
    plan = plan_of({"max_len": 8192}, {"gpu": "RTX 4090"}, {"kv_cache_memory": "8GiB", "max_num_seqs": 8})
    sentence = said(plan, "kv-above-memory")
    assert sentence.startswith("error engine.kv_cache_memory: 8.00 GiB of KV cache and ")
    assert "Set engine.kv_cache_memory to " in sentence
    largest = sentence.rpartition("to ")[2].split()[0]
    fixed = plan_of({"max_len": 8192}, {"gpu": "RTX 4090"}, {"kv_cache_memory": largest, "max_num_seqs": 8})
    assert fixed.verdict == "fits"


def test_the_sampler_is_told_with_what_a_smaller_batch_gains() -> None:
    plan = plan_of(
        {"max_len": 8192, "quantization": "fp8"},
        {"gpu": "RTX 4090"},
        {"max_num_seqs": 1024, "max_num_batched_tokens": 2048},
    )
    sentence = said(plan, "sampler-warm-up")
    assert sentence.startswith("warning engine.max_num_seqs: sampling for 1024 sequences at once takes ")
    assert "Set engine.max_num_seqs to " in sentence
    fewer = int(sentence.partition("Set engine.max_num_seqs to ")[2].partition(":")[0])
    fixed = plan_of(
        {"max_len": 8192, "quantization": "fp8"},
        {"gpu": "RTX 4090"},
        {"max_num_seqs": fewer, "max_num_batched_tokens": 2048},
    )
    assert "sampler-warm-up" not in codes(fixed)


def test_replicas_are_advised_where_one_card_holds_the_model() -> None:
    engine = {"tensor_parallel": 2, "max_num_seqs": 64}
    plan = plan_of({"max_len": 8192, "quantization": "fp8"}, TWO_4090, engine)
    sentence = said(plan, "replicas-instead")
    assert sentence.startswith("warning engine.tensor_parallel: one card holds the model: 2 replicas would keep 2 × ")
    alone = plan_of({"max_len": 8192, "quantization": "fp8"}, TWO_4090, {"replicas": 2, "max_num_seqs": 64})
    assert f"2 × {alone.kv_tokens} tokens" in sentence


def test_replicas_are_only_noted_where_they_need_fp8() -> None:
    plan = plan_of({"max_len": 8192}, TWO_4090, {"tensor_parallel": 2, "max_num_seqs": 64})
    assert said(plan, "replicas-instead").startswith(
        "note engine.tensor_parallel: one card holds the model with model.quantization fp8: 2 replicas would keep 2 × "
    )


def test_replicas_are_not_advised_for_a_model_that_needs_both_cards() -> None:
    plan = plan_of({"max_len": 8192}, TWO_4090, {"tensor_parallel": 2}, facts=llama(num_hidden_layers=80))
    assert "replicas-instead" not in codes(plan)


def test_peer_to_peer_is_only_a_note_once_both_are_set() -> None:
    engine = {
        "tensor_parallel": 2,
        "env": {"NCCL_P2P_DISABLE": "1"},
        "extra_args": ["--disable-custom-all-reduce"],
        "max_num_seqs": 64,
    }
    plan = plan_of({"max_len": 8192}, TWO_4090, engine)
    assert said(plan, "no-peer-to-peer").startswith("note engine.tensor_parallel: 2 × RTX 4090 without peer-to-peer")
    assert "no-peer-to-peer" not in codes(plan_of({"max_len": 8192}, {**TWO_4090, "peer_to_peer": True}, engine))


def test_hf_overrides_extend_the_positions() -> None:
    rope = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768}
    plan = plan_of({"max_len": 100000, "hf_overrides": {"text_config": {"rope_parameters": rope}}})
    assert "max-len-above-model" not in codes(plan)


def test_the_vision_heads_do_not_matter_without_images_or_with_data_parallel() -> None:
    for model, engine in (
        ({"images_per_prompt": 0}, {"tensor_parallel": 8}),
        ({}, {"tensor_parallel": 8, "extra_args": ["--mm-encoder-tp-mode=data"]}),
        ({}, {"tensor_parallel": 8, "extra_args": ["--mm-encoder-tp-mode", "data"]}),
    ):
        assert "vision-heads-not-divided" not in codes(plan_of(model, {"gpus": 8}, engine))


def test_glm_4v_9b_has_nothing_to_object_to_once_it_is_set_up() -> None:
    plan = plan_of({**GLM_9B_READY, "max_len": 8192})
    assert plan.verdict == "fits"
    assert not plan.errors
    assert facts_of("zai-org/glm-4v-9b").origin in said(plan, "facts")
