"""`launcher render compose` and the compose file that is shipped: read by the real Docker Compose, setting by setting."""

from __future__ import annotations

import itertools
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from launcher.cli.parts import engine_command, gateway_command
from launcher.errors import PreconditionError
from launcher.profile.load import load_profile
from launcher.profile.units import parse_duration
from launcher.render import container
from launcher.render.compose import compose_file
from launcher.render.compose_part import Given
from launcher.render.placed_files import FILE_KEYS
from tests.deploy.real_compose import ROOT, compose, understood
from tests.unit.cli.launching import launch

SHIPPED = ROOT / "docker-compose.yml"
PROFILES = sorted((ROOT / "profiles").glob("*.yaml"))
COMPOSE_PROFILES = ("cpu", "gpu", "monitoring")
GPU = ROOT / "profiles" / "2x4090.yaml"
CPU = ROOT / "profiles" / "cpu-smollm2.yaml"


def given(path: Path, *sets: str, weight_bytes: int | None = 10**9) -> Given:
    return Given(load_profile(path, sets=sets, env={}), sets, weight_bytes)


def rendered(folder: Path, *profiles: Given, checkout: Path | None = None) -> Path:
    """The compose file of these profiles, in ``folder``."""
    file = folder / "docker-compose.yml"
    file.write_text(compose_file(profiles, folder=folder, checkout=checkout))
    return file


def services(folder: Path, path: Path, *sets: str) -> dict[str, Any]:
    """The services of one profile, as Compose understands them."""
    found: dict[str, Any] = understood(rendered(folder, given(path, *sets)))["services"]
    return found


# ── the shipped file ──


def test_the_shipped_file_is_what_the_renderer_writes() -> None:
    words = ["profiles/cpu-smollm2.yaml", "profiles/2x4090.yaml", "--checkout", "."]
    done = launch("render", "compose", *words)
    assert done.returncode == 0, done.stderr
    assert done.stdout == SHIPPED.read_text(), f"write it anew: launcher render compose {' '.join(words)} -o {SHIPPED}"


@pytest.mark.parametrize(
    "chosen",
    [c for n in range(4) for c in itertools.combinations(COMPOSE_PROFILES, n)],
    ids=lambda c: "+".join(c) or "none",
)
def test_the_shipped_file_is_valid_whatever_is_started(chosen: tuple[str, ...]) -> None:
    flags = [word for profile in chosen for word in ("--profile", profile)]
    done = compose(SHIPPED, *flags, "config", "-q", COMPOSE_PROFILES="")
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("flags", "started"),
    [
        ((), {"engine", "gateway"}),
        (("--profile", "gpu"), {"engine-gpu", "gateway-gpu"}),
        (("--profile", "cpu", "--profile", "monitoring"), {"engine", "gateway", "prometheus", "grafana"}),
        (("--profile", "gpu", "--profile", "monitoring"), {"engine-gpu", "gateway-gpu", "prometheus", "grafana"}),
    ],
    ids=["none", "gpu", "cpu+monitoring", "gpu+monitoring"],
)
def test_the_default_needs_no_gpu_and_a_profile_on_the_command_line_takes_its_place(
    flags: tuple[str, ...], started: set[str]
) -> None:
    done = compose(SHIPPED, *flags, "config", "--services")
    assert set(done.stdout.split()) == started


def test_real_compose_refuses_a_misspelt_key(tmp_path: Path) -> None:
    file = rendered(tmp_path, given(GPU))
    file.write_text(file.read_text().replace("stop_grace_period", "stop_grace_periode"))
    done = compose(file, "config", "-q")
    assert done.returncode != 0
    assert "stop_grace_periode" in done.stderr


def test_what_is_mounted_is_there() -> None:
    for name, service in understood(SHIPPED)["services"].items():
        for mount in service["volumes"]:
            assert mount["type"] == "volume" or Path(mount["source"]).exists(), f"{name}: {mount['source']}"


