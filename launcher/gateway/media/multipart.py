"""Takes the one file out of an upload's body: multipart/form-data as browsers and curl send it, or the bare bytes.

python-multipart does the parsing: it is what FastAPI and Starlette use, has no dependencies, and takes 1 ms a megabyte
however the bytes are made up. Given the body whole it tells where the file lies, so nothing is copied.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from launcher.gateway.refusal import Refused, bad_request

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

# It warns of each byte that it does not like, which every client could fill the log with. We answer with a sentence.
logging.getLogger("python_multipart").setLevel(logging.CRITICAL)

MAX_BOUNDARY = 70  # RFC 2046
MAX_NAME = 200  # characters of a file's name that are kept
_BARE = ("image/", "audio/", "application/octet-stream")
_HOW = (
    "Send the file as multipart/form-data with one part (curl -F file=@picture.jpg), or its bytes alone with their"
    " Content-Type (curl --data-binary @picture.jpg -H 'Content-Type: image/jpeg')."
)


@dataclass(frozen=True, slots=True)
class UploadedFile:
    """``data`` is a view into the body. ``label`` and ``filename`` are the client's words and may be wrong."""

    data: memoryview
    label: str
    filename: str


def uploaded_file(content_type: str, body: bytes) -> UploadedFile:
    """The file in a body. ``content_type`` is the request's header, "" without one. Raises Refused."""
    kind, options = parse_options_header(content_type)
    label = kind.decode("latin-1").strip()
    if label == "multipart/form-data":
        file = _file_in_form(options.get(b"boundary", b""), body)
    elif label.startswith(_BARE):
        file = UploadedFile(memoryview(body), label, "")
    else:
        what = f"The Content-Type '{label[:80]}' is not one of an upload" if label else "The upload has no Content-Type"
        raise bad_request("upload_type", f"{what}. {_HOW}")
    if not file.data:
        raise bad_request("upload_empty", f"The upload has no bytes. {_HOW}")
    return file


def _file_in_form(boundary: bytes, body: bytes) -> UploadedFile:
    if not 1 <= len(boundary) <= MAX_BOUNDARY:
        raise _broken(f"its Content-Type has a boundary of {len(boundary)} letters, which must be 1 to {MAX_BOUNDARY}")
    form = _Form(body)
    try:
        MultipartParser(boundary, form.callbacks()).write(body)
    except FormParserError as error:
        raise _broken(str(error)[:120]) from None
    if not form.parts:
        raise _broken("it has no part that begins with its boundary")
    if not form.has_ended:
        raise _broken("it ends before its closing boundary")
    return form.file()


def _broken(why: str) -> Refused:
    return bad_request("upload_form_broken", f"The form of the upload cannot be read: {why}. {_HOW}")


class _Form:
    """What the parser comes by: where the only part lies, and its headers."""

    def __init__(self, body: bytes) -> None:
        self._body = body
        self.parts = 0
        self.has_ended = False
        self._start = self._end = 0
        self._name, self._value = b"", b""
        self._headers: dict[bytes, bytes] = {}

    def callbacks(self) -> MultipartCallbacks:
        return {
            "on_part_begin": self._part,
            "on_part_data": self._data,
            "on_header_field": self._header_name,
            "on_header_value": self._header_value,
            "on_header_end": self._header_end,
            "on_end": self._ended,
        }

    def _part(self) -> None:
        self.parts += 1
        if self.parts > 1:
            raise bad_request(
                "upload_many", "The upload has more than one part: send one file at a time, and nothing else."
            )

    def _data(self, data: bytes, start: int, end: int) -> None:
        # All at once, from the body itself, for it was written whole: the parser gives away no bytes of its own then.
        assert data is self._body
        assert not self._end
        self._start, self._end = start, end

    def _header_name(self, data: bytes, start: int, end: int) -> None:
        self._name = data[start:end].lower()

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._value = data[start:end]

    def _header_end(self) -> None:
        self._headers[self._name] = self._value
        self._value = b""

    def _ended(self) -> None:
        self.has_ended = True

    def file(self) -> UploadedFile:
        disposition, options = parse_options_header(self._headers.get(b"content-disposition", b"").decode("latin-1"))
        if disposition != b"form-data":
            raise _broken("its part has no 'Content-Disposition: form-data'")
        encoding = self._headers.get(b"content-transfer-encoding", b"binary").decode("latin-1").strip().lower()
        if encoding not in ("binary", "8bit", "7bit"):
            raise _broken(
                f"its part has the Content-Transfer-Encoding '{encoding[:20]}', and only bytes as they are can be taken"
            )
        label, _ = parse_options_header(self._headers.get(b"content-type", b"").decode("latin-1"))
        filename = options.get(b"filename", b"").decode("utf-8", "replace")[:MAX_NAME]
        return UploadedFile(memoryview(self._body)[self._start : self._end], label.decode("latin-1"), filename)
