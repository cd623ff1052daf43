"""The systemd unit: what it says, whether systemd takes it and how confined it is; and what `launcher up` tells systemd."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from launcher.cli.render_systemd import interpreter_of, systemd_command
from launcher.cli.serve import audience_for
from launcher.cli.systemd import Notifier, ServiceAudience
from launcher.errors import EXIT_CODES, PreconditionError
from launcher.profile.load import load_profile
from launcher.profile.units import GIB, MIB
from launcher.render.systemd import MARGIN_S, OWN_BYTES, Place, _word, service_unit
from launcher.up.deployment import STOP_MARGIN_S
from launcher.up.snapshot import EngineView, Snapshot
from tests.process.deployment import FakeEndpoint

ROOT = Path(__file__).resolve().parents[2]
PROFILES = sorted((ROOT / "profiles").glob("*.yaml"))
DEFAULT = ROOT / "profiles" / "cpu-smollm2.yaml"
MOST_EXPOSURE = 20  # of 100, as `systemd-analyze security` counts; a unit without any confinement has 96
needs_systemd = pytest.mark.skipif(
    not shutil.which("systemd-analyze"), reason="systemd-analyze is not here: apt-get install systemd"
)
PATIENCE_S = 30.0

Settings = dict[str, list[str]]


def unit_of(profile: Path = DEFAULT, *sets: str, place: Place | None = None, arguments: tuple[str, ...] = ()) -> str:
    return service_unit(load_profile(profile, sets=sets, env={}), place or Place(), arguments)


def settings(unit: str) -> Settings:
    """Each setting's values, in their order."""
    found: Settings = {}
    for line in unit.splitlines():
        if line and not line.startswith(("#", "[")):
            name, _, value = line.partition("=")
            found.setdefault(name, []).append(value)
    return found


def test_the_shipped_unit_is_the_default_profiles() -> None:
    shipped = ROOT / "deploy" / "systemd" / "launcher-cpu-smollm2.service"
    assert shipped.read_text() == unit_of(), f"launcher render systemd profiles/cpu-smollm2.yaml -o {shipped}"


@pytest.mark.parametrize("profile", PROFILES, ids=lambda path: path.stem)
def test_nothing_is_left_open_in_the_template(profile: Path) -> None:
    unit = unit_of(profile)
    assert "${" not in unit
    assert max(len(line) for line in unit.splitlines() if line.startswith("#")) <= 120
    assert f"up /etc/launcher/{profile.stem}.yaml" in settings(unit)["ExecStart"][0]


@needs_systemd
def test_systemd_takes_the_unit_of_every_profile(tmp_path: Path) -> None:
    for profile in PROFILES:
        path = tmp_path / f"launcher-{profile.stem}.service"
        path.write_text(unit_of(profile, place=Place(program="/bin/true")))
    assert analyze("verify", *map(str, sorted(tmp_path.iterdir()))) == (0, "")


@needs_systemd
def test_systemd_refuses_a_setting_that_is_none(tmp_path: Path) -> None:
    path = tmp_path / "launcher-x.service"
    path.write_text(unit_of(place=Place(program="/bin/true")).replace("KillMode=mixed", "KillMode=gently"))
    assert "Failed to parse kill mode" in analyze("verify", str(path))[1]


@needs_systemd
@pytest.mark.parametrize("profile", ["cpu-smollm2", "2x4090"])
def test_it_is_confined(profile: str, tmp_path: Path) -> None:
    path = tmp_path / "launcher-x.service"
    path.write_text(unit := unit_of(ROOT / "profiles" / f"{profile}.yaml"))
    exposure = ("security", "--offline=true", f"--threshold={MOST_EXPOSURE}", "--no-pager", str(path))
    code, said = analyze(*exposure)
    assert code == 0, said
    path.write_text(
        "\n".join(line for line in unit.splitlines() if not line.startswith(("SystemCallFilter", "Restrict")))
    )
    assert analyze(*exposure)[0] != 0


