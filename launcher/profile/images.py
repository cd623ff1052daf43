"""The profile's section on pictures: what is let in, what a picture is made into, and how it is made smaller."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from launcher.profile.section import Positive, Section
from launcher.profile.units import MIB, Duration, Size

PictureFormat = Literal["jpeg", "png", "webp", "gif", "bmp", "tiff", "avif"]
Detail = Literal["low", "high", "auto"]


class ImageBudget(Section):
    """What a picture may come to: one of the two."""

    max_tokens: Positive | None = Field(
        None, description="Most prompt tokens of one picture; it gets the largest size that stays within."
    )
    long_side: Positive | None = Field(None, description="Most pixels of a picture's longer side.")

    @model_validator(mode="after")
    def _one(self) -> ImageBudget:
        if (self.max_tokens is None) == (self.long_side is None):
            raise ValueError("write one of max_tokens and long_side, such as {max_tokens: 324}")
        return self


Budget = Literal["original"] | ImageBudget


class ImagesSection(Section):
    """Pictures: what is let in, and what they are made into before the engine sees them. Never made larger."""

    budget: Budget = Field(
        "original", description="What a picture may come to: {max_tokens: 324}, {long_side: 512}, or original."
    )
    detail: dict[Detail, Budget] = Field(
        {}, description="Budgets for the 'detail' of an OpenAI image part: low, high, auto. Default: the one above."
    )
    modes: dict[Literal["low-latency", "balanced", "high-throughput"], Budget] = Field(
        {}, description="Budgets for modes, in place of the one above."
    )
    max_count: Positive | None = Field(
        None, description="Most pictures in a request. Default: model.images_per_prompt."
    )
    max_bytes: Size = Field(20 * MIB, description="Largest picture, as it comes (without base64).")
    max_pixels: Positive = Field(50_000_000, description="Most pixels of a picture, as it comes.")
    formats: tuple[PictureFormat, ...] = Field(
        ("jpeg", "png", "webp", "gif", "bmp", "tiff", "avif"),
        description="Formats that are taken; of a GIF the first frame.",
    )
    quality: Annotated[int, Field(ge=30, le=100)] = Field(
        90, description="JPEG quality of a picture that was made smaller."
    )
    workers: Positive | None = Field(None, description="Processes that decode. Default: half the cores, 4 at most.")
    timeout: Duration = Field(10.0, description="Longest time to decode one picture.")
