"""Where one card's memory goes, as vLLM's own profiling run would find it, and what is left for the KV cache.

vLLM (v1/worker/gpu_worker.py): available = visible × utilization − weights − what libraries hold outside torch − the
peak of a profiling run − an estimate for CUDA graphs. The profiling run encodes the largest images (or a video) that fit the
encoder budget, runs the language model on a full batch of tokens, and samples for max_num_seqs requests at once. Its peak is the
largest of the three, since each frees what it used; only the encoder's outputs stay.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import ceil

from launcher.plan.known_gpus import visible_bytes
from launcher.plan.measured import WORKSPACE, graph_bytes, held_before_start, outside_torch
from launcher.plan.model_shape import DTYPE_BYTES, ModelShape, WeightBytes
from launcher.plan.profiled_media import NOTHING, profiled_media, vision_peak
from launcher.plan.settings import Settings
from launcher.plan.weights import compute_dtype, layers_of_stage, weight_bytes
from launcher.profile.model import Profile, VllmEngine
from launcher.profile.units import GIB

BLOCK_TOKENS = {"cuda": 16, "cpu": 128}
CPU_PROCESS = round(1.5 * GIB)  # a vLLM CPU worker and its API server, without weights and KV: an estimate
LOGIT_COPIES = 3  # float32 copies of the logits alive at once in the sampler: logits, probabilities, noise


@dataclass(frozen=True)
class MemoryBudget:
    """One card (or, on device: cpu, one replica's main memory), in bytes. The lines add up to ``requested``."""

    visible: int | None
    requested: int | None
    weights_language: int
    weights_vision: int
    buffers: int
    encoder_cache: int
    activations: int
    vision_extra: int
    sampler_extra: int
    cuda_graphs: int
    outside_torch: int
    kv: int
    stage: int = 0
    held: int = 0  # gone before vLLM looks: beside what it asks for, so not in the sum

    @property
    def weights(self) -> int:
        """All weights, with the rotary tables, as vLLM's 'Model loading took' counts them."""
        return self.weights_language + self.weights_vision

    @property
    def before_kv(self) -> int:
        """Everything but the KV cache."""
        return (
            self.weights
            + self.buffers
            + self.encoder_cache
            + self.activations
            + self.vision_extra
            + self.sampler_extra
            + self.cuda_graphs
            + self.outside_torch
        )

    @property
    def peak(self) -> int:
        """The profiling run's peak above the weights."""
        return self.encoder_cache + self.activations + self.vision_extra + self.sampler_extra


def language_peak(profile: Profile, shape: ModelShape, settings: Settings) -> int:
    """Bytes of the language model's pass over a full batch: gate, up and their product beside two residual streams."""
    tensor = settings.tensor_parallel
    width = 3 * ceil(shape.ffn / tensor)
    if shape.experts:
        # each token visits several experts: their inputs and outputs are laid out one after the other
        expert = ceil(shape.expert_ffn / tensor)
        width = max(width, shape.experts_per_token * (max(2 * expert, shape.hidden) + expert))
    each = DTYPE_BYTES[compute_dtype(profile, shape)]
    return settings.max_num_batched_tokens * each * (width + 2 * shape.hidden)


def sampler_peak(profile: Profile, shape: ModelShape, settings: Settings) -> int:
    """Bytes of sampling for every sequence at once: logits, and their float32 copies."""
    each = DTYPE_BYTES[compute_dtype(profile, shape)]
    sequences = min(settings.max_num_seqs, settings.max_num_batched_tokens)
    hidden = (settings.max_num_batched_tokens + 2 * sequences) * shape.hidden * each
    return sequences * shape.vocab * (each + 4 * LOGIT_COPIES) + hidden


def kv_bytes_per_token(profile: Profile, shape: ModelShape, *, stage: int = 0) -> int:
    """KV-cache bytes of one token on one card of a pipeline stage, over all its layers that keep one."""
    engine = profile.engine
    assert isinstance(engine, VllmEngine)
    layers = layers_of_stage(shape.layers, engine.pipeline_parallel, stage)
    keeping = round(layers * sum(kind != "linear" for kind in shape.layer_kinds) / shape.layers)
    return keeping * kv_bytes_per_layer(profile, shape)


def kv_bytes_per_layer(profile: Profile, shape: ModelShape) -> int:
    """KV-cache bytes of one token in one layer on one card. Heads divide over tensor ranks, but none gets less than one."""
    engine = profile.engine
    assert isinstance(engine, VllmEngine)
    each = 1 if engine.kv_cache_dtype.startswith("fp8") else DTYPE_BYTES[compute_dtype(profile, shape)]
    if engine.kv_cache_dtype == "bfloat16":
        each = 2
    if shape.attention == "latent":
        return (shape.latent_rank + shape.rope_head_dim) * each
    heads = max(1, shape.kv_heads // engine.tensor_parallel)
    return 2 * heads * shape.head_dim * each


def kv_bytes_per_request(profile: Profile, shape: ModelShape, settings: Settings, length: int) -> int:
    """KV-cache bytes of one request of ``length`` tokens on one card; a sliding layer keeps its window and one batch."""
    block = BLOCK_TOKENS[profile.hardware.device]
    each = kv_bytes_per_layer(profile, shape)
    total = 0
    for kind in shape.layer_kinds:
        if kind == "linear":
            continue
        kept = length
        if kind == "sliding" and shape.sliding_window:
            kept = min(length, shape.sliding_window + settings.max_num_batched_tokens)
        total += ceil(kept / block) * block * each
    return ceil(total / settings.pipeline_parallel)


def card_budget(
    profile: Profile, shape: ModelShape, files: WeightBytes | None, settings: Settings, stage: int = 0
) -> MemoryBudget:
    """The budget of one card in a pipeline stage. ``kv`` may come out negative: by so much it does not fit."""
    engine = profile.engine
    assert isinstance(engine, VllmEngine)
    visible = visible_bytes(profile.hardware)
    requested = None if visible is None else ceil(visible * settings.utilization)
    each = DTYPE_BYTES[compute_dtype(profile, shape)]
    media = profiled_media(shape, settings, profile.model.image_longest_edge) if stage == 0 else NOTHING
    outputs = media.count * media.tokens * shape.hidden * each
    language = WORKSPACE + language_peak(profile, shape, settings)
    vision = vision_peak(media, shape, settings, each)
    last = stage == settings.pipeline_parallel - 1
    sampler = sampler_peak(profile, shape, settings) if last else 0
    # the workspace is there whichever is the largest, so it is compared without
    vision_extra = max(0, vision - (language - WORKSPACE) - outputs)
    blocks_of_sequence = ceil(settings.max_len / BLOCK_TOKENS["cuda"])
    buffers = settings.max_num_seqs * blocks_of_sequence * 4
    if shape.image is not None:
        buffers += settings.max_num_batched_tokens * shape.hidden * each
    budget = MemoryBudget(
        visible=visible,
        requested=requested,
        weights_language=weight_bytes(profile, shape, files, "language", stage),
        weights_vision=weight_bytes(profile, shape, files, "vision", stage) if settings.sees else 0,
        buffers=buffers,
        encoder_cache=outputs,
        activations=language,
        vision_extra=vision_extra,
        sampler_extra=max(0, sampler - (language - WORKSPACE) - vision_extra),
        cuda_graphs=graph_bytes(profile, settings, layers_of_stage(shape.layers, settings.pipeline_parallel, stage)),
        outside_torch=outside_torch(profile, settings),
        kv=0,
        stage=stage,
        held=held_before_start(profile, settings),
    )
    return _with_kv(budget, engine, requested)


def _with_kv(budget: MemoryBudget, engine: VllmEngine, requested: int | None) -> MemoryBudget:
    if engine.kv_cache_memory is not None:
        return replace(budget, kv=engine.kv_cache_memory, requested=budget.before_kv + engine.kv_cache_memory)
    if requested is None:
        return budget
    return replace(budget, kv=requested - budget.before_kv)


def cpu_budget(
    profile: Profile, shape: ModelShape, files: WeightBytes | None, settings: Settings, memory: int | None
) -> MemoryBudget:
    """One replica's main memory on device: cpu, on one of its hosts. ``visible`` is its share of that host's ``memory``."""
    engine = profile.engine
    assert isinstance(engine, VllmEngine)
    ranks = settings.tensor_parallel * settings.pipeline_parallel // engine.nodes
    kv = engine.kv_cache_memory or 0
    language = language_peak(profile, shape, settings)
    media = profiled_media(shape, settings, profile.model.image_longest_edge)
    vision = vision_peak(media, shape, settings, DTYPE_BYTES[compute_dtype(profile, shape)])
    sampler = sampler_peak(profile, shape, settings)
    vision_extra = max(0, vision - language)
    budget = MemoryBudget(
        visible=None if memory is None else memory // engine.replicas,
        requested=None,
        weights_language=weight_bytes(profile, shape, files, "language", ranks=engine.nodes),
        weights_vision=weight_bytes(profile, shape, files, "vision", ranks=engine.nodes) if settings.sees else 0,
        buffers=0,
        encoder_cache=0,
        activations=language,
        vision_extra=vision_extra,
        sampler_extra=max(0, sampler - language - vision_extra),
        cuda_graphs=0,
        outside_torch=CPU_PROCESS * ranks,
        kv=kv,
    )
    return replace(budget, requested=budget.before_kv + kv)
