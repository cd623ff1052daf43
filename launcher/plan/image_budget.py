"""What size a picture is brought to, and how many prompt tokens it then is: pure arithmetic, no pixels.

Under ``max_tokens`` the size is the one with the most tokens within the budget, among whole patches: the model's own
processor leaves such a picture as it is, so nothing is resampled twice and the count is the engine's. Each side is at most
half a patch away from the picture's true shape, as with the processor's own rounding, and never longer than before.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from launcher.plan.image_tokens import BEGIN_AND_END, MAX_ASPECT, UNKNOWN_RULE, ImageRule
from launcher.profile.images import ImageBudget, ImagesSection

USUAL_ASPECT = 4  # what least_tokens promises to hold: screens, phones held upright, wide photos


@dataclass(frozen=True, slots=True)
class Budget:
    """What a picture may come to. Both None: it is left as it came. Both given: both hold."""

    max_tokens: int | None = None  # with the marks of begin and end, as the engine counts the prompt
    long_side: int | None = None  # pixels

    @classmethod
    def of(cls, setting: Literal["original"] | ImageBudget) -> Budget:
        """As the profile has it."""
        return cls() if setting == "original" else cls(setting.max_tokens, setting.long_side)


@dataclass(frozen=True, slots=True)
class Fit:
    """A picture's size under a budget, in pixels, and its prompt tokens with the marks of begin and end."""

    width: int
    height: int
    tokens: int


def fit(rule: ImageRule | None, budget: Budget, width: int, height: int) -> Fit:
    """The size for a picture that stands upright. Not a pixel more than it has: its own size where that is within.

    ``rule`` None: a model whose arithmetic is not known; tokens are then counted as UNKNOWN_RULE does. Raises ValueError
    with a sentence for a strip that the model refuses, and for one that no size of its shape brings within the budget.
    """
    rule = rule or UNKNOWN_RULE
    marks = _marks(rule)
    tokens = rule.tokens(width, height) + marks
    if budget.max_tokens is None and budget.long_side is None:
        return Fit(width, height, tokens)
    size = _within_side(budget.long_side, width, height)
    if rule.family == "fixed":  # the processor squeezes both sides into its square: what is beyond is lost there anyway
        size = min(size[0], rule.fixed_size), min(size[1], rule.fixed_size)
        if budget.max_tokens is not None and tokens > budget.max_tokens:
            raise ValueError(
                f"a picture is always {tokens} tokens for this model: a budget of {budget.max_tokens} cannot be kept"
            )
        return Fit(*size, tokens)
    tokens = rule.tokens(*size) + marks
    if budget.max_tokens is None or (tokens <= budget.max_tokens and not _is_shrunk(rule, *size)):
        return Fit(*size, tokens)
    grid = _largest_grid(rule, budget.max_tokens - marks, size, (width, height))
    if grid is None:
        raise ValueError(
            f"an image of {width}×{height} pixels cannot be brought to {budget.max_tokens} tokens in its shape: cut it into pieces"
        )
    columns, rows = grid
    return Fit(columns * rule.factor, rows * rule.factor, columns * rows + marks)


def least_tokens(rule: ImageRule | None) -> int:
    """The smallest ``max_tokens`` within which every picture can be brought whose sides differ up to 4-fold.

    Processors make small pictures larger, up to a least area of n tokens, with both sides rounded up: of 4 columns over 1
    row, for one, come up to 5 by 2.
    """
    rule = rule or UNKNOWN_RULE
    if rule.family == "fixed":
        return rule.fixed_tokens
    least = _least_area(rule)
    columns = range(max(1, math.isqrt(least // USUAL_ASPECT)), math.isqrt(least * USUAL_ASPECT) + 1)
    return max((count + 1) * (least // count + 1) for count in columns) + _marks(rule)


def budgets_of(images: ImagesSection) -> dict[str, Budget]:
    """All budgets of a profile, by their key below gateway.images."""
    found = {"budget": images.budget}
    found |= {f"detail.{name}": budget for name, budget in images.detail.items()}
    found |= {f"modes.{name}": budget for name, budget in images.modes.items()}
    return {key: Budget.of(budget) for key, budget in found.items()}


def fault_of(budget: Budget, rule: ImageRule | None) -> tuple[str, str] | None:
    """Why no picture could keep a budget, and what to write instead; None: they can."""
    least = least_tokens(rule)
    if budget.max_tokens is None or budget.max_tokens >= least:
        return None
    why = f"{budget.max_tokens} tokens are too few: this model makes {least} of the smallest pictures"
    return why, f"Give {least} or more, or a long_side in pixels."


def _marks(rule: ImageRule) -> int:
    return 0 if rule.family == "fixed" else BEGIN_AND_END  # the fixed rule has them in its count


def _least_area(rule: ImageRule) -> int:
    """Tokens below which the processor makes a picture larger."""
    return max(1, math.ceil(rule.min_pixels / (rule.frames * rule.factor * rule.factor)))


def _within_side(long_side: int | None, width: int, height: int) -> tuple[int, int]:
    longer = max(width, height)
    if long_side is None or longer <= long_side:
        return width, height
    # A strip stays within the aspect that the model takes, also where its short side becomes a pixel or two.
    shorter = max(1, round(min(width, height) * long_side / longer), math.ceil(long_side / MAX_ASPECT))
    return (long_side, shorter) if width >= height else (shorter, long_side)


def _is_shrunk(rule: ImageRule, width: int, height: int) -> bool:
    """Whether the picture is beyond what the model takes, so that its processor would make it smaller itself."""
    area = round(width / rule.factor) * round(height / rule.factor)
    return area * rule.frames * rule.factor * rule.factor > rule.max_pixels


def _largest_grid(rule: ImageRule, most: int, size: tuple[int, int], shape: tuple[int, int]) -> tuple[int, int] | None:
    """Columns and rows with the most patches: at most ``most``, within ``size``, in the shape of ``shape``."""
    factor = rule.factor
    short, long = sorted(shape)
    most_across, most_along = (side // factor for side in sorted(size))
    least, most = _least_area(rule), min(most, rule.max_pixels // (rule.frames * factor * factor))
    if most < least:
        return None
    best, best_error, found = least - 1, 0.0, None
    for across in range(min(most_across, math.isqrt(most) + 1), 0, -1):
        # A scale exists at which both sides round to these counts: along <= (across + 1/2) · long/short + 1/2, and so on.
        along = min(((2 * across + 1) * long + short) // (2 * short), most_along, most // across, MAX_ASPECT * across)
        if along * 2 * short < (2 * across - 1) * long - short or along < 1:
            continue
        area, error = across * along, abs(along / across - long / short)
        if area > best or (area == best and found and error < best_error):
            best, best_error, found = area, error, (across, along)
    if found is None and least <= most_across * most_along <= most and most_along <= MAX_ASPECT * most_across:
        found = (
            most_across,
            most_along,
        )  # cut off to whole patches, as the processor does when it makes a picture smaller
    if found is None:
        return None
    return found if shape[0] <= shape[1] else found[::-1]
