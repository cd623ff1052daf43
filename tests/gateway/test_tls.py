"""HTTPS over real sockets: served, refused, renewed; slow, rude and leaving clients; and the Unix sockets beside it."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import socket
import ssl
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest

from launcher.errors import PreconditionError
from launcher.gateway.certificate import ServerCertificate
from launcher.gateway.http1 import ClientConnection
from launcher.gateway.replicas import Replica
from launcher.gateway.sockets import LONGEST_SOCKET_PATH, connect, listen, listen_unix
from tests.fakes.process import FakeEngine
from tests.gateway.certificates import Pair, make_pair
from tests.gateway.harness import CHAT, PATIENCE_S, Desk, RawClient, chat, events, gateway_to, request_bytes

MEGABYTE = json.dumps(chat("x" * 1_000_000)).encode()


@pytest.fixture(scope="session")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return make_pair(tmp_path_factory.mktemp("tls"))


class SecureDesk:
    """A gateway that serves HTTPS, beside the plain port of its desk."""

    def __init__(self, desk: Desk, pair: Pair, served: ServerCertificate, port: int) -> None:
        self.desk, self.pair, self.served, self.port = desk, pair, served, port
        self.url = f"https://127.0.0.1:{port}"
        self.complaints: list[dict[str, Any]] = []  # what the event loop was told of
        self._clients: list[RawClient] = []

    async def client(self, context: ssl.SSLContext | None = None) -> RawClient:
        trusting = context or self.pair.trusted()
        client = RawClient(*await asyncio.open_connection("127.0.0.1", self.port, ssl=trusting, limit=2**26))
        self._clients.append(client)
        return client

    async def plain(self) -> RawClient:
        """A client that does not speak TLS."""
        client = RawClient(*await asyncio.open_connection("127.0.0.1", self.port))
        self._clients.append(client)
        return client

    def narrow(self) -> socket.socket:
        """A connection that takes little unread."""
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**14)
        sock.settimeout(PATIENCE_S)
        sock.connect(("127.0.0.1", self.port))
        return sock

    def close(self) -> None:
        for client in self._clients:
            client.close()


@asynccontextmanager
async def https(
    engine: FakeEngine, pair: Pair, *, handshake_s: float = 10.0, shutdown_s: float = 60.0, **settings: Any
) -> AsyncIterator[SecureDesk]:
    loop = asyncio.get_running_loop()
    async with gateway_to(engine.url, **settings) as desk:
        served = ServerCertificate(pair.cert, pair.key)
        make = lambda: ClientConnection(desk.gateway, loop)  # noqa: E731
        server, _, port = await listen(
            make, "127.0.0.1:0", served.context, handshake_s=handshake_s, shutdown_s=shutdown_s
        )
        secure = SecureDesk(desk, pair, served, port)
        loop.set_exception_handler(lambda _, context: secure.complaints.append(context))
        try:
            yield secure
        finally:
            secure.close()
            server.close()
        assert not secure.complaints  # nothing that a client does may be a traceback here


@pytest.fixture
async def secure(engine: FakeEngine, pair: Pair) -> AsyncIterator[SecureDesk]:
    async with https(engine, pair) as secure:
        yield secure


# What is served.


async def test_clients_of_the_trade(secure: SecureDesk) -> None:
    async with httpx2.AsyncClient(verify=secure.pair.trusted()) as http:
        client = openai.AsyncOpenAI(base_url=f"{secure.url}/v1", api_key="-", http_client=http, max_retries=0)
        for _ in range(2):  # the second one over the same connection
            whole = await client.chat.completions.create(
                model="fake-model", messages=[{"role": "user", "content": "hi"}], max_tokens=4
            )
            assert whole.choices[0].message.content == "w0 w1 w2 w3"
        stream = await client.chat.completions.create(
            model="fake-model", messages=[{"role": "user", "content": "hi"}], max_tokens=4, stream=True
        )
        assert "".join([chunk.choices[0].delta.content or "" async for chunk in stream]) == "w0 w1 w2 w3"
        assert (await http.get(f"{secure.url}/health")).json()["status"] == "ok"
    await secure.desk.at_rest()


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_versions_and_the_protocol_within(secure: SecureDesk, version: ssl.TLSVersion) -> None:
    context = secure.pair.trusted()
    context.minimum_version = context.maximum_version = version
    context.set_alpn_protocols(["h2", "http/1.1"])
    client = await secure.client(context)
    session = client.writer.get_extra_info("ssl_object")
    assert session.version() == {"TLSv1_2": "TLSv1.2", "TLSv1_3": "TLSv1.3"}[version.name]
    assert session.selected_alpn_protocol() == "http/1.1"
    await client.send(request_bytes("GET", "/health"))
    assert (await client.read()).status == 200


async def test_what_is_older_is_refused(secure: SecureDesk) -> None:
    context = secure.pair.trusted()
    context.set_ciphers("DEFAULT:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises((ssl.SSLError, ConnectionError)):
        await secure.client(context)
    assert (await secure.desk.get("/health")).status == 200


async def test_a_megabyte_each_way(secure: SecureDesk, engine: FakeEngine) -> None:
    await engine.set(tokens=1, chunk_bytes=1_000_000)
    client = await secure.client()
    for _ in range(3):
        await client.post(CHAT, MEGABYTE)
        answer = await client.read()
        assert answer.status == 200
        assert len(answer.body) > 1_000_000
        assert (await engine.seen())["requests"][-1]["sha256"] == hashlib.sha256(MEGABYTE).hexdigest()


async def test_a_request_in_small_records(secure: SecureDesk, engine: FakeEngine) -> None:
    client = await secure.client()
    body = json.dumps(chat()).encode()
    for byte in request_bytes("POST", CHAT, body):
        await client.send(bytes([byte]))
    assert (await client.read()).status == 200
    assert (await engine.seen())["requests"][-1]["sha256"] == hashlib.sha256(body).hexdigest()


async def test_pipelined_requests(secure: SecureDesk) -> None:
    client = await secure.client()
    one = request_bytes("POST", CHAT, json.dumps(chat(stream=True, max_tokens=3)).encode())
    await client.send((one + request_bytes("GET", "/health")) * 20)
    for _ in range(20):
        assert events((await client.read()).body)[-1] == "[DONE]"
        assert (await client.read()).json()["status"] == "ok"


# Clients that are slow, leave, or break off.


async def test_a_slow_reader_holds_the_engine_back(engine: FakeEngine, pair: Pair) -> None:
    """65 MB are to come; little of them is taken from the engine while the client does not read, and none is lost."""
    await engine.set(tokens=1000, chunk_bytes=65536)
    async with https(engine, pair) as secure:
        sock = secure.narrow()
        with await asyncio.to_thread(pair.trusted().wrap_socket, sock, server_hostname="127.0.0.1") as client:
            await asyncio.to_thread(client.sendall, request_bytes("POST", CHAT, b'{"stream": true}'))
            await secure.desk.until(lambda: any(c.write_paused for c in secure.desk.gateway.connections))
            held = (await engine.seen())["bytes_written"]
            assert held < 20 * 2**20
            received = await asyncio.to_thread(read_to_last_chunk, client)
            assert received > 65536 * 1000
    await secure.desk.at_rest()


def read_to_last_chunk(client: ssl.SSLSocket) -> int:
    received, last = 0, b""
    while not last.endswith(b"0\r\n\r\n"):
        piece = client.recv(2**18)
        assert piece, "cut off"
        received += len(piece)
        last = last[-5:] + piece
    return received


async def test_a_client_that_stops_reading_loses_its_slot(engine: FakeEngine, pair: Pair) -> None:
    await engine.set(tokens=1000, chunk_bytes=65536)
    async with https(engine, pair, max_in_flight=1, write_timeout=0.2) as secure:
        sock = secure.narrow()
        with await asyncio.to_thread(pair.trusted().wrap_socket, sock, server_hostname="127.0.0.1") as client:
            await asyncio.to_thread(client.sendall, request_bytes("POST", CHAT, b'{"stream": true}'))
            await engine.wait("abort")
            await secure.desk.at_rest()
        assert await secure.desk.metric("launcher_client_stalls_total") == 1


@pytest.mark.parametrize("politely", [True, False])
async def test_a_client_that_leaves_frees_its_engine(secure: SecureDesk, engine: FakeEngine, politely: bool) -> None:
    await engine.set(tokens=1000, inter_token_s=0.01)
    client = await secure.client()
    await client.post(CHAT, chat(stream=True, max_tokens=1000))
    await client.read_head()
    if politely:
        client.writer.close()  # close_notify first
    else:
        client.close()
    await engine.wait("abort")
    await secure.desk.at_rest()


async def test_a_refused_upload_is_read_so_that_its_sender_sees_the_answer(engine: FakeEngine, pair: Pair) -> None:
    """TLS cannot end one side alone, so the gateway says that it will close, and reads on for a while."""

    def upload(port: int) -> bytes:
        """Sends all before it reads, as many clients do."""
        raw = socket.create_connection(("127.0.0.1", port), PATIENCE_S)
        with pair.trusted().wrap_socket(raw, server_hostname="127.0.0.1") as client:
            client.sendall(request_bytes("POST", CHAT, b"x" * 8_000_000))
            return client.recv(65536)

    async with https(engine, pair, max_body=1000) as secure:
        for _ in range(3):
            answer = await asyncio.to_thread(upload, secure.port)
            assert answer.startswith(b"HTTP/1.1 413 Content Too Large\r\n")
        await secure.desk.until(lambda: len(secure.desk.gateway.connections) == 1)


async def test_a_refused_client_that_stays_is_left(
    engine: FakeEngine, pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("launcher.gateway.http1.LINGER_S", 0.05)
    async with https(engine, pair) as secure:
        client = await secure.client()
        await client.send(b"nonsense\r\n\r\n")
        assert (await client.read()).error["reason"] == "request_line"
        assert await client.at_end()


async def test_the_end_of_a_last_answer_waits_for_a_slow_client(engine: FakeEngine, pair: Pair) -> None:
    """`Connection: close`, and a client that reads late: all of the answer comes, then a proper end."""
    await engine.set(tokens=1, chunk_bytes=12_000_000, reasoning="hm")
    async with https(engine, pair) as secure:
        sock = secure.narrow()
        with await asyncio.to_thread(pair.trusted().wrap_socket, sock, server_hostname="127.0.0.1") as client:
            request = request_bytes("POST", CHAT, b'{"return_reasoning": true}', "Connection: close")
            await asyncio.to_thread(client.sendall, request)
            await secure.desk.until(lambda: any(c.state.name == "LINGER" for c in secure.desk.gateway.connections))
            received = await asyncio.to_thread(read_to_end, client)
            assert received > 12_000_000


def read_to_end(client: ssl.SSLSocket) -> int:
    """How many bytes come before close_notify; an end without it raises."""
    received = 0
    while piece := client.recv(2**18):
        received += len(piece)
    return received


@pytest.mark.parametrize("line", ["HTTP/1.1\r\nHost: g\r\nConnection: close", "HTTP/1.0"])
async def test_an_end_is_told_with_close_notify(secure: SecureDesk, line: str) -> None:
    """Without it a client could not tell an end from a cut."""
    client = await secure.client()
    await client.send(b"GET /health %b\r\n\r\n" % line.encode())
    data = await client.reader.read()
    assert data.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"connection: close" in data


async def test_idle_connections_are_closed(engine: FakeEngine, pair: Pair) -> None:
    async with https(engine, pair, idle_timeout=0.05, head_timeout=0.05) as secure:
        client = await secure.client()
        await client.send(request_bytes("GET", "/health"))
        assert (await client.read()).status == 200
        assert await client.at_end()
        silent = await secure.client()
        assert await silent.at_end()


# Clients that do not speak TLS, or not to the end.


async def test_a_handshake_that_stops_half_way_is_ended(engine: FakeEngine, pair: Pair) -> None:
    async with https(engine, pair, handshake_s=0.1) as secure:
        for begun in (b"", client_hello()[:40], client_hello()):
            client = await secure.plain()
            await client.send(begun)
            await client.reader.read()  # an alert, or nothing; then the end
            assert await client.at_end()
        await still_serves(secure)


def client_hello() -> bytes:
    out = ssl.MemoryBIO()
    session = ssl.create_default_context().wrap_bio(ssl.MemoryBIO(), out, server_hostname="g")
    with pytest.raises(ssl.SSLWantReadError):
        session.do_handshake()
    return out.read()


@pytest.mark.parametrize(
    "data",
    [
        request_bytes("GET", "/health"),
        b"\x00" * 100,
        b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00",
        b"\x16\x03\x01\xff\xff" + b"\xff" * 70_000,
        b"\x80\x2e\x01\x00\x02" + b"\x00" * 50,
    ],
    ids=["plain HTTP", "NULs", "a hello that is none", "an oversized record", "SSL 2"],
)
async def test_other_bytes_on_the_secure_port_end_the_connection(
    secure: SecureDesk, engine: FakeEngine, data: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    client = await secure.plain()
    await client.send(data)
    async with asyncio.timeout(PATIENCE_S):
        with suppress(ConnectionResetError):
            assert b"HTTP" not in await client.reader.read()
    assert (await engine.seen())["requests"] == []
    await still_serves(secure)
    assert "Traceback" not in caplog.text


async def test_a_client_that_does_not_trust_us(secure: SecureDesk) -> None:
    with pytest.raises(ssl.SSLCertVerificationError):
        await secure.client(ssl.create_default_context())
    await still_serves(secure)


async def test_rubbish_within_a_good_connection(secure: SecureDesk) -> None:
    """A record that was tampered with ends the connection and nothing else."""
    raw = socket.create_connection(("127.0.0.1", secure.port))
    session = await asyncio.to_thread(secure.pair.trusted().wrap_socket, raw, server_hostname="127.0.0.1")
    with session, socket.socket(fileno=os.dup(session.fileno())) as wire:
        wire.settimeout(PATIENCE_S)
        await asyncio.to_thread(wire.sendall, b"\x17\x03\x03\x00\x40" + b"\xaa" * 64)
        await asyncio.to_thread(read_off, wire)
    await still_serves(secure)


def read_off(wire: socket.socket) -> None:
    with suppress(ConnectionResetError):
        while wire.recv(65536):
            pass


async def still_serves(secure: SecureDesk) -> None:
    client = await secure.client()
    await client.post(CHAT, {"model": "other"})
    assert (await client.read()).status in (200, 404)
    await secure.desk.at_rest()
    assert await secure.desk.metric("launcher_requests_total") >= 1
    client.close()


async def test_a_secure_hello_on_the_plain_port(desk: Desk, engine: FakeEngine) -> None:
    client = await desk.client()
    await client.send(client_hello())
    await client.send(b"\r\n\r\n")
    assert (await client.read()).status in (400, 408)
    assert await client.at_end()
    assert (await engine.seen())["requests"] == []


async def test_many_handshakes_at_once(secure: SecureDesk) -> None:
    async def one() -> int:
        client = await secure.client()
        await client.send(request_bytes("GET", "/health"))
        status = (await client.read()).status
        client.close()
        return status

    assert await asyncio.gather(*(one() for _ in range(100))) == [200] * 100


# The files.


def refused(cert: Path, key: Path) -> PreconditionError:
    with pytest.raises(PreconditionError) as failed:
        ServerCertificate(cert, key)
    return failed.value


def test_files_that_cannot_be_used(tmp_path: Path) -> None:
    good, other = make_pair(tmp_path, "good"), make_pair(tmp_path, "other")
    old, locked = make_pair(tmp_path, "rsa", is_rsa=True), make_pair(tmp_path, "locked", passphrase=b"secret")
    missing, text = tmp_path / "missing", tmp_path / "text"
    text.write_text("not a certificate")
    broken = tmp_path / "broken.pem"
    broken.write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    cases = (
        (missing, good.key, f"gateway.tls_cert: {missing}: there is no such file."),
        (good.cert, missing, f"gateway.tls_key: {missing}: there is no such file."),
        (tmp_path, good.key, f"gateway.tls_cert: {tmp_path}: cannot be read: Is a directory."),
        (text, good.key, f"gateway.tls_cert: {text}: is not a PEM file."),
        (good.cert, text, f"gateway.tls_key: {text}: is not a PEM file."),
        (good.key, good.cert, f"gateway.tls_cert: {good.key}: holds no certificate."),
        (good.cert, good.cert, f"gateway.tls_key: {good.cert}: holds no private key."),
        (good.cert, other.key, f"gateway.tls_key: {other.key}: this is not the key of the certificate in {good.cert} (gateway.tls_cert)."),
        (good.cert, old.key, f"gateway.tls_key: {old.key}: this is not the key of the certificate in {good.cert} (gateway.tls_cert)."),
        (locked.cert, locked.key, f"gateway.tls_key: {locked.key}: the key is encrypted with a passphrase, and nobody is there to type it."),
    )  # fmt: skip
    for cert, key, message in cases:
        error = refused(cert, key)
        assert error.message == message
        assert error.hint.endswith(".")
    assert refused(broken, good.key).message.startswith(f"gateway.tls_cert: {broken} with {good.key}: cannot be used: ")
    assert "openssl pkey -in locked.key" in refused(locked.cert, locked.key).hint


def test_dates_and_purpose_are_a_warning(tmp_path: Path) -> None:
    def warning(**traits: Any) -> str:
        pair = make_pair(tmp_path, **traits)
        return ServerCertificate(pair.cert, pair.key).warning.removeprefix(f"gateway.tls_cert: {pair.cert}: ")

    assert warning() == ""
    assert warning(is_rsa=True) == ""
    assert warning(days=(-30, -1)) == "clients will refuse this certificate: it has expired."
    assert warning(days=(1, 30)) == (
        "clients will refuse this certificate: it is not valid yet; look at this machine's clock too."
    )
    assert "purpose" in warning(for_clients=True)


async def served_now(secure: SecureDesk) -> bytes:
    """The certificate that a new connection is given."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    client = await secure.client(context)
    der: bytes = client.writer.get_extra_info("ssl_object").getpeercert(True)
    client.close()
    return der


