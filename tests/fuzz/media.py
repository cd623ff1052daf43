"""Files that clients send: told apart by their first bytes, and decoded."""

from __future__ import annotations

import base64
import io
import logging

from PIL import Image

from launcher.gateway.media.budget import Budget
from launcher.gateway.media.decode import shrink
from launcher.gateway.media.jobs import BadPicture, Job, Shrunk
from launcher.gateway.media.sniff import MEDIA_TYPES, kind_of
from launcher.plan.image_tokens import ImageRule
from tests.fuzz.loop import Target

RULES = (
    None,
    ImageRule("glm4v", max_pixels=9633792),
    ImageRule("qwen_vl", patch=16, min_pixels=65536, max_pixels=16777216),
)
BUDGETS = (Budget(), Budget(long_side=10), Budget(max_tokens=100), Budget(max_tokens=20, long_side=200))
MAX_PIXELS = 100_000
logging.getLogger("PIL").addHandler(logging.NullHandler())  # it tells of each damaged file


def pictures(data: bytes) -> None:
    """A picture within its budget that can be read, or a sentence; and the same again."""
    choice, data = (data[0], data[1:]) if data else (0, b"")
    rule, budget, in_base64 = RULES[choice % 3], BUDGETS[choice // 3 % 4], choice >= 128
    job = Job(budget, rule, max_pixels=MAX_PIXELS, is_base64=in_base64)
    found = shrink(data, job)
    kind = kind_of(data)
    if isinstance(found, BadPicture):
        assert 400 <= found.status < 500
        assert found.message.endswith(".")
        assert found.message.isprintable()
        assert len(found.message) < 500
        return
    assert found.kind == (kind if not in_base64 else found.kind)
    assert found.kind in MEDIA_TYPES
    assert found.width_in * found.height_in <= MAX_PIXELS
    assert found.width <= found.width_in
    assert found.height <= found.height_in
    assert budget.max_tokens is None or found.tokens <= budget.max_tokens
    assert budget.long_side is None or max(found.width, found.height) <= budget.long_side
    if not found.is_untouched:
        readable(found)


def readable(found: Shrunk) -> None:
    image = Image.open(io.BytesIO(found.data), formats=("JPEG", "PNG"))
    image.load()
    assert image.size == (found.width, found.height)
    assert image.mode in ("RGB", "L")
    assert found.mime == MEDIA_TYPES[str(image.format).lower()]


def small(kind: str, mode: str = "RGB", size: tuple[int, int] = (24, 16), **options: object) -> bytes:
    out = io.BytesIO()
    Image.effect_noise(size, 40).convert(mode).save(out, kind, **options)
    return out.getvalue()


def turned() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return small("JPEG", exif=exif)


FILES = (
    small("JPEG"),
    small("JPEG", progressive=True),
    small("JPEG", mode="CMYK"),
    turned(),
    small("PNG"),
    small("PNG", mode="P", transparency=0),
    small("PNG", mode="LA"),
    small("WEBP"),
    small("WEBP", mode="RGBA", lossless=True),
    small("GIF", mode="P"),
    small("BMP"),
    small("TIFF"),
    small("TIFF", compression="tiff_lzw"),
    small("AVIF"),
)
SEEDS = (
    *(bytes([number * 5 % 12]) + data for number, data in enumerate(FILES)),
    b"\x80" + base64.b64encode(FILES[0]),
    b"\x01<svg/>",
    b"\x01\0\0\0\x18ftypheic\0\0\0\0mif1",
    b"\x01hello",
)
WORDS = tuple(
    b"\xff\xd8\xff|\xff\xd9|\xff\xc0\0\x11\x08|\xff\xc2\0\x11\x08|\xff\xda|\xff\xe1|Exif\0\0|II*\0|MM\0*|\x89PNG\r\n\x1a\n|IHDR|IDAT|"
    b"IEND|tRNS|iCCP|acTL|PLTE|RIFF|WEBPVP8 |VP8X|VP8L|ALPH|ANIM|GIF89a|!\xf9\x04|,\0\0|;|BM|ftypavif|avis|mif1|meta|ispe|mdat|"
    b"<svg|<?xml |\xff\xff\xff\xff|\0\0\0\0|\x7f\xff|ICC_PROFILE\0".split(b"|")
)

TARGETS = {"pictures": Target(pictures, SEEDS, WORDS)}
