"""Bytes of the weights on each card, from the model's shape: exactly for the architectures that we ship, else by family.

Where the checkpoint's files are known, their bytes are the truth and the shape only says how they divide over cards.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import Literal

from launcher.plan.model_shape import DTYPE_BYTES, ModelShape, VisionShape, WeightBytes
from launcher.profile.model import Profile, VllmEngine

Part = Literal["language", "vision"]
Stage = Literal["layers", "first", "last"]

# Bytes for a weight that vLLM quantises while loading 16-bit files. fp8: one byte, a scale a tensor or channel.
# bitsandbytes: nf4, half a byte, and a 4-byte scale for every 64 weights.
ONLINE_BYTES = {
    "fp8": 1.0,
    "fp8_per_tensor": 1.0,
    "fp8_per_channel": 1.0,
    "fp8_per_block": 1.0 + 4 / (128 * 128),
    "int8_per_channel_weight_only": 1.0,
    "bitsandbytes": 0.5 + 4 / 64,
}


@dataclass(frozen=True)
class Tensors:
    """Like tensors together. ``split`` is over how many tensor-parallel ranks they divide at most (1: each has all)."""

    part: Part
    stage: Stage
    elements: int
    split: int
    linear: bool  # a matrix of a linear layer: what quantisation applies to


def _language(shape: ModelShape) -> list[Tensors]:
    hidden, width = shape.hidden, shape.heads * shape.head_dim
    kv_width = shape.kv_heads * shape.head_dim
    many = 1 << 20
    dense = shape.dense_layers if shape.experts else shape.layers
    sparse = shape.layers - dense if shape.experts else 0
    tensors = [
        Tensors("language", "layers", dense * 3 * hidden * shape.ffn, many, True),
        Tensors("language", "layers", shape.layers * (4 if shape.sandwich_norms else 2) * hidden, 1, False),
        Tensors("language", "first", shape.vocab * hidden, many, False),
        Tensors("language", "last", hidden, 1, False),
    ]
    if shape.attention == "latent":
        rank, rope = shape.latent_rank, shape.rope_head_dim
        tensors += [
            Tensors("language", "layers", shape.layers * (2 * hidden * width + width * rank), shape.heads, True),
            Tensors("language", "layers", shape.layers * hidden * (rank + rope), 1, True),
        ]
    else:
        tensors += [
            Tensors("language", "layers", shape.layers * 2 * hidden * width, shape.heads, True),
            Tensors("language", "layers", shape.layers * 2 * hidden * kv_width, shape.kv_heads, True),
        ]
        if shape.qkv_bias:
            tensors += [
                Tensors("language", "layers", shape.layers * width, shape.heads, False),
                Tensors("language", "layers", shape.layers * 2 * kv_width, shape.kv_heads, False),
            ]
    if sparse:
        experts = shape.experts + shape.shared_experts
        tensors.append(Tensors("language", "layers", sparse * experts * 3 * hidden * shape.expert_ffn, many, True))
        tensors.append(Tensors("language", "layers", sparse * shape.experts * hidden, 1, False))
    if not shape.tied_embeddings:
        tensors.append(Tensors("language", "last", shape.vocab * hidden, many, False))
    return tensors


def _vision(vision: VisionShape) -> list[Tensors]:
    hidden, out, many = vision.hidden, vision.out_hidden, 1 << 20
    attention = vision.depth * 4 * hidden * hidden
    mlp = vision.depth * (3 if vision.gated else 2) * hidden * vision.mlp
    patches = hidden * vision.channels * vision.temporal * vision.patch**2 + hidden
    positions = (vision.image_size // vision.patch) ** 2
    merge = out * hidden * vision.merge**2 + out
    merger = 3 * out * vision.merger
    if vision.gated:  # GLM-4.xV: no biases, RMS norms, a projection before the merger
        small = vision.depth * 2 * hidden + 2 * hidden + positions * hidden + patches + merge + 2 * out
        return [
            Tensors("vision", "first", attention, vision.heads, True),
            Tensors("vision", "first", mlp + merger + out * out, many, True),
            Tensors("vision", "first", small, 1, False),
        ]
    # GLM-4V-9B's EVA2-CLIP: biases, layer norms, a class embedding, marks for begin and end of image
    biases = vision.depth * (4 * hidden + vision.mlp + hidden)
    norms = vision.depth * 4 * hidden
    small = biases + norms + (positions + 2) * hidden + patches + merge + 4 * out
    return [
        Tensors("vision", "first", attention, vision.heads, True),
        Tensors("vision", "first", mlp + merger, many, True),
        Tensors("vision", "first", out * out, 1, True),
        Tensors("vision", "first", small, 1, False),
    ]


def tensors_of(shape: ModelShape) -> list[Tensors]:
    """The model's weights, likes together."""
    return _language(shape) + (_vision(shape.vision) if shape.vision else [])


