"""Decoding: every format and kind of pixels comes out upright, opaque, sRGB and within its budget; every fault has its sentence."""

from __future__ import annotations

import base64
import io
import math
import re
from collections.abc import Callable

import pytest
from PIL import Image, ImageChops, ImageCms, ImageStat

from launcher.gateway.media import decode
from launcher.gateway.media.costs import PictureCosts
from launcher.gateway.media.decode import shrink
from launcher.gateway.media.jobs import BadPicture, Job, Shrunk
from launcher.gateway.media.sniff import kind_of
from launcher.plan.image_budget import Budget
from launcher.plan.image_tokens import ImageRule
from tests.gateway.media.pictures import chunk, corners, photo, png_bomb, saved, screenshot

GLM = ImageRule("glm4v", max_pixels=9633792)
SMALL = Job(Budget(long_side=100), GLM)
AS_IT_IS = Job(Budget(), GLM)
RED, GREEN, BLUE, GREY = (255, 0, 0), (0, 255, 0), (0, 0, 255), (128, 128, 128)


def good(data: bytes, job: Job = SMALL) -> Shrunk:
    found = shrink(data, job)
    assert isinstance(found, Shrunk), found
    return found


def seen(shrunk: Shrunk) -> Image.Image:
    """The picture as the engine sees it."""
    image = Image.open(io.BytesIO(shrunk.data))
    assert image.size == (shrunk.width, shrunk.height)
    assert not {"icc_profile", "exif", "transparency"} & set(image.info)
    assert image.mode in ("RGB", "L")
    return image.convert("RGB")


def bad(data: bytes, job: Job = SMALL) -> BadPicture:
    found = shrink(data, job)
    assert isinstance(found, BadPicture), found
    assert found.status == 400
    assert found.message.endswith(".")
    assert "Traceback" not in found.message
    return found


def close(colour: object, expected: tuple[int, int, int], by: int = 12) -> bool:
    assert isinstance(colour, tuple)
    return all(abs(a - b) <= by for a, b in zip(colour, expected, strict=True))


