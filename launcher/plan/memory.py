"""Where one card's memory goes, as vLLM's own profiling run would find it, and what is left for the KV cache.

vLLM (v1/worker/gpu_worker.py): available = visible × utilization − weights − what libraries hold outside torch − the
peak of a profiling run − an estimate for CUDA graphs. The profiling run encodes the largest images that fit the encoder
budget, runs the language model on a full batch of tokens, and samples for max_num_seqs requests at once. Its peak is the
largest of the three, since each frees what it used; only the encoder's outputs stay.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import ceil

from launcher.plan.known_gpus import find_card, visible_bytes
from launcher.plan.model_shape import DTYPE_BYTES, ModelShape, WeightBytes
from launcher.plan.settings import Settings
from launcher.plan.weights import compute_dtype, layers_of_stage, weight_bytes
from launcher.profile.model import Profile, VllmEngine
from launcher.profile.units import GIB, MIB

# Calibrated on three starts on one H200 (vLLM 0.24, GLM-4.xV-9B, bf16; see tests/unit/plan/test_real_starts.py).
OUTSIDE_TORCH = 378 * MIB  # CUDA libraries' kernels and work areas, one card
GRAPH_POOL = 21 * MIB  # first capture of one kind of graph: piecewise, full
GRAPH_EACH = 5 * MIB / 40  # each further graph, a layer
# NCCL's buffers with tensor parallelism. Data-centre cards: llm-d-planner's fit over H100 starts (2.10 GiB in all);
# cards without peer-to-peer take the plain ring only. Estimates: no start of ours has measured them yet.
NCCL_DATA_CENTER = round(1.7 * GIB)
NCCL_PLAIN = round(0.55 * GIB)
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


def graph_count(settings: Settings) -> int:
    """CUDA graphs that vLLM captures: piecewise for every size, full for those that a pure decode batch can have."""
    largest = min(2 * settings.max_num_seqs, 512, settings.max_num_batched_tokens)
    sizes = [n for n in (1, 2, 4, *range(8, 256, 8), *range(256, largest + 1, 16)) if n <= largest]
    return len(sizes) + sum(1 for size in sizes if size <= settings.max_num_seqs)


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


def profiled_images(shape: ModelShape, settings: Settings) -> int:
    """Largest images that the profiling run encodes at once: as many as the encoder budget holds, at least one."""
    if shape.image is None or settings.images_per_prompt == 0:
        return 0
    each = shape.image.profiled_tokens
    budget = max(settings.max_num_batched_tokens, each)
    in_a_prompt = max(1, min(settings.images_per_prompt, settings.max_len // each))
    return max(1, min(budget // each, settings.max_num_seqs * in_a_prompt))


def vision_peak(profile: Profile, shape: ModelShape, settings: Settings) -> int:
    """Bytes of the vision encoder's pass over those images: pixels, residual streams and one block's inner layer."""
    vision, images = shape.vision, profiled_images(shape, settings)
    if vision is None or shape.image is None or not images:
        return 0
    rows, tensor = images * shape.image.profiled_patches, settings.tensor_parallel
    each = DTYPE_BYTES[compute_dtype(profile, shape)]
    pixels = rows * vision.channels * vision.temporal * vision.patch**2 * 4
    inner = (3 if vision.gated else 2) * ceil(vision.mlp / tensor)
    attention = 3 * ceil(3 * vision.hidden / tensor)
    blocks = rows * each * (2 * vision.hidden + max(inner, attention))
    tokens = images * shape.image.profiled_tokens
    merger = tokens * each * (3 * ceil(vision.merger / tensor) + 2 * vision.out_hidden)
    return pixels + max(blocks, merger)


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


def _outside_torch(profile: Profile, settings: Settings) -> int:
    if settings.tensor_parallel == 1 and settings.pipeline_parallel == 1:
        return OUTSIDE_TORCH
    card = find_card(profile.hardware.gpu) if profile.hardware.gpu else None
    return OUTSIDE_TORCH + (NCCL_DATA_CENTER if card and card.data_center else NCCL_PLAIN)


def card_budget(
    profile: Profile, shape: ModelShape, files: WeightBytes | None, settings: Settings, stage: int = 0
) -> MemoryBudget:
    """The budget of one card in a pipeline stage. ``kv`` may come out negative: by so much it does not fit."""
    engine = profile.engine
    assert isinstance(engine, VllmEngine)
    visible = visible_bytes(profile.hardware)
    requested = None if visible is None else ceil(visible * settings.utilization)
    each = DTYPE_BYTES[compute_dtype(profile, shape)]
    images = profiled_images(shape, settings)
    outputs = images * (shape.image.profiled_tokens if shape.image else 0) * shape.hidden * each if stage == 0 else 0
    language = language_peak(profile, shape, settings)
    vision = vision_peak(profile, shape, settings) if stage == 0 else 0
    last = stage == settings.pipeline_parallel - 1
    sampler = sampler_peak(profile, shape, settings) if last else 0
    vision_extra = max(0, vision - language - outputs)
    graphs = 0.0
    if settings.has_graphs:
        graphs = 2 * GRAPH_POOL + graph_count(settings) * GRAPH_EACH * shape.layers / settings.pipeline_parallel
    blocks_of_sequence = ceil(settings.max_len / BLOCK_TOKENS["cuda"])
    buffers = settings.max_num_seqs * blocks_of_sequence * 4
    if shape.image is not None:
        buffers += settings.max_num_batched_tokens * shape.hidden * each
    budget = MemoryBudget(
        visible=visible,
        requested=requested,
        weights_language=weight_bytes(profile, shape, files, "language", stage),
        weights_vision=weight_bytes(profile, shape, files, "vision", stage) if settings.images_per_prompt else 0,
        buffers=buffers,
        encoder_cache=outputs,
        activations=language,
        vision_extra=vision_extra,
        sampler_extra=max(0, sampler - language - vision_extra),
        cuda_graphs=round(graphs),
        outside_torch=_outside_torch(profile, settings),
        kv=0,
        stage=stage,
    )
    return _with_kv(budget, engine, requested)


def _with_kv(budget: MemoryBudget, engine: VllmEngine, requested: int | None) -> MemoryBudget:

    if engine.kv_cache_memory is not None:
        return replace(budget, kv=engine.kv_cache_memory, requested=budget.before_kv + engine.kv_cache_memory)
    if requested is None:
        return budget
    return replace(budget, kv=requested - budget.before_kv)


def cpu_budget(profile: Profile, shape: ModelShape, files: WeightBytes | None, settings: Settings) -> MemoryBudget:
    """One replica's main memory on device: cpu. ``visible`` is the share of hardware.memory that one replica has."""
    engine = profile.engine
    assert isinstance(engine, VllmEngine)
    ranks = settings.tensor_parallel * settings.pipeline_parallel
    memory = profile.hardware.memory
    kv = engine.kv_cache_memory or 0
    language = language_peak(profile, shape, settings)
    vision = vision_peak(profile, shape, settings)
    sampler = sampler_peak(profile, shape, settings)
    vision_extra = max(0, vision - language)
    budget = MemoryBudget(
        visible=None if memory is None else memory // engine.replicas,
        requested=None,
        weights_language=weight_bytes(profile, shape, files, "language", ranks=1),
        weights_vision=weight_bytes(profile, shape, files, "vision", ranks=1) if settings.images_per_prompt else 0,
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
