"""The control app, as a process on its Unix socket before a real gateway: routes, refusals, keys, start and end."""

from __future__ import annotations

import asyncio
import json
import os
import select
import signal
import stat
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from launcher.control import CONTROL_SOCKET, GATEWAY_SOCKET, models
from launcher.gateway.auth import Gatekeeper
from launcher.gateway.keyfile import hash_of, read_keys
from launcher.gateway.keyring import KeyRing
from launcher.supervise.child import start_time
from launcher.supervise.restart import RestartPolicy
from launcher.up.control_process import PASSED_ON, ControlProcess, command, environment
from tests.control.harness import AdminDesk, admin_desk
from tests.fakes.process import FakeEngine
from tests.gateway.harness import PATIENCE_S, RawClient, Response

KEYS, AUDIT = "keys.json", "audit.log"
JSON = "Content-Type: application/json"
OTHER_SITE = "Origin: https://evil.example"
Engines = tuple[FakeEngine, FakeEngine]


class App:
    """A running control app, and the gateway behind it."""

    def __init__(self, admin: AdminDesk) -> None:
        self.admin = admin
        self.path, self.keys = admin.folder / CONTROL_SOCKET, admin.folder / KEYS

    async def ask(self, method: str, target: str, value: object = None) -> Response:
        """As a client without a key, on the machine itself."""
        return await self.send(method, target, JSON, body=b"" if value is None else json.dumps(value).encode())

    async def send(self, method: str, target: str, *lines: str, body: bytes = b"", host: str = "localhost") -> Response:
        """A request with header lines of the test's own."""
        head = "\r\n".join([f"{method} {target} HTTP/1.1", f"Host: {host}", f"Content-Length: {len(body)}", *lines])
        client = RawClient(*await asyncio.open_unix_connection(self.path))
        await client.send(head.encode() + b"\r\n\r\n" + body)
        answer = await client.read()
        client.close()
        return answer


async def listens(path: Path) -> None:
    """Waits until somebody listens there."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            try:
                _, writer = await asyncio.open_unix_connection(path)
            except (FileNotFoundError, ConnectionRefusedError):
                await asyncio.sleep(0.02)  # it tells nobody that it listens: the gateway finds out in the same way
            else:
                writer.close()
                return


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A run directory with one control app for all tests: it has no state."""
    folder = tmp_path_factory.mktemp("run")
    argv = [*command(folder, folder / KEYS, folder / AUDIT)]
    process = subprocess.Popen(argv, env=environment(os.environ))
    (folder / "pid").write_text(str(process.pid))
    yield folder
    process.terminate()
    process.wait()


@pytest.fixture
async def app(folder: Path, engines: Engines) -> AsyncIterator[App]:
    for name in (KEYS, AUDIT):
        (folder / name).unlink(missing_ok=True)
    await listens(folder / CONTROL_SOCKET)
    gate = Gatekeeper(KeyRing(folder / KEYS), required=False)
    parts = {"gatekeeper": gate, "control_socket": str(folder / CONTROL_SOCKET)}
    async with admin_desk(folder, engines[0].url, parts=parts) as admin:
        yield App(admin)


async def test_state_is_the_gateways(app: App) -> None:
    answer = await app.ask("GET", "/api/state")
    assert answer.status == 200
    assert models.State.model_validate_json(answer.body, strict=True).name == "test"
    listed = await app.ask("GET", "/api/replicas")
    assert listed.json()["replicas"] == (await app.admin.state())["replicas"]