def test_every_service_can_do_little_and_only_this_machine_reaches_it() -> None:
    for name, service in understood(SHIPPED)["services"].items():
        assert service["read_only"], name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert {port["host_ip"] for port in service.get("ports", [])} <= {"127.0.0.1"}, name
        assert re.fullmatch(r"[^:]+:v?\d+\.\d+\.\d+", service["image"]), f"{name}: {service['image']} is not pinned"
        assert not service.get("privileged"), name


def test_only_gateways_and_monitoring_are_published() -> None:
    published = {name for name, service in understood(SHIPPED)["services"].items() if service.get("ports")}
    assert published == {"gateway", "gateway-gpu", "prometheus", "grafana"}


def test_prometheus_reaches_both_by_one_name_each() -> None:
    project = understood(SHIPPED)["services"]
    networks = set(project["prometheus"]["networks"])
    for suffix in ("", "-gpu"):
        for role in ("engine", "gateway"):
            own = project[f"{role}{suffix}"]["networks"]
            assert set(own) <= networks
            assert [network["aliases"] for network in own.values()] == [[role]]
    assert not set(project["engine"]["networks"]) & set(
        project["engine-gpu"]["networks"]
    )  # a gateway finds its own only


# ── any profile ──


def test_a_file_for_any_profile(tmp_path: Path) -> None:
    done = launch("render", "compose", str(ROOT / "profiles" / "1xh200.yaml"), "-o", str(tmp_path / "compose.yaml"))
    assert done.returncode == 0, done.stderr
    found = compose(tmp_path / "compose.yaml", "config", "-q")
    assert (found.returncode, found.stderr) == (0, "")


@pytest.mark.parametrize("path", PROFILES, ids=lambda path: path.stem)
def test_the_launcher_takes_the_commands(path: Path, tmp_path: Path) -> None:
    verbs = {"engine": engine_command, "gateway": gateway_command}
    for service in services(tmp_path, path, "logging.dir=logs").values():
        verb, profile, *options = service["command"]
        context = verbs[verb].make_context(verb, [profile, *options])
        sets = [*context.params["sets"], *([f"gateway.listen={on}"] if (on := context.params.get("listen")) else [])]
        load_profile(path, sets=[one for one in sets if verb == "gateway" or "gateway.listen" not in one], env={})


@pytest.mark.parametrize(("drain", "stop"), [("0s", "0s"), ("30s", "90s"), ("36h", "10s")])
def test_nothing_is_killed_while_it_may_still_end_by_itself(drain: str, stop: str, tmp_path: Path) -> None:
    found = services(tmp_path, GPU, f"timeouts.drain={drain}", f"timeouts.stop={stop}")
    needed = parse_duration(drain) + parse_duration(stop)
    notice = next(word.removeprefix("--notice=") for word in found["engine"]["command"] if "--notice" in word)
    assert go_seconds(found["engine"]["stop_grace_period"]) > needed + parse_duration(notice)
    assert go_seconds(found["gateway"]["stop_grace_period"]) > parse_duration(drain)


def go_seconds(written: str) -> float:
    """``1h2m3s`` → 3723."""
    return sum(
        float(number) * {"h": 3600, "m": 60, "s": 1}[unit] for number, unit in re.findall(r"([\d.]+)([hms])", written)
    )


def test_the_first_start_may_take_its_download_its_load_and_its_warmup(tmp_path: Path) -> None:
    file = rendered(tmp_path, given(GPU, "timeouts.start=10m", "timeouts.warmup=1m", weight_bytes=75 * 10**9))
    check = understood(file)["services"]["engine"]["healthcheck"]
    assert go_seconds(check["start_period"]) == 75e9 / 12.5e6 + 660
    assert check["test"] == ["CMD", "test", "-f", container.READY_FILE]
    assert f"--ready-file={container.READY_FILE}" in understood(file)["services"]["engine"]["command"]


