"""The web page's files: read once, kept in memory as they came and as gzip, answered with what tells a browser to ask again
each time (ETag) and to run nothing that is not from here.

They need no API key, since nothing in them is secret: they are the same everywhere.
"""

from __future__ import annotations

import gzip
import re
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from launcher.gateway.refusal import Refusal, Refused

if TYPE_CHECKING:
    from launcher.gateway.heads import RequestHead

FOLDER = Path(__file__).parents[1] / "ui"
FILES, ICON = b"/ui/", b"/favicon.ico"
PAGES = {b"index.html": b"/", b"ops.html": b"/ops"}  # files that have a path of their own
UTF8 = b"; charset=utf-8"
# What is served, by the end of its name, and whether gzip makes it smaller; other files are not the page's. Notes are told to
# be plain text, which every browser shows.
TYPES = {
    ".html": (b"text/html" + UTF8, True),
    ".js": (b"text/javascript" + UTF8, True),
    ".mjs": (b"text/javascript" + UTF8, True),
    ".css": (b"text/css" + UTF8, True),
    ".svg": (b"image/svg+xml", True),
    ".json": (b"application/json", True),
    ".txt": (b"text/plain" + UTF8, True),
    ".md": (b"text/plain" + UTF8, True),
    ".png": (b"image/png", False),
    ".ico": (b"image/x-icon", False),
    ".woff2": (b"font/woff2", False),
}
POLICY = (
    b"default-src 'self'; img-src 'self' blob: data:; style-src 'self'; script-src 'self'; connect-src 'self'; "
    b"object-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    b"require-trusted-types-for 'script'; trusted-types dompurify"
)
ALWAYS = (
    b"cache-control: no-cache",
    b"content-security-policy: " + POLICY,
    b"x-content-type-options: nosniff",
    b"referrer-policy: no-referrer",
    b"permissions-policy: camera=(self), microphone=(), geolocation=(), payment=(), usb=()",
)
_NOTHING = re.compile(rb";[ \t]*q=0(?:\.0*)?[ \t]*(?:;|$)").search  # not even as the last choice

Answer = tuple[int, list[bytes], bytes]  # status, header lines, body


class Form(NamedTuple):
    """One form of a file, as it came or as gzip. ``lines`` go with 304 too, ``own`` with the body alone."""

    etag: bytes
    lines: tuple[bytes, ...]
    own: tuple[bytes, ...]
    data: bytes


class Site:
    """The files of a folder. Written when it is made, and never again."""

    def __init__(self, folder: Path) -> None:
        self._files: dict[bytes, tuple[Form, Form | None]] = {}  # by path; the second is gzip
        for path in sorted(folder.rglob("*")):
            if path.suffix in TYPES and path.is_file():
                name = path.relative_to(folder).as_posix().encode()
                place = PAGES.get(name, FILES + name)
                self._files[place] = _forms(path, varies=place == b"/")

    def answer(self, head: RequestHead) -> Answer:
        """What a GET or HEAD gets: 200, 304 where it has the file already, 204 for the icon, which the page names itself.

        Raises Refused with 404.
        """
        path = head.target.partition(b"?")[0]
        if path == ICON:
            return 204, list(ALWAYS), b""
        forms = self._files.get(path)
        if forms is None:
            message = f"{path.decode('latin-1')[:200]} is no file of the web page. The page itself is at /."
            raise Refused(Refusal(404, "unknown_path", message))
        plain, packed = forms
        form = plain if packed is None or not _accepts(head.value_of(b"accept-encoding"), b"gzip") else packed
        if _has(head.value_of(b"if-none-match"), form.etag):
            return 304, list(form.lines), b""
        return 200, [*form.own, *form.lines], form.data

    def __repr__(self) -> str:
        return f"<Site {len(self._files)} files>"


@cache
def web_page() -> Site:
    """The page that comes with the launcher; read at the first call."""
    return Site(FOLDER)


def wants_page(head: RequestHead) -> bool:
    """Whether whoever asks names HTML as what it takes, as browsers do; curl and Python's clients take anything."""
    return _accepts(head.value_of(b"accept"), b"text/html")


def _forms(path: Path, varies: bool) -> tuple[Form, Form | None]:
    """``varies``: what is at this path depends on Accept too."""
    data, (kind, shrinks) = path.read_bytes(), TYPES[path.suffix]
    digest = sha256(data).hexdigest()[:32].encode()
    vary = (b"vary: accept, accept-encoding" if varies else b"vary: accept-encoding",)
    own = (b"content-type: " + kind,)
    plain = _form(b'"%b"' % digest, vary, own, data)
    packed = gzip.compress(data, 9, mtime=0) if shrinks else data
    if len(packed) >= len(data):
        return plain, None
    # Other bytes, so another strong ETag: https://www.rfc-editor.org/rfc/rfc9110#section-8.8.3.3
    return plain, _form(b'"%b-gzip"' % digest, vary, (*own, b"content-encoding: gzip"), packed)


def _form(etag: bytes, vary: tuple[bytes, ...], own: tuple[bytes, ...], data: bytes) -> Form:
    return Form(etag, (b"etag: " + etag, *vary, *ALWAYS), own, data)


def _accepts(value: bytes, name: bytes) -> bool:
    """Whether an Accept or Accept-Encoding header names it, and not with q=0. ``*`` names nothing."""
    for choice in value.lower().split(b","):
        if choice.partition(b";")[0].strip() == name:
            return _NOTHING(choice) is None
    return False


def _has(value: bytes, etag: bytes) -> bool:
    """Whether an If-None-Match header has this tag; a cache on the way may have made it a weak one."""
    tags = [tag.strip().removeprefix(b"W/") for tag in value.split(b",")]
    return etag in tags or tags == [b"*"]