async def test_changes_reach_the_gateway(app: App, engines: Engines) -> None:
    mode = await app.send("PUT", "/api/mode", "X-Launcher-Key: ab12cd34", JSON,
                          body=b'{"mode": "low-latency"}')  # fmt: skip
    assert (mode.status, mode.json()) == (200, {"mode": "low-latency", "before": "balanced"})
    joined = await app.ask("POST", "/api/replicas", {"url": engines[1].url})
    assert joined.status == 202
    models.ReplicaAnswer.model_validate_json(joined.body, strict=True)
    assert (await app.ask("POST", "/api/replicas/1/drain")).json()["replica"]["draining"] is True
    assert (await app.ask("POST", "/api/replicas/1/undrain")).json()["replica"]["draining"] is False
    assert (await app.ask("DELETE", "/api/replicas/1")).status == 202
    entries = [json.loads(line) for line in app.admin.audit().splitlines()]
    assert [(entry["actor"], entry["act"]) for entry in entries] == [
        ("key ab12cd34", "mode"),
        ("no key", "replica.add"),
        ("no key", "replica.drain"),
        ("no key", "replica.undrain"),
        ("no key", "replica.remove"),
    ]


async def test_the_gateways_refusals_pass_as_they_are(app: App) -> None:
    answer = await app.ask("DELETE", "/api/replicas/0")
    assert answer.status == 409
    assert (answer.json()["error"]["reason"], answer.json()["error"]["src"]) == ("last_replica", "gateway")


@pytest.mark.parametrize(
    ("method", "target", "body", "status", "message", "param"),
    [
        ("PUT", "/api/mode", b'{"mode": "fast"}', 400,
         "mode: input should be 'low-latency', 'balanced' or 'high-throughput', not 'fast'.", "mode"),
        ("PUT", "/api/mode", b"{}", 400, "mode: this field is missing.", "mode"),
        ("PUT", "/api/mode", b'{"mode": "balanced", "x": 1}', 400, "x: there is no such field.", "x"),
        ("PUT", "/api/mode", b"{", 400, "The body is not JSON: ", None),
        ("PUT", "/api/mode", b"\xff\xff", 400, "The request could not be read: ", None),
        ("PUT", "/api/mode", b"[" * 60_000, 400, "The request could not be read: ", None),
        ("PUT", "/api/mode", b"[]", 400, "The body must be a JSON object, sent with Content-Type: ", None),
        ("PUT", "/api/mode", b"", 400, "The body must be a JSON object, sent with Content-Type: ", None),
        ("POST", "/api/replicas/x/drain", b"", 400, "index: input should be a valid integer, ", "index"),
        ("POST", "/api/keys", b'{"name": "a b"}', 400, "name: string should match pattern", "name"),
        ("POST", "/api/keys", b'{"name": "a", "expires": "2020-01-01T00:00:00Z"}', 400,
         "expires: this must be a time from now to the year 9000, not '2020-01-01T00:00:00Z'.", "expires"),
        ("POST", "/api/keys", b'{"name": "a", "max_priority": "low"}', 400,
         "max_priority: low is below priority, normal.", None),
        ("DELETE", "/api/keys/12345678", b"", 404, "There is no key '12345678'.", None),
        ("GET", "/api/nothing", b"", 404, "/api/nothing is not served here. What is: /api/events, ", None),
        ("PATCH", "/api/replicas", b"", 405, "/api/replicas does not take PATCH. It takes GET, POST.", None),
    ],
)  # fmt: skip
async def test_refusals_are_sentences(
    app: App, method: str, target: str, body: bytes, status: int, message: str, param: str | None
) -> None:
    answer = await app.send(method, target, JSON, body=body, host="localhost:8000")
    assert answer.status == status
    error = models.ErrorAnswer.model_validate_json(answer.body, strict=True).error
    assert error.message.startswith(message)
    assert (error.param, error.code, error.src) == (param, status, "control")


async def test_405_names_every_method(app: App) -> None:
    assert (await app.send("PATCH", "/api/replicas")).headers["allow"] == "GET, POST"


