"""What cannot work or will hurt for reasons of shape: cards, parallelism, lengths, images."""

from __future__ import annotations

import itertools

from launcher.plan.finding import Case, Finding, Findings
from launcher.plan.image_budget import budgets_of, fault_of
from launcher.plan.model_shape import GLM4V_9B
from launcher.plan.placement import gpus_needed, why_not_placed
from launcher.plan.profiled_media import profiled_media

LONG_PROMPT_STEPS = 8


def _divisors(*numbers: int) -> list[int]:
    return [n for n in range(1, min(numbers) + 1) if all(number % n == 0 for number in numbers)]


def _either(choices: list[int]) -> str:
    return " or ".join([", ".join(map(str, choices[:-1])), str(choices[-1])] if len(choices) > 1 else [str(choices[0])])


def check_cards(case: Case) -> Findings:
    """Enough cards for replicas × tensor × pipeline parallel."""
    if sentence := why_not_placed(case.profile):
        lower = "raise engine.nodes" if case.engine.nodes > 1 else "lower engine.replicas"
        remedy = f"Set hardware.gpus to {gpus_needed(case.profile)} if the machine has them, or {lower}."
        yield Finding("error", "too-few-gpus", "hardware.gpus", f"{sentence}.", remedy)


def check_parallel(case: Case) -> Findings:
    """Tensor parallelism divides the heads of the language model and of the vision encoder."""
    tensor, shape = case.settings.tensor_parallel, case.shape
    sees = shape.vision is not None and case.settings.sees
    data_parallel = has_argument(case, "--mm-encoder-tp-mode", "data")
    vision_heads = shape.vision.heads if shape.vision and sees and not data_parallel else shape.heads
    key = "engine.tensor_parallel"
    remedy = f"Set {key} to {_either(_divisors(shape.heads, vision_heads))}."
    if shape.heads % tensor:
        yield Finding(
            "error",
            "heads-not-divided",
            key,
            f"{tensor} does not divide the model's {shape.heads} attention heads.",
            remedy,
        )
    elif shape.attention != "latent" and shape.kv_heads % tensor and tensor % shape.kv_heads:
        yield Finding(
            "error",
            "kv-heads-not-divided",
            key,
            f"{tensor} neither divides the model's {shape.kv_heads} KV heads nor is a multiple of them.",
            f"Set {key} to {_either(_divisors(shape.kv_heads))}.",
        )
    elif shape.attention != "latent" and tensor > shape.kv_heads:
        yield Finding(
            "warning",
            "kv-heads-replicated",
            key,
            f"{tensor} cards share {shape.kv_heads} KV heads: each head's cache is kept {tensor // shape.kv_heads} times, so more "
            f"cards hold no more tokens than {shape.kv_heads} do.",
            f"Set {key} to {shape.kv_heads} and engine.replicas to {case.engine.replicas * tensor // shape.kv_heads}.",
        )
    if vision_heads % tensor:
        yield Finding(
            "error",
            "vision-heads-not-divided",
            key,
            f"{tensor} does not divide the vision encoder's {vision_heads} heads.",
            f"{remedy} Or keep it and put --mm-encoder-tp-mode=data into engine.extra_args, if the model supports it.",
        )
    if case.engine.pipeline_parallel > shape.layers:
        yield Finding(
            "error",
            "more-stages-than-layers",
            "engine.pipeline_parallel",
            f"{case.engine.pipeline_parallel} stages for a model of {shape.layers} layers.",
            f"Set engine.pipeline_parallel to {shape.layers} or fewer.",
        )