def test_each_replica_is_a_service_with_cards_of_its_own(tmp_path: Path) -> None:
    found = services(tmp_path, ROOT / "profiles" / "2x4090-replicas.yaml")
    cards = {
        name: service["deploy"]["resources"]["reservations"]["devices"][0]["device_ids"]
        for name, service in found.items()
        if name.startswith("engine")
    }
    assert cards == {"engine-0": ["0"], "engine-1": ["1"]}
    assert set(found["gateway"]["depends_on"]) == set(cards)
    assert {depends["condition"] for depends in found["gateway"]["depends_on"].values()} == {"service_healthy"}
    assert all(found[name]["networks"] == {"serving": {"aliases": ["engine"]}} for name in cards)
    assert f"--engines=dns+http://engine:{container.PORT}" in found["gateway"]["command"]


@pytest.mark.parametrize(("path", "workers"), [(GPU, 2), (CPU, 1)], ids=["two cards", "cpu"])
def test_engines_get_the_shared_memory_that_vllm_asks_for(path: Path, workers: int, tmp_path: Path) -> None:
    needed = 10 * 16 + workers * 10 * 24 + 6 * 4  # MiB
    found = services(tmp_path, path)["engine"]
    assert int(found["shm_size"]) > needed * 2**20
    assert found["ipc"] == "private"


def test_vllms_queues_are_as_large_as_we_count() -> None:
    folder = Path(sys.prefix, "lib", f"python{sys.version_info[0]}.{sys.version_info[1]}", "site-packages", "vllm")
    if not folder.is_dir():
        pytest.skip("vLLM is not installed here")
    rings = (folder / "distributed/device_communicators/shm_broadcast.py").read_text()
    assert container.ANSWER_RING == 24 * 2**20 * 10
    assert "max_chunk_bytes: int = 1024 * 1024 * 24" in rings
    assert "max_chunks: int = 10" in rings
    assert container.BROADCAST_RING == 16 * 2**20 * 10
    assert "VLLM_MQ_MAX_CHUNK_BYTES_MB: int = 16" in (folder / "envs.py").read_text()
    assert container.GROUP_RING == (1 << 22) * 6
    assert re.search(r"self\.cpu_group, 1 << 22, 6\b", (folder / "distributed/parallel_state.py").read_text())


# ── who may reach it ──


def test_a_profile_for_this_machine_stays_for_this_machine_and_asks_for_no_key(tmp_path: Path) -> None:
    gateway = services(tmp_path, GPU)["gateway"]
    assert [(port["host_ip"], port["published"]) for port in gateway["ports"]] == [("127.0.0.1", "8000")]
    assert "--set=gateway.auth=none" in gateway["command"]


def test_an_open_address_asks_for_keys(tmp_path: Path) -> None:
    gateway = services(tmp_path, GPU, "gateway.listen=0.0.0.0:9000")["gateway"]
    assert [(port["host_ip"], port["published"]) for port in gateway["ports"]] == [("0.0.0.0", "9000")]
    assert not [word for word in gateway["command"] if "auth" in word]


def test_keys_are_asked_for_where_the_profile_says_so(tmp_path: Path) -> None:
    file = rendered(tmp_path, given(GPU, "gateway.auth=keys"))
    gateway = understood(file, LAUNCHER_API_KEYS="alice=0123456789abcdef")["services"]["gateway"]
    assert gateway["environment"]["LAUNCHER_API_KEYS"] == "alice=0123456789abcdef"
    assert not [word for word in gateway["command"] if "auth=none" in word]


def test_any_free_port(tmp_path: Path) -> None:
    gateway = services(tmp_path, GPU, "gateway.listen=127.0.0.1:0")["gateway"]
    assert "published" not in gateway["ports"][0]


