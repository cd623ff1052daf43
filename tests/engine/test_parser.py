"""Our tables and checks against the installed vLLM's own parser."""

from __future__ import annotations

import json
import subprocess

import pytest

from launcher.engine.flags import ENV_SPANS, RESERVED, SHORT, TABLE, VALUES
from launcher.probe.arguments import KnownArguments, check_arguments, known_arguments
from launcher.probe.vllm_build import VllmBuild
from launcher.profile.tracing import TracingSection

pytestmark = pytest.mark.engine

# A value for each key that leaves none of the row's writers out.
VALUE: dict[str, object] = {
    "model.served_name": "name",
    "model.dtype": "float32",
    "model.quantization": "fp8",
    "model.load_format": "dummy",
    "model.max_len": 2048,
    "model.hf_overrides": {"architectures": ["LlamaForCausalLM"]},
    "model.trust_remote_code": True,
    "model.chat_template": "/x.jinja",
    "model.chat_template_kwargs": {"enable_thinking": False},
    "model.template.content_format": "string",
    "model.reasoning_parser": "glm45",
    "model.tool_parser": "glm45",
    "model.images_per_prompt": 2,
    "model.image_longest_edge": {"size": {"shortest_edge": 12544, "longest_edge": 5000000}},
    "engine.tensor_parallel": 2,
    "engine.pipeline_parallel": 2,
    "engine.max_num_batched_tokens": 4096,
    "engine.max_num_seqs": 8,
    "engine.chunked_prefill": False,
    "engine.prefix_caching": False,
    "engine.gpu_memory_utilization": 0.9,
    "engine.kv_cache_memory": 2**30,
    "engine.kv_cache_dtype": "fp8_e4m3",
    "engine.compile": "full",
    "engine.distributed": "ray",
    "gateway.tracing": TracingSection.model_validate({"endpoint": "http://127.0.0.1:4318"}),
    "timeouts.drain": 30.0,
}

SAMPLES: list[list[str]] = [
    [],
    ["--enforce-eager"],
    ["--enforce_eager", "--no-enforce-eager"],
    ["--enforce-eagr"],
    ["--dtype", "bf16"],
    ["--dtype=float32"],
    ["--dtype"],
    ["--max-model-len", "4k"],
    ["--max-model-len", "auto"],
    ["--max-model-len", "four"],
    ["--max-model-len=-1"],
    ["--max-num-seqs", "4k"],
    ["--max-num-seqs", "8"],
    ["--max-num-se", "8"],
    ["--max-num", "8"],
    ["--gpu-memory-utilization", "high"],
    ["--kv-cache-memory", "1G"],
    ["--hf-overrides", "{bad"],
    ["--hf-overrides", '{"a": 1}'],
    ["--hf-overrides.a", "1"],
    ["--limit-mm-per-prompt", '{"image": 2}'],
    ["--limit-mm-per-prompt.image", "2"],
    ["--limit-mm-per-prompt", "image=2"],
    ["--default-chat-template-kwargs", "x"],
    ["-tp", "2"],
    ["-tp", "two"],
    ["-O3"],
    ["-O", "3"],
    ["--served-model-name", "a", "b"],
    ["--chat-template-content-format", "json"],
    ["--seed", "1.5"],
    ["--kv-cache-dtype", "fp9"],
    ["--compilation-config", '{"mode": 0}'],
    ["-cc.mode", "0"],
]

# Runs vLLM's parser on each line of argv in JSON and prints whether it was taken.
ASK = """
import importlib, json, sys
from vllm.utils.argparse_utils import FlexibleArgumentParser
for name in ("common", "launchers", "openai"):
    try:
        make = importlib.import_module(f"vllm.entrypoints.{name}.cli_args").make_arg_parser
        break
    except ModuleNotFoundError:
        continue
verdicts = []
for argv in json.loads(sys.argv[1]):
    try:
        make(FlexibleArgumentParser()).parse_args(argv)
        verdicts.append(True)
    except (SystemExit, Exception):
        verdicts.append(False)
print("\\n" + json.dumps(verdicts))
"""


@pytest.fixture(scope="module")
def known(build: VllmBuild) -> KnownArguments:
    return known_arguments(build)


def test_every_value_above_is_for_a_row() -> None:
    assert set(VALUE) == {row.key for row in TABLE}


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.key)
def test_the_parser_knows_each_flag_that_the_table_gives_this_version(
    build: VllmBuild, known: KnownArguments, row
) -> None:  # type: ignore[no-untyped-def]
    assert (row.flag in known.flags) == (build.release in row.span)


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.key)
def test_the_parser_takes_what_the_table_writes(build: VllmBuild, row) -> None:  # type: ignore[no-untyped-def]
    assert check_arguments(build, row.write(row.flag, VALUE[row.key])) == []


def test_eager_is_taken(build: VllmBuild) -> None:
    row = next(row for row in TABLE if row.key == "engine.compile")
    assert check_arguments(build, row.write(row.flag, "eager")) == []


def test_our_checks_and_the_parser_agree(build: VllmBuild) -> None:
    asked = [build.python, "-c", ASK, json.dumps(SAMPLES)]
    done = subprocess.run(asked, cwd="/", capture_output=True, text=True, check=True)
    verdicts = json.loads(done.stdout.splitlines()[-1])
    ours = [check_arguments(build, argv) == [] for argv in SAMPLES]
    assert {" ".join(argv): taken for argv, taken in zip(SAMPLES, ours, strict=True)} == {
        " ".join(argv): taken for argv, taken in zip(SAMPLES, verdicts, strict=True)
    }


@pytest.mark.parametrize(("flag", "value"), VALUES)
def test_values_that_depend_on_the_version(build: VllmBuild, flag: str, value: str) -> None:
    span = VALUES[flag, value]
    assert (check_arguments(build, [flag, value]) == []) == (span is not None and build.release in span)


@pytest.mark.parametrize("flag", sorted(set(RESERVED) - {"--version"}))
def test_reserved_flags_are_flags(known: KnownArguments, flag: str) -> None:
    assert flag in known.flags


@pytest.mark.parametrize(("short", "long"), SHORT.items())
def test_short_flags(known: KnownArguments, short: str, long: str) -> None:
    assert long in known.flags[short].names


@pytest.mark.parametrize("name", ENV_SPANS)
def test_environment_variables(build: VllmBuild, known: KnownArguments, name: str) -> None:
    assert (name in known.env) == (build.release in ENV_SPANS[name])


def test_the_architectures_of_our_profiles_are_known(known: KnownArguments) -> None:
    assert {"LlamaForCausalLM", "Glm4vForConditionalGeneration", "GLM4VForCausalLM"} <= set(known.architectures)
