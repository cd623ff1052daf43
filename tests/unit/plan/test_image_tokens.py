"""Tokens of an image, compared size by size with the models' own processors."""

from __future__ import annotations

import ast
import importlib.util
import math
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from launcher.plan.image_tokens import RULES, ImageRule, image_rule

GLM = ImageRule("glm4v", max_pixels=9633792)
GLM_DEFAULT = RULES["Glm4vForConditionalGeneration"]


def smart_resize_of(module: str) -> Callable[..., tuple[int, int]]:
    """transformers' own function, taken out of its file: the module around it wants torchvision, the function does not."""
    spec = importlib.util.find_spec("transformers")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("transformers is not installed (it comes with vLLM)")
    source = Path(spec.submodule_search_locations[0], "models", *module.split(".")).with_suffix(".py")
    functions = [
        node
        for node in ast.parse(source.read_text(encoding="utf-8")).body
        if isinstance(node, ast.FunctionDef) and node.name == "smart_resize"
    ]
    assert len(functions) == 1, f"{source} has no smart_resize any more"
    names: dict[str, object] = {"math": math}
    exec(compile(ast.Module(functions, []), str(source), "exec"), names)
    found = names["smart_resize"]
    assert callable(found)
    return found


def sizes(count: int, seed: int) -> list[tuple[int, int]]:
    """Sizes of all kinds: usual ones, strips, tiny ones, huge ones."""
    dice = random.Random(seed)
    made = [(dice.randint(1, 5000), dice.randint(1, 5000)) for _ in range(count)]
    made += [(dice.randint(1, 60), dice.randint(1, 60)) for _ in range(count // 4)]
    made += [(dice.randint(20, 60), dice.randint(1000, 9000)) for _ in range(count // 4)]
    return made + [(14 * a, 14 * b) for a in range(1, 12) for b in range(1, 12)]  # halves: where rounding to even tells


@pytest.mark.parametrize("longest_edge", [9633792, 11760000, 5000000, 2408448, 100000])
def test_glm_agrees_with_its_processor(longest_edge: int) -> None:
    smart_resize = smart_resize_of("glm4v.image_processing_glm4v")
    rule = ImageRule("glm4v", max_pixels=longest_edge)
    for width, height in sizes(200, longest_edge):
        try:
            rows, columns = smart_resize(
                num_frames=2, height=height, width=width, factor=28, min_pixels=12544, max_pixels=longest_edge
            )
        except ValueError:
            with pytest.raises(ValueError, match="200-fold"):
                rule.tokens(width, height)
            continue
        assert rule.resized(width, height) == (columns, rows), (width, height)
        assert rule.tokens(width, height) == rows * columns // 784


@pytest.mark.parametrize(("patch", "least", "most"), [(14, 3136, 1003520), (14, 3136, 12845056), (16, 65536, 16777216)])
def test_qwen_agrees_with_its_processor(patch: int, least: int, most: int) -> None:
    smart_resize = smart_resize_of("qwen2_vl.image_processing_qwen2_vl")
    rule = ImageRule("qwen_vl", patch=patch, min_pixels=least, max_pixels=most)
    for width, height in sizes(200, most):
        try:
            rows, columns = smart_resize(height, width, factor=2 * patch, min_pixels=least, max_pixels=most)
        except ValueError:
            with pytest.raises(ValueError, match="200-fold"):
                rule.tokens(width, height)
            continue
        assert rule.resized(width, height) == (columns, rows), (width, height)
        assert rule.tokens(width, height) == rows * columns // (2 * patch) ** 2


@pytest.mark.parametrize(
    ("width", "height", "tokens"),
    [(1120, 1120, 1600), (1280, 720, 1196), (1920, 1080, 2691), (1080, 2400, 3354), (4000, 3000, 7500), (50, 50, 9)],
)
def test_sizes_seen_with_the_processor_itself(width: int, height: int, tokens: int) -> None:
    assert GLM_DEFAULT.tokens(width, height) == tokens


def test_the_prompt_tokens_of_real_requests() -> None:
    """An engine counted 2701, 787 and 190 prompt tokens for these images, about 10 of them text."""
    for size, prompt in (((1920, 1080), 2701), ((1024, 576), 787), ((512, 288), 190)):
        assert prompt - 14 <= GLM.tokens(*size) < prompt


def test_the_largest_image_is_not_the_square_that_vllm_profiles() -> None:
    assert GLM.largest_tokens == 6144
    assert GLM.tokens(1792, 2688) == 6144  # a 2:3 image of the largest area
    assert GLM.profiled_tokens == 6084


def test_no_image_has_more_than_the_largest() -> None:
    for rule in (GLM, GLM_DEFAULT, ImageRule("glm4v", max_pixels=5000000), RULES["Qwen3VLForConditionalGeneration"]):
        for width, height in sizes(300, 7):
            if max(width, height) / min(width, height) < 150:
                assert rule.tokens(width, height) <= rule.largest_tokens


def test_every_image_of_glm_4v_9b_is_the_same_square() -> None:
    rule = image_rule("GLM4VForCausalLM", {"image_size": 1120, "patch_size": 14})
    assert rule is not None
    assert {rule.tokens(1, 1), rule.tokens(9000, 3), rule.tokens(1120, 1120)} == {1602}
    assert rule.resized(640, 480) == (1120, 1120)
    assert rule.largest_tokens == rule.profiled_tokens == 1602


def test_the_profile_wins_over_the_processor_over_the_default() -> None:
    name, processor = "Glm4vForConditionalGeneration", {"size": {"shortest_edge": 12544, "longest_edge": 9633792}}
    for arguments, area in (((None, None), 11760000), ((processor, None), 9633792), ((processor, 5000000), 5000000)):
        rule = image_rule(name, {"patch_size": 14}, *arguments)
        assert rule is not None
        assert rule.max_pixels == area


def test_an_unknown_model_has_no_rule() -> None:
    assert image_rule("PixtralForConditionalGeneration", {}) is None


@pytest.mark.parametrize(
    ("width", "height", "message"),
    [
        (0, 100, "an image of 0×100 pixels has no area"),
        (30, 9000, "an image of 30×9000 pixels is refused by the model: its sides differ more than 200-fold"),
    ],
)
def test_what_is_no_image_is_refused_with_a_sentence(width: int, height: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        GLM.tokens(width, height)


def test_the_module_needs_the_standard_library_only() -> None:
    """The gateway imports it."""
    import subprocess
    import sys

    code = (
        "import sys; before = set(sys.modules); import launcher.plan.image_tokens; "
        "new = {n.split('.')[0] for n in set(sys.modules) - before}; "
        "print(sorted(n for n in new if n not in sys.stdlib_module_names and n != 'launcher'))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