def parameters(shape: ModelShape, part: Part | None = None) -> int:
    """Number of weights, of one part or of all."""
    return sum(tensors.elements for tensors in tensors_of(shape) if part in (None, tensors.part))


def compute_dtype(profile: Profile, shape: ModelShape) -> str:
    """The precision that vLLM computes in: model.dtype, else the checkpoint's (float32 becomes bfloat16 on auto)."""
    if profile.model.dtype != "auto":
        return profile.model.dtype
    known = shape.checkpoint_dtype if shape.checkpoint_dtype in DTYPE_BYTES else "bfloat16"
    return "bfloat16" if known == "float32" and profile.hardware.device == "cuda" else known or "bfloat16"


def rotary_bytes(shape: ModelShape) -> int:
    """The table of rotary angles, which vLLM counts with the weights: float32, four times as long with m-rope."""
    positions = shape.longest * (4 if shape.has_mrope else 1)
    bytes_each = 4 if shape.has_mrope else 2
    return positions * shape.rotary_dim * bytes_each


def _bytes_each(tensors: Tensors, profile: Profile, shape: ModelShape) -> float:
    dense = DTYPE_BYTES[compute_dtype(profile, shape)]
    online = ONLINE_BYTES.get(profile.model.quantization or "")
    if online is not None and tensors.linear and not shape.quantization:
        return online
    if shape.quantization and tensors.linear:
        return _checkpoint_bytes_each(shape)
    return dense


def _checkpoint_bytes_each(shape: ModelShape) -> float:
    """Bytes of a quantised weight in the checkpoint, from its quantization_config; scales and zero points by the group."""
    config = shape.quantization or {}
    method = str(config.get("quant_method", ""))
    if method == "fp8":
        return 1.0
    bits, group = config.get("bits") or config.get("w_bit"), config.get("group_size") or config.get("q_group_size")
    groups = config.get("config_groups")
    if isinstance(groups, dict) and groups:
        weights = next(iter(groups.values())).get("weights") or {}
        bits, group = weights.get("num_bits", 8), weights.get("group_size")
    if method == "bitsandbytes":
        return 1.0 if config.get("load_in_8bit") else ONLINE_BYTES["bitsandbytes"]
    bits = int(bits or 16)
    scales = (2 + bits / 8) / int(group) if group and int(group) > 0 else 0.0
    return bits / 8 + scales


def weight_bytes(
    profile: Profile,
    shape: ModelShape,
    files: WeightBytes | None,
    part: Part,
    stage: int = 0,
    *,
    ranks: int | None = None,
) -> int:
    """Bytes of one part of the weights on one card of pipeline stage ``stage``; ``ranks`` overrides tensor_parallel."""
    engine = profile.engine
    assert isinstance(engine, VllmEngine)
    tensor, pipeline = ranks or engine.tensor_parallel, engine.pipeline_parallel
    total = 0.0
    for tensors in tensors_of(shape):
        if tensors.part != part or not _on_stage(tensors, stage, pipeline, shape.tied_embeddings):
            continue
        elements = ceil(tensors.elements / min(tensor, tensors.split))
        if tensors.stage == "layers":
            elements = ceil(elements * layers_of_stage(shape.layers, pipeline, stage) / shape.layers)
        total += elements * _bytes_each(tensors, profile, shape)
    extra = rotary_bytes(shape) if part == "language" else 0
    return round(total * _file_factor(profile, shape, files, part)) + extra


def layers_of_stage(layers: int, stages: int, stage: int) -> int:
    """How many layers a pipeline stage holds; vLLM gives the odd ones to the last stages but one."""
    return layers // stages + (1 if stages - 1 - layers % stages <= stage < stages - 1 else 0)


def _on_stage(tensors: Tensors, stage: int, stages: int, tied: bool) -> bool:
    if tensors.stage == "layers" or stages == 1:
        return True
    if tied and tensors.part == "language" and not tensors.linear and tensors.stage == "first":
        return stage in (0, stages - 1)
    return stage == (0 if tensors.stage == "first" else stages - 1)


def _file_factor(profile: Profile, shape: ModelShape, files: WeightBytes | None, part: Part) -> float:
    """How much the files' bytes differ from the arithmetic's, at the checkpoint's own precision; 1 where none are known."""
    if files is None:
        return 1.0
    known = files.language if part == "language" else files.vision
    stored = DTYPE_BYTES.get(shape.checkpoint_dtype or "", 2)
    each = _checkpoint_bytes_each(shape) if shape.quantization else float(stored)
    counted = [t for t in tensors_of(shape) if known is None or t.part == part]
    arithmetic = sum(t.elements * (each if t.linear else stored) for t in counted)
    measured = files.total if known is None else known
    return measured / arithmetic if arithmetic else 1.0
