"""Takes training residue out of text, whole or as it streams; both give the same text."""

from __future__ import annotations

import re
from functools import lru_cache


@lru_cache(maxsize=16)
def _pattern(residues: tuple[str, ...]) -> re.Pattern[str]:
    """Any of the strings, the longest first where several begin alike."""
    return re.compile("|".join(re.escape(text) for text in sorted(residues, key=len, reverse=True)))


def strip_residue(text: str, residues: tuple[str, ...]) -> str:
    """``text`` without the residues: the leftmost first, the longest of those; what that joins is not searched again."""
    return _pattern(residues).sub("", text)


class ResidueFilter:
    """Strips residues from text that comes in pieces. Holds back only an end that may be the beginning of one."""

    __slots__ = ("_held", "_residues")

    def __init__(self, residues: tuple[str, ...]) -> None:
        self._residues = residues
        self._held = ""

    def feed(self, text: str) -> str:
        """What may be passed on now."""
        text = self._held + text
        search, kept, start = _pattern(self._residues).search, [], 0
        while True:
            doubtful = self._doubtful(text, start)
            found = search(text, start)
            # A match that ends where a longer or an earlier one may still come has to wait.
            if found is None or found.start() >= doubtful:
                break
            kept.append(text[start : found.start()])
            start = found.end()
        kept.append(text[start:doubtful])
        self._held = text[doubtful:]
        return "".join(kept)

    def end(self) -> str:
        """What was held back: there is no more."""
        held, self._held = self._held, ""
        return strip_residue(held, self._residues)

    def _doubtful(self, text: str, start: int) -> int:
        """The first place from which the rest of ``text`` is a true beginning of a residue; else its length."""
        longest = max(map(len, self._residues))
        for position in range(max(start, len(text) - longest + 1), len(text)):
            rest = text[position:]
            if any(len(rest) < len(residue) and residue.startswith(rest) for residue in self._residues):
                return position
        return len(text)
