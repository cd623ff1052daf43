"""The gate of a deployment: which keys there are by its profile, and whether it starts without any."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from launcher.errors import PreconditionError
from launcher.gateway.keyfile import Key, KeyFault, changing
from launcher.profile.load import LoadedProfile, load_profile
from launcher.up.keys import keys_path, open_gate

ENVIRONMENT = {"LAUNCHER_API_KEYS": "sk-0123456789abcdef"}


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LAUNCHER_STATE_DIR", str(tmp_path / "state"))
    return tmp_path / "state"


def loaded(folder: Path, gateway: str) -> LoadedProfile:
    path = folder / "p.yaml"
    path.write_text(f"name: small\nengine: {{kind: external, urls: ['http://x:1']}}\ngateway: {gateway}\n")
    return load_profile(path, env={})


def test_where_the_keys_are(tmp_path: Path, state: Path) -> None:
    assert keys_path(loaded(tmp_path, "{}")) == state / "small" / "keys.json"
    assert keys_path(loaded(tmp_path, "{keys_file: sub/k.json}")) == tmp_path / "sub" / "k.json"
    assert keys_path(loaded(tmp_path, "{keys_file: ~/k.json}")) == Path.home() / "k.json"


def test_open_on_loopback_without_keys_closed_with_any(tmp_path: Path) -> None:
    profile = loaded(tmp_path, "{listen: '127.0.0.1:1'}")
    assert not open_gate(profile, {}).required
    assert open_gate(profile, ENVIRONMENT).required
    with changing(keys_path(profile)) as keys:
        keys.append(Key("0" * 8, "old", "0" * 64, created=1.0, revoked=2.0))
    assert open_gate(profile, {}).required  # who has revoked the last key wants no open door


def test_reachable_from_elsewhere_it_needs_keys_or_a_word(tmp_path: Path) -> None:
    with pytest.raises(PreconditionError, match="which others can reach, and there are no API keys"):
        open_gate(loaded(tmp_path, "{listen: '0.0.0.0:1'}"), {})
    assert open_gate(loaded(tmp_path, "{listen: '0.0.0.0:1'}"), ENVIRONMENT).required
    assert not open_gate(loaded(tmp_path, "{listen: '0.0.0.0:1', auth: none}"), {}).required


def test_keys_that_nobody_is_asked_for_are_said_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "launcher.up"):
        gate = open_gate(loaded(tmp_path, "{auth: none}"), ENVIRONMENT)
    assert not gate.required
    assert caplog.messages == ["LAUNCHER_API_KEYS is set, but gateway.auth is none: nobody is asked for a key"]


def test_a_broken_file_is_no_start(tmp_path: Path, state: Path) -> None:
    profile = loaded(tmp_path, "{}")
    keys_path(profile).parent.mkdir(parents=True)
    keys_path(profile).write_text("{")
    with pytest.raises(KeyFault, match=r"keys\.json: is not JSON"):
        open_gate(profile, {})
