"""From the bytes of a picture to those that the engine is to see. Runs in a worker: it reads hostile files.

The header comes first: format by its bytes, pixels against the limit, the size to bring it to; only then is it decoded. JPEGs
are decoded at n/8 of their size where that is enough (libjpeg-turbo's scaled DCT, through simplejpeg), all others by Pillow;
the rest of the way is bicubic, the models' own filter, with SIMD where there is a wheel for that.
"""

from __future__ import annotations

import io
import time
import warnings
from binascii import Error as Base64Error
from binascii import a2b_base64, b2a_base64

import msgspec
import simplejpeg  # type: ignore[import-untyped]
from PIL import Image, UnidentifiedImageError

from launcher.gateway.media import colours
from launcher.gateway.media.jobs import BadPicture, Job, Shrunk
from launcher.gateway.media.sniff import MEDIA_TYPES, PASSED_ON, kind_of, not_taken
from launcher.gateway.pictures import picture_size
from launcher.plan.image_budget import fit

try:  # bicubic in a fifth of Pillow's time, which is two fifths of all for a JPEG of 1080p
    import cykooz_resizer as simd  # type: ignore
except ImportError:  # there is no wheel for Linux on ARM
    simd = None

REDUCING_GAP = (
    3.0  # whole-number averaging first, down to 3 times the target: Pillow calls the result indistinguishable
)
SIMD_MODES = {"RGB": "U8x3", "L": "U8"}  # Pillow's names → cykooz_resizer's
SIMD_PIXELS = 4_000_000  # 3.7 million take 0.2 to 0.7 of Pillow's time, 12 million up to 1.8: copies in new memory
PNG_LEVEL = 1  # 6 takes more than twice the time
HEAD_BYTES = 384  # where all but JPEG, TIFF and AVIF have their size
ORIENTATION = 0x0112  # the EXIF tag
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
SIDEWAYS = (5, 6, 7, 8)
Size = tuple[int, int]


class Fault(Exception):
    """A picture that cannot be used."""

    def __init__(self, reason: str, message: str) -> None:
        self.bad = BadPicture(reason, message)


def shrink(data: bytes | memoryview, job: Job) -> Shrunk | BadPicture:
    """Brings a picture to its budget; never raises for what the file does, MemoryError included."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a hostile file must not write into the log
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            return _shrink(data, job)
    except Fault as fault:
        return fault.bad
    except MemoryError:
        return BadPicture("picture_too_heavy", "The picture takes more memory to decode than one picture may have.")


def _shrink(data: bytes | memoryview, job: Job) -> Shrunk:
    started = time.perf_counter()
    data = _bytes_of(data, job)
    kind = _kind(data, job)
    Image.MAX_IMAGE_PIXELS = job.max_pixels
    _check_pixels(_size_by_header(data, kind), job)
    image = _opened(data, kind)
    _check_pixels(image.size, job)
    turn = _orientation(image)
    shape = image.size[::-1] if turn in SIDEWAYS else image.size
    try:
        fitted = fit(job.rule, job.budget, *shape)
    except ValueError as error:
        raise Fault("picture_shape", f"The picture cannot be used: {error}.") from None
    target = (fitted.width, fitted.height)
    passed_on = kind in PASSED_ON and target == shape and turn not in TURNS and colours.is_plain(image)
    icc = image.info.get("icc_profile")
    image = _decoded(image, data, kind, target[::-1] if turn in SIDEWAYS else target)
    decoded = time.perf_counter()
    shrunk = Shrunk(b"", kind, MEDIA_TYPES[kind], *shape, *target, fitted.tokens, decoded - started)
    if passed_on:
        return shrunk
    made = _made(image, turn, target, icc)
    scaled = time.perf_counter()
    out, mime = _encoded(made, job.quality)
    times = {"scale_s": scaled - decoded, "encode_s": time.perf_counter() - scaled}
    return msgspec.structs.replace(shrunk, data=out, mime=mime, **times)


def _bytes_of(data: bytes | memoryview, job: Job) -> bytes:
    if job.is_base64:
        try:
            data = a2b_base64(data, strict_mode=True)
        except (Base64Error, ValueError) as error:
            raise Fault(
                "picture_base64",
                f"The picture's base64 cannot be read: {str(error)[:1].lower()}{str(error)[1:]}. It has the letters A–Z a–z 0–9 + / and"
                " is filled up with = to a multiple of four, without line breaks.",
            ) from None
    if not data:
        raise Fault("picture_empty", "The picture has no bytes: nothing came after 'base64,', or the file is empty.")
    return bytes(data)


def _kind(data: bytes, job: Job) -> str:
    kind = kind_of(data)
    if (why := not_taken(kind, data, job.formats)) is not None:
        raise Fault("picture_format", f"The picture {why}")
    return kind


def _size_by_header(data: bytes, kind: str) -> Size | None:
    """Width and height before any library makes room for them; None where only opening tells."""
    if kind == "jpeg":
        try:
            height, width, *_ = simplejpeg.decode_jpeg_header(data)
        except ValueError:
            return None  # Pillow reads some that this does not
        return int(width), int(height)
    head = b2a_base64(data[:HEAD_BYTES], newline=False)
    return picture_size(head, 0, len(head))


def _check_pixels(size: Size | None, job: Job) -> None:
    if size is not None and size[0] * size[1] > job.max_pixels:
        width, height = size
        raise Fault(
            "picture_too_large",
            f"The picture has {width:,}×{height:,} = {width * height:,} pixels; at most {job.max_pixels:,} are decoded. Make it smaller.",
        )


def _opened(data: bytes, kind: str) -> Image.Image:
    """Pillow's view of the header; nothing is decoded yet."""
    try:
        return Image.open(io.BytesIO(data), formats=[kind.upper()])
    except MemoryError:
        raise
    except Exception as error:  # whatever a parser runs into in a hostile file
        raise _broken(error, data, kind) from None


