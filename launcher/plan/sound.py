"""Whether a model takes clips of sound, by its config.json alone: also where the config lacks what a shape needs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# The section that describes the encoder of sound; null or left out where a release of the model has none (Gemma 4, Nemotron).
SECTIONS = ("audio_config", "sound_config")

# What takes sound without such a section in its config.json, or may: the encoder lies under another name (encoder_config,
# audio_encoder_conf, embd_layer…), in the model's own code, or is named by audio_model_id. Read in vLLM's source, 0.24.0
# and 0.32.0: models whose get_supported_mm_limits has `audio`, whatever the config says.
ARCHITECTURES = frozenset(
    {
        "CohereAsrForConditionalGeneration",
        "FireRedASR2ForConditionalGeneration",
        "FunASRForConditionalGeneration",
        "Gemma3nForConditionalGeneration",
        "GraniteSpeechForConditionalGeneration",
        "GraniteSpeechPlusForConditionalGeneration",
        "MiDashengLMModel",
        "MoonshotKimiaForCausalLM",
        "Phi4MMForCausalLM",
        "Qwen2AudioForConditionalGeneration",
        "UltravoxModel",
        "WhisperForConditionalGeneration",
    }
)


def takes_sound(config: Mapping[str, Any]) -> bool:
    """Whether config.json (with model.hf_overrides laid over it) says so.

    A section of the config is enough: a new architecture of vLLM's needs no row in the table. Qwen's Omni and ASR models
    hold it within thinker_config.
    """
    if ARCHITECTURES.intersection(map(str, config.get("architectures") or ())):
        return True
    return any(
        isinstance(part, Mapping) and isinstance(part.get(name), Mapping) and bool(part[name])
        for part in (config, config.get("thinker_config"))
        for name in SECTIONS
    )