class TestOtherSites:
    """Pages of other sites in an operator's browser, where no keys are required."""

    async def test_a_page_of_another_site(self, app: App) -> None:
        answer = await app.send("POST", "/api/replicas/0/drain", OTHER_SITE, host="127.0.0.1:8000")
        assert (answer.status, answer.error["reason"]) == (403, "cross_origin")
        own = await app.send("POST", "/api/replicas/0/drain", "Origin: http://127.0.0.1:8000", host="127.0.0.1:8000")
        assert own.status == 200

    async def test_a_sandboxed_page(self, app: App) -> None:
        answer = await app.send("POST", "/api/replicas/0/drain", "Origin: null", host="127.0.0.1:8000")
        assert answer.error["reason"] == "cross_origin"

    async def test_a_name_that_another_sites_dns_points_here(self, app: App) -> None:
        rebound = await app.send("POST", "/api/replicas/0/drain", "Origin: http://evil.example", host="evil.example")
        assert (rebound.status, rebound.error["reason"]) == (403, "host")
        assert "set gateway.auth to keys" in rebound.error["message"]
        keyed = await app.send("POST", "/api/replicas/0/drain", "X-Launcher-Key: ab12cd34", host="llm.example.org")
        assert keyed.status == 200

    @pytest.mark.parametrize("host", ["[::1]:8000", "localhost", "llm.localhost:80", "10.0.0.5"])
    async def test_names_that_are_nobody_elses(self, app: App, host: str) -> None:
        assert (await app.send("POST", "/api/replicas/0/drain", host=host)).status == 200

    async def test_a_form(self, app: App) -> None:
        answer = await app.send("PUT", "/api/mode", "Content-Type: text/plain", body=b'{"mode": "low-latency"}')
        assert answer.status == 400
        assert (await app.admin.state())["mode"] == "balanced"


async def test_a_body_has_a_limit(app: App) -> None:
    answer = await app.send("PUT", "/api/mode", body=b" " * (64 * 1024 + 1))
    assert (answer.status, answer.error["reason"]) == (413, "body_too_large")


class TestKeys:
    async def test_made_listed_revoked(self, app: App) -> None:
        made = await app.ask("POST", "/api/keys", {"name": "alice", "priority": "low", "requests_per_minute": 60})
        assert made.status == 201
        answer = models.NewKeyAnswer.model_validate_json(made.body)
        (kept,) = read_keys(app.keys)
        assert kept.sha256 == hash_of(answer.secret)
        assert stat.S_IMODE(app.keys.stat().st_mode) == 0o600
        listed = await app.ask("GET", "/api/keys")
        assert answer.secret.encode() not in listed.body
        assert kept.sha256.encode() not in listed.body
        (key,) = models.KeyList.model_validate_json(listed.body).keys
        assert (key.name, key.priority, key.max_priority, key.requests_per_minute) == ("alice", "low", "low", 60)
        revoked = await app.ask("DELETE", f"/api/keys/{key.id}")
        assert models.KeyAnswer.model_validate_json(revoked.body).key.revoked is not None
        assert (await app.ask("DELETE", f"/api/keys/{key.id}")).json()["key"] == revoked.json()["key"]
        entries = [json.loads(line) for line in app.admin.audit().splitlines()]
        assert [entry["object"] for entry in entries if entry["act"] == "key.add"] == [f"alice ({key.id})"]
        assert answer.secret not in app.admin.audit()

    async def test_in_force_at_once(self, app: App) -> None:
        made = (await app.ask("POST", "/api/keys", {"name": "alice"})).json()
        assert made["in_force"] is True
        assert made["note"] == (
            "It is the first key: from now on every request needs one. It is no admin key, so /api is closed until "
            "`launcher key add NAME --admin` makes one."
        )
        alice = f"Authorization: Bearer {made['secret']}"
        assert (await app.admin.desk.get("/v1/models")).status == 401
        assert (await app.admin.desk.get("/v1/models", alice)).status == 200
        assert (await app.ask("DELETE", f"/api/keys/{made['key']['id']}")).json()["in_force"] is True
        assert (await app.admin.desk.get("/v1/models", alice)).error["reason"] == "revoked_key"

    async def test_without_a_gateway_they_are_kept_all_the_same(self, app: App) -> None:
        (app.admin.folder / GATEWAY_SOCKET).unlink()
        made = (await app.ask("POST", "/api/keys", {"name": "alice", "is_admin": True})).json()
        assert (made["in_force"], made["note"], made["secret"][:3]) == (False, "", "sk-")

    async def test_a_name_that_is_taken(self, app: App) -> None:
        await app.ask("POST", "/api/keys", {"name": "bob"})
        again = await app.ask("POST", "/api/keys", {"name": "bob"})
        assert again.status == 409
        assert "have the name 'bob'" in again.json()["error"]["message"]
        assert '"result": "refused: ' in app.admin.audit()

    @pytest.mark.parametrize(
        "value", [{"tokens_per_minute": True}, {"requests_per_minute": "5"}, {"weight": True}, {"is_admin": "yes"}]
    )
    async def test_no_value_is_taken_for_another(self, app: App, value: dict[str, object]) -> None:
        answer = await app.ask("POST", "/api/keys", {"name": "dora"} | value)
        assert answer.status == 400, answer.body
        assert next(iter(value)) in answer.json()["error"]["message"]
        assert not app.keys.exists() or not read_keys(app.keys)

    async def test_a_file_that_is_broken(self, app: App) -> None:
        app.keys.write_text("{")
        answer = await app.ask("GET", "/api/keys")
        assert answer.status == 409
        assert "is not JSON" in answer.json()["error"]["message"]

    async def test_the_secret_is_not_cached(self, app: App) -> None:
        made = await app.ask("POST", "/api/keys", {"name": "carol"})
        assert made.headers["cache-control"] == "no-store"


