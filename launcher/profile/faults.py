"""A fault in a profile: where it is, which key, what is wrong and what to do; and all of a profile's faults as one error."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from launcher.errors import ProfileError

KeyPath = tuple[str | int, ...]


class Place(NamedTuple):
    """Where a value was written: a position in a file (counted from 1), ``--set key=value`` or ``env NAME``."""

    source: str
    line: int = 0  # 0: not in a file
    column: int = 0
    text: str = ""  # a scalar as it was written

    def __str__(self) -> str:
        return f"{self.source}:{self.line}:{self.column}" if self.line else self.source

    @property
    def origin(self) -> str:
        """``profiles/x.yaml:12``, ``--set engine.replicas=2`` or ``env LAUNCHER__ENGINE__REPLICAS``."""
        return f"{self.source}:{self.line}" if self.line else self.source


class Fault(NamedTuple):
    """One thing that is wrong. ``path`` is () when the fault is about the whole file."""

    place: Place
    path: KeyPath
    sentence: str

    def __str__(self) -> str:
        return f"{self.place}: {dotted(self.path)}: {self.sentence}" if self.path else f"{self.place}: {self.sentence}"


class ProfileFaults(ProfileError):
    """All the faults of a profile, in the order of the file; the message has one a line."""

    def __init__(self, faults: Iterable[Fault], hint: str = "") -> None:
        self.faults = tuple(sorted(faults, key=lambda fault: (fault.place.line == 0, fault.place[:3])))
        super().__init__("\n".join(map(str, self.faults)), hint)


def dotted(path: Sequence[str | int]) -> str:
    """``('engine', 'urls', 0)`` → ``'engine.urls.0'``."""
    return ".".join(map(str, path))


def closest(word: str, known: Iterable[str]) -> str | None:
    """The known word that this one is most likely a slip of; None when none is near."""
    candidates = list(known)
    folded = {candidate.lower().replace("-", "_"): candidate for candidate in candidates}
    found = difflib.get_close_matches(word.lower().replace("-", "_"), folded, n=1, cutoff=0.6)
    return folded[found[0]] if found else None