def der_of(file: Path) -> bytes:
    return ssl.PEM_cert_to_DER_cert(file.read_text())


@pytest.mark.parametrize("is_rsa", [False, True], ids=["same kind of key", "other kind of key"])
async def test_a_renewed_certificate_is_served_without_a_restart(
    engine: FakeEngine, tmp_path: Path, is_rsa: bool
) -> None:
    first = make_pair(tmp_path, "live")
    async with https(engine, first) as secure:
        before, open_client = der_of(first.cert), await secure.client()
        assert secure.served.reload_if_changed() == ""
        assert await served_now(secure) == before
        renewed = make_pair(tmp_path, "renewed", is_rsa=is_rsa)

        os.replace(renewed.cert, first.cert)  # the certificate comes first: for a moment they do not match
        told = secure.served.reload_if_changed()
        assert "this is not the key of the certificate" in told
        assert "The certificate that was read before goes on serving." in told
        assert secure.served.reload_if_changed() == ""  # said once
        assert await served_now(secure) == before

        os.replace(renewed.key, first.key)
        assert secure.served.reload_if_changed() == (
            f"gateway.tls_cert: {first.cert}: the new certificate is served from now on."
        )
        assert await served_now(secure) == der_of(first.cert) != before
        assert secure.served.reload_if_changed() == ""

        await open_client.send(request_bytes("GET", "/health"))  # who was connected stays so
        assert (await open_client.read()).status == 200
        first.key.unlink()
        assert "there is no such file" in secure.served.reload_if_changed()
        assert await served_now(secure) == der_of(first.cert)


