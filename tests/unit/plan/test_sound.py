"""Which models take clips of sound, by configs as they are published (shortened to what tells)."""

from __future__ import annotations

from typing import Any

import pytest

from launcher.plan.model_shape import ModelFacts, merged_config, shape_of
from launcher.plan.plan import make_plan
from launcher.plan.sound import takes_sound
from tests.unit.plan.profiles import facts_of, llama, plan_of, profile_of

ENCODER = {"model_type": "encoder", "num_mel_bins": 128}


def config_of(architecture: str, **sections: Any) -> dict[str, Any]:
    return {"architectures": [architecture], **sections}


HEARING = {
    "Qwen2-Audio": config_of("Qwen2AudioForConditionalGeneration", audio_config=ENCODER),
    "Qwen2.5-Omni": config_of(
        "Qwen2_5OmniModel", thinker_config={"audio_config": ENCODER, "vision_config": {"depth": 1}}
    ),
    "Qwen3-ASR": config_of("Qwen3ASRForConditionalGeneration", thinker_config={"audio_config": ENCODER}),
    "Ultravox, its encoder named only": config_of("UltravoxModel", audio_model_id="openai/whisper-large-v3-turbo"),
    "Whisper": config_of("WhisperForConditionalGeneration", d_model=1280, num_mel_bins=128),
    "Granite Speech": config_of("GraniteSpeechForConditionalGeneration", encoder_config=ENCODER),
    "Phi-4-multimodal": config_of("Phi4MMForCausalLM", embd_layer={"audio_embd_layer": {}}),
    "Gemma 4 with sound": config_of("Gemma4ForConditionalGeneration", audio_config=ENCODER, vision_config={"depth": 1}),
    "Nemotron Omni": config_of("NemotronH_Nano_Omni_Reasoning_V3", sound_config=ENCODER),
    "an architecture that nobody knows yet": config_of("NewForConditionalGeneration", audio_config=ENCODER),
}

DEAF = {
    "a Llama": config_of("LlamaForCausalLM"),
    "Gemma 4 without sound": config_of("Gemma4ForConditionalGeneration", audio_config=None, vision_config={"depth": 1}),
    "an empty section": config_of("NewForConditionalGeneration", audio_config={}),
    "Nemotron without sound": config_of("NemotronH_Nano_VL_V2", vision_config={"depth": 1}),
    "an encoder of something else": config_of("DeepseekOCR2ForCausalLM", encoder_config=ENCODER),
    "no architecture": {"architectures": None, "thinker_config": None},
}


@pytest.mark.parametrize("config", HEARING.values(), ids=HEARING)
def test_models_that_take_sound(config: dict[str, Any]) -> None:
    assert takes_sound(config)


@pytest.mark.parametrize("config", DEAF.values(), ids=DEAF)
def test_models_that_take_none(config: dict[str, Any]) -> None:
    assert not takes_sound(config)


def test_none_of_the_shipped_models_takes_sound() -> None:
    assert not shape_of(facts_of(), profile_of()).has_audio
    assert not plan_of().has_audio


def test_the_shape_and_the_plan_say_so() -> None:
    facts = llama(architectures=["GlmAsrForConditionalGeneration"], audio_config=ENCODER)
    assert shape_of(facts, profile_of()).has_audio
    assert plan_of(facts=facts).has_audio


def test_overrides_count() -> None:
    off = profile_of({"hf_overrides": {"audio_config": None}})
    facts = llama(architectures=["GlmAsrForConditionalGeneration"], audio_config=ENCODER)
    assert not shape_of(facts, off).has_audio
    assert not takes_sound(merged_config(HEARING["Gemma 4 with sound"], {"audio_config": None}))


@pytest.mark.parametrize("name", ["Qwen2.5-Omni", "Whisper"])
def test_the_plan_knows_where_the_shape_is_not_known(name: str) -> None:
    plan = make_plan(profile_of(), ModelFacts("a test", HEARING[name]))
    assert plan.shape is None
    assert plan.has_audio
    assert not make_plan(profile_of(), ModelFacts("a test", DEAF["a Llama"])).has_audio
    assert not make_plan(profile_of(), None).has_audio
