"""What a picture is brought to: never above the budget, never larger, and counted as the models' own processors count."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from launcher.gateway.media.costs import PictureCosts
from launcher.plan.image_budget import Budget, Fit, fit, least_tokens
from launcher.plan.image_tokens import BEGIN_AND_END, RULES, UNKNOWN_RULE, ImageRule, image_rule

GLM = ImageRule("glm4v", max_pixels=9633792)
GLM_4V_9B = image_rule("GLM4VForCausalLM", {"image_size": 1120, "patch_size": 14})
QWEN2, QWEN3 = RULES["Qwen2VLForConditionalGeneration"], RULES["Qwen3VLForConditionalGeneration"]
SMALL_LIMIT = ImageRule("qwen_vl", min_pixels=28 * 28 * 256, max_pixels=28 * 28 * 1280)
KNOWN = {"glm": GLM, "qwen2": QWEN2, "qwen3": QWEN3, "qwen2-narrow": SMALL_LIMIT}


def processor_of(name: str, **settings: Any) -> Callable[[int, int], int]:
    """transformers' own processor, asked for the patches of a picture without making it: tokens, but for the marks."""
    pytest.importorskip("transformers", reason="it comes with vLLM")
    if name == "glm":
        from transformers.models.glm4v.image_processing_pil_glm4v import Glm4vImageProcessorPil as Processor
    else:
        from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil as Processor
    processor = Processor(**settings)
    merge = processor.merge_size**2

    def tokens(width: int, height: int) -> int:
        patches: int = processor.get_number_of_image_patches(height, width, {})
        assert patches % merge == 0
        return patches // merge

    return tokens


def fitted(rule: ImageRule, budget: Budget, width: int, height: int, refused_with: str) -> Fit | None:
    """None: it was refused, with a sentence in which one of these words is."""
    try:
        return fit(rule, budget, width, height)
    except ValueError as error:
        if re.search(refused_with, str(error)) is None:
            raise
        return None


PROCESSORS = [
    ("glm", GLM, {"size": {"shortest_edge": 12544, "longest_edge": 9633792}}),
    ("glm", RULES["Glm4vForConditionalGeneration"], {}),
    ("qwen2", QWEN2, {"size": {"shortest_edge": 3136, "longest_edge": 28 * 28 * 1280}}),
    ("qwen2.5", SMALL_LIMIT, {"size": {"shortest_edge": 28 * 28 * 256, "longest_edge": 28 * 28 * 1280}}),
    ("qwen3", QWEN3, {"patch_size": 16, "size": {"shortest_edge": 65536, "longest_edge": 16777216}}),
]