def analyze(*arguments: str) -> tuple[int, str]:
    done = subprocess.run(["systemd-analyze", *arguments], capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr if arguments[0] == "security" else done.stderr


@pytest.mark.parametrize(("drain", "stop"), [("30s", "10s"), ("0s", "0s"), ("200ms", "1500ms"), ("10m", "1m")])
def test_the_time_to_stop_covers_the_drain(drain: str, stop: str) -> None:
    loaded = load_profile(DEFAULT, sets=[f"timeouts.drain={drain}", f"timeouts.stop={stop}"], env={})
    (given,) = settings(service_unit(loaded, Place()))["TimeoutStopSec"]
    timeouts = loaded.profile.timeouts
    assert float(given.removesuffix("s")) >= timeouts.drain + timeouts.stop + MARGIN_S
    assert MARGIN_S > STOP_MARGIN_S  # what `launcher down` itself allows before it kills


def test_what_a_restart_cannot_mend_is_not_tried_again() -> None:
    found = settings(unit_of())
    prevented = {int(code) for code in found["RestartPreventExitStatus"][0].split()}
    assert {EXIT_CODES[code] for code in prevented} == {
        "the command line is wrong",
        "the profile is not valid",
        "the plan does not fit, or the machine lacks something (a GPU, a package, a free port)",
    }
    assert found["Restart"] == ["on-failure"]
    assert EXIT_CODES[int(found["SuccessExitStatus"][0])] == "stopped at once by a second Ctrl+C"


def test_connections_and_memory_are_the_profiles() -> None:
    found = settings(
        unit_of(DEFAULT, "gateway.max_connections=1000", "gateway.uploads.memory=512MiB", "hardware.memory=8GiB")
    )
    assert int(found["LimitNOFILE"][0]) >= 2 * 1000
    need_mib = (8 * GIB + 512 * MIB + OWN_BYTES) // MIB
    assert found["MemoryHigh"] == [f"{need_mib}M"]
    assert int(found["MemoryMax"][0].removesuffix("M")) > need_mib
    assert "MemoryMax" not in settings(unit_of(ROOT / "profiles" / "2x4090.yaml"))


def test_cards_are_the_only_devices() -> None:
    found = settings(unit_of(ROOT / "profiles" / "2x4090.yaml"))
    assert (found["DevicePolicy"], found["DeviceAllow"]) == (["closed"], ["char-nvidia* rw"])
    assert "PrivateDevices" not in found
    assert "nvidia_uvm" in found["After"][0]
    for other in ("cpu-smollm2", "external"):
        found = settings(unit_of(ROOT / "profiles" / f"{other}.yaml"))
        assert found["PrivateDevices"] == ["yes"]
        assert found["After"] == ["network-online.target"]


@pytest.mark.parametrize(
    ("listen", "capability"), [("0.0.0.0:443", "CAP_NET_BIND_SERVICE"), ("0.0.0.0:8000", ""), ("[::]:0", "")]
)
def test_a_low_port_takes_one_capability(listen: str, capability: str) -> None:
    found = settings(unit_of(DEFAULT, f"gateway.listen={listen}"))
    assert found["CapabilityBoundingSet"] == found["AmbientCapabilities"] == [capability]


@pytest.mark.parametrize(
    ("sets", "said"),
    [
        (["model.packaged=null", "model.path=/home/me/model"], "model.path: /home/me/model lies in /home, which the service cannot see"),
        (["engine.python=/root/.venv/bin/python"], "engine.python: /root/.venv/bin/python lies in /root"),
        (["gateway.keys_file=/tmp/keys.json"], r"gateway.keys_file: /tmp/keys.json lies in /tmp, .* \(PrivateTmp\)"),
        (["logging.dir=logs"], "logging.dir: logs is relative to the profile's file, where the service cannot write"),
        (["gateway.keys_file=~/keys.json"], "gateway.keys_file: ~/keys.json is not an absolute path"),
    ],
)  # fmt: skip
def test_a_path_that_the_service_cannot_use_is_refused_by_its_key(sets: list[str], said: str) -> None:
    with pytest.raises(PreconditionError, match=said):
        unit_of(DEFAULT, *sets)


def test_places_on_the_other_machine_are_checked_too() -> None:
    with pytest.raises(PreconditionError, match="--program: /home/me/launcher lies in /home"):
        unit_of(place=Place(program="/home/me/launcher"))
    with pytest.raises(PreconditionError, match=r"the Python of --program: /root/\.pyenv/bin/python lies in /root"):
        unit_of(place=Place(interpreter="/root/.pyenv/bin/python"))
    with pytest.raises(PreconditionError, match=r"--profile-path: x\.yaml is not an absolute path"):
        unit_of(place=Place(profile="x.yaml"))


def test_the_python_behind_a_virtual_environment_is_found(tmp_path: Path) -> None:
    (tmp_path / "python").symlink_to(sys.executable)
    assert interpreter_of(str(tmp_path / "launcher")) == str(Path(sys.executable).resolve())
    assert interpreter_of(str(tmp_path / "none" / "launcher")) == ""


def test_logs_go_where_the_profile_says() -> None:
    assert "--set logging.dir=/var/log/launcher/cpu-smollm2" in settings(unit_of())["ExecStart"][0]
    found = settings(unit_of(DEFAULT, "logging.dir=/srv/logs"))
    assert "logging.dir" not in found["ExecStart"][0]
    assert found["ReadWritePaths"] == ["/srv/logs"]


def test_each_host_of_several_has_a_rank() -> None:
    several = ("engine.nodes=2", "hardware.gpus=1")
    profile = ROOT / "profiles" / "2x4090.yaml"
    with pytest.raises(PreconditionError, match=r"engine\.nodes: 2 hosts run one replica") as refused:
        unit_of(profile, *several)
    assert "-- --node-rank 0" in refused.value.hint
    found = settings(unit_of(profile, *several, arguments=("--node-rank", "1")))
    assert found["ExecStart"][0].endswith(" --node-rank 1")
    assert "char-infiniband* rw" in found["DeviceAllow"]


@pytest.mark.parametrize(
    ("word", "written"),
    [
        ("plain=1", "plain=1"),
        ("two words", '"two words"'),
        ('{"temperature": 0}', r'"{\"temperature\": 0}"'),
        ("50%", "50%%"),
        ("$HOME", "$$HOME"),
        ("a\nb", r'"a\nb"'),
        ("", '""'),
    ],
)
def test_words_reach_the_launcher_as_they_are(word: str, written: str) -> None:
    assert _word(word) == written


def test_the_command(tmp_path: Path) -> None:
    path = tmp_path / "launcher-x.service"
    run = CliRunner().invoke(
        systemd_command, [str(DEFAULT), "--set", "engine.max_num_seqs=4", "-o", str(path), "--", "--force"]
    )
    assert run.exit_code == 0, run.output
    assert "systemctl enable --now launcher-x" in run.output
    assert settings(path.read_text())["ExecStart"][0].endswith("--set engine.max_num_seqs=4 --force")
    refused = CliRunner().invoke(systemd_command, [str(DEFAULT), "--", "-d"])
    assert refused.exit_code == 2
    assert "-d does not go with a service" in refused.output


# What systemd is told.


class Manager:
    """A service manager's end: a datagram socket, as systemd has one."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.settimeout(PATIENCE_S)
        self.socket.bind("\0" + address[1:] if address.startswith("@") else address)
        self.heard: list[dict[str, str]] = []

    def hear(self) -> dict[str, str]:
        self.heard.append(dict(line.split("=", 1) for line in self.socket.recv(4096).decode().splitlines()))
        return self.heard[-1]

    def hear_until(self, name: str) -> dict[str, str]:
        while name not in (message := self.hear()):
            pass
        return message


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Manager]:
    one = Manager(str(tmp_path / "notify") if request.param == "path" else f"@launcher-test-{os.getpid()}")
    yield one
    one.socket.close()


def snapshot(state: str) -> Snapshot:
    phase = "ready" if state in ("ready", "draining") else "starting"
    return Snapshot("x", state, "http://127.0.0.1:8000", "m", (EngineView(0, phase, "", "", 0.0, 0, ""),), 2, 1)


def test_ready_is_told_once_and_the_end(manager: Manager, capsys: pytest.CaptureFixture[str]) -> None:
    notifier = Notifier.from_environment({"NOTIFY_SOCKET": manager.address})
    assert notifier is not None
    audience = ServiceAudience(notifier)
    audience.said("fetching the model:\n 35 %")
    assert manager.hear() == {"STATUS": "fetching the model: 35 %"}
    audience.changed(snapshot("starting"))
    audience.changed(snapshot("degraded"))  # one of several engines: it serves
    audience.changed(snapshot("ready"))
    audience.changed(snapshot("draining"))
    audience.failed("no engine is left")
    status = {"STATUS": "degraded · engine 0 starting · in flight 2 · queued 1"}
    assert manager.hear() == {"READY": "1", **status}
    assert manager.hear()["STATUS"].startswith("ready · ")
    assert manager.hear()["STOPPING"] == "1"
    assert manager.hear() == {"STATUS": "failed: no engine is left"}
    assert capsys.readouterr() == ("", "fetching the model:\n 35 %\n")
    audience.close()


def test_ready_is_told_again_where_it_did_not_get_through(tmp_path: Path) -> None:
    audience = ServiceAudience(Notifier(str(tmp_path / "notify")))
    audience.changed(snapshot("ready"))  # nobody listens: no error
    manager = Manager(str(tmp_path / "notify"))
    audience.changed(snapshot("ready"))
    assert manager.hear()["READY"] == "1"
    manager.socket.close()


def test_a_manager_that_does_not_read_holds_nobody_up(manager: Manager) -> None:
    notifier = Notifier(manager.address)
    told = [notifier.tell(STATUS="x" * 1000) for _ in range(5000)]
    assert told[0]
    assert not told[-1]


def test_the_variables_are_for_nobody_else() -> None:
    ours = {"NOTIFY_SOCKET": "/run/x", "WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid()), "HOME": "/"}
    notifier = Notifier.from_environment(ours)
    assert notifier is not None
    assert notifier.watchdog_s == 30.0
    assert ours == {"HOME": "/"}
    others = {"NOTIFY_SOCKET": "/run/x", "WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}
    assert (notifier := Notifier.from_environment(others)) is not None
    assert notifier.watchdog_s == 0.0
    assert Notifier.from_environment({}) is None
    assert Notifier.from_environment({"NOTIFY_SOCKET": "vsock:2:1234"}) is None  # of virtual machines


def start(endpoint: FakeEndpoint, manager: Manager, watchdog_s: float = 0.2) -> subprocess.Popen[str]:
    endpoint.environment |= {"NOTIFY_SOCKET": manager.address, "WATCHDOG_USEC": str(int(watchdog_s * 1e6))}
    argv = [sys.executable, "-m", "launcher", "up", str(endpoint.profile)]
    return subprocess.Popen(
        argv, env=endpoint.environment, cwd=ROOT, text=True, stdout=-1, stderr=-1, start_new_session=True
    )


@pytest.mark.parametrize("manager", ["path"], indirect=True)
def test_a_service_is_ready_lives_and_stops(manager: Manager, tmp_path: Path) -> None:
    endpoint = FakeEndpoint(tmp_path)
    process = start(endpoint, manager)
    try:
        assert manager.hear_until("READY")["STATUS"].startswith("ready · engine 0 ready")
        for _ in range(3):
            manager.hear_until("WATCHDOG")
        environment = Path(f"/proc/{endpoint.engine()['pid']}/environ").read_bytes()
        assert b"LAUNCHER_STATE_DIR" in environment
        assert b"NOTIFY_SOCKET" not in environment
        process.send_signal(signal.SIGTERM)
        manager.hear_until("STOPPING")
        stdout, stderr = process.communicate(timeout=PATIENCE_S)
        assert process.returncode == 0, stderr
        assert stdout == ""
        assert "ready: http://127.0.0.1:" in stderr
    finally:
        process.kill()


def test_one_that_cannot_start_says_why(manager: Manager, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", manager.address)
    with pytest.raises(PreconditionError), audience_for(None):
        raise PreconditionError("the plan does not fit:\n  - engine.kv_cache_memory", "Lower it.")
    assert manager.hear() == {"STATUS": "failed: the plan does not fit: - engine.kv_cache_memory"}
