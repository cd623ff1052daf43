"""From config.json to the few numbers that memory and parallelism depend on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from launcher.plan.image_tokens import ImageRule, image_rule
from launcher.plan.sound import takes_sound
from launcher.profile.model import Profile

DTYPE_BYTES = {"bfloat16": 2, "float16": 2, "float32": 4}
LayerKind = Literal["full", "sliding", "latent", "linear"]
AttentionKind = Literal["multi-head", "grouped-query", "multi-query", "latent", "mixed"]

# architectures that vLLM reads with the arithmetic below
GLM4V = ("Glm4vForConditionalGeneration",)
GLM4V_9B = ("GLM4VForCausalLM",)


@dataclass(frozen=True)
class WeightBytes:
    """Bytes of the checkpoint's tensors: all, and per part and safetensors dtype (BF16, F8_E4M3, U8…) where known."""

    total: int
    language: int | None = None
    vision: int | None = None
    by_dtype: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class ModelFacts:
    """What is known of a model before it is loaded; ``origin`` says from where, ``notes`` what could not be read."""

    origin: str
    config: Mapping[str, Any] | None = None
    weights: WeightBytes | None = None
    checkpoint_dtype: str | None = None
    image_processor: Mapping[str, Any] | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class VisionShape:
    """The vision encoder. ``mlp`` and ``merger`` are inner widths; ``gated`` tells two up projections from one."""

    depth: int
    hidden: int
    heads: int
    patch: int
    merge: int
    temporal: int
    mlp: int
    merger: int
    out_hidden: int
    image_size: int
    channels: int = 3
    gated: bool = True
    exact: bool = False  # whether the weight arithmetic is that of the very architecture


@dataclass(frozen=True)
class ModelShape:
    """Everything that the plan's arithmetic needs. Counts are per model, widths in elements, lengths in tokens."""

    architecture: str
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab: int
    ffn: int
    max_positions: int
    layer_kinds: tuple[LayerKind, ...]
    sliding_window: int | None = None
    latent_rank: int = 0
    rope_head_dim: int = 0
    rotary_dim: int = 0
    rope_scaled_positions: int | None = None
    has_mrope: bool = False
    tied_embeddings: bool = False
    qkv_bias: bool = False
    sandwich_norms: bool = False
    experts: int = 0
    experts_per_token: int = 0
    expert_ffn: int = 0
    shared_experts: int = 0
    dense_layers: int = 0
    checkpoint_dtype: str | None = None
    quantization: Mapping[str, Any] | None = None
    vision: VisionShape | None = None
    image: ImageRule | None = None
    has_audio: bool = False  # takes clips of sound
    exact_language: bool = False

    @property
    def attention(self) -> AttentionKind:
        """What kind of attention the KV cache serves."""
        if all(kind == "latent" for kind in self.layer_kinds):
            return "latent"
        if len(set(self.layer_kinds)) > 1:
            return "mixed"
        if self.kv_heads == 1:
            return "multi-query"
        return "multi-head" if self.kv_heads == self.heads else "grouped-query"

    @property
    def longest(self) -> int:
        """Longest sequence that the model takes, with the rope scaling of its config or of hf_overrides."""
        return self.rope_scaled_positions or self.max_positions


class UnknownShape(ValueError):
    """The config lacks what the arithmetic needs; the message says which key."""


