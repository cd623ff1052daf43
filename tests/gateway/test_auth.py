"""Who is let in: every kind of key at every route, the gatekeeper's decisions, and keys that change while it runs."""

from __future__ import annotations

import dataclasses
import json
import logging
import os
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

import pytest

from launcher.errors import PreconditionError
from launcher.gateway.audit import AuditLog
from launcher.gateway.auth import (
    ANONYMOUS,
    OPEN_PATHS,
    Gatekeeper,
    Identity,
    is_loopback,
    is_open,
    keys_required,
    require_admin,
)
from launcher.gateway.heads import RequestHead, parse_request_head
from launcher.gateway.keyfile import Key, KeyFault, changing, hash_of, new_secret
from launcher.gateway.keyring import KeyRing, keys_of_environment
from launcher.gateway.modes import Priority
from launcher.gateway.refusal import Refused
from launcher.gateway.routes import NAMES, Kind, find_route
from tests.fakes.process import FakeEngine
from tests.gateway.harness import Desk, chat, gateway_to, request_bytes

NOW = 1_800_000_000.0
SECRETS = {name: new_secret() for name in ("alice", "boss", "gone", "late")}


def key(name: str, number: int, **more: object) -> Key:
    known = Key(id=f"{number:08x}", name=name, sha256=hash_of(SECRETS[name]), created=NOW - 1000)
    return dataclasses.replace(known, **more)  # type: ignore[arg-type]


KEYS = (
    key("alice", 1, priority=Priority.NORMAL, requests_per_minute=600),
    key("boss", 2, is_admin=True, max_priority=Priority.HIGH, weight=3.0),
    key("gone", 3, revoked=NOW - 60),
    key("late", 4, expires=NOW - 1),
)


def write_keys(path: Path, keys: Sequence[Key]) -> None:
    with changing(path) as held:
        held[:] = keys


class Hands:
    """Two clocks that a test moves."""

    def __init__(self) -> None:
        self.wall, self.loop = NOW, 0.0


@pytest.fixture
def hands() -> Hands:
    return Hands()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    write_keys(tmp_path / "keys.json", KEYS)
    return tmp_path / "keys.json"


@pytest.fixture
def gate(path: Path, hands: Hands) -> Gatekeeper:
    return keeper(KeyRing(path), hands)


def keeper(ring: KeyRing, hands: Hands, required: bool = True) -> Gatekeeper:
    return Gatekeeper(ring, required, clock=lambda: hands.wall, monotonic=lambda: hands.loop)


def head_with(*lines: str, target: str = "/v1/models") -> RequestHead:
    return parse_request_head("\r\n".join([f"GET {target} HTTP/1.1", "Host: x", *lines, ""]).encode("latin-1"))


def bearer(name: str) -> str:
    return f"Authorization: Bearer {SECRETS[name]}"


def refused(gate: Gatekeeper, *lines: str) -> str:
    with pytest.raises(Refused) as caught:
        gate.identify(head_with(*lines))
    assert caught.value.refusal.status == 401
    return caught.value.refusal.reason


BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8"
# What a stranger may send, and the word for what is wrong with it.
STRANGERS: dict[str, tuple[tuple[str, ...], str]] = {
    "no key": ((), "missing_key"),
    "an empty one": (("Authorization: Bearer ",), "missing_key"),
    "an empty one of Azure's": (("api-key:",), "missing_key"),
    "a wrong one": (("Authorization: Bearer sk-wrong",), "wrong_key"),
    "a wrong one of Anthropic's": (("x-api-key: sk-wrong",), "wrong_key"),
    "the hash of one": ((f"Authorization: Bearer {hash_of(SECRETS['alice'])}",), "wrong_key"),
    "the beginning of one": ((f"Authorization: Bearer {SECRETS['alice'][:-1]}",), "wrong_key"),
    "one with more": ((f"Authorization: Bearer {SECRETS['alice']}x",), "wrong_key"),
    "in other letters": ((f"Authorization: Bearer {SECRETS['alice'].swapcase()}",), "wrong_key"),
    "bytes that are no text": (("Authorization: Bearer \xff\xfe",), "wrong_key"),
    "a revoked one": ((bearer("gone"),), "revoked_key"),
    "an expired one": ((bearer("late"),), "expired_key"),
    "another scheme": (("Authorization: Basic YWxpY2U6c2VjcmV0",), "wrong_scheme"),
    "no scheme": ((f"Authorization: {SECRETS['alice']}",), "wrong_scheme"),
    "no space": ((f"Authorization: Bearer{SECRETS['alice']}",), "wrong_scheme"),
    "two that differ": ((bearer("alice"), f"x-api-key: {SECRETS['boss']}"), "several_keys"),
    "a good one and a bad one": ((bearer("alice"), "Authorization: Bearer sk-wrong"), "several_keys"),
    "one for this hop only, named so": (("Connection: authorization", "Proxy-Authorization: Bearer x"), "missing_key"),
}
KEY_HOLDERS = {
    "bearer": (bearer("alice"),),
    "in small letters": (f"authorization: bearer {SECRETS['alice']}",),
    "with spaces": (f"AUTHORIZATION:   BEARER    {SECRETS['alice']}  ",),
    "Anthropic's": (f"X-Api-Key: {SECRETS['alice']}",),
    "Azure's": (f"api-key:{SECRETS['alice']}",),
    "twice the same": (bearer("alice"), f"x-api-key: {SECRETS['alice']}"),
}


