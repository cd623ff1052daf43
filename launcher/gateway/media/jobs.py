"""What goes to a worker with a picture, and what comes back. Known to both sides; imports no decoder.

Answers come from a process that reads hostile files, so they are msgpack, checked against these types: never pickle.
"""

from __future__ import annotations

import msgspec

from launcher.gateway.refusal import Refusal, Refused
from launcher.gateway.timing import Stage
from launcher.plan.image_budget import Budget
from launcher.plan.image_tokens import ImageRule


class Job(msgspec.Struct, frozen=True):
    """What is to be done with a picture."""

    budget: Budget = Budget()
    rule: ImageRule | None = None  # None: a model whose arithmetic is not known
    formats: tuple[str, ...] = ("jpeg", "png", "webp", "gif", "bmp", "tiff", "avif")  # keys of sniff.MEDIA_TYPES
    max_pixels: int = 50_000_000  # of the picture as it comes
    quality: int = 90  # of a JPEG that is made
    is_base64: bool = False  # the bytes are base64 text, which the worker is to decode


class Shrunk(msgspec.Struct, frozen=True, tag="shrunk"):
    """A picture that can go to the engine. Sizes in pixels, as it is to be seen (upright); times in seconds."""

    data: bytes  # empty: the bytes that came are to be used
    kind: str  # what came: a key of sniff.MEDIA_TYPES
    mime: str  # what is to go on
    width_in: int
    height_in: int
    width: int
    height: int
    tokens: int  # with the marks of begin and end, as PictureCosts counts
    decode_s: float = 0.0
    scale_s: float = 0.0  # with rotation and colours
    encode_s: float = 0.0

    @property
    def is_untouched(self) -> bool:
        """Whether the bytes that came can go on as they are."""
        return not self.data

    @property
    def stages(self) -> tuple[Stage, ...]:
        """What took how long, in seconds."""
        return (b"decode", self.decode_s), (b"scale", self.scale_s), (b"encode", self.encode_s)


class BadPicture(msgspec.Struct, frozen=True, tag="bad"):
    """A picture that cannot be used: a word for programs and a sentence for people."""

    reason: str
    message: str
    status: int = 400

    def refused(self, param: str | None = None) -> Refused:
        """As the gateway tells it; ``param`` says which part of the request it was."""
        return Refused(Refusal(self.status, self.reason, self.message, param))


class Bug(msgspec.Struct, frozen=True, tag="bug"):
    """A worker's own failure, for the log."""

    traceback: str