def check_lengths(case: Case) -> Findings:
    """Lengths and batch budgets agree with the model and with each other."""
    settings, shape = case.settings, case.shape
    if settings.max_len > shape.longest:
        yield Finding(
            "error",
            "max-len-above-model",
            "model.max_len",
            f"{settings.max_len} tokens, but the model was made for {shape.longest}.",
            f"Set model.max_len to {shape.longest} or fewer, or extend the positions in model.hf_overrides (rope_parameters).",
        )
    batched = settings.max_num_batched_tokens
    if batched < settings.max_num_seqs:
        yield Finding(
            "error",
            "batch-below-seqs",
            "engine.max_num_batched_tokens",
            f"{batched} tokens a step for engine.max_num_seqs {settings.max_num_seqs}: vLLM wants a token for each sequence.",
            f"Set engine.max_num_seqs to {batched}, or engine.max_num_batched_tokens to {settings.max_num_seqs} or more.",
        )
    if not settings.chunked_prefill and batched < settings.max_len:
        yield Finding(
            "error",
            "batch-below-max-len",
            "engine.max_num_batched_tokens",
            f"{batched} tokens a step, but without chunked prefill a prompt of model.max_len {settings.max_len} must fit one step.",
            f"Set engine.max_num_batched_tokens to {settings.max_len}, or engine.chunked_prefill to true.",
        )
    elif settings.max_len > LONG_PROMPT_STEPS * batched:
        steps = -(-settings.max_len // batched)
        yield Finding(
            "warning",
            "many-steps-a-prompt",
            "engine.max_num_batched_tokens",
            f"a prompt of model.max_len {settings.max_len} takes {steps} steps of {batched} tokens, each with the whole batch's delay.",
            f"Raise engine.max_num_batched_tokens to {-(-settings.max_len // LONG_PROMPT_STEPS)}, or lower model.max_len.",
        )


def check_images(case: Case) -> Findings:
    """Every image that the model may meet fits the encoder's budget and the length."""
    rule, settings = case.shape.image, case.settings
    if rule is None or settings.images_per_prompt == 0:
        return
    profiled, largest, batched = rule.profiled_tokens, rule.largest_tokens, settings.max_num_batched_tokens
    cache = max(batched, profiled, profiled_media(case.shape, settings, case.profile.model.image_longest_edge).budget)
    edge = min(batched, settings.max_len) * rule.factor**2 * rule.frames
    smaller = f"set model.image_longest_edge to {edge} so that images are scaled down to {edge // rule.factor**2 // rule.frames} tokens"
    if has_argument(case, "--disable-chunked-mm-input") and profiled > batched:
        yield Finding(
            "error",
            "image-above-batch",
            "engine.max_num_batched_tokens",
            f"an image has up to {profiled} tokens and must fit one step of {batched}, since engine.extra_args has --disable-chunked-mm-input.",
            f"Set engine.max_num_batched_tokens to {profiled}, or {smaller}.",
        )
    if rule.family == "fixed" and largest > settings.max_len:
        yield Finding(
            "error",
            "image-above-max-len",
            "model.max_len",
            f"every image has {largest} tokens, more than model.max_len {settings.max_len}: no image could be served.",
            f"Set model.max_len to {largest + 512} or more, or model.images_per_prompt to 0.",
        )
    elif largest > settings.max_len:
        yield Finding(
            "warning",
            "large-images-refused",
            "model.max_len",
            f"an image has up to {largest} tokens, more than model.max_len {settings.max_len}: vLLM refuses such requests.",
            f"Raise model.max_len, or {smaller}.",
        )
    elif largest > cache:
        yield Finding(
            "warning",
            "image-above-encoder-cache",
            "engine.max_num_batched_tokens",
            f"vLLM sizes its encoder cache for a square image, {cache} tokens, but some images have up to {largest} "
            "(a 2:3 one of the largest area): it refuses them.",
            f"Set engine.max_num_batched_tokens to {largest}, or {smaller}.",
        )
    if case.shape.architecture in GLM4V_9B and settings.images_per_prompt > 1:
        yield Finding(
            "warning",
            "one-image-a-prompt",
            "model.images_per_prompt",
            f"{settings.images_per_prompt}, but vLLM's GLM-4V-9B takes one image a prompt and refuses more.",
            "Set model.images_per_prompt to 1.",
        )


def check_image_budgets(case: Case) -> Findings:
    """What the gateway brings pictures down to can be kept."""
    if case.shape.image is None:
        return
    for key, budget in budgets_of(case.profile.gateway.images).items():
        if (fault := fault_of(budget, case.shape.image)) is not None:
            yield Finding("error", "image-budget-too-small", f"gateway.images.{key}", f"{fault[0]}.", fault[1])


def has_argument(case: Case, flag: str, value: str | None = None) -> bool:
    """Whether engine.extra_args has the flag, with this value if one is named, as --flag=value or as two items."""
    arguments = case.engine.extra_args
    if value is None:
        return any(argument.split("=")[0] == flag for argument in arguments)
    pairs = itertools.pairwise((*arguments, ""))
    return any(argument == f"{flag}={value}" or (argument, after) == (flag, value) for argument, after in pairs)


CHECKS = (check_cards, check_parallel, check_lengths, check_images, check_image_budgets)
