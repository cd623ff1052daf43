"""A picture's pixels as every engine reads them: 8 bits, opaque on white, sRGB. And whether they look drawn."""

from __future__ import annotations

import io
from functools import cache

from PIL import Image, ImageChops, ImageCms

DRAWN_SHARE = 0.35  # a page full of small text has 0.5, a photo a few in 1,000, but for those with a blank background
PLAIN_MODES = ("RGB", "RGBA", "L", "LA", "P", "1")
DEEP_MODES = ("I", "F", "I;16", "I;16L", "I;16B", "I;16N")
ICC_SPACES = {"RGB": "RGB", "L": "GRAY", "CMYK": "CMYK"}


class Unreadable(Exception):
    """A kind of pixels that nobody sends as a picture to look at."""


def is_plain(image: Image.Image) -> bool:
    """Whether engines see the right colours without our help."""
    profile = image.info.get("icc_profile")
    return image.mode in PLAIN_MODES and (not profile or is_srgb(profile))


def is_srgb(profile: bytes) -> bool:
    """By its description, as all sRGB profiles have it; one that cannot be read counts as sRGB, as in browsers."""
    try:
        return "srgb" in ImageCms.getProfileDescription(ImageCms.ImageCmsProfile(io.BytesIO(profile))).lower()
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return True


def for_scaling(image: Image.Image) -> Image.Image:
    """Palettes and single bits have nothing between their values: they become colours and greys first."""
    if image.mode == "1":
        return image.convert("L")
    if image.mode in ("P", "PA") or (image.mode in ("L", "RGB") and "transparency" in image.info):
        has_alpha = image.mode == "PA" or "transparency" in image.info
        return image.convert("RGBA" if has_alpha else "RGB")
    return image


def plain(image: Image.Image, icc: bytes | None) -> Image.Image:
    """RGB or L. Raises Unreadable for the rest: LAB, HSV and whatever a format may invent."""
    if image.mode in DEEP_MODES:
        return _eight_bits(image)
    if image.mode in ("RGBa", "La"):
        image = image.convert("RGBA" if image.mode == "RGBa" else "LA")
    if image.mode in ("RGBA", "LA"):
        image = _on_white(image)
    if image.mode in ("RGBX", "YCbCr"):
        image = image.convert("RGB")
    if image.mode not in ICC_SPACES:
        raise Unreadable(f"Pillow calls it {image.mode}; save it as RGB")
    if icc and not is_srgb(icc):
        image = _to_srgb(image, icc)
    return image.convert("RGB") if image.mode == "CMYK" else image


def _on_white(image: Image.Image) -> Image.Image:
    mode = image.mode[:-1]
    below = Image.new(mode, image.size, "white")
    below.paste(image.convert(mode), mask=image.getchannel("A"))
    return below


def _eight_bits(image: Image.Image) -> Image.Image:
    """16 bits in their whole range; wider numbers and fractions between their least and their largest."""
    sixteen = image.mode.startswith("I;16")
    image = image.convert("F")
    low, high = (0.0, 65535.0) if sixteen else _range(image)
    scale = 255.0 / (high - low) if high > low else 0.0
    return image.point(lambda value: value * scale + (-low * scale)).convert("L")


def _range(image: Image.Image) -> tuple[float, float]:
    low, high = image.getextrema()
    assert isinstance(low, float)
    assert isinstance(high, float)
    if not (-1e30 < low <= high < 1e30):
        raise Unreadable("its numbers are infinite or none; save it as RGB")
    return low, high


@cache
def _srgb() -> ImageCms.ImageCmsProfile:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))


def _to_srgb(image: Image.Image, icc: bytes) -> Image.Image:
    """By the profile; one that cannot be used, or is for other colours than the picture has, is passed over."""
    try:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(icc))
        if profile.profile.xcolor_space.strip() != ICC_SPACES[image.mode]:
            return image
        made = ImageCms.profileToProfile(image, profile, _srgb(), outputMode="RGB")
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return image
    return made if made is not None else image


def is_drawing(image: Image.Image) -> bool:
    """Whether a shrunk picture (RGB or L) is a drawing, or a screenshot with text: its plain areas tell.

    DRAWN_SHARE of its pixels equal their left neighbour. JPEG would put noise around letters and lines.
    """
    width, height = image.size
    if width < 2:
        return False
    right, left = image.crop((1, 0, width, height)), image.crop((0, 0, width - 1, height))
    bands = ImageChops.difference(right, left).split()
    most = bands[0]
    for band in bands[1:]:
        most = ImageChops.lighter(most, band)
    return most.histogram()[0] >= DRAWN_SHARE * (width - 1) * height
