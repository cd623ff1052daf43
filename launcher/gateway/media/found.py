"""Pictures and clips as they stand in a request's body."""

from __future__ import annotations

from typing import Any

from launcher.gateway.media.costs import PictureCosts
from launcher.gateway.media.sniff import PASSED_ON
from launcher.gateway.pictures import Size

UPLOAD = "upload:"  # how a URL begins that names an upload


class Found:
    """A picture or a clip of sound. ``holder[key]`` is its string in the decoded body, ``data[start:end]`` its base64."""

    __slots__ = ("data", "end", "holder", "is_bare", "key", "link", "start")

    def __init__(self, holder: Any, key: Any, link: str, data: bytes, start: int, end: int, is_bare: bool) -> None:
        self.holder, self.key = holder, key
        self.link = link  # a URL, where the bytes are not in the body
        self.data, self.start, self.end = data, start, end
        self.is_bare = is_bare  # base64 alone, not a data URL

    @property
    def bytes_in(self) -> int:
        """About its size as a file."""
        return (self.end - self.start) * 3 // 4

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.link[:40] or self.bytes_in}>"


class Picture(Found):
    """One picture."""

    __slots__ = ("costs", "kind", "size")

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
        super().__init__(holder, key, link, data, start, end, is_bare)
        self.costs = costs
        self.size = size  # None: its first bytes do not tell
        self.kind = ""  # by its first bytes, once they were looked at: see sniff.kind_of

    @property
    def needs_work(self) -> bool:
        """Whether it has to be got, or may have to be made smaller: not if its first bytes say that it is within its budget."""
        if self.link:
            return True
        if not self.costs.shrinks:
            return False
        if self.kind not in PASSED_ON:
            return True
        fit = self.costs.fit(self.size) if self.size is not None else None
        return fit is None or (fit.width, fit.height) != self.size
