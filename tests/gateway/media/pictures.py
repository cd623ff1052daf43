"""Pictures to test with: photo-like, drawn, small, hostile."""

from __future__ import annotations

import io
import random
import struct
import zlib
from typing import Any

from PIL import Image, ImageDraw, ImageFilter, ImageFont


def photo(width: int, height: int, seed: int = 1) -> Image.Image:
    """Soft areas, some detail on every scale, edges, a little noise."""
    dice = random.Random(seed)
    picture: Image.Image | None = None
    for cell, weight in ((256, 1.0), (64, 0.5), (16, 0.25), (4, 0.12), (1, 0.05)):
        size = (max(2, width // cell), max(2, height // cell))
        bands = [Image.frombytes("L", size, dice.randbytes(size[0] * size[1])) for _ in range(3)]
        layer = Image.merge("RGB", bands).resize((width, height), Image.Resampling.BICUBIC)
        picture = layer if picture is None else Image.blend(picture, layer, weight / (1 + weight) * 0.6)
    assert picture is not None
    draw = ImageDraw.Draw(picture)
    for _ in range(60):
        x, y, size_ = dice.randrange(width), dice.randrange(height), dice.randrange(4, max(5, height // 5))
        colour = (dice.randrange(256), dice.randrange(256), dice.randrange(256))
        if dice.random() < 0.5:
            draw.ellipse((x - size_, y - size_, x + size_, y + size_), outline=colour, width=dice.randrange(1, 9))
        else:
            draw.line((x, y, x + size_, y - size_ // 2), fill=colour, width=dice.randrange(1, 6))
    return picture.filter(ImageFilter.GaussianBlur(0.7))


def screenshot(width: int, height: int) -> Image.Image:
    """A window full of text."""
    dice = random.Random(3)
    picture = Image.new("RGB", (width, height), (250, 250, 250))
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(16)
    draw.rectangle((0, 0, width, 60), fill=(60, 90, 200))
    for y in range(80, height - 20, 22):
        words = ["".join(dice.choices("abcdefghijklmnop", k=dice.randrange(2, 10))) for _ in range(width // 60)]
        draw.text((20, y), " ".join(words), fill=(20, 20, 20), font=font)
    return picture


def corners(width: int, height: int) -> Image.Image:
    """Red, green, blue and grey quarters: which way up it is can be told."""
    picture = Image.new("RGB", (width, height), (128, 128, 128))
    draw = ImageDraw.Draw(picture)
    draw.rectangle((0, 0, width // 2 - 1, height // 2 - 1), fill=(255, 0, 0))
    draw.rectangle((width // 2, 0, width, height // 2 - 1), fill=(0, 255, 0))
    draw.rectangle((0, height // 2, width // 2 - 1, height), fill=(0, 0, 255))
    return picture


def saved(picture: Image.Image, kind: str, **options: Any) -> bytes:
    out = io.BytesIO()
    picture.save(out, kind, **options)
    return out.getvalue()


def chunk(name: bytes, data: bytes) -> bytes:
    """A chunk of a PNG."""
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png_bomb(width: int, height: int) -> bytes:
    """A PNG that claims a size, with next to no data."""
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    )