def sizes(count: int, seed: int) -> list[tuple[int, int]]:
    dice = random.Random(seed)
    made = [(dice.randint(1, 5000), dice.randint(1, 5000)) for _ in range(count)]
    made += [(dice.randint(1, 300), dice.randint(1, 300)) for _ in range(count // 2)]
    made += [(dice.randint(20, 60), dice.randint(500, 5000)) for _ in range(count // 4)]
    return [*made, (1920, 1080), (1080, 2400), (4000, 3000), (504, 504), (512, 512), (1280, 720)]


@pytest.mark.parametrize(
    ("name", "rule", "settings"), PROCESSORS, ids=lambda value: value if isinstance(value, str) else ""
)
def test_the_models_own_processor_counts_the_same(name: str, rule: ImageRule, settings: dict[str, Any]) -> None:
    theirs = processor_of(name, **settings)
    least, checked = least_tokens(rule), 0
    for most in (least, least + 1, 324, 500, 1000, 4000, 20_000):
        if most < least:
            continue
        for size in sizes(120, most):
            try:
                found = fit(rule, Budget(max_tokens=most), *size)
            except ValueError:
                continue
            checked += 1
            assert found.tokens <= most, size
            assert found.tokens == theirs(found.width, found.height) + BEGIN_AND_END, (size, found)
    assert checked > 700
    for size in sizes(100, 1):
        for budget in (Budget(long_side=512), Budget(long_side=1000), Budget()):
            found = fitted(rule, budget, *size, "200-fold")
            if found is None:
                continue
            assert found.tokens == theirs(found.width, found.height) + BEGIN_AND_END, (size, found)


def test_the_processor_makes_no_other_picture_of_it() -> None:
    """The pixels themselves, for some: a picture in whole patches is not resampled, and its grid is its own."""
    pytest.importorskip("transformers", reason="it comes with vLLM")
    from PIL import Image
    from transformers.models.glm4v.image_processing_pil_glm4v import Glm4vImageProcessorPil

    processor = Glm4vImageProcessorPil(size={"shortest_edge": 12544, "longest_edge": 9633792})
    for most, size in ((324, (1920, 1080)), (324, (1080, 2400)), (100, (640, 480)), (20, (333, 500)), (64, (50, 2000))):
        found = fit(GLM, Budget(max_tokens=most), *size)
        made = processor(images=[Image.new("RGB", (found.width, found.height))], return_tensors="np")
        frames, rows, columns = made["image_grid_thw"][0]
        assert (frames, rows * 14, columns * 14) == (1, found.height, found.width)
        assert rows * columns // 4 + BEGIN_AND_END == found.tokens <= most


def allowed_grids(rule: ImageRule, most: int, width: int, height: int) -> list[tuple[int, int]]:
    """Every whole-patch size within the picture that some scale rounds to and the processor leaves as it is."""
    side, found = rule.factor, []
    for columns in range(1, width // side + 1):
        for rows in range(1, min(height // side, most // columns) + 1):
            low = max((columns - 0.5) / width, (rows - 0.5) / height)
            high = min((columns + 0.5) / width, (rows + 0.5) / height)
            if low <= high and max(rows, columns) <= 200 * min(rows, columns):
                size = columns * side, rows * side
                if rule.resized(*size) == size:
                    found.append((columns, rows))
    return found


@pytest.mark.parametrize("name", KNOWN)
def test_no_allowed_size_has_more_tokens(name: str) -> None:
    rule = KNOWN[name]
    dice, compared = random.Random(5), 0
    for _ in range(300):
        width, height = dice.randint(30, 1500), dice.randint(30, 1500)
        most = dice.randint(least_tokens(rule), least_tokens(rule) + 300)
        if rule.tokens(width, height) + BEGIN_AND_END <= most:
            assert fit(rule, Budget(most), width, height) == Fit(
                width, height, rule.tokens(width, height) + BEGIN_AND_END
            )
            continue
        grids = allowed_grids(rule, most - BEGIN_AND_END, width, height)
        if grids:
            compared += 1
            best = max(columns * rows for columns, rows in grids)
            found = fit(rule, Budget(most), width, height)
            assert found.tokens == best + BEGIN_AND_END, (width, height, most)
            assert (found.width // rule.factor, found.height // rule.factor) in grids
    assert compared > 80


rules = st.sampled_from(list(KNOWN.values()))
sides = st.one_of(st.integers(1, 400), st.integers(1, 12_000))


@given(rules, sides, sides, st.integers(0, 5000), st.one_of(st.none(), st.integers(1, 4000)))
def test_within_the_budget_and_never_larger(
    rule: ImageRule, width: int, height: int, more: int, long_side: int | None
) -> None:
    most = least_tokens(rule) + more
    found = fitted(rule, Budget(most, long_side), width, height, "200-fold|cut it into pieces")
    if found is None:
        assert max(width, height) > 4 * min(width, height)  # usual shapes always find a place
        return
    assert found.tokens <= most
    assert found.width <= width
    assert found.height <= height
    assert long_side is None or max(found.width, found.height) <= long_side
    assert PictureCosts(rule).of((found.width, found.height)) == found.tokens
    turned = fit(rule, Budget(most, long_side), height, width)
    assert turned.tokens == found.tokens
    if width != height:
        assert (turned.height, turned.width) == (found.width, found.height)


@given(rules, sides, sides, st.integers(1, 3000))
def test_a_long_side_is_plainly_proportional(rule: ImageRule, width: int, height: int, long_side: int) -> None:
    found = fitted(rule, Budget(long_side=long_side), width, height, "200-fold")
    if found is None:
        return
    if max(width, height) <= long_side:
        assert (found.width, found.height) == (width, height)
    else:
        assert max(found.width, found.height) == long_side
        ideal = min(width, height) * long_side / max(width, height)
        assert abs(min(found.width, found.height) - ideal) < 1


@given(rules, sides, sides, st.integers(0, 3000))
def test_what_was_fitted_fits(rule: ImageRule, width: int, height: int, more: int) -> None:
    budget = Budget(least_tokens(rule) + more)
    try:
        found = fit(rule, budget, width, height)
    except ValueError:
        return
    assert fit(rule, budget, found.width, found.height) == found


@pytest.mark.parametrize("name", KNOWN)
def test_the_least_budget_takes_every_usual_shape(name: str) -> None:
    rule = KNOWN[name]
    least = least_tokens(rule)
    for most in (least, least + 1, least + 5):
        for width in [*range(1, 700, 13), *range(700, 6000, 301)]:
            for height in range(-(-width // 4), width + 1, max(1, width // 40)):
                assert fit(rule, Budget(most), width, height).tokens <= most
    assert {"glm": 20, "qwen2": 12, "qwen3": 87, "qwen2-narrow": 299}[name] == least


def test_figures_for_the_readme() -> None:
    assert fit(GLM, Budget(), 1920, 1080) == Fit(1920, 1080, 2693)
    assert fit(GLM, Budget(max_tokens=324), 1920, 1080) == Fit(672, 364, 314)
    assert fit(GLM, Budget(long_side=512), 1920, 1080) == Fit(512, 288, 182)
    assert fit(GLM, Budget(max_tokens=10_000), 8000, 6000) == Fit(2520, 1904, 6122)  # no more than the model takes
    assert fit(GLM, Budget(max_tokens=324, long_side=300), 1920, 1080).width == 300


def test_the_fixed_square() -> None:
    """GLM-4V-9B squeezes both sides into 1,120 pixels: what is beyond is not worth sending."""
    assert fit(GLM_4V_9B, Budget(max_tokens=1602), 1920, 1080) == Fit(1120, 1080, 1602)
    assert fit(GLM_4V_9B, Budget(max_tokens=5000), 640, 480) == Fit(640, 480, 1602)
    assert fit(GLM_4V_9B, Budget(), 1920, 1080) == Fit(1920, 1080, 1602)
    assert fit(GLM_4V_9B, Budget(long_side=560), 1920, 1080) == Fit(560, 315, 1602)
    assert least_tokens(GLM_4V_9B) == 1602
    with pytest.raises(ValueError, match="always 1602 tokens for this model: a budget of 324 cannot be kept"):
        fit(GLM_4V_9B, Budget(max_tokens=324), 640, 480)


def test_a_model_that_is_not_known_is_counted_as_the_rule_for_those() -> None:
    for size in sizes(50, 9):
        for budget in (Budget(), Budget(max_tokens=400), Budget(long_side=700)):
            try:
                expected = fit(UNKNOWN_RULE, budget, *size)
            except ValueError:
                continue
            assert fit(None, budget, *size) == expected
    assert least_tokens(None) == least_tokens(UNKNOWN_RULE)


@pytest.mark.parametrize(
    ("size", "message"),
    [
        ((60, 15000), "an image of 60×15000 pixels is refused by the model: its sides differ more than 200-fold"),
        ((0, 5), "an image of 0×5 pixels has no area"),
        ((56, 8400), "an image of 56×8400 pixels cannot be brought to 60 tokens in its shape: cut it into pieces"),
    ],
)
def test_strips_are_refused_with_a_sentence(size: tuple[int, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fit(GLM, Budget(max_tokens=60), *size)
