"""The table of flags: complete, consistent, and right about versions."""

from __future__ import annotations

import pytest

from launcher.engine.flags import HANDLED_ELSEWHERE, NEWEST, OLDEST, TABLE, FlagRow, Span, as_value, why_unknown
from launcher.profile.model import ModelSection, TemplatePolicy, VllmEngine
from launcher.profile.tracing import TracingSection

KEYS = [
    *(f"model.{name}" for name in ModelSection.model_fields if name != "template"),
    *(f"model.template.{name}" for name in TemplatePolicy.model_fields),
    *(f"engine.{name}" for name in VllmEngine.model_fields),
]


@pytest.mark.parametrize("key", KEYS)
def test_every_key_of_the_profile_is_written_or_handled_elsewhere(key: str) -> None:
    rows = [row for row in TABLE if row.key == key]
    assert (len(rows) == 1) != (key in HANDLED_ELSEWHERE), (
        f"{key}: give it a row in TABLE or a reason in HANDLED_ELSEWHERE"
    )


def test_no_row_or_reason_is_for_a_key_that_is_gone() -> None:
    assert {row.key for row in TABLE} | set(HANDLED_ELSEWHERE) <= {*KEYS, "timeouts.drain", "gateway.tracing"}


def test_each_flag_has_one_key() -> None:
    flags = [row.flag for row in TABLE]
    assert len(flags) == len(set(flags))


def test_a_flag_of_later_versions_is_refused_with_the_versions_that_know_it() -> None:
    row = FlagRow("engine.new", "--new", as_value, span=Span(since=(0, 29)))
    assert why_unknown(row, 1, (0, 28)) == ("engine.new: --new is known to vLLM 0.29 and newer only", "")
    assert why_unknown(row, 1, (0, 29)) is None
    assert why_unknown(row, 1, (0, 40)) is None


def row_of(key: str) -> FlagRow:
    return next(row for row in TABLE if row.key == key)


@pytest.mark.parametrize(("release", "known"), [((0, 24), True), ((0, 27), True), ((0, 28), False), ((0, 33), False)])
def test_bitsandbytes_left_vllm_in_0_28(release: tuple[int, int], known: bool) -> None:
    why = why_unknown(row_of("model.quantization"), "bitsandbytes", release)
    assert (why is None) == known
    if why:
        assert why[0] == "model.quantization: --quantization bitsandbytes is known to vLLM 0.24 to 0.27 only"
        assert "vllm-bnb-plugin" in why[1]


def test_a_plug_in_brings_a_value_back() -> None:
    assert why_unknown(row_of("model.quantization"), "bitsandbytes", (0, 33), ["vllm-bnb-plugin"]) is None


@pytest.mark.parametrize("release", [OLDEST, (0, 30), NEWEST])
def test_gguf_is_known_to_none(release: tuple[int, int]) -> None:
    why = why_unknown(row_of("model.load_format"), "gguf", release)
    assert why is not None
    assert why[0] == "model.load_format: no vLLM from 0.24 on knows --load-format gguf"
    assert "model.path: file.gguf" in why[1]


WRITTEN: list[tuple[str, object, list[str]]] = [
    ("model.dtype", "float32", ["--dtype", "float32"]),
    ("model.hf_overrides", {"architectures": ["X"]}, ["--hf-overrides", '{"architectures":["X"]}']),
    ("model.trust_remote_code", True, ["--trust-remote-code"]),
    ("model.tool_parser", "glm45", ["--tool-call-parser", "glm45", "--enable-auto-tool-choice"]),
    ("model.images_per_prompt", {"video": 0}, ["--limit-mm-per-prompt", '{"video":0}']),
    ("model.images_per_prompt", {"image": 0, "video": 1}, ["--limit-mm-per-prompt", '{"image":0,"video":1}']),
    ("model.images_per_prompt", {"image": 0, "video": 0}, ["--language-model-only"]),
    ("engine.chunked_prefill", False, ["--no-enable-chunked-prefill"]),
    ("engine.prefix_caching", True, ["--enable-prefix-caching"]),
    ("engine.gpu_memory_utilization", 0.9, ["--gpu-memory-utilization", "0.9"]),
    ("engine.compile", "eager", ["--enforce-eager"]),
    ("engine.compile", "full", ["--optimization-level", "3"]),
    ("timeouts.drain", 2.5, ["--shutdown-timeout", "3"]),
    ("timeouts.drain", 30.0, ["--shutdown-timeout", "30"]),
    (
        "gateway.tracing",
        TracingSection(endpoint="http://127.0.0.1:4318"),
        ["--otlp-traces-endpoint", "http://127.0.0.1:4318/v1/traces"],
    ),
]


@pytest.mark.parametrize(("key", "value", "written"), WRITTEN)
def test_how_values_are_written(key: str, value: object, written: list[str]) -> None:
    row = row_of(key)
    assert row.write(row.flag, value) == written