def merged_config(config: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """config.json with model.hf_overrides laid over it, nested mappings merged as vLLM does."""
    merged = dict(config)
    for key, value in overrides.items():
        old = merged.get(key)
        merged[key] = merged_config(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return merged


def shape_of(facts: ModelFacts, profile: Profile) -> ModelShape:
    """The shape that vLLM will build. Raises UnknownShape when config.json is missing or lacks a needed key."""
    if facts.config is None:
        raise UnknownShape(f"no config.json is known ({facts.origin})")
    config = merged_config(facts.config, profile.model.hf_overrides)
    architecture = str((config.get("architectures") or [""])[0])
    raw_text = config.get("text_config")
    text: dict[str, Any] = {**config, **raw_text} if isinstance(raw_text, Mapping) else config
    if "num_hidden_layers" not in text and "num_layers" in text:
        text = _chatglm_names(text)
    layers = _need(text, "num_hidden_layers")
    heads = _need(text, "num_attention_heads")
    hidden = _need(text, "hidden_size")
    head_dim = int(text.get("head_dim") or hidden // heads)
    kinds = _layer_kinds(text, layers)
    processor = facts.image_processor
    vision = _vision(config, architecture)
    return ModelShape(
        architecture=architecture,
        layers=layers,
        hidden=hidden,
        heads=heads,
        kv_heads=int(text.get("num_key_value_heads") or heads),
        head_dim=head_dim,
        vocab=_need(text, "vocab_size"),
        ffn=_need(text, "intermediate_size"),
        max_positions=_need(text, "max_position_embeddings"),
        layer_kinds=kinds,
        sliding_window=int(text["sliding_window"]) if "sliding" in kinds else None,
        latent_rank=int(text.get("kv_lora_rank") or 0),
        rope_head_dim=int(text.get("qk_rope_head_dim") or 0),
        rotary_dim=int(
            head_dim * float(_rope(text).get("partial_rotary_factor", text.get("partial_rotary_factor", 1)))
        ),
        rope_scaled_positions=_scaled_positions(text),
        has_mrope="mrope_section" in _rope(text),
        tied_embeddings=bool(config.get("tie_word_embeddings", text.get("tie_word_embeddings", False))),
        qkv_bias=bool(text.get("attention_bias") or text.get("add_qkv_bias")),
        sandwich_norms=architecture in GLM4V,
        experts=int(text.get("n_routed_experts") or text.get("num_experts") or text.get("num_local_experts") or 0),
        experts_per_token=int(text.get("num_experts_per_tok") or 0),
        expert_ffn=int(text.get("moe_intermediate_size") or text["intermediate_size"]),
        shared_experts=int(text.get("n_shared_experts") or 0),
        dense_layers=int(text.get("first_k_dense_replace") or 0),
        checkpoint_dtype=facts.checkpoint_dtype or _dtype(config) or _dtype(text),
        quantization=config.get("quantization_config") or text.get("quantization_config"),
        vision=vision,
        image=image_rule(architecture, config.get("vision_config"), processor, profile.model.image_longest_edge)
        if vision
        else None,
        has_audio=takes_sound(config),
        exact_language=architecture in (*GLM4V, *GLM4V_9B, "LlamaForCausalLM", "Qwen2ForCausalLM"),
    )


def _need(config: Mapping[str, Any], key: str) -> int:
    value = config.get(key)
    if not isinstance(value, int) or value < 1:
        raise UnknownShape(f"config.json has no usable {key}: {value!r}")
    return value


def _dtype(config: Mapping[str, Any]) -> str | None:
    value = config.get("dtype") or config.get("torch_dtype")
    return str(value).removeprefix("torch.") if value else None


def _chatglm_names(config: Mapping[str, Any]) -> dict[str, Any]:
    """ChatGLM's own key names, as the others call them."""
    grouped = config.get("multi_query_attention")
    return {
        **config,
        "num_hidden_layers": config["num_layers"],
        "num_key_value_heads": config.get("multi_query_group_num") if grouped else config.get("num_attention_heads"),
        "head_dim": config.get("kv_channels"),
        "vocab_size": config.get("padded_vocab_size"),
        "intermediate_size": config.get("ffn_hidden_size"),
        "max_position_embeddings": config.get("seq_length"),
        "partial_rotary_factor": 0.5,
    }


def _rope(text: Mapping[str, Any]) -> Mapping[str, Any]:
    rope = text.get("rope_parameters") or text.get("rope_scaling") or {}
    return rope if isinstance(rope, Mapping) else {}


def _scaled_positions(text: Mapping[str, Any]) -> int | None:
    """Positions after rope scaling: vLLM multiplies for linear, dynamic and yarn, from the original length where given."""
    rope = _rope(text)
    kind, factor = rope.get("rope_type") or rope.get("type"), rope.get("factor")
    if kind not in ("linear", "dynamic", "yarn") or not factor:
        return None
    base = rope.get("original_max_position_embeddings") if kind == "yarn" else None
    return int(float(factor) * int(base or text["max_position_embeddings"]))


def _layer_kinds(text: Mapping[str, Any], layers: int) -> tuple[LayerKind, ...]:
    kind: LayerKind = "latent" if text.get("kv_lora_rank") else "full"
    if kind == "latent":
        return (kind,) * layers
    names: dict[str, LayerKind] = {"sliding_attention": "sliding", "linear_attention": "linear"}
    if listed := text.get("layer_types"):
        return tuple(names.get(str(name), "full") for name in listed)
    if text.get("sliding_window") and text.get("use_sliding_window", True):
        kind = "sliding"
    return (kind,) * layers


def _vision(config: Mapping[str, Any], architecture: str) -> VisionShape | None:
    raw = config.get("vision_config")
    if not isinstance(raw, Mapping):
        return None
    if "scaling_factor" in raw or architecture in GLM4V_9B:  # GLM-4V-9B's EVA2-CLIP
        return VisionShape(
            depth=_need(raw, "num_hidden_layers"),
            hidden=_need(raw, "hidden_size"),
            heads=_need(raw, "num_heads"),
            patch=_need(raw, "patch_size"),
            merge=2,
            temporal=1,
            mlp=_need(raw, "intermediate_size"),
            merger=int(config.get("ffn_hidden_size") or config.get("intermediate_size") or 0),
            out_hidden=_need(config, "hidden_size"),
            image_size=_need(raw, "image_size"),
            channels=int(raw.get("in_channels") or 3),
            gated=False,
            exact=True,
        )
    hidden = int(raw.get("embed_dim") or raw.get("hidden_size") or 0)
    heads = int(raw.get("num_heads") or raw.get("num_attention_heads") or 0)
    depth = int(raw.get("depth") or raw.get("num_hidden_layers") or 0)
    if not hidden or not heads or not depth:
        return None
    glm = architecture in GLM4V
    text = config.get("text_config")
    language_hidden = (text if isinstance(text, Mapping) else config).get("hidden_size")
    out_hidden = int(raw.get("out_hidden_size") or language_hidden or hidden)
    inner = int(raw.get("intermediate_size") or hidden * float(raw.get("mlp_ratio") or 4))
    return VisionShape(
        depth=depth,
        hidden=hidden,
        heads=heads,
        patch=int(raw.get("patch_size") or 14),
        merge=int(raw.get("spatial_merge_size") or 1),
        temporal=int(raw.get("temporal_patch_size") or 1),
        mlp=out_hidden if glm else inner,  # vLLM builds GLM-4.xV's blocks with out_hidden_size
        merger=inner,
        out_hidden=out_hidden,
        image_size=int(raw.get("image_size") or 336),
        channels=int(raw.get("in_channels") or raw.get("in_chans") or 3),
        gated=glm,
        exact=glm,
    )