def _broken(error: Exception, data: bytes, kind: str) -> Fault:
    """A file that its own format's reader gave up on."""
    if isinstance(error, (Image.DecompressionBombError, Image.DecompressionBombWarning)):
        return Fault("picture_too_large", f"The picture has too many pixels: {error}.")
    text = str(error).lower()
    cut = kind == "webp" and int.from_bytes(data[4:8], "little") + 8 > len(data)
    if cut or "truncat" in text or "premature end" in text or isinstance(error, EOFError):
        return Fault(
            "picture_truncated",
            f"The picture is cut off: its {len(data):,} bytes end before the {kind.upper()} does. Send the whole file.",
        )
    known = isinstance(error, OSError) and not isinstance(error, UnidentifiedImageError)
    what = f" ({str(error)[:120]})" if known else ""
    return Fault(
        "picture_broken", f"The picture begins as a {kind.upper()} but cannot be decoded{what}: the file is damaged."
    )


def _orientation(image: Image.Image) -> int:
    """How the camera was held: 1 to 8, 1 for upright or unknown."""
    if image.format == "TIFF":
        return 1  # Pillow turns these itself
    try:
        return int(image.getexif().get(ORIENTATION, 1))
    except MemoryError:
        raise
    except Exception:  # EXIF that cannot be read says nothing; engines see it so too
        return 1


def _decoded(image: Image.Image, data: bytes, kind: str, target: Size) -> Image.Image:
    """The pixels; of a JPEG as few as suffice for the target."""
    if kind == "jpeg" and image.mode in ("RGB", "L"):
        try:
            return _decoded_scaled(data, image.mode, target)
        except ValueError as error:
            if "premature end" in str(error).lower():
                raise _broken(error, data, kind) from None
            # Small damage, which Pillow knows to pass over, as engines do.
    try:
        if kind == "jpeg":
            image.draft(None, target)
        image.load()
    except MemoryError:
        raise
    except Exception as error:
        raise _broken(error, data, kind) from None
    return image


def _decoded_scaled(data: bytes, mode: str, target: Size) -> Image.Image:
    colour_space = "RGB" if mode == "RGB" else "GRAY"
    pixels = simplejpeg.decode_jpeg(data, colour_space, min_width=target[0], min_height=target[1])
    height, width = pixels.shape[:2]
    return Image.frombuffer(mode, (width, height), pixels, "raw", mode, 0, 1)


def _made(image: Image.Image, turn: int, target: Size, icc: bytes | None) -> Image.Image:
    """Scaled first, since the rest is then cheap; upright, opaque, 8 bits, sRGB (RGB or L)."""
    size = target[::-1] if turn in SIDEWAYS else target
    try:
        image = colours.for_scaling(image)
        if image.size != size:
            image = _resized(image, size)
        if turn in TURNS:
            image = image.transpose(TURNS[turn])
        return colours.plain(image, icc)
    except colours.Unreadable as error:
        raise Fault("picture_colours", f"The picture's pixels are of a kind that is not read: {error}.") from None


def _resized(image: Image.Image, size: Size) -> Image.Image:
    if simd is not None and image.mode in SIMD_MODES and image.width * image.height <= SIMD_PIXELS:
        return _resized_by_simd(image, size)
    gap = None if image.mode.startswith("I;16") else REDUCING_GAP
    return image.resize(size, Image.Resampling.BICUBIC, reducing_gap=gap)


def _resized_by_simd(image: Image.Image, size: Size) -> Image.Image:
    """Pillow's bicubic but for rounding: Catmull-Rom, as wide as the factor. Through bytes: its way into Pillow's own
    memory relies on the layout of structs that Pillow may change. A Resizer would keep its memory for the next picture.
    """
    kind = simd.PixelType[SIMD_MODES[image.mode]]
    bicubic = simd.ResizeOptions(simd.ResizeAlg.convolution(simd.FilterType.catmull_rom))
    made = simd.ImageData(*size, kind)
    simd.Resizer().resize(simd.ImageData(*image.size, kind, image.tobytes()), made, bicubic)
    return Image.frombuffer(image.mode, size, made.get_buffer(), "raw", image.mode, 0, 1)


def _encoded(image: Image.Image, quality: int) -> tuple[bytes, str]:
    """PNG for drawings and screenshots, JPEG for the rest."""
    out = io.BytesIO()
    image.info = {}  # no place, no camera, no profile
    if colours.is_drawing(image):
        image.save(out, "PNG", compress_level=PNG_LEVEL)
        return out.getvalue(), "image/png"
    image.save(out, "JPEG", quality=quality)
    return out.getvalue(), "image/jpeg"