def quarters(image: Image.Image) -> list[object]:
    """Colours in the middle of the four quarters: top left, top right, bottom left, bottom right."""
    width, height = image.size
    return [image.getpixel((x * width // 4, y * height // 4)) for y in (1, 3) for x in (1, 3)]


FORMATS: list[tuple[str, dict[str, object]]] = [
    ("JPEG", {"quality": 95}),
    ("JPEG", {"quality": 95, "progressive": True}),
    ("JPEG", {"quality": 95, "subsampling": 0}),
    ("PNG", {}),
    ("WEBP", {"quality": 95}),
    ("WEBP", {"lossless": True}),
    ("GIF", {}),
    ("BMP", {}),
    ("TIFF", {}),
    ("TIFF", {"compression": "tiff_lzw"}),
    ("AVIF", {"quality": 95}),
]


@pytest.mark.parametrize(("kind", "options"), FORMATS, ids=str)
def test_every_format(kind: str, options: dict[str, object]) -> None:
    shrunk = good(saved(corners(400, 200), kind, **options))
    assert (shrunk.kind, shrunk.width_in, shrunk.height_in) == (kind.lower(), 400, 200)
    assert (shrunk.width, shrunk.height) == (100, 50)
    assert shrunk.tokens == PictureCosts(GLM).of((100, 50))
    for colour, expected in zip(quarters(seen(shrunk)), (RED, GREEN, BLUE, GREY), strict=True):
        assert close(colour, expected)
    assert min(shrunk.decode_s, shrunk.scale_s, shrunk.encode_s) > 0


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
@pytest.mark.parametrize("turn", range(1, 9))
def test_orientation(kind: str, turn: int) -> None:
    """The picture that a viewer would show, whatever way it is stored."""
    undo = {2: 2, 3: 3, 4: 4, 5: 5, 6: 8, 7: 7, 8: 6}.get(turn)
    upright = corners(400, 200)
    stored = upright.transpose(decode.TURNS[undo]) if undo else upright
    exif = Image.Exif()
    exif[decode.ORIENTATION] = turn
    shrunk = good(saved(stored, kind, exif=exif, **({"quality": 95} if kind != "PNG" else {})))
    assert (shrunk.width_in, shrunk.height_in) == (400, 200)
    assert (shrunk.width, shrunk.height) == (100, 50)
    for colour, expected in zip(quarters(seen(shrunk)), (RED, GREEN, BLUE, GREY), strict=True):
        assert close(colour, expected)


def test_a_budget_of_tokens_is_kept_for_a_picture_on_its_side() -> None:
    exif = Image.Exif()
    exif[decode.ORIENTATION] = 6
    shrunk = good(saved(photo(1080, 600), "JPEG", exif=exif), Job(Budget(max_tokens=100), GLM))
    assert (shrunk.width_in, shrunk.height_in) == (600, 1080)
    assert shrunk.height > shrunk.width
    assert seen(shrunk).size == (shrunk.width, shrunk.height)
    assert PictureCosts(GLM).of((shrunk.width, shrunk.height)) == shrunk.tokens <= 100


def half_transparent(mode: str) -> Image.Image:
    """Black; its right half is transparent."""
    image = Image.new("LA" if mode == "LA" else "RGBA", (200, 100), (0, 255) if mode == "LA" else (0, 0, 0, 255))
    image.paste((9, 0) if mode == "LA" else (9, 9, 9, 0), (100, 0, 200, 100))
    return image.quantize(8) if mode == "P" else image


TRANSPARENT = [
    ("RGBA", "PNG"), ("LA", "PNG"), ("P", "PNG"), ("RGBA", "WEBP"), ("RGBA", "AVIF"), ("RGBA", "GIF"), ("RGBA", "TIFF"),
]  # fmt: skip


@pytest.mark.parametrize(("mode", "kind"), TRANSPARENT)
def test_what_is_transparent_becomes_white(mode: str, kind: str) -> None:
    image = seen(good(saved(half_transparent(mode), kind, **({"lossless": True} if kind == "WEBP" else {}))))
    assert close(image.getpixel((25, 25)), (0, 0, 0))
    assert close(image.getpixel((75, 25)), (255, 255, 255))


def test_one_colour_that_stands_for_transparent() -> None:
    image = Image.new("RGB", (200, 100), (10, 20, 30))
    image.paste((200, 0, 0), (0, 0, 100, 100))
    found = seen(good(saved(image, "PNG", transparency=(10, 20, 30))))
    assert close(found.getpixel((25, 25)), (200, 0, 0))
    assert close(found.getpixel((75, 25)), (255, 255, 255))


def sixteen_bits() -> bytes:
    image = Image.new("I;16", (200, 100), 40_000)
    return saved(image, "PNG")


def fractions() -> bytes:
    image = Image.new("F", (200, 100), -1.0)
    image.paste(3.0, (0, 0, 100, 100))
    return saved(image, "TIFF")


def cmyk(kind: str) -> bytes:
    return saved(Image.new("CMYK", (200, 100), (0, 255, 255, 0)), kind)


def bits() -> bytes:
    image = Image.new("1", (200, 100), 1)
    image.paste(0, (100, 0, 200, 100))
    return saved(image, "PNG")


@pytest.mark.parametrize(
    ("data", "left"),
    [
        (sixteen_bits(), (155, 155, 155)),
        (fractions(), (255, 255, 255)),
        (cmyk("JPEG"), RED),
        (cmyk("TIFF"), RED),
        (bits(), (255, 255, 255)),
        (saved(Image.new("L", (200, 100), 77), "JPEG"), (77, 77, 77)),
        (saved(Image.new("P", (200, 100), 0), "BMP"), (0, 0, 0)),
        (saved(Image.new("I", (200, 100), 7), "TIFF"), (0, 0, 0)),
    ],
    ids=["16 bits", "fractions", "CMYK JPEG", "CMYK TIFF", "1 bit", "grey JPEG", "palette BMP", "32 bits"],
)
def test_kinds_of_pixels(data: bytes, left: tuple[int, int, int]) -> None:
    assert close(seen(good(data)).getpixel((25, 25)), left)


def swapped_profile() -> bytes:
    """An RGB profile that is not sRGB: sRGB's own, with its red and green primaries exchanged."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    profile = profile.replace(b"rXYZ", b"????").replace(b"gXYZ", b"rXYZ").replace(b"????", b"gXYZ")
    return bytes(profile.replace("sRGB".encode("utf-16-be"), "xxxx".encode("utf-16-be")).replace(b"sRGB b", b"xxxx b"))


def test_a_colour_profile_is_applied() -> None:
    picture = corners(400, 200)
    for kind in ("JPEG", "PNG", "WEBP"):
        shrunk = good(saved(picture, kind, icc_profile=swapped_profile()), AS_IT_IS)
        assert not shrunk.is_untouched
        found = quarters(seen(shrunk))
        assert close(found[0], GREEN, 20)
        assert close(found[1], RED, 20)


@pytest.mark.parametrize("profile", [b"junk", ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()])
def test_srgb_and_profiles_that_cannot_be_read_change_nothing(profile: bytes) -> None:
    data = saved(corners(400, 200), "PNG", icc_profile=profile)
    assert good(data, AS_IT_IS).is_untouched
    assert close(quarters(seen(good(data)))[0], RED)


def test_a_profile_for_other_colours_is_passed_over() -> None:
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    assert close(quarters(seen(good(saved(corners(400, 200), "PNG", icc_profile=lab))))[1], GREEN)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_nothing_is_done_where_nothing_is_to_be_done(kind: str) -> None:
    for job in (AS_IT_IS, Job(Budget(long_side=400), GLM), Job(Budget(max_tokens=200), GLM)):
        shrunk = good(saved(corners(400, 200), kind), job)
        assert shrunk.is_untouched
        assert (shrunk.width, shrunk.height, shrunk.mime) == (400, 200, f"image/{kind.lower()}")
        assert shrunk.tokens == PictureCosts(GLM).of((400, 200))


@pytest.mark.parametrize("kind", ["GIF", "BMP", "TIFF", "AVIF"])
def test_formats_that_engines_need_not_know_are_made_into_others(kind: str) -> None:
    shrunk = good(saved(corners(400, 200), kind), AS_IT_IS)
    assert shrunk.mime in ("image/png", "image/jpeg")
    assert (shrunk.width, shrunk.height) == (400, 200)


def test_photos_become_jpeg_screenshots_png() -> None:
    job = Job(Budget(max_tokens=324), GLM)
    for kind in ("PNG", "JPEG"):
        assert good(saved(photo(1280, 720), kind), job).mime == "image/jpeg"
        assert good(saved(screenshot(1280, 720), kind), job).mime == "image/png"


def test_the_quality_is_the_one_asked_for() -> None:
    data = saved(photo(640, 480), "PNG")
    sizes = [len(good(data, Job(Budget(long_side=300), GLM, quality=quality)).data) for quality in (30, 60, 95)]
    assert sizes == sorted(set(sizes))


def psnr(a: Image.Image, b: Image.Image) -> float:
    stat = ImageStat.Stat(ImageChops.difference(a, b))
    return 10 * math.log10(255**2 / (sum(stat.sum2) / sum(stat.count)))


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0}], ids=str)
@pytest.mark.parametrize("long_side", [96, 240, 250, 480, 500, 720])
def test_scaled_decoding_is_as_good_as_full(options: dict[str, object], long_side: int) -> None:
    """Beside the uncompressed picture: no worse than decoding every pixel and scaling with the same filter."""
    original = photo(960, 540)
    data = saved(original, "JPEG", quality=90, **options)
    shrunk = good(data, Job(Budget(long_side=long_side), GLM, quality=100))
    size = (shrunk.width, shrunk.height)
    wanted = original.resize(size, Image.Resampling.BICUBIC)
    full = Image.open(io.BytesIO(data)).convert("RGB").resize(size, Image.Resampling.BICUBIC)
    full = Image.open(io.BytesIO(saved(full, "JPEG", quality=100))).convert("RGB")
    assert psnr(seen(shrunk), wanted) > psnr(full, wanted) - 1.5


@pytest.mark.skipif(decode.simd is None, reason="no wheel of cykooz_resizer for this machine")
@pytest.mark.parametrize("mode", decode.SIMD_MODES)
@pytest.mark.parametrize("size", [(959, 539), (900, 500), (512, 288), (100, 56), (960, 1), (1, 540)])
def test_scaling_with_simd_is_as_pillows(size: tuple[int, int], mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    picture = photo(960, 540).convert(mode)
    made = decode._resized(picture, size)
    monkeypatch.setattr(decode, "simd", None)
    pillows = decode._resized(picture, size)
    assert (made.mode, made.size) == (pillows.mode, pillows.size)
    assert psnr(made, pillows) > 45  # both round between across and down, in other orders


@pytest.mark.parametrize("long_side", [100, 250])
@pytest.mark.parametrize("mode", decode.SIMD_MODES)
def test_scaling_without_simd(mode: str, long_side: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decode, "simd", None)
    picture = corners(400, 200).convert(mode)
    image = seen(good(saved(picture, "JPEG", quality=95), Job(Budget(long_side=long_side), GLM)))
    for colour, expected in zip(quarters(image), quarters(picture.convert("RGB")), strict=True):
        assert isinstance(expected, tuple)
        assert close(colour, expected)


def test_base64() -> None:
    data = saved(corners(400, 200), "PNG")
    job = Job(SMALL.budget, GLM, is_base64=True)
    assert good(base64.b64encode(data), job).width == 100
    fault = bad(base64.b64encode(data)[:50] + b"!!" + base64.b64encode(data)[50:], job)
    assert fault.reason == "picture_base64"
    assert fault.message.startswith("The picture's base64 cannot be read: only base64 data is allowed.")
    for junk in (b"A", b"AAAA=AAA", b"\xff\xff", b"====", base64.b64encode(data)[:-3]):
        assert bad(junk, job).reason == "picture_base64"
    assert bad(b"", job).reason == "picture_empty"


def with_size(data: bytes, width: int, height: int) -> bytes:
    """A JPEG whose header claims another size."""
    at = re.search(rb"\xff[\xc0-\xc2]\x00\x11\x08", data)
    assert at
    return data[: at.end()] + height.to_bytes(2, "big") + width.to_bytes(2, "big") + data[at.end() + 4 :]


JPEG, PNG = saved(photo(400, 300), "JPEG"), saved(photo(400, 300), "PNG")
WEBP, GIF = saved(photo(400, 300), "WEBP"), saved(photo(400, 300), "GIF")
TIFF, AVIF = saved(photo(400, 300), "TIFF"), saved(photo(400, 300), "AVIF")


@pytest.mark.parametrize(
    ("data", "reason", "words"),
    [
        (b"", "picture_empty", "The picture has no bytes"),
        (b"\0" * 100, "picture_format", "it begins with 00 00 00 00 00 00 00 00. Send JPEG, PNG"),
        (b"Hello, this is no picture.", "picture_format", "The picture is text, perhaps base64 twice"),
        (b"<!doctype html><html>not found", "picture_format", "The picture is HTML or XML."),
        (b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"/>', "picture_format", "an SVG, which is a program"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(50), "picture_format", "HEIC, which is not read here: send it as JPEG"),
        (b"\0\0\0\x18ftypisom\0\0\0\0mp42avc1" + bytes(50), "picture_format", "an MP4 or similar video"),
        (b"%PDF-1.7\n", "picture_format", "The picture is a PDF."),
        (JPEG[: len(JPEG) // 2], "picture_truncated", "bytes end before the JPEG does"),
        (JPEG[: len(JPEG) // 2] + b"\xff\xd9", "picture_truncated", "bytes end before the JPEG does"),
        (JPEG[:30], "picture_truncated", "bytes end before the JPEG does"),
        (PNG[: len(PNG) // 2], "picture_truncated", "bytes end before the PNG does"),
        (WEBP[: len(WEBP) // 2], "picture_truncated", "bytes end before the WEBP does"),
        (GIF[: len(GIF) // 2], "picture_truncated", "bytes end before the GIF does"),
        (TIFF[: len(TIFF) // 2], "picture_truncated", "bytes end before the TIFF does"),
        (AVIF[: len(AVIF) // 2], "picture_broken", "the file is damaged"),
        (b"\x89PNG\r\n\x1a\n" + chunk(b"IEND", b""), "picture_broken", "begins as a PNG but cannot be decoded"),
        (png_bomb(50_000, 50_000), "picture_too_large", "50,000×50,000 = 2,500,000,000 pixels; at most 50,000,000"),
        (with_size(JPEG, 60_000, 60_000), "picture_too_large", "60,000×60,000 = 3,600,000,000 pixels"),
        (saved(Image.new("L", (9000, 9000)), "TIFF", compression="tiff_lzw"), "picture_too_large", "81"),
        (saved(Image.new("RGB", (1, 3000)), "PNG"), "picture_shape", "its sides differ more than 200-fold"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_faults(data: bytes, reason: str, words: str) -> None:
    fault = bad(data)
    assert fault.reason == reason, fault
    assert words in fault.message


def test_a_format_that_the_profile_leaves_out() -> None:
    fault = bad(GIF, Job(SMALL.budget, GLM, formats=("jpeg", "png")))
    assert fault == BadPicture(
        "picture_format", "The picture is a GIF, which this server does not take: send JPEG, PNG."
    )


def test_a_label_counts_for_nothing() -> None:
    """The format is told by the bytes; there is no place for a label in a job."""
    for data, kind in ((JPEG, "jpeg"), (PNG, "png"), (WEBP, "webp"), (GIF, "gif"), (TIFF, "tiff"), (AVIF, "avif")):
        assert kind_of(data) == good(data).kind == kind


def test_ten_thousand_frames_cost_one() -> None:
    """Only the first is decoded: junk behind it is never read."""
    frames = [Image.new("P", (40, 40), number % 2) for number in range(200)]
    data = saved(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert good(data, AS_IT_IS).width == 40
    first = saved(corners(40, 40), "GIF")
    assert first.endswith(b";")
    assert good(first[:-1] + b"," + bytes(1_000_000), AS_IT_IS).width == 40


def test_a_phones_several_pictures_in_one_jpeg() -> None:
    """MPO: the first is the picture, the others are previews, depth or brightness."""
    data = saved(corners(400, 200), "MPO", save_all=True, append_images=[Image.new("RGB", (40, 20))], quality=95)
    shrunk = good(data)
    assert (shrunk.kind, shrunk.width_in) == ("jpeg", 400)
    assert close(quarters(seen(shrunk))[0], RED)
    assert good(data, AS_IT_IS).is_untouched


def test_small_damage_is_passed_over_as_engines_do() -> None:
    """Bytes between segments that belong to none: libjpeg warns, and all viewers show the picture."""
    eoi = JPEG.rindex(b"\xff\xd9")
    assert good(JPEG[:eoi] + b"\0\0\0\0" + JPEG[eoi:]).width == 100


def test_no_memory_is_the_pictures_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_room(*_: object, **__: object) -> None:
        raise MemoryError

    for name in ("_opened", "_decoded", "_made"):
        with monkeypatch.context() as patch:
            patch.setattr(decode, name, no_room)
            assert bad(JPEG).reason == "picture_too_heavy"


@pytest.mark.parametrize("save", [lambda: JPEG, lambda: PNG, lambda: WEBP, lambda: GIF, lambda: AVIF, lambda: TIFF])
def test_any_cut_is_a_fault_or_a_picture(save: Callable[[], bytes]) -> None:
    data = save()
    for end in range(0, len(data), max(1, len(data) // 40)):
        assert isinstance(shrink(data[:end], SMALL), (Shrunk, BadPicture))
