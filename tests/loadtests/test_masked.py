"""What is shown and kept of a command has no secret."""

from __future__ import annotations

import pytest

from loadtests.masked import masked


@pytest.mark.parametrize(
    ("told", "shown"),
    [
        ("--key X", "--key …"),
        ("--ke=X --key X", "--ke=… --key …"),
        ("--set engine.env.HF_TOKEN=X", "--set engine.env.HF_TOKEN=…"),
        ("--set=engine.env.AWS_SECRET_ACCESS_KEY=X=", "--set=engine.env.AWS_SECRET_ACCESS_KEY=…"),
        ("engine.env.A__TOKEN=X", "engine.env.A__TOKEN=…"),
        ("engine.env={HF_TOKEN:X,OMP_NUM_THREADS:2}", "engine.env={HF_TOKEN:…,OMP_NUM_THREADS:2}"),
        ('engine={env:{"HF_TOKEN":"X"}}', 'engine={env:{"HF_TOKEN":…}}'),
        ("https://me:X@host:1/v1", "https://me:…@host:1/v1"),
        ("engine.env.HTTPS_PROXY=http://me:X@host", "engine.env.HTTPS_PROXY=http://me:…@host"),
        ("https://X@host/v1", "https://…@host/v1"),
    ],
)
def test_a_secret_is_gone(told: str, shown: str) -> None:
    assert masked(told.split()) == shown.split()


def test_one_within_a_mapping_with_spaces_is_gone_too() -> None:
    assert masked(["engine.env={A: 1, HF_TOKEN: 'X, Y', B: 2}"]) == ["engine.env={A: 1, HF_TOKEN: …, B: 2}"]


@pytest.mark.parametrize(
    "told",
    ["engine.max_num_batched_tokens=8", "gateway.images.budget={max_tokens:324}", "--slo ttft=1,itl=0.06", "http://h:1/a@b", "--keep 1"],
)  # fmt: skip
def test_what_is_none_stays(told: str) -> None:
    assert masked(told.split()) == told.split()