async def test_a_link_that_is_turned_is_a_change(engine: FakeEngine, tmp_path: Path) -> None:
    """As certbot and Kubernetes renew."""
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        make_pair(tmp_path / folder)
    live = tmp_path / "live"
    live.symlink_to("one")
    served = ServerCertificate(live / "server.pem", live / "server.key")
    (tmp_path / "next").symlink_to("two")
    os.replace(tmp_path / "next", live)
    assert "the new certificate is served" in served.reload_if_changed()


# Unix sockets.


class Echo(asyncio.Protocol):
    """Sends back what it gets."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: asyncio.Transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)


class Ear(asyncio.Protocol):
    """Keeps what it gets."""

    def __init__(self) -> None:
        self.heard = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: asyncio.Transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        self.heard.set_result(data)


async def answers(path: Path) -> bool:
    ear = await connect(Ear, Replica.at_socket(str(path)))
    ear.transport.write(b"hello")
    async with asyncio.timeout(PATIENCE_S):
        heard = await ear.heard == b"hello"
    ear.transport.abort()
    return heard


async def test_a_unix_socket_is_for_this_user_only_and_a_stale_one_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    for _ in range(2):  # the second time over what the first has left
        server = await listen_unix(Echo, path)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert await answers(path)
        with pytest.raises(PreconditionError) as failed:
            await listen_unix(Echo, path)
        assert failed.value.message == f"{path}: another process listens on this socket."
        assert await answers(path)
        server.close()
        if not path.exists():  # uvloop removes it
            bind_and_leave(path)
    with pytest.raises(OSError, match="refused"):
        await connect(Ear, Replica.at_socket(str(path)))


def bind_and_leave(path: Path) -> None:
    """What a process that was killed leaves behind."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(path))


async def test_unix_sockets_that_cannot_be_had(tmp_path: Path) -> None:
    async def message(path: Path) -> str:
        with pytest.raises(PreconditionError) as failed:
            await listen_unix(Echo, path)
        return failed.value.message

    file = tmp_path / "file"
    file.write_text("precious")
    assert await message(file) == f"{file}: exists and is not a socket."
    assert file.read_text() == "precious"
    assert await message(tmp_path / "no" / "s") == (
        f"{tmp_path}/no/s: cannot listen on this socket: No such file or directory."
    )
    long = Path("/tmp/" + "x" * LONGEST_SOCKET_PATH)
    assert await message(long) == (
        f"{long}: the path is too long for a Unix socket: {len(str(long))} bytes, {LONGEST_SOCKET_PATH} at most."
    )


async def test_the_longest_path_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = Path("s" * LONGEST_SOCKET_PATH)
    server = await listen_unix(Echo, path)
    assert await answers(path)
    server.close()
