"""Sizes read from the first bytes of a picture, against Pillow, which is what vLLM reads pictures with."""

from __future__ import annotations

import base64
import io
import struct
from typing import Any

import pytest
from PIL import Image

from launcher.gateway.media.costs import PictureCosts
from launcher.gateway.pictures import fingerprint, picture_size
from launcher.plan.image_tokens import BEGIN_AND_END, ImageRule

SIZES = [(1, 1), (50, 50), (1920, 1080), (1080, 2400), (257, 4099)]
WAYS: list[tuple[str, dict[str, Any]]] = [
    ("PNG", {}),
    ("GIF", {}),
    ("BMP", {}),
    ("JPEG", {}),
    ("JPEG", {"progressive": True}),
    ("JPEG", {"exif": b"Exif\x00\x00" + bytes(40_000)}),
    ("JPEG", {"icc_profile": bytes(200_000)}),  # four segments before the size
    ("JPEG", {"comment": b"\xff\xc0 is no marker within a segment"}),
    ("WEBP", {"lossless": False}),
    ("WEBP", {"lossless": True}),
    ("WEBP", {"lossless": False, "exif": b"Exif\x00\x00MM"}),  # the extended form
]


def encoded(size: tuple[int, int], form: str, mode: str = "RGB", **how: Any) -> bytes:
    file = io.BytesIO()
    Image.new(mode, size, 77).save(file, form, **how)
    return file.getvalue()


def size_of(data: bytes) -> tuple[int, int] | None:
    """From base64 that lies somewhere within other bytes, as in a body."""
    body = b'{"url":"data:image/x;base64,' + base64.b64encode(data) + b'"}'
    start = body.index(b",") + 1
    return picture_size(body, start, len(body) - 2)


@pytest.mark.parametrize(("form", "how"), WAYS, ids=lambda value: str(value)[:30])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_as_pillow_sees_it(size: tuple[int, int], form: str, how: dict[str, Any]) -> None:
    data = encoded(size, form, **how)
    assert Image.open(io.BytesIO(data)).size == size
    assert size_of(data) == size


@pytest.mark.parametrize("mode", ["L", "CMYK", "RGB"])
def test_modes_of_a_jpeg(mode: str) -> None:
    assert size_of(encoded((640, 480), "JPEG", mode)) == (640, 480)


def test_a_picture_with_alpha_and_one_that_moves() -> None:
    assert size_of(encoded((333, 444), "WEBP", "RGBA")) == (333, 444)
    file = io.BytesIO()
    frames = [Image.new("RGB", (30, 20), colour) for colour in ("red", "blue")]
    frames[0].save(file, "GIF", save_all=True, append_images=frames[1:])
    assert size_of(file.getvalue()) == (30, 20)


def test_bitmaps_from_top_to_bottom_and_of_the_oldest_kind() -> None:
    whole = bytearray(encoded((20, 10), "BMP"))
    whole[22:26] = struct.pack("<i", -10)
    assert Image.open(io.BytesIO(bytes(whole))).size == size_of(bytes(whole)) == (20, 10)
    oldest = b"BM" + bytes(12) + struct.pack("<IHHHH", 12, 20, 10, 1, 24) + bytes(20 * 10 * 3)
    assert size_of(oldest) == (20, 10)


@pytest.mark.parametrize("extra", [1, 2, 3, 500, 501, 502, 65_000])
def test_segments_of_any_length_come_before_the_size(extra: int) -> None:
    """Wherever the size lies within the groups of four letters."""
    data = encoded((640, 480), "JPEG")
    padded = data[:2] + b"\xff\xe1" + struct.pack(">H", extra + 2) + bytes(extra) + data[2:]
    assert Image.open(io.BytesIO(padded)).size == size_of(padded) == (640, 480)


def test_filling_before_a_marker() -> None:
    data = encoded((640, 480), "JPEG")
    assert size_of(data[:2] + b"\xff" * 5 + data[2:]) == (640, 480)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"no picture at all, but long enough to be one",
        encoded((9, 9), "PNG")[:20],
        encoded((9, 9), "GIF")[:8],
        encoded((9, 9), "BMP")[:20],
        encoded((9, 9), "WEBP")[:24],
        encoded((9, 9), "JPEG")[:60],
        b"\xff\xd8\xff\xe0\x00\x00" + bytes(50),  # a segment shorter than its own length
        b"\xff\xd8\xff\xda" + bytes(50),  # a scan, and no size before it
        b"\xff\xd8" + b"\xff\xe0\x00\x02" * 5000,  # segments without end
        b"\xff\xd8" + b"\xff" * 5000,
        b"\xff\xd8\xff\xc0\x00\x11\x08\x00\x00\x01\x00" + bytes(20),  # no height
        encoded((9, 9), "TIFF"),  # vLLM reads it, we do not
        b"<svg width='10' height='10'/>",
    ],
)
def test_none_where_the_bytes_do_not_tell(data: bytes) -> None:
    assert size_of(data) is None


@pytest.mark.parametrize("text", [b"!!!!", b"iVBOR", b"iVBORw0KGgo", b"\xff\xfe", b"====", b"A" * 5])
def test_what_is_no_base64(text: bytes) -> None:
    assert picture_size(text, 0, len(text)) is None


def test_tokens_are_the_rules_with_begin_and_end() -> None:
    rule = ImageRule("glm4v")
    costs = PictureCosts(rule)
    for size in SIZES:
        assert costs.of(size) == rule.tokens(*size) + 2
    assert costs.of((1920, 1080)) == 2693
    fixed = PictureCosts(ImageRule("fixed", fixed_tokens=1602, fixed_size=1120))  # the rule has begin and end
    assert fixed.of((50, 50)) == fixed.unseen == 1602


@pytest.mark.parametrize("size", [None, (1, 5000), (5000, 1)], ids=["unseen", "strip", "strip on end"])
def test_what_cannot_be_told_costs_the_most(size: tuple[int, int] | None) -> None:
    rule = ImageRule("qwen_vl", max_pixels=28 * 28 * 1280)
    assert PictureCosts(rule).of(size) == rule.largest_tokens + BEGIN_AND_END


def test_without_a_rule() -> None:
    costs = PictureCosts(None)
    assert not costs.is_known
    assert costs.of((560, 560)) == 400 + 2
    assert costs.of((9000, 9000)) == 4096 + 2


def test_sizes_are_remembered_within_bounds() -> None:
    costs = PictureCosts(ImageRule("glm4v"))
    for width in range(100, 5000):
        costs.of((width, 100))
    assert len(costs._by_size) <= 1024


def test_fingerprints_tell_pictures_apart() -> None:
    one, other = bytearray(b"A" * 100_000), bytearray(b"A" * 100_000)
    print_ = fingerprint(bytes(one), 0, 100_000)
    assert print_ == fingerprint(b"xx" + bytes(one) + b"yy", 2, 100_002)
    assert print_ != fingerprint(bytes(one), 0, 99_996)
    other[50_000:53_000] = b"B" * 3000
    assert print_ != fingerprint(bytes(other), 0, 100_000)


def test_a_gif_is_as_large_as_its_first_frame() -> None:
    """Its screen may say less: Pillow, and so an engine, makes room for the frame."""
    file = io.BytesIO()
    Image.new("P", (900, 700)).save(file, "GIF")
    data = bytearray(file.getvalue())
    data[6:10] = (1).to_bytes(2, "little") * 2
    encoded = base64.b64encode(bytes(data))
    assert picture_size(encoded, 0, len(encoded)) == Image.open(io.BytesIO(bytes(data))).size == (900, 700)
