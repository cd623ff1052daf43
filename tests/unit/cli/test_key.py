"""`launcher key`: made, listed, revoked; whose keys are meant; what is noted and what is never shown."""

from __future__ import annotations

import fcntl
import json
import os
import stat
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from launcher.cli import execute
from launcher.errors import EXIT_FAILURE, EXIT_PRECONDITION, EXIT_USAGE
from launcher.gateway.keyfile import hash_of, read_keys
from launcher.gateway.modes import Priority
from tests.unit.cli.launching import launch


class Desk:
    """A state folder and a working folder of its own."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder, self._capsys = folder, capsys
        self.state = folder / "state"
        self.file = folder / "keys.json"

    def key(self, *argv: str) -> subprocess.CompletedProcess[str]:
        """The command as `launcher` runs it, in this process: starting one costs half a second each time."""
        code = execute(["key", *argv])
        return subprocess.CompletedProcess(argv, code, *self._capsys.readouterr())

    def profile(self, name: str = "small", more: str = "") -> str:
        (self.folder / f"{name}.yaml").write_text(
            f"name: {name}\nengine: {{kind: external, urls: ['http://x:1']}}\n{more}"
        )
        return f"{name}.yaml"

    def record(self, name: str, **record: object) -> Path:
        folder = self.state / name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "lock").touch()
        (folder / "state.json").write_text(json.dumps(record))
        return folder

    @contextmanager
    def running(self, name: str, **record: object) -> Iterator[Path]:
        """A run directory whose lock is held, as by its launcher."""
        folder = self.record(name, pid=os.getpid(), state="ready", **record)
        lock = os.open(folder / "lock", os.O_RDWR)
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            yield folder
        finally:
            os.close(lock)


@pytest.fixture
def desk(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Desk:
    desk = Desk(tmp_path, capsys)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LAUNCHER_STATE_DIR", str(desk.state))
    return desk


def audit(path: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_as_a_process_with_the_key_alone_on_stdout(tmp_path: Path) -> None:
    done = launch("key", "add", "alice", "--file", str(tmp_path / "k.json"))
    assert (done.returncode, read_keys(tmp_path / "k.json")[0].sha256) == (0, hash_of(done.stdout.strip()))


class TestAdd:
    def test_prints_the_key_alone_and_keeps_its_hash(self, desk: Desk) -> None:
        done = desk.key("add", "alice", "--file", "keys.json")
        assert done.returncode == 0
        secret = done.stdout.strip()
        assert done.stdout == f"{secret}\n"
        assert secret.startswith("sk-")
        (key,) = read_keys(desk.file)
        assert (key.name, key.sha256, key.priority, key.weight) == ("alice", hash_of(secret), Priority.NORMAL, 1.0)
        assert stat.S_IMODE(desk.file.stat().st_mode) == 0o600
        assert f"added alice ({key.id}) to keys.json. The key is shown only now: keep it." in done.stderr
        assert "from now on every request needs a key" in done.stderr
        for file in desk.folder.rglob("*"):
            assert not file.is_file() or secret not in file.read_text()
        assert "from now on" not in desk.key("add", "bob", "--file", "keys.json").stderr

    def test_all_that_a_key_may_be(self, desk: Desk) -> None:
        options = "--priority low --max-priority high --weight 2.5 --rpm 60 --tpm 100000 --admin --expires 30d"
        done = desk.key("add", "ops", *options.split(), "--file", "keys.json", "-o", "json")
        shown = json.loads(done.stdout)
        (key,) = read_keys(desk.file)
        assert (shown["id"], shown["name"], hash_of(shown["key"])) == (key.id, "ops", key.sha256)
        assert (key.priority, key.max_priority, key.weight, key.is_admin) == (Priority.LOW, Priority.HIGH, 2.5, True)
        assert (key.requests_per_minute, key.tokens_per_minute) == (60, 100000)
        assert key.expires == key.created + 30 * 86400

    @pytest.mark.parametrize(
        ("argv", "sentence"),
        [
            (["a b"], "'a b' is not a name: it takes 1 to 64 letters"),
            (["a", "--max-priority", "low"], "--max-priority: low is below priority, normal."),
            (["a", "--weight", "0"], "0.001<=x<=1000"),
            (["a", "--rpm", "0"], "--rpm"),
            (["a", "--priority", "urgent"], "'high', 'normal', 'low'"),
            (["a", "--expires", "30"], "--expires: '30' is not a duration"),
            (["a", "--expires", "400d"], "--expires: '400d' is too long: 365d at most"),
            (["a", "--expires", "0s"], "--expires: '0s' is over before the key can be used."),
            (["a", "--deployment", "x"], "--deployment, --profile and --file exclude each other"),
        ],
    )
    def test_slips(self, desk: Desk, argv: list[str], sentence: str) -> None:
        done = desk.key("add", *argv, "--file", "keys.json")
        assert (done.returncode, done.stdout) == (EXIT_USAGE, "")
        assert sentence in " ".join(done.stderr.split())
        assert not desk.file.exists()

    def test_a_name_is_one_key(self, desk: Desk) -> None:
        desk.key("add", "alice", "--file", "keys.json")
        done = desk.key("add", "alice", "--file", "keys.json")
        (key,) = read_keys(desk.file)
        assert (done.returncode, done.stdout) == (EXIT_FAILURE, "")
        assert f"keys.json has a key for 'alice' already ({key.id})" in done.stderr
        assert f"launcher key revoke {key.id}" in done.stderr
        desk.key("revoke", key.id, "--file", "keys.json")
        assert desk.key("add", "alice", "--file", "keys.json").returncode == 0
        assert [key.revoked is None for key in read_keys(desk.file)] == [False, True]

    def test_a_broken_file_is_left_alone(self, desk: Desk) -> None:
        desk.file.write_text("mine")
        done = desk.key("add", "alice", "--file", "keys.json")
        assert (done.returncode, done.stdout, desk.file.read_text()) == (EXIT_FAILURE, "", "mine")
        assert "keys.json: is not JSON" in done.stderr


class TestListAndRevoke:
    def test_the_table(self, desk: Desk) -> None:
        for argv in (
            ["alice", "--rpm", "60"],
            ["ops", "--admin", "--max-priority", "high", "--expires", "1d"],
            ["old"],
        ):
            desk.key("add", *argv, "--file", "keys.json")
        assert desk.key("revoke", "old", "--file", "keys.json").returncode == 0
        done = desk.key("list", "--file", "keys.json")
        rows = [[cell for cell in line.split("  ") if cell] for line in done.stdout.splitlines()]
        assert [cell.strip() for cell in rows[0]][:4] == ["ID", "NAME", "STATE", "PRIORITY"]
        cells = [[cell.strip() for cell in row] for row in rows[1:]]
        assert [row[1:8] for row in cells] == [
            ["alice", "usable", "normal", "1", "60", "-", "-"],
            ["ops", "usable", "normal, up to high", "1", "-", "-", "yes"],
            ["old", "revoked", "normal", "1", "-", "-", "-"],
        ]
        assert "keys.json: 3 keys" in done.stderr

    def test_json_without_secrets(self, desk: Desk) -> None:
        secret = desk.key("add", "alice", "--file", "keys.json").stdout.strip()
        shown = desk.key("list", "--file", "keys.json", "-o", "json").stdout
        (key,) = json.loads(shown)["keys"]
        assert (key["name"], key["state"], "sha256" in key) == ("alice", "usable", False)
        assert secret not in shown
        assert hash_of(secret) not in shown

    def test_revoking(self, desk: Desk) -> None:
        desk.key("add", "alice", "--file", "keys.json")
        (key,) = read_keys(desk.file)
        assert "revoked alice" in desk.key("revoke", "alice", "--file", "keys.json").stderr
        (revoked,) = read_keys(desk.file)
        assert revoked.revoked is not None
        assert revoked.revoked >= key.created
        again = desk.key("revoke", key.id, "--file", "keys.json")
        assert again.returncode == EXIT_FAILURE
        assert "was revoked already, at 20" in again.stderr
        unknown = desk.key("revoke", "carol", "--file", "keys.json")
        assert "keys.json has no key 'carol' (it has: none)" in unknown.stderr

    def test_each_act_is_noted_and_how_it_ended(self, desk: Desk) -> None:
        secret = desk.key("add", "alice", "--file", "keys.json").stdout.strip()
        desk.key("revoke", "bob", "--file", "keys.json")
        desk.key("list", "--file", "keys.json")
        added, refused = audit(desk.folder / "keys.audit.log")
        assert (added["act"], added["object"], added["result"]) == ("key.add", "alice in keys.json", "done")
        assert (refused["act"], refused["object"]) == ("key.revoke", "bob in keys.json")
        assert refused["result"].startswith("failed: keys.json has no key 'bob' (it has: alice")
        assert added["actor"]
        assert secret not in (desk.folder / "keys.audit.log").read_text()


class TestWhose:
    def test_a_profile_that_has_never_run(self, desk: Desk) -> None:
        assert desk.key("add", "alice", "--profile", desk.profile()).returncode == 0
        assert len(read_keys(desk.state / "small" / "keys.json")) == 1
        assert audit(desk.state / "small" / "logs" / "audit.log")[0]["act"] == "key.add"
        # as `ps`, `logs` and `down` take a profile's file for a name
        assert "1 keys" in desk.key("list", "--deployment", "small.yaml").stderr

    def test_a_profile_with_a_file_and_a_log_folder_of_its_own(self, desk: Desk) -> None:
        profile = desk.profile(more="gateway: {keys_file: my/keys.json}\nlogging: {dir: out}\n")
        assert desk.key("add", "alice", "--profile", profile).returncode == 0
        assert len(read_keys(desk.folder / "my" / "keys.json")) == 1
        assert audit(desk.folder / "out" / "audit.log")[0]["act"] == "key.add"

    def test_the_only_one_that_runs(self, desk: Desk) -> None:
        with desk.running("small", keys_file=str(desk.folder / "k.json"), logs=str(desk.folder / "logs")):
            assert desk.key("add", "alice").returncode == 0
            assert len(read_keys(desk.folder / "k.json")) == 1
            assert audit(desk.folder / "logs" / "audit.log")[0]["act"] == "key.add"

    def test_one_of_several_by_name(self, desk: Desk) -> None:
        with desk.running("one"), desk.running("two"):
            done = desk.key("list")
            assert done.returncode == EXIT_PRECONDITION
            assert "2 deployments are running: one, two" in done.stderr
            assert desk.key("add", "alice", "--deployment", "two").returncode == 0
        assert len(read_keys(desk.state / "two" / "keys.json")) == 1

    def test_one_that_has_ended_by_its_profile(self, desk: Desk) -> None:
        profile = desk.profile(more="gateway: {keys_file: k.json}\n")
        desk.record("small", profile=str(desk.folder / profile), state="ended")
        assert desk.key("add", "alice", "--deployment", "small").returncode == 0
        assert len(read_keys(desk.folder / "k.json")) == 1
        (desk.folder / profile).unlink()
        done = desk.key("list", "--deployment", "small")
        assert "its profile, which says where its keys are, cannot be read" in done.stderr
        assert "--file FILE" in done.stderr

    def test_nobody(self, desk: Desk) -> None:
        done = desk.key("add", "alice")
        assert (done.returncode, done.stdout) == (EXIT_PRECONDITION, "")
        assert "nothing is running" in done.stderr
        assert "--profile FILE" in done.stderr
        assert "no deployment 'x' is running" in desk.key("list", "--deployment", "x").stderr
