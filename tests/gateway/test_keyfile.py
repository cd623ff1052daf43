"""The file of keys: what it may hold, how its faults are told, and that it is changed whole and one at a time."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from launcher.gateway.keyfile import Key, KeyFault, changing, hash_of, new_secret, parse_keys, read_keys, show_time
from launcher.gateway.keyring import keys_of_environment
from launcher.gateway.modes import Priority

GOOD: dict[str, Any] = {"id": "0123abcd", "name": "alice", "sha256": "0" * 64, "created": "2026-11-21T22:59:00Z"}


def text_of(*entries: Any, version: Any = 1) -> str:
    return json.dumps({"schema_version": version, "keys": list(entries)})


def fault(text: str) -> str:
    with pytest.raises(KeyFault) as caught:
        parse_keys(text, "keys.json")
    assert "`launcher key add`" in caught.value.hint
    return caught.value.message


class TestReading:
    def test_defaults(self) -> None:
        (key,) = parse_keys(text_of(GOOD), "keys.json")
        assert key == Key("0123abcd", "alice", "0" * 64, created=1795301940.0)
        assert (key.priority, key.max_priority, key.weight, key.is_admin) == (
            Priority.NORMAL,
            Priority.NORMAL,
            1.0,
            False,
        )

    def test_max_priority_is_priority_unless_given(self) -> None:
        low, high = parse_keys(
            text_of(
                {**GOOD, "priority": "low"},
                {**GOOD, "id": "1" * 8, "name": "b", "sha256": "1" * 64, "max_priority": "high"},
            ),
            "keys.json",
        )
        assert (low.max_priority, high.priority, high.max_priority) == (Priority.LOW, Priority.NORMAL, Priority.HIGH)

    @pytest.mark.parametrize(
        ("change", "sentence"),
        [
            ({"id": "x"}, "keys[0].id: 'x' is not 8 hexadecimal digits"),
            ({"name": ""}, "keys[0].name: '' is not 1 to 64 letters, digits"),
            ({"name": "a\nb"}, "keys[0].name: 'a\\nb' is not 1 to 64 letters"),
            ({"name": 7}, "keys[0].name: 7 is not 1 to 64"),
            ({"sha256": "sk-a-secret-by-mistake"}, "keys[0].sha256: is not 64 hexadecimal digits"),
            ({"priority": "urgent"}, "keys[0].priority: 'urgent' is not one of high, normal, low"),
            ({"max_priority": "low"}, "keys[0].max_priority: low is below priority, normal"),
            ({"weight": 0}, "keys[0].weight: 0 is not a number from 0.001 to 1000"),
            ({"weight": True}, "keys[0].weight: True is not a number"),
            ({"weight": float("nan")}, "keys[0].weight: nan is not a number"),
            ({"requests_per_minute": 0}, "keys[0].requests_per_minute: 0 is not a whole number, 1 or more"),
            ({"tokens_per_minute": 1.5}, "keys[0].tokens_per_minute: 1.5 is not a whole number"),
            ({"is_admin": "yes"}, "keys[0].is_admin: 'yes' is not true or false"),
            ({"created": "yesterday"}, "keys[0].created: 'yesterday' is not a time such as"),
            ({"created": None}, "keys[0].created: None is not a time"),
            ({"expires": "2026-11-21T22:59:00"}, "keys[0].expires: '2026-11-21T22:59:00' is not a time with its zone"),
            ({"revoked": True}, "keys[0].revoked: True is not a time"),
            ({"priorty": "low"}, "keys[0].priorty: there is no such field; did you mean priority?"),
            ({"zzz": 1}, "keys[0].zzz: there is no such field; known are: id, name"),
        ],
    )
    def test_a_fault_names_file_place_value_and_choices(self, change: dict[str, Any], sentence: str) -> None:
        assert fault(text_of({**GOOD, **change})).startswith(f"keys.json: {sentence}")

    def test_a_secret_by_mistake_is_not_repeated(self) -> None:
        assert "sk-" not in fault(text_of({**GOOD, "sha256": "sk-a-secret-by-mistake"}))

    @pytest.mark.parametrize(
        ("text", "sentence"),
        [
            ("", "keys.json: is not JSON: "),
            ("[]", 'keys.json: is not {"schema_version": 1, "keys": […]}'),
            ('{"schema_version": 1}', "keys.json: is not {"),
            (text_of(version=2), "keys.json: schema_version: 2 is not known (known: 1)"),
            (
                '{"schema_version": 1, "keys": [], "key": 1}',
                "keys.json: key: there is no such field; did you mean keys?",
            ),
            (text_of("sk-x"), "keys.json: keys[0]: is not an object"),
            (text_of({"id": "0123abcd"}), "keys.json: keys[0].name: is missing"),
            (
                text_of(GOOD, {**GOOD, "name": "b", "sha256": "1" * 64}),
                "keys.json: 'alice' and 'b' have the id '0123abcd'",
            ),
            (text_of(GOOD, {**GOOD, "id": "1" * 8, "name": "b"}), "keys.json: 'alice' and 'b' have the same sha256"),
            (
                text_of(GOOD, {**GOOD, "id": "1" * 8, "sha256": "1" * 64}),
                "keys.json: 'alice' and 'alice' have the name",
            ),
        ],
    )
    def test_faults_of_the_whole(self, text: str, sentence: str) -> None:
        assert fault(text).startswith(sentence)

    def test_a_revoked_name_may_be_given_again(self) -> None:
        revoked = {**GOOD, "revoked": "2026-11-22T00:00:00+01:00"}
        again = {**GOOD, "id": "1" * 8, "sha256": "1" * 64}
        assert [key.revoked for key in parse_keys(text_of(revoked, again), "x")] == [1795301940.0 + 60, None]

    def test_deep_nesting_is_a_fault_too(self) -> None:
        assert "is not JSON" in fault("[" * 100_000)

    def test_files(self, tmp_path: Path) -> None:
        path = tmp_path / "keys.json"
        assert read_keys(path) == ()
        path.write_bytes(b"\xff\xfe\xfd")
        with pytest.raises(KeyFault, match="is not UTF-8 text"):
            read_keys(path)
        path.write_text("\ufeff" + text_of(GOOD), encoding="utf-8")
        assert len(read_keys(path)) == 1
        path.chmod(0o646)
        with pytest.raises(KeyFault, match="every user of this machine can write to it") as caught:
            read_keys(path)
        assert caught.value.hint == f"chmod 600 {path}"
        with pytest.raises(KeyFault, match="cannot be read: Is a directory"):
            read_keys(tmp_path)


class TestChanging:
    def test_what_is_written_is_read_again(self, tmp_path: Path) -> None:
        path = tmp_path / "deep" / "keys.json"
        keys = [
            Key("0" * 8, "a", "0" * 64, created=1.0),
            Key(
                "1" * 8, "b", "1" * 64, Priority.LOW, Priority.HIGH, 2.5, 60, 1000, True, created=1.0, expires=9.0, revoked=5.0
            ),
        ]  # fmt: skip
        with changing(path) as held:
            held += keys
        assert read_keys(path) == tuple(keys)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600

    def test_a_failure_changes_nothing(self, tmp_path: Path) -> None:
        path = tmp_path / "keys.json"
        with changing(path) as held:
            held.append(Key("0" * 8, "a", "0" * 64, created=1.0))
        before = path.read_bytes()
        with pytest.raises(IndexError), changing(path) as held:
            held.pop(7)
        with pytest.raises(KeyFault, match="have the same sha256"), changing(path) as held:
            held.append(Key("1" * 8, "b", "0" * 64, created=1.0))
        with pytest.raises(KeyFault, match="max_priority: normal is below priority, high"), changing(path) as held:
            held.append(Key("1" * 8, "b", "1" * 64, priority=Priority.HIGH, created=1.0))
        assert path.read_bytes() == before

    def test_a_broken_file_is_not_replaced(self, tmp_path: Path) -> None:
        path = tmp_path / "keys.json"
        path.write_text("by hand")
        with pytest.raises(KeyFault, match="is not JSON"), changing(path):
            pass
        assert path.read_text() == "by hand"

    def test_several_at_once_lose_nothing(self, tmp_path: Path) -> None:
        """Processes that add at the same time, and a reader that never finds half a file."""
        path = tmp_path / "keys.json"
        code = (
            "import sys; from pathlib import Path; from launcher.gateway.keyfile import *\n"
            "for n in range(10):\n"
            "    with changing(Path(sys.argv[1])) as keys:\n"
            "        secret = new_secret(); h = hash_of(secret)\n"
            "        keys.append(Key(h[:8], f'{sys.argv[2]}-{n}', h, created=1.0))\n"
        )
        argv = [sys.executable, "-c", code, str(path)]
        processes = [subprocess.Popen([*argv, name], env={**os.environ, "PYTHONPATH": os.getcwd()}) for name in "abcd"]
        seen = 0
        while any(process.poll() is None for process in processes):
            found = len(read_keys(path))
            assert found >= seen
            seen = found
        assert [process.returncode for process in processes] == [0] * 4
        assert {key.name for key in read_keys(path)} == {f"{name}-{n}" for name in "abcd" for n in range(10)}
        assert sorted(file.name for file in tmp_path.iterdir()) == ["keys.json", "keys.json.lock"]

    def test_a_folder_that_cannot_be_written_to(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        with pytest.raises(KeyFault, match="cannot be written to"), changing(tmp_path / "file" / "keys.json"):
            pass


class TestEnvironment:
    def test_names_and_none(self) -> None:
        keys = keys_of_environment("sk-0123456789abcdef, ops=sk-fedcba9876543210,,c3Rhcndhcw0123456789==")
        assert [(key.id, key.name) for key in keys] == [("env-1", "env-1"), ("env-2", "ops"), ("env-4", "env-4")]
        assert [key.sha256 for key in keys] == [
            hash_of(secret) for secret in ("sk-0123456789abcdef", "sk-fedcba9876543210", "c3Rhcndhcw0123456789==")
        ]
        assert keys_of_environment("") == keys_of_environment(" , ") == ()

    @pytest.mark.parametrize("value", ["short", "a=short", "ops=", "sk-0123 456789abcdef", "sk-0123456789äbcdef"])
    def test_what_is_no_key(self, value: str) -> None:
        with pytest.raises(KeyFault) as caught:
            keys_of_environment("sk-0123456789abcdef," + value)
        message = caught.value.message
        assert message == ("LAUNCHER_API_KEYS: key 2 is not 16 or more printable ASCII characters without spaces")
        assert "openssl rand" in caught.value.hint

    def test_the_same_twice(self) -> None:
        with pytest.raises(KeyFault, match="LAUNCHER_API_KEYS: 'a' and 'env-2' have the same sha256"):
            keys_of_environment("a=sk-0123456789abcdef,sk-0123456789abcdef")


def test_secrets_are_new_each_time_and_long() -> None:
    secrets = {new_secret() for _ in range(100)}
    assert len(secrets) == 100
    assert {len(secret) for secret in secrets} == {46}
    assert all(secret.startswith("sk-") and secret.isascii() for secret in secrets)


def test_times_are_shown_in_utc() -> None:
    assert show_time(1795301940.9) == "2026-11-21T22:59:00Z"
