"""The command of a replica: program, arguments, environment, and what is refused."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from launcher.engine.command import EngineCommand, engine_command, processor_kwargs, shell_line, visible_cards
from launcher.errors import PreconditionError, ProfileError
from launcher.plan.placement import Placement
from launcher.probe.arguments import groups
from launcher.probe.vllm_build import VllmBuild
from launcher.profile.model import Profile
from tests.unit.engine.conftest import MakeProfile

MakeBuild = Callable[..., VllmBuild]
GLM = {"id": "zai-org/GLM-4.6V-Flash"}


def command(
    profile: Profile,
    build: VllmBuild,
    *,
    gpus: tuple[int, ...] = (),
    outer: str | None = None,
    **more: Any,
) -> EngineCommand:
    environ = {} if outer is None else {"CUDA_VISIBLE_DEVICES": outer}
    place = Placement(0, gpus)
    return engine_command(profile, place, port=8101, model_path="/models/m", build=build, environ=environ, **more)


def test_the_default_cpu_profile(make_profile: MakeProfile, make_build: MakeBuild) -> None:
    profile = make_profile(engine={"compile": "eager"}, model={"packaged": "smollm2-135m-instruct", "dtype": "float32"})
    made = command(profile, make_build(), text_only=True)
    assert list(made.argv) == [
        *("/venv/bin/python", "-m", "vllm.entrypoints.openai.api_server", "--model", "/models/m"),
        *("--host", "127.0.0.1", "--port", "8101", "--disable-access-log-for-endpoints", "/health,/metrics"),
        *("--allowed-media-domains", "nothing.invalid/"),
        *("--served-model-name", "smollm2-135m-instruct", "--dtype", "float32"),
        *("--kv-cache-memory-bytes", "1073741824", "--enforce-eager", "--shutdown-timeout", "30"),
    ]
    assert made.env == {
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_API_KEY": "",
        "VLLM_LOGGING_COLOR": "0",
        "VLLM_MEDIA_URL_ALLOW_REDIRECTS": "0",
        "VLLM_ENABLE_STARTUP_PLAN": "1",
        "VLLM_CPU_KVCACHE_SPACE": "1",
    }
    assert (made.host, made.port, made.served_name) == ("127.0.0.1", 8101, "smollm2-135m-instruct")


def test_serve_where_the_distribution_vllm_is(make_profile: MakeProfile, make_build: MakeBuild) -> None:
    made = command(make_profile(device="cuda", model=GLM), make_build("0.33.0", "vllm"), gpus=(0,))
    assert made.argv[:5] == ("/venv/bin/python", "-m", "vllm.entrypoints.cli.main", "serve", "/models/m")


def test_autoglm_on_two_cards(make_profile: MakeProfile, make_build: MakeBuild) -> None:
    profile = make_profile(
        device="cuda",
        model=GLM | {"max_len": 8192, "images_per_prompt": 10, "template": {"content_format": "string"}},
        engine={
            "tensor_parallel": 2,
            "chunked_prefill": True,
            "max_num_batched_tokens": 4096,
            "env": {"NCCL_P2P_DISABLE": "1"},
        },
    )
    made = command(profile, make_build("0.33.0", "vllm"), gpus=(0, 1))
    line = " ".join(made.argv)
    for part in (
        "--served-model-name zai-org/GLM-4.6V-Flash",
        "--max-model-len 8192",
        '--limit-mm-per-prompt {"image":10,"video":0}',
        "--chat-template-content-format string",
        "--tensor-parallel-size 2",
        "--max-num-batched-tokens 4096",
        "--enable-chunked-prefill",
    ):
        assert part in line
    assert made.env["CUDA_VISIBLE_DEVICES"] == "0,1"
    assert made.env["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"
    assert made.env["NCCL_P2P_DISABLE"] == "1"
    assert "VLLM_CPU_KVCACHE_SPACE" not in made.env


@pytest.mark.parametrize(
    ("model", "extra", "written"),
    [
        ({}, [], ['--limit-mm-per-prompt {"video":0}']),
        ({"images_per_prompt": 2, "videos_per_prompt": 1}, [], ['--limit-mm-per-prompt {"image":2,"video":1}']),
        ({"images_per_prompt": 0, "videos_per_prompt": 1}, [], ['--limit-mm-per-prompt {"image":0,"video":1}']),
        ({"images_per_prompt": 0}, [], ["--language-model-only"]),
        ({}, ["--limit-mm-per-prompt", '{"image":1}'], ['--limit-mm-per-prompt {"image":1}']),
        ({}, ["--language-model-only"], ["--language-model-only"]),
    ],
)
def test_limits_on_images_and_videos(
    make_profile: MakeProfile, make_build: MakeBuild, model: dict[str, int], extra: list[str], written: list[str]
) -> None:
    profile = make_profile(device="cuda", model=GLM | model, engine={"extra_args": extra})
    line = " ".join(command(profile, make_build("0.33.0", "vllm"), gpus=(0,)).argv)
    assert re.findall(r"--(?:limit-mm-per-prompt \S+|language-model-only)", line) == written


@pytest.mark.parametrize("extra", [["--limit-mm-per-prompt", '{"image":1}'], ["--language-model-only"]])
def test_limits_in_extra_args_beside_the_keys_are_refused(
    make_profile: MakeProfile, make_build: MakeBuild, extra: list[str]
) -> None:
    profile = make_profile(device="cuda", model=GLM | {"images_per_prompt": 2}, engine={"extra_args": extra})
    with pytest.raises(ProfileError) as caught:
        command(profile, make_build("0.33.0", "vllm"), gpus=(0,))
    assert "clashes with model.images_per_prompt" in caught.value.message


def test_nothing_is_written_for_what_the_profile_leaves_open(make_profile: MakeProfile, make_build: MakeBuild) -> None:
    made = command(make_profile(device="cuda", model=GLM), make_build("0.33.0", "vllm"), gpus=(0,), text_only=True)
    assert [item for item in made.arguments if item.startswith("--")] == [
        *("--host", "--port", "--disable-access-log-for-endpoints", "--allowed-media-domains", "--served-model-name"),
        "--shutdown-timeout",
    ]


def test_kv_cache_that_is_no_whole_gib_is_exact_and_an_inherited_size_is_taken_out(
    make_profile: MakeProfile, make_build: MakeBuild
) -> None:
    made = command(make_profile(engine={"kv_cache_memory": "512MiB"}), make_build())
    assert "536870912" in made.argv
    assert "VLLM_CPU_KVCACHE_SPACE" not in made.environment({"VLLM_CPU_KVCACHE_SPACE": "40", "HOME": "/h"})
    assert made.environment({"HOME": "/h"})["HOME"] == "/h"


@pytest.mark.parametrize(("version", "has"), [("0.25.0", False), ("0.26.0", True), ("0.33.0", True)])
def test_the_startup_plan_is_for_versions_that_have_it(
    make_profile: MakeProfile, make_build: MakeBuild, version: str, has: bool
) -> None:
    assert ("VLLM_ENABLE_STARTUP_PLAN" in command(make_profile(), make_build(version)).env) == has


def test_vllms_own_queue_cap_is_a_backstop(make_profile: MakeProfile, make_build: MakeBuild) -> None:
    def cap(version: str, **engine: Any) -> str | None:
        argv = command(make_profile(engine=engine), make_build(version)).argv
        return argv[argv.index("--max-num-queued-reqs") + 1] if "--max-num-queued-reqs" in argv else None

    assert cap("0.32.0", max_num_seqs=8) == "32"
    assert cap("0.31.0", max_num_seqs=8) is None  # does not have it
    assert cap("0.32.0") is None  # how many run at once is vLLM's to say
    assert cap("0.32.0", max_num_seqs=8, extra_args=["--max-num-queued-reqs", "5"]) == "5"


def domains_of(made: EngineCommand) -> list[tuple[str, ...]]:
    return [group.values for group in groups(made.arguments) if group.flag.startswith("--allowed-")]


@pytest.mark.parametrize("version", ["0.24.0", "0.33.0", "0.40.0"])
@pytest.mark.parametrize("text_only", [True, False])
def test_vllm_fetches_no_url_itself(
    make_profile: MakeProfile, make_build: MakeBuild, version: str, text_only: bool
) -> None:
    made = command(make_profile(), make_build(version), text_only=text_only)
    assert domains_of(made) == [("nothing.invalid/",)]
    inherited = {"VLLM_MEDIA_URL_ALLOW_REDIRECTS": "1"}
    assert made.environment(inherited)["VLLM_MEDIA_URL_ALLOW_REDIRECTS"] == "0"
    assert not [note for note in made.notes if "fetches" in note]


@pytest.mark.parametrize(
    ("extra", "domains"),
    [
        (["--allowed-media-domains", "a.example", "b.example"], ("a.example", "b.example")),
        (["--allowed_media_domains=a.example"], ("a.example",)),
        (["--allowed-media", "a.example"], ("a.example",)),
    ],
)
def test_domains_in_extra_args_are_left_alone_and_noted(
    make_profile: MakeProfile, make_build: MakeBuild, extra: list[str], domains: tuple[str, ...]
) -> None:
    made = command(make_profile(engine={"extra_args": extra}), make_build())
    assert domains_of(made) == [domains]
    assert made.env["VLLM_MEDIA_URL_ALLOW_REDIRECTS"] == "0"
    assert made.notes[-1] == (
        f"engine.extra_args: --allowed-media-domains: vLLM itself fetches URLs of {', '.join(domains)} that reach it, "
        "and follows no redirect"
    )


def test_redirects_from_such_domains_are_noted(make_profile: MakeProfile, make_build: MakeBuild) -> None:
    env = {"VLLM_MEDIA_URL_ALLOW_REDIRECTS": "1"}
    extra = ["--allowed-media-domains", "a.example"]
    made = command(make_profile(engine={"extra_args": extra, "env": env}), make_build())
    assert made.env["VLLM_MEDIA_URL_ALLOW_REDIRECTS"] == "1"
    assert made.notes[-1].endswith(
        " that reach it, and follows redirects to any host (VLLM_MEDIA_URL_ALLOW_REDIRECTS in engine.env)"
    )


def test_extra_args_come_last_and_env_wins(make_profile: MakeProfile, make_build: MakeBuild) -> None:
    profile = make_profile(engine={"extra_args": ["--seed", "7"], "env": {"VLLM_ENABLE_STARTUP_PLAN": "0"}})
    made = command(profile, make_build())
    assert made.argv[-2:] == ("--seed", "7")
    assert made.env["VLLM_ENABLE_STARTUP_PLAN"] == "0"


def test_own_access_log_settings_are_left_alone(make_profile: MakeProfile, make_build: MakeBuild) -> None:
    made = command(make_profile(engine={"extra_args": ["--disable_uvicorn_access_log"]}), make_build())
    assert "--disable-access-log-for-endpoints" not in made.argv


@pytest.mark.parametrize(
    ("version", "distribution", "message"),
    [
        ("0.23.0", "vllm-cpu", "vllm-cpu 0.23.0 is too old: vLLM 0.24 to 0.33 are known"),
        ("0.33.0", "vllm", "hardware.device is cpu, but vllm 0.33.0 in /venv/bin/python runs on cuda"),
    ],
)
def test_builds_that_cannot_be(
    make_profile: MakeProfile, make_build: MakeBuild, version: str, distribution: str, message: str
) -> None:
    with pytest.raises(PreconditionError) as caught:
        command(make_profile(), make_build(version, distribution))
    assert caught.value.message == message


def test_a_vllm_built_for_the_cpu_serves_a_cpu_profile(make_profile: MakeProfile, make_build: MakeBuild) -> None:
    assert command(make_profile(), make_build("0.32.0+cpu", "vllm")).argv[3] == "serve"


def test_a_value_that_the_version_does_not_know(make_profile: MakeProfile, make_build: MakeBuild) -> None:
    profile = make_profile(device="cuda", model=GLM | {"quantization": "bitsandbytes"})
    with pytest.raises(PreconditionError) as caught:
        command(profile, make_build("0.33.0", "vllm"), gpus=(0,))
    assert caught.value.message == (
        "model.quantization: --quantization bitsandbytes is known to vLLM 0.24 to 0.27 only; here is vllm 0.33.0"
    )
    assert command(profile, make_build("0.27.1", "vllm"), gpus=(0,))


def test_a_plug_in_for_a_build_that_is_not_there_yet_is_a_note(make_profile: MakeProfile) -> None:
    profile = make_profile(device="cuda", model=GLM | {"quantization": "bitsandbytes"})
    planned = VllmBuild("vllm", "0.33.0", (0, 33), "/venv/bin/python", installed=False)
    assert (
        "model.quantization: bitsandbytes needs the package vllm-bnb-plugin beside vllm 0.33.0 (not installed yet)"
        in command(profile, planned, gpus=(0,)).notes
    )


def test_a_newer_version_is_noted(make_profile: MakeProfile, make_build: MakeBuild) -> None:
    notes = command(make_profile(), make_build("0.40.0")).notes
    assert "vllm-cpu 0.40.0 is newer than 0.33, the newest known here: its own parser checks the arguments" in notes


REFUSED: list[tuple[list[str], str]] = [
    (["--port", "1"], "--port is not allowed: the launcher gives each replica a port of its own; "),
    (["--api_key=x"], "--api_key is not allowed: arguments show in ps to every user"),
    (["--uds", "/x"], "--uds is not allowed: "),
    (["--ssl-keyf", "x"], "--ssl-keyf is not allowed: the gateway speaks plain HTTP"),
    (["--headless"], "--headless is not allowed: "),
    (["--config", "x.yaml"], "--config is not allowed: a second file of settings"),
    (["-dp", "2"], "-dp is not allowed: a replica has "),
    (["--max_model_len", "4096"], "--max_model_len clashes with model.max_len, which writes it too"),
    (["--max-model-len=4096"], "--max-model-len clashes with model.max_len"),
    (["--max-model", "4096"], "--max-model clashes with model.max_len"),
    (["--no-enable-prefix-caching"], "--no-enable-prefix-caching clashes with engine.prefix_caching"),
    (["-tp", "4"], "-tp clashes with engine.tensor_parallel"),
    (["-O3"], "-O3 clashes with engine.compile"),
    (["--no-enforce-eager"], "--no-enforce-eager clashes with engine.compile"),
    (["--kv-cache-memory", "1"], "--kv-cache-memory clashes with engine.kv_cache_memory"),
    (["--hf-overrides.num_hidden_layers", "2"], "--hf-overrides.num_hidden_layers clashes with model.hf_overrides"),
    (["--shutdown-timeout", "0"], "--shutdown-timeout clashes with timeouts.drain"),
    (["--seed", "1", "--seed=2"], "--seed stands there twice, and vLLM would take the last"),
]


@pytest.mark.parametrize(("extra", "begins"), REFUSED, ids=[" ".join(extra) for extra, _ in REFUSED])
def test_extra_args_that_are_refused(
    make_profile: MakeProfile, make_build: MakeBuild, extra: list[str], begins: str
) -> None:
    profile = make_profile(
        model={"path": "m", "max_len": 2048, "hf_overrides": {"a": 1}},
        engine={"extra_args": extra, "prefix_caching": True, "compile": "eager", "tensor_parallel": 3},
    )
    with pytest.raises(ProfileError) as caught:
        command(profile, make_build())
    assert caught.value.message.startswith(f"engine.extra_args: {begins}")


def test_every_fault_of_extra_args_is_told_at_once(make_profile: MakeProfile, make_build: MakeBuild) -> None:
    profile = make_profile(engine={"extra_args": ["--port", "1", "--uds=x"], "env": {"VLLM_CPU_KVCACHE_SPACE": "1"}})
    with pytest.raises(ProfileError) as caught:
        command(profile, make_build())
    assert [line.split(" is not allowed")[0] for line in caught.value.message.splitlines()] == [
        "engine.extra_args: --port",
        "engine.extra_args: --uds",
        "engine.env: VLLM_CPU_KVCACHE_SPACE",
    ]


def test_the_engines_own_key_is_in_its_environment_alone(make_profile: MakeProfile, make_build: MakeBuild) -> None:
    made = command(make_profile(), make_build(), api_key="secret")
    assert made.env["VLLM_API_KEY"] == "secret"
    assert made.headers == {"Authorization": "Bearer secret"}
    assert "secret" not in " ".join(made.argv) + repr(made)
    assert command(make_profile(), make_build()).headers == {}


def test_a_key_of_the_profiles_own_goes_first(make_profile: MakeProfile, make_build: MakeBuild) -> None:
    profile = make_profile(engine={"env": {"VLLM_API_KEY": "mine"}})
    made = command(profile, make_build(), api_key="secret")
    assert (made.env["VLLM_API_KEY"], made.headers) == ("mine", {"Authorization": "Bearer mine"})
    with pytest.raises(
        ProfileError, match=r"--api-key is not allowed: arguments show in ps to every user; .*engine\.env"
    ):
        command(make_profile(engine={"extra_args": ["--api-key", "mine"]}), make_build())


def test_a_flag_with_a_key_of_its_own_that_is_unset_is_allowed_and_noted(
    make_profile: MakeProfile, make_build: MakeBuild
) -> None:
    made = command(make_profile(engine={"extra_args": ["--max-num-seqs", "4", "--chat-template", "x"]}), make_build())
    assert [note for note in made.notes if note.startswith("engine.extra_args")] == [
        "engine.extra_args: --max-num-seqs has a key of its own, engine.max_num_seqs; the plan counts with that key only",
        "engine.extra_args: --chat-template has a key of its own, model.chat_template; the plan counts with that key only",
    ]


def test_the_shell_line_is_what_is_run(make_profile: MakeProfile, make_build: MakeBuild) -> None:
    profile = make_profile(
        model={"path": "m", "served_name": "it's", "chat_template_kwargs": {"enable_thinking": False}},
        engine={"kv_cache_memory": "512MiB"},
    )
    made = command(profile, make_build())
    words = shlex.split(shell_line(made))
    assert words[:3] == ["env", "-u", "VLLM_CPU_KVCACHE_SPACE"]
    assert words[3 : 3 + len(made.env)] == [f"{name}={value}" for name, value in made.env.items()]
    assert tuple(words[3 + len(made.env) :]) == made.argv


def test_the_chat_template_is_found_from_the_profiles_folder(
    make_profile: MakeProfile, make_build: MakeBuild, tmp_path: Path
) -> None:
    (tmp_path / "t.jinja").write_text("{{ messages }}")
    profile = make_profile(model={"path": "m", "chat_template": "t.jinja"})
    made = engine_command(profile, Placement(0, ()), port=1, model_path="/m", build=make_build(), base_dir=tmp_path)
    assert made.argv[made.argv.index("--chat-template") + 1] == str(tmp_path / "t.jinja")
    with pytest.raises(ProfileError) as caught:
        engine_command(profile, Placement(0, ()), port=1, model_path="/m", build=make_build(), base_dir=tmp_path / "x")
    assert caught.value.message == f"model.chat_template: {tmp_path}/x/t.jinja does not exist"


@pytest.mark.parametrize(
    ("outer", "cards", "inner"),
    [
        (None, (0, 1), "0,1"),
        ("2,3,5", (0, 2), "2,5"),
        ("GPU-aaaa, GPU-bbbb", (1,), "GPU-bbbb"),
    ],
)
def test_cards_are_counted_within_the_outer_ones(outer: str | None, cards: tuple[int, ...], inner: str) -> None:
    assert visible_cards(Placement(0, cards), outer) == inner


def test_too_few_outer_cards() -> None:
    with pytest.raises(PreconditionError) as caught:
        visible_cards(Placement(1, (2, 3)), "0,1")
    assert caught.value.message == ("replica 1 needs card 3 (counted from 0), but CUDA_VISIBLE_DEVICES='0,1' leaves 2")


@pytest.mark.parametrize(
    ("file", "content", "shortest"),
    [
        (None, {}, 12544),
        ("preprocessor_config.json", {"size": {"shortest_edge": 3136, "longest_edge": 1}}, 3136),
        ("preprocessor_config.json", {"min_pixels": 3136, "max_pixels": 12845056}, 3136),
        ("processor_config.json", {"image_processor": {"size": {"shortest_edge": 65536, "longest_edge": 1}}}, 65536),
    ],
)
def test_the_least_image_area_is_the_models_own(
    tmp_path: Path, file: str | None, content: object, shortest: int
) -> None:
    if file:
        (tmp_path / file).write_text(json.dumps(content))
    assert processor_kwargs(tmp_path, 5_000_000) == {"size": {"shortest_edge": shortest, "longest_edge": 5_000_000}}


def test_image_area_for_a_model_that_has_none(tmp_path: Path) -> None:
    (tmp_path / "preprocessor_config.json").write_text('{"size": {"height": 1120, "width": 1120}}')
    with pytest.raises(ProfileError) as caught:
        processor_kwargs(tmp_path, 5_000_000)
    assert "has no longest_edge" in caught.value.message
    with pytest.raises(ProfileError) as caught:
        processor_kwargs(tmp_path / "none", 100)
    assert caught.value.message == "model.image_longest_edge: 100 is less than the model's shortest_edge, 12544"


def test_an_engine_is_traced_where_its_gateway_is(make_profile: MakeProfile, make_build: MakeBuild) -> None:
    profile = make_profile(gateway={"tracing": {"endpoint": "http://127.0.0.1:4318"}})
    made = command(profile, make_build())
    assert "--otlp-traces-endpoint http://127.0.0.1:4318/v1/traces" in " ".join(made.argv)
    assert {name: value for name, value in made.env.items() if name.startswith("OTEL_")} == {
        "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/protobuf",
        "OTEL_TRACES_SAMPLER": "parentbased_always_off",
        "OTEL_SERVICE_NAME": "test-engine",
    }
    untraced = command(make_profile(), make_build())
    assert not [word for word in (*untraced.argv, *untraced.env) if "otlp" in word.lower() or "OTEL" in word]
