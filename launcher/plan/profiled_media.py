"""What vLLM's profiling run shows to the vision encoder, and what that takes: its largest image, or its longest video.

vLLM takes the kind with the most tokens an item, and of it as many items as its encoder budget holds (vLLM 0.24 to 0.32:
multimodal/encoder_budget.py, v1/worker/gpu_model_runner.py, profile_run).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

from launcher.plan.image_tokens import ImageRule
from launcher.plan.model_shape import ModelShape
from launcher.plan.settings import Settings

# transformers' default for the GLM-4.xV video processors, and a constant in vLLM's glm4_1v.py: an area, over all frames
VIDEO_LONGEST_EDGE = 28 * 28 * 2 * 30000


@dataclass(frozen=True)
class ProfiledMedia:
    """``count`` items of ``tokens`` each. ``budget`` is the encoder's, in tokens of a step: no larger item is served."""

    kind: str
    count: int
    tokens: int
    patches: int
    budget: int


NOTHING = ProfiledMedia("image", 0, 0, 0, 0)


def longest_video_tokens(rule: ImageRule, settings: Settings, longest_edge: int | None = None) -> int:
    """Tokens of the video that vLLM profiles with: its frames at an image's largest size, or the processor's limit.

    ``longest_edge`` is model.image_longest_edge: vLLM hands it to the processors of images and of videos alike.
    """
    each, limit = rule.profiled_tokens, (longest_edge or VIDEO_LONGEST_EDGE) // (2 * rule.factor**2)
    room = settings.max_len - (each if settings.images_per_prompt else 0)
    # two frames of an image's size become one image's tokens; a video has at least one such pair
    return min(limit, max(1, room // each) * each)


def profiled_media(shape: ModelShape, settings: Settings, longest_edge: int | None = None) -> ProfiledMedia:
    """The items that the profiling run encodes; none where the model sees nothing or its rule is not known."""
    rule = shape.image
    if rule is None or not settings.sees:
        return NOTHING
    kind, each, limit = "image", rule.profiled_tokens, settings.images_per_prompt
    if settings.videos_per_prompt and rule.family == "glm4v":
        video = longest_video_tokens(rule, settings, longest_edge)
        if video >= each or not settings.images_per_prompt:
            kind, each, limit = "video", video, settings.videos_per_prompt
    if not limit:
        return NOTHING
    budget = max(settings.max_num_batched_tokens, each)
    in_a_prompt = max(1, min(limit, settings.max_len // each))
    count = max(1, min(budget // each, settings.max_num_seqs * in_a_prompt))
    patches = rule.profiled_patches if kind == "image" else each * rule.merge**2
    return ProfiledMedia(kind, count, each, patches, budget)


def vision_peak(media: ProfiledMedia, shape: ModelShape, settings: Settings, each: int) -> int:
    """Bytes of the vision encoder's pass over those items, ``each`` bytes a number: pixels, in float32 as they come and
    as they are computed with, residual streams and one block's inner layer, or the merger."""
    vision = shape.vision
    if vision is None or not media.count:
        return 0
    rows, tensor = media.count * media.patches, settings.tensor_parallel
    pixels = rows * vision.channels * vision.temporal * vision.patch**2 * (4 + each)
    inner = (3 if vision.gated else 2) * ceil(vision.mlp / tensor)
    attention = 3 * ceil(3 * vision.hidden / tensor)
    blocks = rows * each * (2 * vision.hidden + max(inner, attention))
    merger = media.count * media.tokens * each * (3 * ceil(vision.merger / tensor) + 2 * vision.out_hidden)
    return pixels + max(blocks, merger)
