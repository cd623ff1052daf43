"""The settings that vLLM will run with: the profile's, and vLLM's own defaults where the profile is silent."""

from __future__ import annotations

from dataclasses import dataclass

from launcher.plan.known_gpus import find_card, visible_bytes
from launcher.plan.model_shape import GLM4V_9B, ModelShape
from launcher.profile.model import Profile, VllmEngine
from launcher.profile.units import GIB

UTILIZATION = 0.92  # vllm/config/cache.py
IMAGES_PER_PROMPT = 999  # vllm/config/multimodal.py


@dataclass(frozen=True)
class Settings:
    """What the arithmetic uses. ``defaults`` names the keys that the profile leaves to vLLM."""

    max_len: int
    max_num_batched_tokens: int
    max_num_seqs: int
    utilization: float
    images_per_prompt: int
    videos_per_prompt: int
    tensor_parallel: int
    pipeline_parallel: int
    chunked_prefill: bool
    has_graphs: bool
    defaults: tuple[str, ...]

    @property
    def sees(self) -> bool:
        """Whether the vision encoder is built at all."""
        return self.images_per_prompt > 0 or self.videos_per_prompt > 0


def _batch_defaults(profile: Profile, ranks: int) -> tuple[int, int]:
    """max_num_batched_tokens and max_num_seqs of an API server (vllm/engine/arg_utils.py, get_batch_defaults)."""
    if profile.hardware.device == "cpu":
        return 2048 * ranks, 128 * ranks
    visible = visible_bytes(profile.hardware) or 0
    card = find_card(profile.hardware.gpu) if profile.hardware.gpu else None
    is_a100 = card is not None and card.name.startswith("A100")
    if visible >= 160 * GIB:
        return 16384, 1024
    if visible >= 70 * GIB and not is_a100:
        return 8192, 1024
    return 2048, 256


def resolve(profile: Profile, shape: ModelShape) -> Settings:
    """Fill what the profile leaves open as vLLM would."""
    engine, model = profile.engine, profile.model
    assert isinstance(engine, VllmEngine)
    ranks = engine.tensor_parallel * engine.pipeline_parallel
    tokens, sequences = _batch_defaults(profile, ranks)
    max_len = model.max_len or shape.longest
    chunked = engine.chunked_prefill is not False
    if engine.max_num_batched_tokens is None and not chunked:
        tokens = max(tokens, max_len)
    batched = engine.max_num_batched_tokens or tokens
    if engine.max_num_seqs is None:
        sequences = min(sequences, batched)
    images = model.images_per_prompt
    if images is None:
        images = 1 if shape.architecture in GLM4V_9B else IMAGES_PER_PROMPT
    given = {
        "model.max_len": model.max_len,
        "engine.max_num_batched_tokens": engine.max_num_batched_tokens,
        "engine.max_num_seqs": engine.max_num_seqs,
        "engine.gpu_memory_utilization": engine.gpu_memory_utilization or engine.kv_cache_memory,
        "model.images_per_prompt": model.images_per_prompt if shape.image else 0,
    }
    return Settings(
        max_len=max_len,
        max_num_batched_tokens=batched,
        max_num_seqs=engine.max_num_seqs or sequences,
        utilization=engine.gpu_memory_utilization or UTILIZATION,
        images_per_prompt=images if shape.vision else 0,
        videos_per_prompt=model.videos_per_prompt if shape.vision and shape.architecture not in GLM4V_9B else 0,
        tensor_parallel=engine.tensor_parallel,
        pipeline_parallel=engine.pipeline_parallel,
        chunked_prefill=chunked,
        has_graphs=engine.compile != "eager" and profile.hardware.device == "cuda",
        defaults=tuple(key for key, value in given.items() if value is None),
    )
