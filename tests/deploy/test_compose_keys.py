"""Each key of the profile has its place in a compose file: in the profile that is mounted, in compose's own keys, or in none.

A new key fails here until somebody has said which.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from launcher.profile.keys import profile_keys
from launcher.profile.load import load_profile
from launcher.render.compose import compose_file
from launcher.render.compose_part import Given
from launcher.render.placed_files import FILE_KEYS
from tests.deploy.test_compose import CPU, FILES, GPU, REFUSED, ROOT

EXTERNAL = ROOT / "profiles" / "external.yaml"

# Said in the file too: what to set, and words that the file has then and had not before.
BY_COMPOSE: dict[str, tuple[Path, str, str]] = {
    "name": (GPU, "name=other", "name: other"),
    "model.id": (
        GPU,
        "model={packaged: smollm2-135m-instruct}",
        "environment:\n      LAUNCHER_ENGINE_KEY:",
    ),  # no hub token
    "model.packaged": (GPU, "model={packaged: smollm2-135m-instruct}", "environment:\n      LAUNCHER_ENGINE_KEY:"),
    "model.quantization": (GPU, "model.quantization=bitsandbytes", "args:\n        PACKAGES: vllm-bnb-plugin"),
    "hardware.device": (CPU, "hardware={device: cuda, gpu: H100}", "target: gpu"),
    "hardware.memory": (CPU, "hardware.memory=9GiB", "mem_limit: 10gb"),
    "engine.kind": (EXTERNAL, "engine={kind: external, urls: [http://10.0.0.9:1]}", "serving:"),
    "engine.urls": (EXTERNAL, "engine.urls=[http://10.0.0.9:1]", "serving:"),
    "engine.api_key_env": (EXTERNAL, "engine.api_key_env=BACKEND_KEY", "BACKEND_KEY:"),
    "engine.replicas": (ROOT / "profiles" / "2x4090-replicas.yaml", "engine.replicas=1", "  engine:\n"),
    "engine.tensor_parallel": (GPU, "engine.tensor_parallel=1", "device_ids: ['0'],"),
    "engine.pipeline_parallel": (GPU, "engine={tensor_parallel: 1, pipeline_parallel: 1}", "device_ids: ['0'],"),
    "gateway.listen": (GPU, "gateway.listen=127.0.0.1:9999", "published: '9999'"),
    "gateway.auth": (GPU, "gateway.auth=keys", "LAUNCHER_API_KEYS:"),
    "gateway.max_connections": (GPU, "gateway.max_connections=100", "nofile: 1224"),
    "logging.dir": (GPU, "logging.dir=logs", "--set=logging.dir=/var/lib/launcher/logs"),
    "logging.max_size": (GPU, "logging.max_size=7MiB", "max-size: 7m"),
    "logging.keep": (GPU, "logging.keep=8", "max-file: '9'"),
    "timeouts.start": (GPU, "timeouts.start=1h", "start_period: 3980s"),
    "timeouts.warmup": (GPU, "timeouts.warmup=1h", "start_period: 4580s"),
    "timeouts.drain": (GPU, "timeouts.drain=2m", "stop_grace_period: 148s"),
    "timeouts.stop": (GPU, "timeouts.stop=20s", "stop_grace_period: 68s"),
}
BY_IMAGE = {"engine.python"}  # the Dockerfiles set LAUNCHER__ENGINE__PYTHON, which is stronger than the file
PROFILE_ITSELF = """
version description
model.revision model.served_name model.dtype model.max_len model.hf_overrides model.trust_remote_code
model.chat_template_kwargs model.reasoning_parser model.tool_parser model.images_per_prompt model.videos_per_prompt
model.image_longest_edge model.load_format model.template.content_format model.template.image_first
model.template.number_images model.template.stop model.template.strip
hardware.gpu hardware.gpu_memory hardware.peer_to_peer
engine.max_num_batched_tokens engine.max_num_seqs engine.chunked_prefill engine.prefix_caching
engine.gpu_memory_utilization engine.kv_cache_memory engine.kv_cache_dtype engine.compile engine.env engine.extra_args
engine.health_path
gateway.max_body gateway.max_head gateway.head_timeout gateway.body_timeout gateway.idle_timeout gateway.write_timeout
gateway.peers gateway.images.budget gateway.images.budget.max_tokens gateway.images.budget.long_side
gateway.images.detail gateway.images.modes gateway.images.max_count gateway.images.max_bytes gateway.images.max_pixels
gateway.images.formats gateway.images.quality gateway.images.workers gateway.images.timeout
gateway.audio.budget gateway.audio.budget.max_tokens gateway.audio.budget.tokens_per_second
gateway.audio.budget.sample_rate gateway.audio.budget.pad gateway.audio.max_count gateway.audio.max_bytes
gateway.audio.max_length gateway.fetch.hosts gateway.fetch.http gateway.fetch.ports gateway.fetch.timeout
gateway.fetch.at_once gateway.uploads.memory gateway.uploads.per_key gateway.uploads.keep gateway.tracing.sample
admission.mode admission.deadline admission.deadline_per_1k admission.window admission.window_when
admission.max_prefill admission.burst admission.max_in_flight admission.max_queued admission.max_queued_tokens
admission.ageing admission.adaptive admission.prefix_affinity admission.hold admission.restart_wait admission.resume_streams
warmup.system_prompt warmup.prompts warmup.max_tokens warmup.canary.prompt warmup.canary.contains
warmup.canary.max_tokens
logging.level logging.access
timeouts.stall timeouts.probe_interval timeouts.probe
restart.backoff restart.max_backoff restart.budget restart.window
"""


def test_every_key_has_its_place() -> None:
    keys = {key.path for key in profile_keys()}
    placed = [
        *BY_COMPOSE,
        *BY_IMAGE,
        *PROFILE_ITSELF.split(),
        *FILES,
        *(key for key in REFUSED if key not in BY_COMPOSE),
    ]
    assert keys - set(placed) == set(), "say where it belongs: in PROFILE_ITSELF, BY_COMPOSE, FILE_KEYS or REFUSED"
    assert set(placed) - keys == set()
    assert len(placed) == len(set(placed))


def written(path: Path, *sets: str) -> str:
    """The file, without what it repeats of --set: what a setting changes besides."""
    loaded = load_profile(path, sets=sets, env={})
    return compose_file([Given(loaded, (), 10**9)], folder=ROOT, checkout=ROOT)


@pytest.mark.parametrize("key", BY_COMPOSE)
def test_what_compose_has_to_know_is_said_in_its_own_keys(key: str) -> None:
    path, setting, words = BY_COMPOSE[key]
    assert words in written(path, setting)
    assert words not in written(path)


@pytest.mark.parametrize("path", [GPU, EXTERNAL], ids=["vllm", "external"])
def test_what_was_set_at_the_rendering_reaches_every_container(path: Path) -> None:
    sets = ("admission.max_queued=7", "description=costs $5")
    text = compose_file([Given(load_profile(path, sets=sets, env={}), sets)], folder=ROOT)
    assert text.count("--set=admission.max_queued=7") == (2 if path == GPU else 1)
    assert "--set=description=costs $$5" in text  # a $ is compose's own sign


def test_files_have_a_reader() -> None:
    assert all(row.readers for row in FILE_KEYS)
