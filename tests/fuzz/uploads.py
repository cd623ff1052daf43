"""Bodies of uploads: a file in a form, or bare. The first line of the input is the request's Content-Type."""

from __future__ import annotations

from python_multipart.multipart import parse_options_header

from launcher.gateway.media.multipart import MAX_NAME, UploadedFile, uploaded_file
from launcher.gateway.refusal import Refused
from tests.fuzz.target import Target


def uploads(data: bytes) -> None:
    """A view of the body, of what is between the boundaries and nothing else; or a refusal."""
    content_type, _, body = data.partition(b"\n")
    try:
        file = uploaded_file(content_type.decode("latin-1"), body)
    except Refused as refused:
        refusal = refused.refusal
    else:
        is_what_was_sent(file, content_type, body)
        return
    assert refusal.status == 400
    assert refusal.body()


def is_what_was_sent(file: UploadedFile, content_type: bytes, body: bytes) -> None:
    assert file.data.obj is body
    assert file.data
    assert len(file.filename) <= MAX_NAME
    kind, options = parse_options_header(content_type.decode("latin-1"))
    if kind.decode("latin-1").strip() == "multipart/form-data":
        line = b"\r\n--" + options[b"boundary"]
        assert line + b"\r\n" not in bytes(file.data)
        assert line + b"--" not in bytes(file.data)
        assert line + b"--" in body
    else:
        assert file.data == body


FORM = (
    b"multipart/form-data; boundary=XX\n"
    b'--XX\r\nContent-Disposition: form-data; name="file"; filename="a.jpg"\r\nContent-Type: image/jpeg\r\n\r\n'
    b"\xff\xd8\xff\r\n--X\r\n--XX--\r\n"
)
SEEDS = (
    FORM,
    FORM.replace(b"\r\n\r\n", b"\r\nContent-Transfer-Encoding: binary\r\n\r\n").replace(
        b"boundary=XX", b'boundary="XX"'
    ),
    FORM.replace(b'"a.jpg"', b'"a\\"b.jpg"; filename*=UTF-8\'\'%e2%82%ac'),
    FORM.replace(b"\xff\xd8\xff", b"x\r\n--XX\r\n\r\ny"),
    b"image/png\n\x89PNG",
    b"application/json\n{}",
)
WORDS = tuple(
    b"multipart/form-data|; boundary=|XX|--XX|--XX--|\r\n--XX\r\n|\r\n\r\n|\r\n|\r|\n|--|Content-Disposition: form-data|; name=|"
    b"; filename=\"|; filename*=UTF-8''|Content-Type: |Content-Transfer-Encoding: |binary|base64|\"|\\|image/png|audio/".split(
        b"|"
    )
)

TARGETS = {"uploads": Target(uploads, SEEDS, WORDS, ("launcher", "python_multipart"))}
