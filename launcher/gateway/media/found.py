"""A picture as it stands in a request's body."""

from __future__ import annotations

from typing import Any

from launcher.gateway.media.costs import PictureCosts
from launcher.gateway.pictures import Size


class Found:
    """One picture. ``holder[key]`` is its string in the decoded body, ``data[start:end]`` its base64."""

    __slots__ = ("costs", "data", "end", "holder", "is_bare", "key", "link", "size", "start")

    def __init__(
        self,
        holder: Any,
        key: Any,
        costs: PictureCosts,
        link: str = "",
        data: bytes = b"",
        start: int = 0,
        end: int = 0,
        size: Size | None = None,
        is_bare: bool = False,
    ) -> None:
        self.holder, self.key, self.costs = holder, key, costs
        self.link = link  # a URL, where the picture is not in the body
        self.data, self.start, self.end = data, start, end
        self.size = size  # None: its first bytes do not tell
        self.is_bare = is_bare  # base64 alone, not a data URL

    @property
    def bytes_in(self) -> int:
        """About its size as a file."""
        return (self.end - self.start) * 3 // 4

    @property
    def needs_work(self) -> bool:
        """Whether it may have to be made smaller: not if its first bytes say that it is within its budget."""
        if self.link or not self.costs.shrinks:
            return False
        fit = self.costs.fit(self.size) if self.size is not None else None
        return fit is None or (fit.width, fit.height) != self.size

    def __repr__(self) -> str:
        return f"<Found {self.link[:40] or self.size} {self.costs!r}>"