class TestThroughThePublicPort:
    async def test_as_a_client_sees_it(self, app: App) -> None:
        answer = await app.admin.desk.get("/api/state")
        assert answer.status == 200
        assert models.State.model_validate_json(answer.body, strict=True).name == "test"
        missing = await app.admin.desk.get("/api/nothing")
        assert (missing.status, missing.error["src"]) == (404, "control")

    async def test_it_takes_an_admin_key_where_keys_are_needed(self, app: App) -> None:
        made = {}
        for name, is_admin in (("user", False), ("ops", True)):
            made[name] = (await app.ask("POST", "/api/keys", {"name": name, "is_admin": is_admin})).json()
        statuses = {}
        for name, answer in made.items():
            lines = (f"Authorization: Bearer {answer['secret']}", JSON, "X-Launcher-Key: 00000000")
            sent = await app.admin.desk.post({"mode": "low-latency"}, *lines, path="/api/replicas")
            statuses[name] = (sent.status, sent.error["src"])
        assert statuses == {"user": (403, "gateway"), "ops": (400, "control")}  # 400: it has no url
        drained = await app.admin.desk.post(
            {}, f"Authorization: Bearer {made['ops']['secret']}", path="/api/replicas/0/drain"
        )
        assert drained.status == 200
        last = json.loads(app.admin.audit().splitlines()[-1])
        assert (last["actor"], last["act"]) == (f"key {made['ops']['key']['id']}", "replica.drain")

    async def test_without_keys_by_an_address(self, app: App) -> None:
        client = await app.admin.desk.client()
        await client.send(b"POST /api/replicas/0/drain HTTP/1.1\r\nHost: 127.0.0.1:8000\r\nContent-Length: 0\r\n\r\n")
        assert (await client.read()).status == 200
        await client.send(b"POST /api/replicas/0/drain HTTP/1.1\r\nHost: evil.example\r\nContent-Length: 0\r\n\r\n")
        assert (await client.read()).error["reason"] == "host"

    async def test_an_app_that_is_down(self, tmp_path: Path, engines: Engines) -> None:
        async with admin_desk(
            tmp_path, engines[0].url, parts={"control_socket": str(tmp_path / CONTROL_SOCKET)}
        ) as admin:
            answer = await admin.desk.get("/api/state")
            assert answer.status == 503
            assert int(answer.headers["retry-after"]) >= 1
            assert (await admin.desk.get("/v1/models")).status == 200


