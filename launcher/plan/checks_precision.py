"""What cannot work or will hurt in the checkpoint itself: its class, its precision, its quantisation."""

from __future__ import annotations

from launcher.plan.finding import Case, Finding, Findings
from launcher.plan.known_gpus import Card, find_card
from launcher.plan.model_shape import DTYPE_BYTES
from launcher.plan.weights import ONLINE_BYTES, compute_dtype
from launcher.profile.units import format_gib

IN_CHECKPOINT = ("awq", "awq_marlin", "gptq", "gptq_marlin", "compressed-tensors", "auto-round", "modelopt")


def _card(case: Case) -> Card | None:
    return find_card(case.profile.hardware.gpu) if case.profile.hardware.gpu else None


def check_architecture(case: Case) -> Findings:
    """GLM-4V-9B's config.json names a class that vLLM reads as a text model."""
    config = case.facts.config or {}
    overrides = case.profile.model.hf_overrides.get("architectures")
    if "vision_config" in config and "ChatGLMModel" in (overrides or config.get("architectures") or ()):
        yield Finding(
            "error",
            "chatglm-with-vision",
            "model.hf_overrides",
            "the checkpoint calls itself ChatGLMModel, which vLLM reads as a model without eyes and stops.",
            'Set model.hf_overrides to {architectures: ["GLM4VForCausalLM"]}.',
        )
    if "auto_map" in config and config.get("model_type") == "chatglm" and not case.profile.model.trust_remote_code:
        yield Finding(
            "error",
            "remote-code",
            "model.trust_remote_code",
            "the checkpoint's tokenizer is Python code that comes with it, and running that is not allowed.",
            "Set model.trust_remote_code to true if you trust the model's publisher, and pin model.revision.",
        )


def check_precision(case: Case) -> Findings:
    """One precision from end to end, and one that the card has."""
    asked, stored = case.profile.model.dtype, case.shape.checkpoint_dtype
    card, used = _card(case), compute_dtype(case.profile, case.shape)
    if asked != "auto" and stored in DTYPE_BYTES and asked != stored:
        # bfloat16 on the CPU has rounded the two likeliest words of an answer to a tie; float32 is a sound choice there
        is_meant = case.profile.hardware.device == "cpu" and asked == "float32"
        ratio = DTYPE_BYTES[asked] / DTYPE_BYTES[stored]
        as_stored = case.changed(model={"dtype": stored}).tightest.weights
        effect = {
            0.5: "weights take half and lose precision",
            1.0: "each weight is converted while loading, and values outside its range are lost"
            if asked == "float16"
            else "each weight is converted while loading and loses precision",
            2.0: f"weights take {format_gib(case.tightest.weights)} instead of {format_gib(as_stored)}, and sums keep their precision"
            if is_meant
            else f"weights take {format_gib(case.tightest.weights)} instead of {format_gib(as_stored)}, and gain no precision",
        }[ratio]
        yield Finding(
            "note" if is_meant else "warning",
            "dtype-disagrees",
            "model.dtype",
            f"{asked}, but the checkpoint is {stored}: {effect}.",
            "" if is_meant else f"Set model.dtype to auto or {stored}.",
        )
    if card and used == "bfloat16" and card.capability < (8, 0):
        yield Finding(
            "error",
            "no-bfloat16",
            "model.dtype",
            f"{card.name} (compute capability {card.capability[0]}.{card.capability[1]}) does not compute in bfloat16.",
            "Set model.dtype to float16.",
        )


def check_quantization(case: Case) -> Findings:
    """The quantisation exists: in the checkpoint, in vLLM, on the card."""
    method, card = case.profile.model.quantization, _card(case)
    inside = str((case.shape.quantization or {}).get("quant_method", "")) or None
    key = "model.quantization"
    if method in IN_CHECKPOINT and inside is None and case.profile.model.load_format != "dummy":
        choices = "fp8 or bitsandbytes" if card is None or card.capability >= (8, 0) else "bitsandbytes"
        yield Finding(
            "error",
            "not-quantized",
            key,
            f"{method}, but the checkpoint is not quantised (its config.json has no quantization_config).",
            f"Name a quantised copy of the model, or set {key} to {choices}, which vLLM makes from 16-bit weights.",
        )
    if method in ONLINE_BYTES and inside and inside != method:
        yield Finding(
            "error",
            "quantized-otherwise",
            key,
            f"{method}, but the checkpoint is quantised already, with {inside}.",
            f"Leave {key} out: vLLM reads the method from the checkpoint.",
        )
    if "bitsandbytes" in (method, inside):
        comes_along = method == "bitsandbytes"
        yield Finding(
            "note" if comes_along else "warning",
            "bitsandbytes-plugin",
            key,
            "bitsandbytes left vLLM in 0.28: from there on it is in the package vllm-bnb-plugin"
            + (
                ", which `make up` installs for this profile."
                if comes_along
                else ", which must be installed beside vllm."
            ),
            "" if comes_along else "pip install vllm-bnb-plugin, or use a checkpoint quantised with awq or gptq.",
        )
    if str(method or inside or "").startswith("fp8") and card and not card.has_fp8:
        capability = f"compute capability {card.capability[0]}.{card.capability[1]}"
        hopeless = card.capability < (7, 5)
        yield Finding(
            "error" if hopeless else "warning",
            "no-fp8-arithmetic",
            key,
            f"{card.name} ({capability}) does not multiply fp8 numbers: "
            + (
                "vLLM cannot run them there."
                if hopeless
                else "weights take half the memory, but are widened for each step."
            ),
            f"Set {key} to bitsandbytes." if hopeless else "Keep it for the memory; expect no speed-up.",
        )
    if case.engine.kv_cache_dtype.startswith("fp8") and card and not card.has_fp8:
        yield Finding(
            "warning",
            "no-fp8-cache",
            "engine.kv_cache_dtype",
            f"{card.name} has no fp8 arithmetic; whether an attention backend of vLLM reads an fp8 cache there depends on the version.",
            "Set engine.kv_cache_dtype to auto if the engine stops for want of a backend.",
        )


CHECKS = (check_architecture, check_precision, check_quantization)
