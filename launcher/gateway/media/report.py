"""What the client is told of its pictures and clips: header lines, the field image_info, and the stages of Server-Timing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from launcher.gateway.media.audio import Cut
from launcher.gateway.media.found import Picture
from launcher.gateway.media.jobs import Shrunk
from launcher.gateway.timing import Stage

if TYPE_CHECKING:
    from launcher.gateway.media.intake import Got


class Told(NamedTuple):
    """One picture: as it came, as it goes on, and what it costs in prompt tokens. None: not known."""

    width_in: int | None
    height_in: int | None
    width: int | None
    height: int | None
    tokens: int | None
    is_ours: bool  # a budget or a fetch concerned it

    def word(self) -> bytes:
        """Such as ``1920x1080>672x364=314``; ``?`` where nothing is known."""
        if self.width_in is None or self.tokens is None:
            return b"?"
        changed = ""
        if (self.width, self.height) != (self.width_in, self.height_in):
            changed = f">{self.width}x{self.height}"
        return f"{self.width_in}x{self.height_in}{changed}={self.tokens}".encode()


class Report(NamedTuple):
    """As Exchange.media_told takes it."""

    lines: Sequence[bytes]
    image_info: list[dict[str, Any]]
    stages: Sequence[Stage]


def picture_told(picture: Picture, made: object = None) -> Told:
    """``made``: what became of it, where it was looked at."""
    if isinstance(made, Shrunk):
        return Told(made.width_in, made.height_in, made.width, made.height, made.tokens, True)
    size, costs = picture.size, picture.costs
    is_ours = costs.shrinks or bool(picture.link)
    if size is None:
        return Told(None, None, None, None, None, is_ours)
    return Told(*size, *size, costs.of(size) if costs.is_known else None, is_ours)


def clip_told(made: object) -> bytes:
    """Such as ``12.5s>10.2s=512``; ``?`` for one that passed as it came."""
    if not isinstance(made, Cut):
        return b"?"
    out = f">{made.seconds_out:.2f}s" if made.was_cut or made.silence else ""
    return f"{made.seconds_in:.2f}s{out}={made.tokens}".encode()


def report_of(pictures: Sequence[Told], clips: Sequence[bytes], stages: Sequence[Stage] = ()) -> Report:
    lines = []
    if any(told.is_ours for told in pictures):
        lines.append(b"x-launcher-images: " + b", ".join([told.word() for told in pictures]))
    if any(told != b"?" for told in clips):
        lines.append(b"x-launcher-audio: " + b", ".join(clips))
    info = [dict(zip(told._fields[:5], told[:5], strict=True)) for told in pictures]
    return Report(lines, info, stages)


def stages_of(got: Iterable[Got]) -> list[Stage]:
    """How long each stage took, all pictures and clips together; they run side by side, so this is no time on a clock."""
    sums = dict.fromkeys((b"fetch", b"decode", b"scale", b"encode"), 0.0)
    for one in got:
        sums[b"fetch"] += one.fetch_s
        for name, seconds in one.made.stages if one.made is not None else ():
            sums[name] += seconds
    return [(name, seconds) for name, seconds in sums.items() if seconds]
