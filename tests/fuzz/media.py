"""Pictures that clients send: told apart and measured by their first bytes, and decoded."""

from __future__ import annotations

import base64
import io
import logging
import warnings
import zlib

from PIL import Image

from launcher.gateway.media.decode import shrink
from launcher.gateway.media.jobs import BadPicture, Job, Shrunk
from launcher.gateway.media.sniff import MEDIA_TYPES, kind_of
from launcher.gateway.pictures import fingerprint, picture_size
from launcher.plan.image_budget import Budget
from launcher.plan.image_tokens import ImageRule
from tests.fuzz.target import Target

RULES = (
    None,
    ImageRule("glm4v", max_pixels=9633792),
    ImageRule("qwen_vl", patch=16, min_pixels=65536, max_pixels=16777216),
)
BUDGETS = (Budget(), Budget(long_side=10), Budget(max_tokens=100), Budget(max_tokens=20, long_side=200))
MAX_PIXELS = 100_000
Size = tuple[int, int]
logging.getLogger("PIL").addHandler(logging.NullHandler())  # it tells of each damaged file


def pictures(data: bytes) -> None:
    """A picture within its budget that can be read, or a sentence; and the same again."""
    choice, data = (data[0], data[1:]) if data else (0, b"")
    rule, budget, in_base64 = RULES[choice % 3], BUDGETS[choice // 3 % 4], choice >= 128
    data = with_sums(data) if choice & 64 and kind_of(data) == "png" else data
    job = Job(budget, rule, max_pixels=MAX_PIXELS, is_base64=in_base64)
    found = shrink(data, job)
    kind = kind_of(data)
    if isinstance(found, BadPicture):
        is_sentence(found)
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


def with_sums(data: bytes) -> bytes:
    """A PNG's check sums made right: hardly any mutation does that, and without them no more than a header is read."""
    mended, at = bytearray(data), 8
    while (end := at + 8 + int.from_bytes(data[at : at + 4], "big")) + 4 <= len(data):
        mended[end : end + 4] = zlib.crc32(data[at + 4 : end]).to_bytes(4, "big")
        at = end + 4
    return bytes(mended)


def is_sentence(found: BadPicture) -> None:
    """What the client is told."""
    assert 400 <= found.status < 500
    assert found.message.endswith(".")
    assert found.message.isprintable()
    assert len(found.message) < 500


def readable(found: Shrunk) -> None:
    image = Image.open(io.BytesIO(found.data), formats=("JPEG", "PNG"))
    image.load()
    assert image.size == (found.width, found.height)
    assert image.mode in ("RGB", "L")
    assert found.mime == MEDIA_TYPES[str(image.format).lower()]


def sniff(data: bytes) -> None:
    """A picture's kind and size, without decoding it; the size is the one that Pillow finds, which is the engine's."""
    kind = kind_of(data)
    assert kind_of(memoryview(data)) == kind  # type: ignore[arg-type]
    text = base64.b64encode(data)
    size = measured(text)
    measured(data)  # as if it were base64
    if size is not None:
        assert min(size) > 0
        assert kind in MEDIA_TYPES
        if size[0] * size[1] <= MAX_PIXELS:
            assert pillows_size(data, kind) in (size, None)


def measured(text: bytes) -> Size | None:
    """The size by base64 that lies somewhere in a body; what is around it changes nothing."""
    body = b'{"url":"' + text + b'"}'
    start, end = 8, 8 + len(text)
    assert picture_size(body, start, end) == picture_size(text, 0, len(text))
    assert fingerprint(body, start, end) == fingerprint(text, 0, len(text))
    return picture_size(body, start, end)


def pillows_size(data: bytes, kind: str) -> Size | None:
    """None: Pillow cannot read it, so neither can an engine."""
    Image.MAX_IMAGE_PIXELS = MAX_PIXELS
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image = Image.open(io.BytesIO(data), formats=[kind.upper()])
            image.load()
    except Exception:  # whatever its parsers run into
        return None
    return image.size


def small(kind: str, mode: str = "RGB", size: tuple[int, int] = (24, 16), **options: object) -> bytes:
    out = io.BytesIO()
    Image.effect_noise(size, 40).convert(mode).save(out, kind, **options)
    return out.getvalue()


def turned(kind: str) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return small(kind, exif=exif)


def moving(kind: str) -> bytes:
    return small(kind, save_all=True, append_images=[Image.new("RGB", (24, 16))])


FILES = (
    small("JPEG"),
    small("JPEG", progressive=True),
    small("JPEG", mode="CMYK"),
    turned("JPEG"),
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
    *map(turned, ("PNG", "WEBP")),
    *map(moving, ("PNG", "WEBP", "GIF")),
)
SEEDS = (
    *(bytes([64 + number * 5 % 12]) + data for number, data in enumerate(FILES)),
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

WATCHED = ("launcher", "PIL")

TARGETS = {
    "sniff": Target(sniff, tuple(seed[1:] for seed in SEEDS), WORDS, WATCHED),
    "pictures": Target(pictures, SEEDS, WORDS, WATCHED),
}
