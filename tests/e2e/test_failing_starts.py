"""Starts that fail on the real engine: one of our sentences each, never a traceback."""

from __future__ import annotations

import socket

import pytest

from tests.e2e.endpoint import Endpoint

PRECONDITION, ENGINE = 4, 5


def refused(endpoint: Endpoint, *sets: str, code: int) -> str:
    """What `up` says when it fails with ``code``."""
    result = endpoint.up(*sets)
    assert result.returncode == code, result.stderr
    assert "Traceback" not in result.stderr
    assert "→" in result.stderr  # every error ends with what to do next
    return result.stderr


def test_unknown_engine_argument_is_refused_before_the_start(own_endpoint: Endpoint) -> None:
    said = refused(own_endpoint, "engine.extra_args=[--enable-prefix-cacheing]", code=PRECONDITION)
    assert "--enable-prefix-cacheing" in said
    assert "--enable-prefix-caching" in said  # did you mean
    assert "engine.extra_args" in said


def test_missing_model_folder(own_endpoint: Endpoint) -> None:
    said = refused(own_endpoint, "model.packaged=null", "model.path=/no/such/model", code=PRECONDITION)
    assert "/no/such/model" in said


def test_port_in_use(own_endpoint: Endpoint) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        said = refused(own_endpoint, f"gateway.listen={address}", code=PRECONDITION)
    assert address in said
    assert "gateway.listen" in said


def test_max_len_above_the_models(own_endpoint: Endpoint) -> None:
    said = refused(own_endpoint, "model.max_len=100000", code=PRECONDITION)
    assert "8192" in said


@pytest.mark.parametrize(
    ("sets", "words"),
    [
        (("model.max_len=100000",), ("model.max_len", "8192")),
        (
            ("engine.kv_cache_memory=16MiB",),
            (
                "the KV cache is too small: one request of 2048 tokens needs 0.09 GiB",
                "engine.kv_cache_memory",
                "model.max_len",
            ),
        ),
    ],
    ids=["max_len", "kv"],
)
def test_what_vllm_itself_refuses(own_endpoint: Endpoint, sets: tuple[str, ...], words: tuple[str, ...]) -> None:
    """The plan refuses these; forced past it, the diagnosis says the same."""
    result = own_endpoint.launcher(
        "up",
        "profiles/cpu-smollm2.yaml",
        "-d",
        "--wait",
        "--force",
        *(part for one in ("gateway.listen=127.0.0.1:0", *sets) for part in ("--set", one)),
    )
    assert result.returncode == ENGINE, result.stderr
    assert "Traceback" not in result.stderr
    for word in words:
        assert word in result.stderr
