"""What is written reads back as what was given, whatever is in it; and is laid out for people."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from launcher.render.yaml_text import Alias, Anchored, Inline, Note, Spaced, to_yaml

SCALARS = st.none() | st.booleans() | st.integers() | st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
KEYS = st.text(st.characters(categories=["L", "N"], max_codepoint=0x2FF), min_size=1, max_size=6)
TREES = st.recursive(  # lists hold scalars or mappings, as those of compose files and manifests do
    SCALARS | st.lists(SCALARS, max_size=3),
    lambda inner: st.dictionaries(KEYS, inner, min_size=1, max_size=3).flatmap(
        lambda one: st.just(one) | st.just([one, one])
    ),
    max_leaves=8,
)


@settings(max_examples=40, deadline=None)
@given(st.dictionaries(KEYS, TREES, min_size=1, max_size=4))
def test_what_is_written_reads_back(tree: dict[str, Any]) -> None:
    assert yaml.safe_load(to_yaml(tree)) == tree


@settings(max_examples=40, deadline=None)
@given(st.dictionaries(KEYS, SCALARS, min_size=1, max_size=4))
def test_in_one_line_too(tree: dict[str, Any]) -> None:
    written = to_yaml({"a": Inline(tree), "b": [Inline(tree)]})
    assert yaml.safe_load(written) == {"a": tree, "b": [tree]}
    assert len(written.splitlines()) == 3


@pytest.mark.parametrize(
    "text", ["yes", "8000", "a: b", "#x", "", "- x", "1e3", "a,b", "{", "null", "two\nlines", " x ", "<<"]
)
def test_text_stays_text(text: str) -> None:
    assert yaml.safe_load(to_yaml({"a": [text, "x"], "b": {"c": Inline(d=text)}})) == {
        "a": [text, "x"],
        "b": {"c": {"d": text}},
    }


def test_the_layout() -> None:
    tree = {
        "x": Anchored("base", {"user": "me"}),
        "services": Spaced(
            {
                "one": {"<<": Alias("base"), Note("Why\nthis"): None, "ports": [Inline(target=1)]},
                "two": {"env": {"A": None}},
            }
        ),
    }
    assert to_yaml(tree) == (
        "x: &base\n  user: me\nservices:\n  one:\n    <<: *base\n    # Why\n    # this\n    ports:\n      - {target: 1}\n"
        "\n  two:\n    env:\n      A:\n"
    )