class TestIdentify:
    @pytest.mark.parametrize(("lines", "reason"), STRANGERS.values(), ids=STRANGERS)
    def test_strangers(self, gate: Gatekeeper, lines: tuple[str, ...], reason: str) -> None:
        assert refused(gate, *lines) == reason

    @pytest.mark.parametrize("lines", KEY_HOLDERS.values(), ids=KEY_HOLDERS)
    def test_key_holders_and_their_lines_go_no_further(self, gate: Gatekeeper, lines: tuple[str, ...]) -> None:
        head = head_with("Accept: */*", *lines, "X-Stainless-Lang: python")
        identity = gate.identify(head)
        assert identity.name == "alice"
        assert head.lines == [b"Accept: */*", b"X-Stainless-Lang: python"]
        assert head.credentials == ()

    def test_an_identity_is_one_object_with_what_its_key_says(self, gate: Gatekeeper) -> None:
        boss = gate.identify(head_with(bearer("boss")))
        assert boss is gate.identify(head_with(bearer("boss")))
        assert (boss.key_id, boss.is_admin, boss.limits, boss.account.weight) == ("00000002", True, None, 3.0)
        assert (boss.priority, boss.max_priority) == (Priority.NORMAL, Priority.HIGH)
        alice = gate.identify(head_with(bearer("alice")))
        assert alice.limits is not None
        assert (alice.is_admin, alice.max_priority) == (False, Priority.NORMAL)

    def test_a_key_named_in_connection_is_for_nobody(self, gate: Gatekeeper) -> None:
        """It is dropped before, so that it cannot be seen here and not behind; using it would be as right."""
        head = head_with(bearer("alice"), "Connection: authorization")
        assert head.lines == []
        assert gate.identify(head).name == "alice"

    def test_it_expires_while_the_gateway_runs(self, path: Path, hands: Hands) -> None:
        write_keys(path, [key("alice", 1, expires=NOW + 10)])
        gate = keeper(KeyRing(path), hands)
        hands.wall = NOW + 9.9
        gate.identify(head_with(bearer("alice")))
        hands.wall = NOW + 10
        assert refused(gate, bearer("alice")) == "expired_key"

    def test_sentences(self, gate: Gatekeeper) -> None:
        def sentence(*lines: str) -> str:
            with pytest.raises(Refused) as caught:
                gate.identify(head_with(*lines))
            assert b"www-authenticate: Bearer" in caught.value.refusal.lines()
            assert caught.value.refusal.error()["type"] == "invalid_request_error"
            return caught.value.refusal.message

        assert "send it as 'Authorization: Bearer KEY', or as x-api-key" in sentence()
        assert sentence(bearer("gone")) == "The API key 'gone' (00000003) was revoked at 2027-01-15T07:59:00Z."
        assert sentence(bearer("late")) == "The API key 'late' (00000004) expired at 2027-01-15T07:59:59Z."
        for lines, _ in STRANGERS.values():
            assert not any(secret in sentence(*lines) for secret in SECRETS.values())

    def test_without_keys_everybody_is_anonymous_and_keeps_the_header(self, hands: Hands) -> None:
        gate = keeper(KeyRing(None), hands, required=False)
        head = head_with(bearer("alice"))
        assert gate.identify(head) is ANONYMOUS
        assert head.lines == [bearer("alice").encode()]
        assert (ANONYMOUS.limits, ANONYMOUS.priority, ANONYMOUS.max_priority) == (None, Priority.NORMAL, Priority.HIGH)

    @pytest.mark.parametrize("target", ["/health", "/ready", "/ping", "/health?verbose=1"])
    def test_probes_need_no_key_and_may_have_any(self, gate: Gatekeeper, target: str) -> None:
        for lines, _ in STRANGERS.values():
            head = head_with(*lines, target=target)
            assert gate.identify(head) is ANONYMOUS
            assert head.lines == []

    def test_only_the_probes_themselves(self, gate: Gatekeeper) -> None:
        for target in (
            "/healthy",
            "/health/",
            "//health",
            "/v1/models?/health",
            "/x/../health",
            "/Health",
            "/%68ealth",
        ):
            with pytest.raises(Refused):
                gate.identify(head_with(target=target))

    @pytest.mark.parametrize("target", ["/ops", "/ops?x", "/favicon.ico", "/ui/", "/ui/chat/chat.js", "/ui/../metrics"])
    def test_the_web_page_needs_no_key_and_may_have_any(self, gate: Gatekeeper, target: str) -> None:
        assert find_route(b"GET", target.encode()).kind is Kind.PAGE  # all that is open is a file, or nothing
        for lines, _ in STRANGERS.values():
            assert gate.identify(head_with(*lines, target=target)) is ANONYMOUS
        assert gate.identify(head_with(bearer("alice"), target=target)).name == "alice"

    @pytest.mark.parametrize("accept", ["text/html", BROWSER, "*/*;q=0.1, TEXT/HTML ; q=0.5"])
    def test_the_root_needs_no_key_where_the_page_is_asked_for(self, gate: Gatekeeper, accept: str) -> None:
        assert gate.identify(head_with(f"Accept: {accept}", target="/")) is ANONYMOUS
        assert gate.identify(head_with(f"accept:{accept}", target="/?q=1")) is ANONYMOUS

    @pytest.mark.parametrize(
        ("target", "line"),
        [
            ("/", "Accept: */*"),
            ("/", "Accept: application/json"),
            ("/", "Accept: text/*"),
            ("/", "Accept: text/html;q=0"),
            ("/", "Accept: text/html;level=1;q=0.000"),
            ("/", "Accept: text/htmlx"),
            ("/", "X-Accept: text/html"),
            ("/v1/models", "Accept: text/html"),
            ("/metrics", "Accept: text/html"),
            ("/api/about", "Accept: text/html"),
            ("/ops/", "Accept: text/html"),
            ("/ui", "Accept: text/html"),
            ("//ui/x.js", "Accept: text/html"),
        ],
    )
    def test_nothing_else_is_open_to_browsers(self, gate: Gatekeeper, target: str, line: str) -> None:
        with pytest.raises(Refused):
            gate.identify(head_with(line, target=target))

    def test_admins(self, gate: Gatekeeper) -> None:
        require_admin(gate.identify(head_with(bearer("boss"))))
        for identity in (gate.identify(head_with(bearer("alice"))), ANONYMOUS):
            with pytest.raises(Refused) as caught:
                require_admin(identity)
            assert (caught.value.refusal.status, caught.value.refusal.reason) == (403, "not_admin")


