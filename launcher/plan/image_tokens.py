"""How many prompt tokens an image becomes, exactly, for the models that we serve. Standard library only: the gateway
imports this too.

The arithmetic is that of the models' own processors (``smart_resize`` of transformers' glm4v and qwen2_vl); the tests
compare with them, size by size.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

MAX_ASPECT = 200  # both processors refuse longer strips
USUAL_SIZES = ((512, 512), (1024, 576), (1080, 2400), (1280, 720), (1920, 1080), (3840, 2160), (4000, 3000))

Family = Literal["glm4v", "qwen_vl", "fixed"]


@dataclass(frozen=True)
class ImageRule:
    """One model's rule from size to tokens.

    ``min_pixels`` and ``max_pixels`` are the processor's ``size.shortest_edge`` and ``size.longest_edge``. Both are areas;
    for glm4v they count each pixel ``temporal`` times, since an image is a video of that many equal frames.
    """

    family: Family
    patch: int = 14
    merge: int = 2
    temporal: int = 2
    min_pixels: int = 112 * 112
    max_pixels: int = 28 * 28 * 2 * 6144
    fixed_tokens: int = 0
    fixed_size: int = 0

    @property
    def factor(self) -> int:
        """Side, in pixels, of the square that becomes one token."""
        return self.patch * self.merge

    @property
    def frames(self) -> int:
        """How often a pixel counts against the limits."""
        return self.temporal if self.family == "glm4v" else 1

    def resized(self, width: int, height: int) -> tuple[int, int]:
        """Width and height that the vision encoder sees. Raises ValueError for a strip that the processor refuses."""
        if width < 1 or height < 1:
            raise ValueError(f"an image of {width}×{height} pixels has no area")
        if self.family == "fixed":
            return self.fixed_size, self.fixed_size
        return self._smart_resize(width, height)

    def _smart_resize(self, width: int, height: int) -> tuple[int, int]:
        factor, frames, came = self.factor, self.frames, f"{width}×{height}"
        if self.family == "glm4v" and (height < factor or width < factor):
            scale = max(factor / height, factor / width)
            height, width = int(height * scale), int(width * scale)
        if max(height, width) / min(height, width) > MAX_ASPECT:
            raise ValueError(
                f"an image of {came} pixels is refused by the model: its sides differ more than {MAX_ASPECT}-fold"
            )
        # round() to even on .5, as Python's own: the processors use it too
        rows, columns = round(height / factor), round(width / factor)
        if frames * rows * columns * factor * factor > self.max_pixels:
            shrink = math.sqrt(frames * height * width / self.max_pixels)
            rows = max(1, math.floor(height / shrink / factor))
            columns = max(1, math.floor(width / shrink / factor))
        elif frames * rows * columns * factor * factor < self.min_pixels:
            grow = math.sqrt(self.min_pixels / (frames * height * width))
            rows = math.ceil(height * grow / factor)
            columns = math.ceil(width * grow / factor)
        return columns * factor, rows * factor

    def tokens(self, width: int, height: int) -> int:
        """Prompt tokens of an image of this size. Raises ValueError as ``resized`` does."""
        if self.family == "fixed":
            self.resized(width, height)
            return self.fixed_tokens
        seen_width, seen_height = self.resized(width, height)
        return seen_width * seen_height // (self.factor * self.factor)

    @property
    def largest_tokens(self) -> int:
        """Most tokens that any image can become: the largest grid within ``max_pixels`` whose sides agree to 200:1."""
        if self.family == "fixed":
            return self.fixed_tokens
        area = self.max_pixels // (self.frames * self.factor * self.factor)
        first = max(1, math.isqrt(max(0, area // MAX_ASPECT)))
        return max((rows * (area // rows) for rows in range(first, math.isqrt(area) + 1)), default=1)

    @property
    def profiled_tokens(self) -> int:
        """Tokens of the image that vLLM profiles with, a huge square; up to a few per cent fewer than ``largest_tokens``."""
        return self.tokens(9_999_999, 9_999_999)

    @property
    def profiled_patches(self) -> int:
        """Rows of that image in the vision encoder, before neighbouring ones are merged into tokens."""
        if self.family == "fixed":
            return (self.fixed_size // self.patch) ** 2 + 1  # one more for the class embedding
        return self.profiled_tokens * self.merge * self.merge


# architecture → family and the processor's default limits, where preprocessor_config.json is silent (transformers 5.19)
RULES: dict[str, ImageRule] = {
    "Glm4vForConditionalGeneration": ImageRule("glm4v", max_pixels=28 * 28 * 15000),
    "Glm4vMoeForConditionalGeneration": ImageRule("glm4v", max_pixels=28 * 28 * 15000),
    "Qwen2VLForConditionalGeneration": ImageRule("qwen_vl", min_pixels=56 * 56, max_pixels=28 * 28 * 1280),
    "Qwen2_5_VLForConditionalGeneration": ImageRule("qwen_vl", min_pixels=56 * 56, max_pixels=28 * 28 * 1280),
    "Qwen3VLForConditionalGeneration": ImageRule("qwen_vl", patch=16, min_pixels=65536, max_pixels=16777216),
    "Qwen3VLMoeForConditionalGeneration": ImageRule("qwen_vl", patch=16, min_pixels=65536, max_pixels=16777216),
}


BEGIN_AND_END = 2  # tokens around each picture: begin and end of image, vision start and end
# Where the model's arithmetic is not known: one token for 28×28 pixels, up to 4,096, as the Qwen-VL models count.
UNKNOWN_RULE = ImageRule("qwen_vl", min_pixels=56 * 56, max_pixels=28 * 28 * 4096)


def _fixed_rule(vision: Mapping[str, Any]) -> ImageRule:
    # GLM-4V-9B: every image becomes the same square; begin and end of image have embeddings of their own
    side, patch = int(vision["image_size"]), int(vision["patch_size"])
    return ImageRule("fixed", patch=patch, temporal=1, fixed_size=side, fixed_tokens=(side // patch // 2) ** 2 + 2)


def image_rule(
    architecture: str,
    vision: Mapping[str, Any] | None,
    processor: Mapping[str, Any] | None = None,
    longest_edge: int | None = None,
) -> ImageRule | None:
    """The rule for a model, or None when we do not know its arithmetic.

    ``vision`` is config.json's vision_config, ``processor`` preprocessor_config.json, ``longest_edge`` the profile's
    model.image_longest_edge, which wins.
    """
    if architecture == "GLM4VForCausalLM" and vision is not None:
        return _fixed_rule(vision)
    base = RULES.get(architecture)
    if base is None:
        return None
    vision, processor = vision or {}, processor or {}
    size = processor.get("size") or {}
    return ImageRule(
        base.family,
        patch=int(processor.get("patch_size") or vision.get("patch_size") or base.patch),
        merge=int(processor.get("merge_size") or vision.get("spatial_merge_size") or base.merge),
        temporal=int(processor.get("temporal_patch_size") or vision.get("temporal_patch_size") or base.temporal),
        min_pixels=int(size.get("shortest_edge") or processor.get("min_pixels") or base.min_pixels),
        max_pixels=int(longest_edge or size.get("longest_edge") or processor.get("max_pixels") or base.max_pixels),
    )