async def test_a_gateway_that_is_gone(app: App) -> None:
    (app.admin.folder / GATEWAY_SOCKET).unlink()
    answer = await app.send("GET", "/api/state")
    assert (answer.status, answer.error["reason"], answer.headers["retry-after"]) == (503, "gateway_gone", "1")
    assert answer.error["message"] == "The gateway does not answer the control app: there is no such socket."


async def test_it_is_only_for_this_user_and_light(app: App) -> None:
    assert stat.S_IMODE(app.path.stat().st_mode) == 0o600
    for _ in range(20):
        assert (await app.ask("GET", "/api/state")).status == 200
    await app.ask("GET", "/api/openapi.json")
    process = Path("/proc") / (app.admin.folder / "pid").read_text()
    rss_line = next(line for line in (process / "status").read_text().splitlines() if line.startswith("VmRSS"))
    assert int(rss_line.split()[1]) < 70 * 1024  # KiB; 52 MiB as measured
    variables = {entry.partition(b"=")[0] for entry in (process / "environ").read_bytes().split(b"\0") if entry}
    assert variables <= {name.encode() for name in (*PASSED_ON, "PYTHONPATH")}


async def test_it_comes_back_when_it_is_killed(tmp_path: Path) -> None:
    changed = asyncio.Event()
    process = ControlProcess(tmp_path, on_change=changed.set)
    running = asyncio.create_task(process.run())
    async with asyncio.timeout(PATIENCE_S):
        await changed.wait()
        assert process.child is not None
        first = process.child.pid
        os.kill(first, signal.SIGKILL)
        while process.child is None or process.child.pid == first:
            changed.clear()
            await changed.wait()
    assert (process.restarts, process.last_failure) == (1, "killed by SIGKILL")
    await listens(tmp_path / CONTROL_SOCKET)
    last = process.child.pid
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert repr(process) == "<ControlProcess pid=None restarts=1>"
    assert start_time(last) is None


async def test_one_that_cannot_start_is_tried_again_and_again(tmp_path: Path) -> None:
    policy = RestartPolicy(backoff_s=0.0, max_backoff_s=0.0, budget=sys.maxsize, window_s=600.0)
    enough = asyncio.Event()
    process = ControlProcess(
        tmp_path / "missing", policy=policy, on_change=lambda: enough.set() if process.restarts > 1 else None
    )
    running = asyncio.create_task(process.run())
    async with asyncio.timeout(PATIENCE_S):
        await enough.wait()
    assert process.last_failure == "exited with code 1"
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


def test_it_ends_with_its_launcher(tmp_path: Path) -> None:
    """Also with one that is killed."""
    code = (
        "import asyncio, sys; from pathlib import Path; from launcher.up.control_process import ControlProcess\n"
        "process = ControlProcess(Path(sys.argv[1]), on_change=lambda: print(process.child.pid, flush=True))\n"
        "asyncio.run(process.run())"
    )
    launcher = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert launcher.stdout is not None
    end = os.pidfd_open(int(launcher.stdout.readline()))
    launcher.kill()
    assert select.select([end], [], [], PATIENCE_S)[0] == [end]
    os.close(end)
    launcher.communicate()


def test_a_long_run_directory(tmp_path: Path) -> None:
    """Unix sockets' paths are short; the folder's may be longer."""
    folder = tmp_path / ("x" * 100)
    folder.mkdir()
    process = subprocess.Popen(command(folder, None, None), env=environment(os.environ))
    try:
        while not (folder / CONTROL_SOCKET).exists():
            assert process.poll() is None
            time.sleep(0.02)
    finally:
        process.terminate()
        process.wait()


def test_what_the_package_imports() -> None:
    """The gateway's own process imports no web framework; the command line none either."""
    code = (
        "import sys; import launcher.gateway.admin, launcher.cli.live;"
        "print([name for name in ('fastapi', 'starlette', 'uvicorn') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "[]\n", done.stderr