class TestLive:
    def test_a_new_and_a_revoked_key_count_within_a_second(self, gate: Gatekeeper, path: Path, hands: Hands) -> None:
        fresh = dataclasses.replace(key("alice", 9), name="carol", sha256=hash_of("sk-carol"))
        assert gate.identify(head_with(bearer("boss"))).name == "boss"
        write_keys(path, [dataclasses.replace(KEYS[0], revoked=NOW), fresh])
        hands.loop = 1.0
        assert gate.identify(head_with("x-api-key: sk-carol")).name == "carol"
        assert refused(gate, bearer("alice")) == "revoked_key"
        assert refused(gate, bearer("boss")) == "wrong_key"

    def test_it_is_looked_at_once_a_second_at_most(self, gate: Gatekeeper, path: Path, hands: Hands) -> None:
        gate.identify(head_with(bearer("alice")))
        write_keys(path, [dataclasses.replace(KEYS[0], revoked=NOW)])
        hands.loop = 0.999
        gate.identify(head_with(bearer("alice")))
        hands.loop = 1.0
        assert refused(gate, bearer("alice")) == "revoked_key"

    def test_told_to_it_looks_at_once(self, gate: Gatekeeper, path: Path) -> None:
        gate.identify(head_with(bearer("alice")))
        write_keys(path, [dataclasses.replace(KEYS[0], revoked=NOW)])
        assert gate.reload() == 1
        assert refused(gate, bearer("alice")) == "revoked_key"

    def test_what_was_used_and_served_stays(self, gate: Gatekeeper, path: Path, hands: Hands) -> None:
        alice = gate.identify(head_with(bearer("alice")))
        assert alice.limits is not None
        assert alice.limits.charge(0, 0.0) is None
        alice.account.served = 77.0
        write_keys(path, [dataclasses.replace(KEYS[0], requests_per_minute=6000, tokens_per_minute=5, weight=2.0)])
        hands.loop = 1.0
        assert gate.identify(head_with(bearer("alice"))) is alice
        assert (alice.account.served, alice.account.weight, alice.weight) == (77.0, 2.0, 2.0)
        assert alice.limits.lines(0.0)[1] == b"x-ratelimit-remaining-requests: 5990"
        assert alice.limits.lines(0.0)[4] == b"x-ratelimit-remaining-tokens: 5"

    @pytest.mark.parametrize(
        "spoil",
        [
            lambda path: path.write_text("{"),
            lambda path: path.write_text(""),
            lambda path: path.write_text(path.read_text().replace("alice", "boss")),
            lambda path: path.unlink(),
            lambda path: path.chmod(0o666),
            lambda path: (path.unlink(), path.mkdir()),
        ],
        ids=["not JSON", "empty", "two of a name", "gone", "anybody may write", "a folder"],
    )
    def test_a_broken_file_opens_nothing_and_locks_nobody_out(
        self, path: Path, hands: Hands, spoil: Callable[[Path], object], caplog: pytest.LogCaptureFixture
    ) -> None:
        audit = AuditLog(path.with_name("audit.log"))
        gate = keeper(KeyRing(path, audit=audit), hands)
        spoil(path)
        with caplog.at_level(logging.ERROR, "launcher.gateway"):
            for second in range(3):
                hands.loop = float(second)
                assert gate.identify(head_with(bearer("alice"))).name == "alice"
                assert refused(gate) == "missing_key"
        assert caplog.text.count("The keys that were read before still hold") == 1  # once, not each second
        assert '"result": "failed: ' in audit.path.read_text()
        with pytest.raises(KeyFault):
            gate.reload()
        if path.is_dir():
            path.rmdir()
        path.unlink(missing_ok=True)
        write_keys(path, [key("boss", 2)])
        hands.loop = 9.0
        assert gate.identify(head_with(bearer("boss"))).name == "boss"
        assert refused(gate, bearer("alice")) == "wrong_key"

    def test_the_first_key_closes_an_open_endpoint(self, tmp_path: Path, hands: Hands) -> None:
        path = tmp_path / "keys.json"
        gate = keeper(KeyRing(path), hands, required=False)
        assert gate.identify(head_with()) is ANONYMOUS
        write_keys(path, [KEYS[0]])
        hands.loop = 1.0
        assert refused(gate) == "missing_key"
        path.unlink()
        hands.loop = 2.0
        assert refused(gate) == "missing_key"
        assert gate.identify(head_with(bearer("alice"))).name == "alice"
        write_keys(path, [])  # no key any more, and no open door
        hands.loop = 3.0
        assert refused(gate, bearer("alice")) == "wrong_key"

    def test_a_first_file_that_is_broken_closes_it_too(self, tmp_path: Path, hands: Hands) -> None:
        gate = keeper(KeyRing(tmp_path / "keys.json"), hands, required=False)
        (tmp_path / "keys.json").write_text("oops")
        assert refused(gate) == "missing_key"

    def test_an_edit_in_place_is_noticed_by_its_time(self, path: Path, hands: Hands) -> None:
        gate = keeper(KeyRing(path), hands)
        text = path.read_text()
        path.write_text(text.replace("alice", "alicf"))
        os.utime(path, ns=(1, 1))
        assert gate.identify(head_with(bearer("alice"))).name == "alicf"

    def test_the_audit_log_says_what_changed(self, path: Path, hands: Hands) -> None:
        audit = AuditLog(path.with_name("audit.log"))
        gate = keeper(KeyRing(path, audit=audit), hands)
        late = dataclasses.replace(KEYS[3], expires=None)
        write_keys(path, [dataclasses.replace(KEYS[0], revoked=NOW), KEYS[1], late, key("gone", 8)])
        gate.reload()
        gate.reload()  # nothing new: no line
        (entry,) = [json.loads(line) for line in audit.path.read_text().splitlines()]
        assert entry["result"] == (
            "removed gone (00000003), revoked alice (00000001), changed late (00000004), added gone (00000008)"
        )
        assert (entry["actor"], entry["act"], entry["object"]) == ("gateway", "key.reload", str(path))

    def test_keys_of_the_environment_beside_the_file(self, path: Path, hands: Hands) -> None:
        gate = keeper(KeyRing(path, keys_of_environment("ops=sk-0123456789abcdef")), hands)
        ops = gate.identify(head_with("x-api-key: sk-0123456789abcdef"))
        assert (ops.name, ops.key_id) == ("ops", "env-1")
        assert gate.identify(head_with(bearer("alice"))).name == "alice"
        write_keys(path, [key("boss", 2)])
        hands.loop = 1.0
        assert gate.identify(head_with("x-api-key: sk-0123456789abcdef")) is ops
        with pytest.raises(KeyFault, match="with LAUNCHER_API_KEYS: 'boss' and 'boss' have the name 'boss'"):
            KeyRing(path, keys_of_environment("boss=sk-0123456789abcdef"))


