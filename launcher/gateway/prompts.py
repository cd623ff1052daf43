"""What of a request's body the model sees, collected in order: text, pictures, token ids; readers.py finds them."""

from __future__ import annotations

from array import array
from collections.abc import Callable
from typing import Any

from launcher.gateway.cutting import Body
from launcher.gateway.learning import Features, count_digits
from launcher.gateway.media.costs import Budgets
from launcher.gateway.media.found import UPLOAD, Found, Picture
from launcher.gateway.pictures import Size, fingerprint, picture_size
from launcher.gateway.prefix import Segment

SEPARATOR = "\x1e"  # between pieces of text; stands for the template's own marks
# Bytes at either end of a picture that are searched for escapes; who writes \/ for a slash does so throughout.
ESCAPES_WITHIN = 1024
# A second of sound is about 25 tokens for the models that vLLM serves, and 32 kB as plain 16 kHz samples. What is
# compressed is priced too low by its ratio; its length is not to be seen without decoding it.
SOUND_BYTES_PER_TOKEN = 1280
UNSEEN_SOUND_TOKENS = 750  # by URL: half a minute
VIDEO_PICTURES = 4  # of the largest, for a video: its frames are sampled, so its length says little
_ALL = ((1, 0, 0),)  # marks of a prompt without any: all its pieces


class Prompt:
    """Collects one request's text, pictures and token ids, in order. Made and read by the Pricer."""

    count = 1  # of prompts
    messages = 0
    given_tokens = 0  # given by their numbers, so known exactly
    picture_tokens = 0
    media_tokens = 0  # of sound and video
    is_exact = True  # whether all that is no text is known exactly
    repeated = (0, 0)  # characters, and bytes of UTF-8 above one for each, that stand here once and are read again

    def __init__(
        self, body: Body, budgets: Budgets, mode: str = "", upload_size: Callable[[str], Size | None] | None = None
    ) -> None:
        """``upload_size``: of an upload by its id, where it is known."""
        self.body, self.budgets, self.mode, self._upload_size = body, budgets, mode, upload_size
        self.pictures: list[Picture] = []  # those that are in the body, or named by it
        self.clips: list[Found] = []  # of sound, likewise
        self.video_links = 0  # videos named by URL
        self.pieces: list[str] = []
        self.marks: list[tuple[int, int, int]] = []  # before which piece, fingerprint, tokens

    def segments(self) -> tuple[list[Segment], Features]:
        """The text in bytes, with the pictures between, and what it is made of."""
        segments: list[Segment] = []
        characters, excess = self.repeated
        digits = done = 0
        # The usual prompt has no pictures, and goes once through this.
        for before, print_, tokens in (*self.marks, (len(self.pieces), 0, 0)) if self.marks else _ALL:
            if before > done:
                pieces = self.pieces[done:before] if self.marks else self.pieces
                text = SEPARATOR.join(pieces)
                data = text.encode("utf-8", "surrogatepass")
                characters += len(text)
                excess += len(data) - len(text)
                digits += count_digits(data)
                segments.append(data)
                done = before
            if tokens:
                segments.append((print_, tokens))
        return segments, (characters, excess, digits, self.messages)

    def text(self, value: Any) -> None:
        """A string, or what else stands where one is expected."""
        if type(value) is str:
            self.pieces.append(self.body.text(value) if self.body.cuts else value)

    def json(self, value: Any) -> None:
        """What the template renders as JSON."""
        if value:
            self.pieces.append(self.body.json(value))

    def ids(self, ids: list[Any]) -> None:
        """Token ids: their number is the count."""
        self.given_tokens += len(ids)
        try:
            print_ = hash(array("q", ids).tobytes())
        except (TypeError, OverflowError):
            print_ = len(ids)  # no ids: the engine refuses them
        self.marks.append((len(self.pieces), print_, len(ids)))

    def picture(self, holder: dict[str, Any] | list[Any], key: Any, detail: Any = "", is_bare: bool = False) -> None:
        """A picture, by data URL, by URL, or by its base64 alone; the string is ``holder[key]``."""
        url = holder[key]
        data, start, end = self._bytes_of(url)
        costs = self.budgets.of(self.mode, detail if type(detail) is str else "")
        size: Size | None = None
        if not is_bare and data[start : start + 5] != b"data:":
            link = url if type(url) is str else ""
            if self._upload_size is not None and link.startswith(UPLOAD):
                size = self._upload_size(link[len(UPLOAD) :])
            self.pictures.append(Picture(holder, key, costs, link, size=size))
            return self._add_picture(hash(data[start:end]), costs.of(size), size is not None and costs.is_known)
        if not is_bare:
            start = data.find(b",", start, end) + 1 or end
        size = picture_size(data, start, end)
        self.pictures.append(Picture(holder, key, costs, "", data, start, end, size, is_bare))
        self._add_picture(fingerprint(data, start, end), costs.of(size), size is not None and costs.is_known)

    def _add_picture(self, print_: int, tokens: int, is_exact: bool) -> None:
        self.picture_tokens += tokens
        self.is_exact = self.is_exact and is_exact
        self.marks.append((len(self.pieces), print_, tokens))

    def unseen_picture(self) -> None:
        """A picture that is not in the body: named by its uuid, or given as embeddings."""
        self._add_picture(0, self.budgets.untouched.unseen, False)

    @property
    def has_media(self) -> bool:
        """Whether there is anything but text to look at."""
        return bool(self.pictures or self.clips or self.video_links)

    def sound(self, holder: dict[str, Any], key: str, is_bare: bool = False) -> None:
        """A clip, by URL or by its base64 alone; the string is ``holder[key]``."""
        url = holder.get(key)
        data, start, end = self._bytes_of(url)
        fingerprint_ = fingerprint(data, start, end)
        costs, tokens, link = self.budgets.clip, UNSEEN_SOUND_TOKENS, ""
        if is_bare or data[start : start + 5] == b"data:":
            start = start if is_bare else data.find(b",", start, end) + 1 or end
            tokens = 1 + (end - start) * 3 // 4 // SOUND_BYTES_PER_TOKEN
        else:
            link = url if type(url) is str else ""
        self.clips.append(Found(holder, key, link, data, start, end, is_bare))
        self._add_media(fingerprint_, tokens if costs is None else costs.of(tokens))

    def unseen_sound(self) -> None:
        """A clip that is given as embeddings."""
        self._add_media(0, UNSEEN_SOUND_TOKENS)

    def video(self, value: Any) -> None:
        data, start, end = self._bytes_of(value)
        self.video_links += type(value) is str and data[start : start + 5] != b"data:"
        self._add_media(fingerprint(data, start, end), VIDEO_PICTURES * self.budgets.untouched.unseen)

    def _add_media(self, print_: int, tokens: int) -> None:
        self.media_tokens += tokens
        self.is_exact = False
        self.marks.append((len(self.pieces), print_, tokens))

    def _bytes_of(self, value: Any) -> tuple[bytes, int, int]:
        """The bytes of a string, without a copy where it was cut out, and where it begins and ends."""
        if type(value) is not str:
            return b"", 0, 0
        span = self.body.span(value)
        if span is not None:
            start, end = span
            raw = self.body.raw
            ends = (start, min(end, start + ESCAPES_WITHIN)), (max(start, end - ESCAPES_WITHIN), end)
            if all(raw.find(b"\\", *part) < 0 for part in ends):
                return raw, start, end
            value = self.body.text(value)
        data = value.encode("utf-8", "surrogatepass")
        return data, 0, len(data)