def test_the_hubs_token_comes_from_a_file_and_is_nowhere_else(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("hf_secret")
    file = rendered(tmp_path, given(GPU))
    project = understood(file, HF_TOKEN_FILE=str(tmp_path / "token"), HF_TOKEN="hf_secret")
    assert project["secrets"]["hf-token"]["file"] == str(tmp_path / "token")
    assert project["services"]["engine"]["environment"]["HF_TOKEN_PATH"] == "/run/secrets/hf-token"
    assert "hf_secret" not in str(project)


def test_huggingface_hub_reads_that_file_and_takes_an_empty_one_for_none(tmp_path: Path) -> None:
    ask = "from huggingface_hub import get_token; print(get_token())"
    (tmp_path / "token").write_text("hf_abc\n")
    for path, token in ((tmp_path / "token", "hf_abc"), (Path("/dev/null"), "None")):
        environment = {"HF_TOKEN_PATH": str(path), "HOME": str(tmp_path)}
        done = subprocess.run([sys.executable, "-c", ask], env=environment, capture_output=True, text=True)
        assert done.stdout.strip() == token, done.stderr


# ── servers that run already ──


def test_servers_on_this_machines_loopback_are_reached_over_its_own_network(tmp_path: Path) -> None:
    found = services(tmp_path, ROOT / "profiles" / "external.yaml", "engine.api_key_env=BACKEND_KEY")
    assert set(found) == {"gateway"}
    assert found["gateway"]["network_mode"] == "host"
    assert not [word for word in found["gateway"]["command"] if "--listen" in word]  # as the profile says: loopback
    assert "BACKEND_KEY" in found["gateway"]["environment"]


def test_servers_elsewhere_are_reached_from_the_containers_network(tmp_path: Path) -> None:
    found = services(tmp_path, ROOT / "profiles" / "external.yaml", "engine.urls=[http://10.0.0.5:30000]")
    assert "network_mode" not in found["gateway"]
    assert found["gateway"]["ports"][0]["host_ip"] == "127.0.0.1"


# ── health ──


class Answers(BaseHTTPRequestHandler):
    code = 200

    def do_GET(self) -> None:
        self.send_response(self.code if self.path == "/ready" else 404)
        self.end_headers()

    def log_message(self, *arguments: Any) -> None:
        pass


@pytest.fixture
def server() -> Iterator[HTTPServer]:
    listening = HTTPServer(("127.0.0.1", 0), Answers)
    thread = threading.Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield listening
    listening.shutdown()
    thread.join()
    listening.server_close()


@pytest.mark.parametrize(("code", "healthy"), [(200, True), (503, False)])
def test_the_gateways_health_is_whether_it_can_serve(
    code: int, healthy: bool, server: HTTPServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Answers, "code", code)
    test = services(tmp_path, GPU)["gateway"]["healthcheck"]["test"]
    assert test[:3] == ["CMD", container.PYTHON, "-c"]
    asked = test[3].replace(f":{container.PORT}/", f":{server.server_port}/")
    done = subprocess.run([sys.executable, "-c", asked], env={"http_proxy": "http://127.0.0.1:1"}, capture_output=True)
    assert (done.returncode == 0) is healthy, done.stderr


def test_health_is_asked_over_https_where_that_is_served(tmp_path: Path) -> None:
    sets = ("gateway.tls_cert=chain.pem", "gateway.tls_key=key.pem")
    test = services(tmp_path, GPU, *sets)["gateway"]["healthcheck"]["test"]
    assert f"https://127.0.0.1:{container.PORT}/ready" in test[3]
    compile(test[3], "healthcheck", "exec")


# ── files that a profile names ──

FILES = {
    "model.path": "../weights/my model",
    "model.chat_template": "/srv/templates/chat.jinja",
    "warmup.image": "pictures/a.png",
    "gateway.tls_cert": "tls/chain.pem",
    "gateway.tls_key": "tls/key$.pem",
    "gateway.keys_file": "keys.json",
}


def test_each_kind_of_file_is_tried_here() -> None:
    assert set(FILES) == {row.key for row in FILE_KEYS}


def test_the_files_of_a_profile_are_mounted_where_the_profile_then_looks(tmp_path: Path) -> None:
    profile = tmp_path / "profiles" / "own.yaml"
    profile.parent.mkdir()
    profile.write_text("name: own\nhardware: {gpu: RTX 4090}\nmodel: {served_name: own, path: x}\n")
    sets = [f"{key}={value}" for key, value in FILES.items()]
    project = understood(rendered(tmp_path, given(profile, *sets)))
    seen = set()
    for name, service in project["services"].items():
        told = [word.removeprefix("--set=") for word in service["command"] if word.startswith("--set=")]
        inside = load_profile(profile, sets=told, env={})
        mounted = {mount["target"]: mount["source"] for mount in service["volumes"] if mount["type"] == "bind"}
        for secret in service.get("secrets", []):
            target = Path("/run/secrets", secret.get("target", secret["source"]))  # a whole path stays what it is
            mounted[str(target)] = project["secrets"][secret["source"]]["file"]
        for row in FILE_KEYS:
            if name not in row.readers:
                continue
            section, _, key = row.key.partition(".")
            target = getattr(getattr(inside.profile, section), key)
            assert Path(mounted[target]) == (profile.parent / FILES[row.key]).resolve(), row.key
            seen.add(row.key)
        assert Path(mounted[container.PROFILE]) == profile
        assert all(mount["read_only"] for mount in service["volumes"] if mount["type"] == "bind")
    assert seen == set(FILES)
    assert "gateway-tls-key" not in {secret["source"] for secret in project["services"]["engine"].get("secrets", [])}
    assert inside.profile.model.public_name == "own"


# ── what has no place ──

REFUSED = {
    "engine.nodes": (("engine.nodes=2", "engine.tensor_parallel=2"), "launcher render helm"),
    "engine.distributed": (("engine.distributed=ray",), "engine.distributed: mp"),
    "admission.counting": (("admission.counting=exact",), "admission.counting: estimate"),
    "gateway.tracing.endpoint": (("gateway.tracing.endpoint=http://localhost:4318",), "as a service beside these"),
    "gateway.listen": (("gateway.listen=my-host:8000",), "0.0.0.0"),
    "hardware.gpus": (("hardware.gpus=1",), "launcher plan"),
}


@pytest.mark.parametrize("key", REFUSED)
def test_what_has_no_place_is_refused_by_name(key: str, tmp_path: Path) -> None:
    sets, remedy = REFUSED[key]
    with pytest.raises(PreconditionError) as refused:
        rendered(tmp_path, given(GPU, *sets))
    assert key in refused.value.message
    assert remedy in refused.value.hint


def test_two_profiles_of_one_kind_do_not_go_into_one_file(tmp_path: Path) -> None:
    with pytest.raises(
        PreconditionError, match=r"1x4090\.yaml and .*2x4090\.yaml would both be started by --profile gpu"
    ):
        rendered(tmp_path, given(ROOT / "profiles" / "1x4090.yaml"), given(GPU))


def test_a_checkout_that_is_none_is_said(tmp_path: Path) -> None:
    done = launch("render", "compose", str(GPU), "--checkout", str(tmp_path))
    assert done.returncode == 1
    assert f"{tmp_path} has no deploy/Dockerfile" in done.stderr


# ── the README ──


def section() -> str:
    text = (ROOT / "README.md").read_text().partition("## With Docker Compose\n")[2].partition("\n## ")[0]
    assert text, "the README has no section 'With Docker Compose'"
    return text


def test_the_readmes_commands_start_something() -> None:
    shown = re.findall(r"^\$ docker compose (.*?)up\b", section(), re.MULTILINE)
    assert len(shown) >= 3
    for flags in shown:
        done = compose(SHIPPED, *flags.split(), "config", "--services")
        assert done.stdout.split(), f"docker compose {flags}up: {done.stderr}"


def test_the_readme_shows_a_refusal_as_it_is() -> None:
    found = re.search(r"^\$ launcher (render compose .*engine\.nodes.*)\n((?:.+\n)+?)```", section(), re.MULTILINE)
    assert found
    done = launch(*found[1].split())
    assert (done.stdout + done.stderr).splitlines() == found[2].splitlines()
