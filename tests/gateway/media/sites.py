"""Servers on this machine that play sites of the internet, with certificates of an authority of their own."""

from __future__ import annotations

import asyncio
import datetime
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

DAY = datetime.timedelta(days=1)
Script = bytes | Callable[[asyncio.StreamWriter], Awaitable[None]]


class Authority:
    """Signs certificates for names; ``trusted`` is a client's context that trusts it alone."""

    def __init__(self, folder: Path, name: str = "authority") -> None:
        self._folder, self._key = folder, ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        basic = x509.BasicConstraints(ca=True, path_length=None)
        self.cert = self._sign(self._name, self._key.public_key(), (-1, 30), [(basic, True), *self._usage(True)])
        self.path = folder / f"{name}.pem"
        self.path.write_bytes(self.cert.public_bytes(serialization.Encoding.PEM))

    def _usage(self, is_ca: bool) -> list[tuple[x509.ExtensionType, bool]]:
        usage = x509.KeyUsage(True, False, False, False, False, is_ca, is_ca, False, False)
        return [(usage, True), (x509.SubjectKeyIdentifier.from_public_key(self._key.public_key()), False)][: 1 + is_ca]

    def _sign(
        self, who: x509.Name, key: ec.EllipticCurvePublicKey, days: tuple[int, int], extensions: list
    ) -> x509.Certificate:
        now = datetime.datetime.now(datetime.UTC)
        builder = x509.CertificateBuilder().subject_name(who).issuer_name(self._name).public_key(key)
        builder = builder.serial_number(x509.random_serial_number())
        builder = builder.not_valid_before(now + days[0] * DAY).not_valid_after(now + days[1] * DAY)
        for extension, is_critical in extensions:
            builder = builder.add_extension(extension, is_critical)
        return builder.sign(self._key, hashes.SHA256())

    @property
    def trusted(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=self.path)

    def server(self, name: str, days: tuple[int, int] = (-1, 30)) -> ssl.SSLContext:
        """A server's context with a certificate for a name."""
        key = ec.generate_private_key(ec.SECP256R1())
        who = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        names = x509.SubjectAlternativeName([x509.DNSName(name)])
        cert = self._sign(who, key.public_key(), days, [(names, False), (issuer, False), *self._usage(False)])
        form = serialization.PrivateFormat.PKCS8
        both = key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())
        path = self._folder / f"{name}{days[1]}.pem"
        path.write_bytes(both + cert.public_bytes(serialization.Encoding.PEM))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(path)
        return context


@dataclass
class Site:
    """A server that answers each path by its script; what it saw stays in ``heads`` and ``names`` (of TLS)."""

    port: int = 0
    scripts: dict[str, Script] = field(default_factory=dict)
    heads: list[bytes] = field(default_factory=list)
    names: list[str | None] = field(default_factory=list)
    begun: asyncio.Event = field(default_factory=asyncio.Event)
    arrived: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(0))  # one for each request
    closed: asyncio.Event = field(default_factory=asyncio.Event)
    open_now: int = 0
    most_open: int = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.open_now += 1
        self.most_open = max(self.most_open, self.open_now)
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            self.heads.append(head)
            script = self.scripts[head.split(b" ")[1].partition(b"?")[0].decode()]
            self.arrived.release()
            self.begun.set()
            if isinstance(script, bytes):
                writer.write(script)
            else:
                watch = asyncio.ensure_future(reader.read())
                run = asyncio.ensure_future(script(writer))
                await asyncio.wait((watch, run), return_when=asyncio.FIRST_COMPLETED)
                for task in (run, watch):
                    task.cancel()
                    with suppress(asyncio.CancelledError, ConnectionError):
                        await task
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            self.open_now -= 1
            self.closed.set()
            writer.close()


@asynccontextmanager
async def site(tls: ssl.SSLContext | None = None, **scripts: Script) -> AsyncIterator[Site]:
    """A site whose paths are the names of ``scripts``."""
    it = Site(scripts={f"/{path}": script for path, script in scripts.items()})
    if tls is not None:
        tls.sni_callback = lambda _socket, name, _context: it.names.append(name)
    server = await asyncio.start_server(it.serve, "127.0.0.1", 0, ssl=tls)
    it.port = server.sockets[0].getsockname()[1]
    try:
        yield it
    finally:
        server.close()
        await server.wait_closed()


def answer(body: bytes, *lines: str, status: str = "200 OK", length: int | None = None) -> bytes:
    """An answer with a Content-Length, unless ``length`` is less than 0."""
    length = len(body) if length is None else length
    sized = [f"Content-Length: {length}"] if length >= 0 else []
    return "\r\n".join([f"HTTP/1.1 {status}", *sized, *lines, "", ""]).encode() + body


class Names:
    """A resolver with a table of its own, that notes what it was asked."""

    def __init__(self, **table: Sequence[str]) -> None:
        self.table = {name.replace("_", "."): list(addresses) for name, addresses in table.items()}
        self.asked: list[str] = []

    async def __call__(self, name: str, port: int) -> list[str]:
        self.asked.append(name)
        if name not in self.table:
            raise OSError(f"{name} is not known")
        return self.table[name]
