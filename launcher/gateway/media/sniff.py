"""What a file is, by its first bytes; whatever its name or its label says. No I/O, no decoding."""

from __future__ import annotations

from collections.abc import Sequence

HEAD_BYTES = 64  # of a file: enough to tell

# The formats that are read, with their media types. Fuller checks come with the decoding.
MEDIA_TYPES = {
    "jpeg": "image/jpeg",
    "png": "image/png",
    "webp": "image/webp",
    "gif": "image/gif",
    "bmp": "image/bmp",
    "tiff": "image/tiff",
    "avif": "image/avif",
}
# What engines read whatever libraries they were built with. BMP and TIFF become smaller, a GIF may have 10,000 frames.
PASSED_ON = ("jpeg", "png", "webp")
_BEGINNINGS = (
    (b"\xff\xd8\xff", "jpeg"),
    (b"\x89PNG\r\n\x1a\n", "png"),
    (b"GIF87a", "gif"),
    (b"GIF89a", "gif"),
    (b"II*\x00", "tiff"),
    (b"MM\x00*", "tiff"),
    (b"BM", "bmp"),
    (b"%PDF", "a PDF"),
    (b"PK\x03\x04", "a ZIP file"),
    (b"\x1f\x8b", "a gzip file"),
    (b"\xff\x0a", "JPEG XL"),
    (b"\x00\x00\x00\x0cJXL ", "JPEG XL"),
    (b"\x00\x00\x00\x0cjP  ", "JPEG 2000"),
    (b"8BPS", "a Photoshop file"),
    (b"\x1aE\xdf\xa3", "a Matroska or WebM video"),
)
# What people send that is no picture here, and what there is instead.
_INSTEAD = {
    "SVG": "an SVG, which is a program for drawing and has no pixels: draw it and send that as PNG",
    "HEIC": "HEIC, which is not read here: send it as JPEG (phones can be set to take 'most compatible' pictures)",
    "text": "text, perhaps base64 twice, or the message of an error",
}
_HEIF = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"}
_TEXT = bytes(range(32, 127)) + b"\t\r\n"


def kind_of(data: bytes) -> str:
    """A key of MEDIA_TYPES, or else a name for a sentence: 'SVG', 'HEIC', 'a PDF', 'text'; '' for what is not known."""
    head = bytes(data[:HEAD_BYTES])
    for beginning, kind in _BEGINNINGS:
        if head.startswith(beginning):
            return kind
    if head[:4] == b"RIFF":
        return "webp" if head[8:12] == b"WEBP" else "a RIFF file"
    if head[4:8] == b"ftyp":
        return _ftyp(head)
    return _text(data)


def not_taken(kind: str, data: bytes, formats: Sequence[str]) -> str | None:
    """Why a picture of this kind is refused, to be put behind 'The picture '; None: it is taken."""
    if kind in formats:
        return None
    names = ", ".join(name.upper() for name in formats)
    if kind in MEDIA_TYPES:
        return f"is a {kind.upper()}, which this server does not take: send {names}."
    if kind:
        return f"is {_INSTEAD.get(kind, kind)}. Pictures are read as {names}."
    if not data:
        return "has no bytes: nothing came after 'base64,', or the file is empty."
    return f"is in no known format: it begins with {bytes(data[:8]).hex(' ')}. Send {names}."


def _ftyp(head: bytes) -> str:
    """ISO media files: pictures and films alike. The brands tell; the main one may be a general one."""
    size = min(int.from_bytes(head[:4], "big"), len(head))
    brands = {head[at : at + 4] for at in (8, *range(16, size - 3, 4))}
    if brands & {b"avif", b"avis"}:
        return "avif"
    return "HEIC" if brands & _HEIF else "an MP4 or similar video"


def _text(data: bytes) -> str:
    start = bytes(data[:1024]).removeprefix(b"\xef\xbb\xbf").lstrip()
    if b"<svg" in start.lower():
        return "SVG"
    if start[:1] == b"<":
        return "HTML or XML"
    return "text" if start and not start[:HEAD_BYTES].translate(None, _TEXT) else ""