class TestRequired:
    @pytest.mark.parametrize(
        ("auth", "listen", "has_keys", "required"),
        [
            ("auto", "127.0.0.1:8000", False, False),
            ("auto", "localhost:8000", False, False),
            ("auto", "[::1]:8000", False, False),
            ("auto", "127.0.0.1:8000", True, True),
            ("auto", "0.0.0.0:8000", True, True),
            ("none", "0.0.0.0:8000", True, False),
            ("none", "0.0.0.0:8000", False, False),
            ("keys", "127.0.0.1:8000", True, True),
        ],
    )
    def test_table(self, auth: str, listen: str, has_keys: bool, required: bool) -> None:
        assert keys_required(auth, listen, has_keys) is required

    @pytest.mark.parametrize("listen", ["0.0.0.0:8000", "[::]:8000", "10.0.0.1:80", "example.org:80", "localhost.x:1"])
    def test_open_to_others_without_keys_is_no_start(self, listen: str) -> None:
        assert not is_loopback(listen)
        with pytest.raises(PreconditionError) as caught:
            keys_required("auto", listen, False)
        assert caught.value.message == f"gateway.listen is {listen}, which others can reach, and there are no API keys"
        assert "`launcher key add NAME --profile FILE`" in caught.value.hint
        assert caught.value.hint.endswith("or set gateway.auth: none.")

    def test_keys_without_any(self) -> None:
        with pytest.raises(PreconditionError, match=r"gateway\.auth is keys, and there are no API keys"):
            keys_required("keys", "127.0.0.1:8000", False)


