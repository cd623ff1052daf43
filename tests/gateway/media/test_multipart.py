"""An upload's body: what browsers, curl and httpx2 send, and what is no upload."""

from __future__ import annotations

import logging
import random
from contextlib import suppress

import httpx2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from launcher.gateway.media.multipart import uploaded_file
from launcher.gateway.refusal import Refused

PICTURE = b"\xff\xd8\xff" + random.Random(7).randbytes(50_000) + b"\r\n--XX\r\n--X"
FORM = "multipart/form-data; boundary=XXYY"
HEAD = b'--XXYY\r\nContent-Disposition: form-data; name="file"; filename="a.jpg"\r\nContent-Type: image/jpeg\r\n\r\n'
END = b"\r\n--XXYY--\r\n"


def refused(content_type: str, body: bytes) -> tuple[str, str]:
    with pytest.raises(Refused) as caught:
        uploaded_file(content_type, body)
    assert caught.value.refusal.status == 400
    return caught.value.refusal.reason, caught.value.refusal.message


def test_a_form_as_a_client_library_makes_it() -> None:
    request = httpx2.Request("POST", "http://x/", files={"file": ("Grüße.jpg", PICTURE, "image/jpeg")})
    body = request.read()
    file = uploaded_file(request.headers["content-type"], body)
    assert file.data == PICTURE
    assert (file.label, file.filename) == ("image/jpeg", "Grüße.jpg")
    assert file.data.obj is body, "a view, not a copy"


@pytest.mark.parametrize(
    "boundary", ["----WebKitFormBoundary7MA4YWxkTrZu0gW", "------------------------d74496d66958873e", "'()+_,./:=?"]
)
def test_boundaries_of_browsers_and_curl(boundary: str) -> None:
    body = b"\r\n".join(
        [
            f"--{boundary}".encode(),
            b'Content-Disposition: form-data; name="x"; filename="y"',
            b"",
            PICTURE,
            f"--{boundary}--".encode(),
        ]
    )
    assert uploaded_file(f'Multipart/Form-Data; charset=utf-8; boundary="{boundary}"', body).data == PICTURE


@pytest.mark.parametrize(
    "content_type", ["image/jpeg", "IMAGE/PNG", "image/svg+xml", "audio/wav", "application/octet-stream"]
)
def test_bare_bytes(content_type: str) -> None:
    file = uploaded_file(content_type, PICTURE)
    assert file.data.obj is PICTURE
    assert (file.data, file.label) == (PICTURE, content_type.lower())


@given(
    st.binary(min_size=1, max_size=300)
    | st.lists(st.sampled_from([b"\r", b"\n", b"--XXYY"[:5], b"-", b"XX"]), min_size=1).map(b"".join)
)
def test_any_bytes_come_out_as_they_went_in(data: bytes) -> None:
    assert uploaded_file(FORM, HEAD + data + END).data == data


@pytest.mark.parametrize(
    ("content_type", "body", "reason", "words"),
    [
        ("", PICTURE, "upload_type", "has no Content-Type"),
        ("application/json", b"{}", "upload_type", "'application/json' is not one of an upload"),
        ("text/plain", b"text", "upload_type", "curl -F file=@picture.jpg"),
        ("image/jpeg", b"", "upload_empty", "has no bytes"),
        (FORM, HEAD + END, "upload_empty", "has no bytes"),
        ("multipart/form-data", HEAD + b"x" + END, "upload_form_broken", "a boundary of 0 letters"),
        (f"multipart/form-data; boundary={'X' * 71}", b"x", "upload_form_broken", "which must be 1 to 70"),
        (FORM, b"", "upload_form_broken", "no part that begins with its boundary"),
        (FORM, b"--XXYY--\r\n", "upload_form_broken", "no part that begins with its boundary"),
        (FORM, b"hello", "upload_form_broken", "cannot be read"),
        (FORM, HEAD + b"x", "upload_form_broken", "ends before its closing boundary"),
        (FORM, HEAD[:40], "upload_form_broken", "ends before its closing boundary"),
        (FORM, HEAD + b"x" + END[:-5], "upload_form_broken", "ends before its closing boundary"),
        (FORM, b"--XXYY\r\nbad header\r\n\r\nx" + END, "upload_form_broken", "cannot be read"),
        (FORM, b"--XXYY\r\n" + b"A: b\r\n" * 9 + b"\r\nx" + END, "upload_form_broken", "header count"),
        (FORM, b"--XXYY\r\nA: " + b"b" * 9000 + b"\r\n\r\nx" + END, "upload_form_broken", "header size"),
        (
            FORM,
            b"--XXYY\r\nContent-Type: image/png\r\n\r\nx" + END,
            "upload_form_broken",
            "Content-Disposition: form-data",
        ),
        (FORM, HEAD + b"x\r\n" + HEAD + b"y" + END, "upload_many", "more than one part"),
        (
            FORM,
            HEAD.replace(b"\r\n\r\n", b"\r\nContent-Transfer-Encoding: base64\r\n\r\n") + b"QQ==" + END,
            "upload_form_broken",
            "Content-Transfer-Encoding 'base64'",
        ),
    ],
)
def test_what_is_no_upload(content_type: str, body: bytes, reason: str, words: str) -> None:
    got, message = refused(content_type, body)
    assert got == reason
    assert words in message


def test_a_bad_form_leaves_nothing_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, logger="root"):
        refused(FORM, b"--XXYY\r\nbad header\r\n\r\nx" + END)
    assert not caplog.records


PIECES = st.sampled_from([HEAD, END, b"--XXYY", b"\r\n", b"\r", b"\n", b" ", b"--", b"x: y", b"\x00", b"XXYY"])
BODIES = st.binary(max_size=200) | st.lists(PIECES, max_size=12).map(b"".join)


@settings(max_examples=300)
@given(BODIES, st.booleans())
def test_anything_else_is_refused_and_never_an_error(body: bytes, with_head: bool) -> None:
    with suppress(Refused):
        uploaded_file(FORM, HEAD + body if with_head else body)
    with suppress(Refused):
        uploaded_file(body.decode("latin-1"), HEAD + b"x" + END)
