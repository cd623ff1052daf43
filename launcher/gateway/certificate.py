"""The certificate that the gateway serves HTTPS with: read from files, checked at the start, renewed without a restart."""

from __future__ import annotations

import ssl
from pathlib import Path

from launcher.errors import PreconditionError

CERT, KEY = "gateway.tls_cert", "gateway.tls_key"
MISMATCHES = ("KEY_VALUES_MISMATCH", "KEY_TYPE_MISMATCH", "NO_CERTIFICATE_ASSIGNED")
FULL_CHAIN = "Write the file that the authority calls 'full chain', in PEM form (-----BEGIN CERTIFICATE-----)."
EXPIRED, NOT_YET_VALID = 10, 9  # OpenSSL's codes
Stamp = tuple[tuple[int, int, int], ...]


class ServerCertificate:
    """A certificate chain and its key on disk. ``context`` is for the listener and stays the same for ever.

    ``warning`` tells what clients will object to in the certificate, such as its dates; '' for nothing.
    Raises PreconditionError where the files cannot be used.
    """

    def __init__(self, cert: Path, key: Path) -> None:
        self._cert, self._key = cert, key
        self._stamp = _stamp(cert, key)
        self.context = server_context(cert, key)
        self._serving = self.context
        # Each handshake is given the context that is current by then. Loading new files into one that serves would not
        # do: it holds one certificate for each kind of key, so a renewal from RSA to EC would leave the old one in use.
        self.context.sni_callback = self._choose
        self.warning = objection(self.context, cert)

    def reload_if_changed(self) -> str:
        """Takes up files that have changed, for handshakes from now on. Costs two stats where they have not.

        Returns a sentence for the log about what was done, or why it was not: then the old certificate goes on serving,
        and the next change of the files is tried again. '': nothing has changed.
        """
        stamp = _stamp(self._cert, self._key)
        if stamp == self._stamp:
            return ""
        self._stamp = stamp
        try:
            serving = server_context(self._cert, self._key)
        except PreconditionError as error:
            return f"{error.message} The certificate that was read before goes on serving. {error.hint}"
        self._serving = serving
        self.warning = objection(serving, self._cert)
        return f"{CERT}: {self._cert}: the new certificate is served from now on. {self.warning}".rstrip()

    def _choose(self, handshake: ssl.SSLObject | ssl.SSLSocket, name: str | None, listening: ssl.SSLContext) -> None:
        handshake.context = self._serving


def _stamp(*files: Path) -> Stamp:
    """What changes when files are written anew or, as certbot and Kubernetes do, a link is turned to others."""
    stamps = []
    for file in files:
        try:
            status = file.stat()
        except OSError:
            stamps.append((0, 0, 0))
        else:
            stamps.append((status.st_mtime_ns, status.st_ino, status.st_size))
    return tuple(stamps)


def server_context(cert: Path, key: Path) -> ssl.SSLContext:
    """TLS 1.2 and 1.3 for HTTP/1.1. Raises PreconditionError, which says which file is at fault and what to do."""
    _check_pem(CERT, cert, b"CERTIFICATE-----", FULL_CHAIN)
    _check_pem(
        KEY, key, b"PRIVATE KEY-----", f"Write the private key of {CERT}, in PEM form (-----BEGIN PRIVATE KEY-----)."
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])

    def refuse_passphrase() -> str:  # without it OpenSSL would ask for one at the terminal, and wait
        raise PreconditionError(
            f"{KEY}: {key}: the key is encrypted with a passphrase, and nobody is there to type it.",
            f"Decrypt it (openssl pkey -in {key.name} -out plain.key) and let only this user read the result (mode 0600).",
        )

    try:
        context.load_cert_chain(cert, key, refuse_passphrase)
    except ssl.SSLError as error:
        if error.reason in MISMATCHES:
            raise PreconditionError(
                f"{KEY}: {key}: this is not the key of the certificate in {cert} ({CERT}).",
                "Give the key that the certificate was made for; in the chain, the server's own certificate comes first.",
            ) from None
        said = (error.reason or str(error)).replace("_", " ").lower()
        raise PreconditionError(f"{CERT}: {cert} with {key}: cannot be used: {said}.", FULL_CHAIN) from None
    return context


def _check_pem(setting: str, file: Path, mark: bytes, hint: str) -> None:
    """OpenSSL names neither the file nor what it lacks."""
    try:
        text = file.read_bytes()
    except FileNotFoundError:
        raise PreconditionError(f"{setting}: {file}: there is no such file.", hint) from None
    except OSError as error:
        raise PreconditionError(f"{setting}: {file}: cannot be read: {error.strerror}.", hint) from None
    if b"-----BEGIN " not in text:
        raise PreconditionError(f"{setting}: {file}: is not a PEM file.", hint)
    if mark not in text:
        kind = "certificate" if setting == CERT else "private key"
        raise PreconditionError(f"{setting}: {file}: holds no {kind}.", hint)


def objection(context: ssl.SSLContext, cert: Path) -> str:
    """What clients that trust the issuer will still object to; '' for nothing. A handshake within memory tells."""
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    client.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # the certificate vouches for itself
    client.load_verify_locations(cert)
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    sides = (client.wrap_bio(back, there), context.wrap_bio(there, back, server_side=True))
    for _ in range(3):
        for side in sides:
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
            except ssl.SSLCertVerificationError as error:
                return _tell(cert, error)
    return ""


def _tell(cert: Path, error: ssl.SSLCertVerificationError) -> str:
    why = {EXPIRED: "it has expired", NOT_YET_VALID: "it is not valid yet; look at this machine's clock too"}
    told = why.get(error.verify_code, error.verify_message)
    return f"{CERT}: {cert}: clients will refuse this certificate: {told}."