@pytest.fixture
async def locked(engine: FakeEngine, gate: Gatekeeper) -> AsyncIterator[Desk]:
    """A gateway that wants keys, in front of the fake engine."""
    async with gateway_to(engine.url) as desk:
        desk.gateway.gatekeeper = gate
        yield desk


def method_of(name: str) -> str:
    for method in ("GET", "POST"):
        try:
            find_route(method.encode(), name.encode())
        except Refused:
            continue
        return method
    raise AssertionError(name)


ROUTES = [name.replace("{id}", "resp_1") for name in NAMES]
CLOSED = [name for name in ROUTES if not is_open(head_with(target=name))]
MODEL_ROUTES = [name for name in CLOSED if name not in ("/", "/metrics") and not name.startswith("/api")]


class TestRoutes:
    @pytest.mark.parametrize(("lines", "reason"), STRANGERS.values(), ids=STRANGERS)
    async def test_no_route_lets_a_stranger_in(
        self, locked: Desk, engine: FakeEngine, lines: tuple[str, ...], reason: str
    ) -> None:
        client = await locked.client()
        for name in [*CLOSED, "/nowhere", "/sleep", "/v1/files"]:
            method = method_of(name) if name in ROUTES else "GET"
            await client.send(request_bytes(method, name, b"", *lines))
            answer = await client.read()
            assert (answer.status, answer.error["reason"]) == (401, reason), name
            assert answer.error["src"] == answer.headers["x-launcher-src"] == "gateway"
            assert answer.headers["www-authenticate"] == "Bearer"
        assert (await engine.seen())["requests"] == []
        for name in OPEN_PATHS:
            await client.send(request_bytes("GET", name.decode(), b"", *lines))
            assert (await client.read()).status in (200, 204), name

    async def test_every_route_lets_a_key_in_and_no_engine_sees_it(self, locked: Desk, engine: FakeEngine) -> None:
        client = await locked.client()
        for lines in KEY_HOLDERS.values():
            for name in MODEL_ROUTES:
                method = method_of(name)
                body = json.dumps(chat(prompt="x")).encode() if method == "POST" else b""
                await client.send(request_bytes(method, name, body, *lines))
                assert (await client.read()).status == 200, name
        for request in (await engine.seen())["requests"]:
            assert not {"authorization", "x-api-key", "api-key"} & set(request["headers"])
            assert SECRETS["alice"] not in json.dumps(request)

    async def test_an_upload_without_a_key_is_not_read(self, locked: Desk) -> None:
        client = await locked.client()
        await client.send(
            b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\nExpect: 100-continue\r\n\r\n"
        )
        answer = await client.read()  # no 100 Continue before it
        assert (answer.status, answer.error["reason"]) == (401, "missing_key")
        assert answer.headers["connection"] == "close"
        assert await client.at_end()

    async def test_refusals_are_counted(self, locked: Desk) -> None:
        await locked.get("/v1/models")
        metrics = (await locked.get("/metrics", bearer("alice"))).body.decode()
        assert 'reason="missing_key"' in metrics


def test_repr(gate: Gatekeeper) -> None:
    assert repr(gate) == "<Gatekeeper keys <KeyRing 4>>"
    assert repr(Identity(KEYS[0])) == "<Identity 00000001 'alice'>"
