"""What a picture costs in prompt tokens under the budget that is its own: by the mode, and by OpenAI's ``detail``. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from launcher.gateway.pictures import Size
from launcher.plan.image_budget import Budget, Fit, fit
from launcher.plan.image_tokens import BEGIN_AND_END, UNKNOWN_RULE, ImageRule

CACHED_SIZES = 1024
ORIGINAL = Budget()


class PictureCosts:
    """Sizes and tokens of pictures under one budget, for one model."""

    __slots__ = ("_by_size", "budget", "is_known", "rule", "unseen")

    def __init__(self, rule: ImageRule | None, budget: Budget = ORIGINAL) -> None:
        self.rule = rule or UNKNOWN_RULE
        self.budget = budget
        self.is_known = rule is not None
        self._by_size: dict[Size, Fit | None] = {}
        # A picture whose size is not to be seen here: given by URL, in a format other than the five, or broken. Priced as
        # the largest that there may be: if a guess were low, whoever sends such pictures would pass the caps; a broken one
        # is refused and costs nothing, whatever it was priced.
        self.unseen = self._largest()

    @property
    def shrinks(self) -> bool:
        """Whether pictures may have to be made smaller."""
        return self.budget != ORIGINAL

    def fit(self, size: Size) -> Fit | None:
        """What a picture of this width and height comes to; None: a strip that the model refuses."""
        found = self._by_size.get(size)
        if found is None and size not in self._by_size:
            if len(self._by_size) >= CACHED_SIZES:
                self._by_size.clear()
            try:
                found = fit(self.rule, self.budget, *size)
            except ValueError:
                found = None
            self._by_size[size] = found
        return found

    def fault_of(self, size: Size) -> str | None:
        """Why a picture of this width and height cannot be used, as a sentence; None: it can."""
        if self.fit(size) is not None:
            return None
        try:
            fit(self.rule, self.budget, *size)
        except ValueError as error:
            return str(error)
        return None

    def of(self, size: Size | None) -> int:
        """Tokens of a picture of this width and height; None: its size is not to be seen."""
        found = self.fit(size) if size is not None else None
        return self.unseen if found is None else found.tokens

    def _largest(self) -> int:
        rule, budget = self.rule, self.budget
        if rule.family == "fixed":
            return rule.largest_tokens  # the fixed rule has the marks in its count
        most = rule.largest_tokens + BEGIN_AND_END
        if budget.long_side is not None:
            most = min(most, rule.tokens(budget.long_side, budget.long_side) + BEGIN_AND_END)
        return most if budget.max_tokens is None else min(most, budget.max_tokens)

    def __repr__(self) -> str:
        return f"<PictureCosts {self.budget}>"


class ClipCosts(NamedTuple):
    """What a clip is brought to, in prompt tokens."""

    max_tokens: int
    pads: bool  # shorter ones are filled up, so that each is max_tokens

    def of(self, tokens: int) -> int:
        """Of a clip that would be so many tokens as it came."""
        return self.max_tokens if self.pads else min(tokens, self.max_tokens)


class Budgets:
    """Which costs a picture has: by its ``detail`` where that has a budget, else by the mode, else the profile's."""

    __slots__ = ("_by_detail", "_by_mode", "clip", "untouched", "usual")

    def __init__(
        self,
        rule: ImageRule | None,
        usual: Budget = ORIGINAL,
        details: Mapping[str, Budget] | None = None,
        modes: Mapping[str, Budget] | None = None,
        clip: ClipCosts | None = None,
    ) -> None:
        self.usual = PictureCosts(rule, usual)
        self.untouched = PictureCosts(rule)  # of what passes as it is: given as embeddings, a video's frames
        self.clip = clip  # None: clips stay as they are
        self._by_detail = {name: PictureCosts(rule, budget) for name, budget in (details or {}).items()}
        self._by_mode = {name: PictureCosts(rule, budget) for name, budget in (modes or {}).items()}

    def of(self, mode: str, detail: str = "") -> PictureCosts:
        """The costs of a picture of a request in this mode."""
        return self._by_detail.get(detail) or self._by_mode.get(mode) or self.usual

    def least(self, size: Size | None, mode: str) -> int:
        """The fewest tokens that a picture of this size may come to in this mode, whatever its ``detail``."""
        found = [costs.of(size) for costs in (self.of(mode), *self._by_detail.values())]
        return 0 if size is None else min(found)

    def __repr__(self) -> str:
        return f"<Budgets {self.usual.budget} details={list(self._by_detail)} modes={list(self._by_mode)}>"
