"""What is refused by a request's numbers and first bytes alone, before anything is fetched or decoded. No I/O."""

from __future__ import annotations

from binascii import Error as Base64Error
from binascii import a2b_base64
from collections.abc import Sequence

from launcher.gateway.media.found import Found, Picture
from launcher.gateway.media.sniff import HEAD_BYTES, kind_of, not_taken
from launcher.gateway.pictures import Size
from launcher.gateway.refusal import bad_request
from launcher.profile.images import ImagesSection
from launcher.profile.media import AudioSection

HEAD_LETTERS = HEAD_BYTES // 3 * 4 + 4  # of base64, for the first bytes
PARAM = "messages"


def check_pictures(pictures: Sequence[Picture], settings: ImagesSection, most: int | None) -> None:
    """``most``: pictures in a request; None: any number. Raises Refused."""
    if most is not None and len(pictures) > most:
        if most == 0:
            raise bad_request("too_many_pictures", "Pictures are not taken here (model.images_per_prompt is 0).", PARAM)
        message = f"The request has {len(pictures)} pictures: {most} is the most here."
        raise bad_request("too_many_pictures", message, PARAM)
    for number, picture in enumerate(pictures, 1):
        if not picture.link:
            name = f"Picture {number}"
            if picture.costs.shrinks:  # else it is the engine's to read, which passes over line breaks
                check_base64(picture, name)
            head = head_of(picture)
            picture.kind = kind_of(head)
            check_kind(picture.kind, head, settings, name)
            check_bytes(picture.bytes_in, settings, name)
            check_pixels(picture.size, settings, name)
            check_shape(picture, name)


def check_kind(kind: str, head: bytes, settings: ImagesSection, name: str) -> None:
    """By the first bytes. Raises Refused."""
    if (why := not_taken(kind, head, settings.formats)) is not None:
        raise bad_request("picture_format" if head else "picture_empty", f"{name} {why}", PARAM)


def check_shape(picture: Picture, name: str) -> None:
    """Whether the model takes a picture of these sides. Raises Refused."""
    size, costs = picture.size, picture.costs
    if size is not None and costs.is_known and (why := costs.fault_of(size)) is not None:
        raise bad_request("picture_shape", f"{name} cannot be used: {why}.", PARAM)


def check_bytes(size: int, settings: ImagesSection, name: str) -> None:
    if size > settings.max_bytes:
        raise bad_request(
            "picture_too_large", f"{name} has {_mib(size)} MiB: {_mib(settings.max_bytes)} MiB is the most here.", PARAM
        )


def check_pixels(size: Size | None, settings: ImagesSection, name: str) -> None:
    if size is not None and size[0] * size[1] > settings.max_pixels:
        width, height = size
        most = f"{settings.max_pixels / 1e6:g} million is the most here"
        raise bad_request("picture_too_large", f"{name} has {width}×{height} pixels: {most}.", PARAM)


def check_clips(clips: Sequence[Found], settings: AudioSection, has_audio: bool | None) -> None:
    """``has_audio``: whether the model takes clips; None: not known. Raises Refused."""
    if not clips:
        return
    if has_audio is False:
        raise bad_request("no_audio", "This model takes no clips of sound.", PARAM)
    if len(clips) > settings.max_count:
        raise bad_request(
            "too_many_clips", f"The request has {len(clips)} clips: {settings.max_count} is the most here.", PARAM
        )
    for number, clip in enumerate(clips, 1):
        if clip.bytes_in > settings.max_bytes:
            size, most = _mib(clip.bytes_in), _mib(settings.max_bytes)
            raise bad_request("audio_too_large", f"Clip {number} has {size} MiB: {most} MiB is the most here.", PARAM)


def check_base64(picture: Picture, name: str) -> None:
    """By its first letters; all of them are looked at where it is decoded. Raises Refused."""
    letters = picture.data[picture.start : min(picture.end, picture.start + HEAD_LETTERS)]
    try:
        a2b_base64(letters[: len(letters) // 4 * 4], strict_mode=True)
    except Base64Error as error:
        raise bad_request("picture_base64", f"{name}: its base64 cannot be read: {error}.", PARAM) from None


def head_of(found: Found) -> bytes:
    """The first bytes of what is in the body; b"" if they are no base64."""
    try:
        return a2b_base64(found.data[found.start : min(found.end, found.start + HEAD_LETTERS)])
    except Base64Error:
        return b""


def _mib(size: int) -> str:
    return f"{size / 2**20:.1f}".removesuffix(".0")
