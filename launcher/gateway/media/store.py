"""Uploaded pictures, kept for the requests that will name them: bounded in bytes and age, each readable by its own key only.

State and rules, no I/O; times are the event loop's seconds, given as arguments. In memory alone: a restart forgets all.

An upload's id is HMAC-SHA256 of the key's name, what it was made for and its bytes, under a secret that each start of the
gateway draws anew: 160 bits of it, as 32 letters. So the same picture under the same key has the same id while the gateway
runs, two keys have two, nobody can work out another's, and no answer tells whether somebody else has uploaded a picture.
"""

from __future__ import annotations

import asyncio
import hmac
import secrets
from base64 import b32encode
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Generic, TypeVar

from launcher.gateway.refusal import Refusal, Refused, bad_request

ENTRY_BYTES = 1024  # counted for each entry besides its picture, so that many small ones are bounded too
BUSY_RETRY_S = 2.0
_ID_LETTERS = frozenset("abcdefghijklmnopqrstuvwxyz234567")
_ID_LENGTH = 32

Content = TypeVar("Content")


class UploadState(Enum):
    RECEIVED = "received"
    DECODING = "decoding"
    READY = "ready"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class StoreLimits:
    """Bytes, and seconds since an upload was last used."""

    total_bytes: int = 256_000_000
    key_bytes: int = 64_000_000
    kept_s: float = 900.0


@dataclass(slots=True)
class Upload(Generic[Content]):
    """One upload of one key. Only the store writes to it."""

    id: str
    key: str
    size: int  # bytes that are counted for it: as received, then as kept
    used: float
    state: UploadState = UploadState.RECEIVED
    content: Content | None = None  # once it is ready
    refusal: Refusal | None = None  # once it has failed
    holders: int = 0  # requests that use it or wait for it
    done: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def is_kept(self) -> bool:
        """Whether it must stay: somebody uses it, or works on it."""
        return self.holders > 0 or self.state in (UploadState.RECEIVED, UploadState.DECODING)


class UploadStore(Generic[Content]):
    """Written to by the gateway's event loop alone. ``Content`` is what is kept of a picture that is ready."""

    def __init__(self, limits: StoreLimits | None = None) -> None:
        self.limits = limits or StoreLimits()
        self._secret = secrets.token_bytes(32)
        self._uploads: OrderedDict[str, Upload[Content]] = OrderedDict()  # the least recently used first
        self._key_bytes: dict[str, int] = {}
        self._bytes = 0
        self.evicted = 0  # for want of room, since the start

    @property
    def size(self) -> int:
        """Bytes that are counted now."""
        return self._bytes

    def __len__(self) -> int:
        return len(self._uploads)

    def id_of(self, key: str, data: bytes | memoryview, made_for: str = "") -> str:
        """The id of these bytes under this key. Reads no state: it may run in a thread, for a megabyte takes about 1 ms.

        ``made_for`` names what differs in what is kept, as the budget does: the same picture for two is two uploads.
        """
        digest = hmac.new(self._secret, digestmod="sha256")
        for part in (key.encode(), made_for.encode()):
            digest.update(len(part).to_bytes(8, "big") + part)
        digest.update(data)
        return b32encode(digest.digest()[:20]).decode("ascii").lower()

    def receive(self, upload_id: str, key: str, size: int, now: float) -> bool:
        """Makes room for an upload of ``size`` bytes; whether it has to be decoded. False: it is here already.

        Whoever gets True calls ``start``, then ``finish`` or ``fail``, also when cancelled. Raises Refused.
        """
        self.expire(now)
        upload = self._uploads.get(upload_id)
        if upload is not None and upload.state is not UploadState.FAILED:
            self._use(upload, now)
            return False
        if upload is not None:
            self._drop(upload)  # who waited for it has its refusal in hand
        self._make_room(key, size + ENTRY_BYTES)
        self._uploads[upload_id] = Upload(upload_id, key, 0, now)
        self._resize(self._uploads[upload_id], size + ENTRY_BYTES)
        return True

    def start(self, upload_id: str) -> None:
        """Its decoding begins."""
        self._uploads[upload_id].state = UploadState.DECODING

    def finish(self, upload_id: str, content: Content, size: int, now: float) -> None:
        """It is ready; ``size`` bytes of it are kept. Where these are more than came, others go to make room; if none can, it
        has failed."""
        upload = self._end(upload_id, UploadState.READY, size, now)
        if upload.refusal is None:
            upload.content = content

    def fail(self, upload_id: str, refusal: Refusal, now: float) -> None:
        """It cannot be used; whoever asks for it is told why. Uploaded again, it is tried again."""
        self._end(upload_id, UploadState.FAILED, 0, now).refusal = refusal

    def find(self, upload_id: str, key: str, now: float, param: str | None = None) -> Upload[Content]:
        """The upload, in whichever state. Raises Refused for one that this key has not got, whoever else has it."""
        self.expire(now)
        upload = self._uploads.get(upload_id)
        if upload is None or upload.key != key:
            raise self._unknown(upload_id, param)
        return upload

    def peek(self, upload_id: str) -> Content | None:
        """What is kept of an upload, whoever sent it; None: it is not ready, or not here."""
        upload = self._uploads.get(upload_id)
        return None if upload is None else upload.content

    @contextmanager
    def hold(self, upload: Upload[Content], now: float) -> Iterator[Upload[Content]]:
        """Keeps it while a request waits for it or uses it."""
        self._use(upload, now)
        upload.holders += 1
        try:
            yield upload
        finally:
            upload.holders -= 1
            if not upload.holders and self._uploads.get(upload.id) is upload:
                self._shed(upload.key)

    async def wait(self, upload_id: str, key: str, now: float, param: str | None = None) -> Content:
        """What is kept of it, once it is ready. Raises Refused if it is unknown here or has failed.

        The caller limits the time. To keep it for longer than this call, hold it from before: ``hold(find(…))``.
        """
        upload = self.find(upload_id, key, now, param)
        with self.hold(upload, now):
            await upload.done.wait()
        if upload.refusal is not None:
            raise Refused(replace(upload.refusal, param=param))
        assert upload.content is not None
        return upload.content

    def expire(self, now: float) -> int:
        """Forgets what was not used for ``kept_s``; how many went. To be called now and then: memory is freed by it."""
        oldest, gone = now - self.limits.kept_s, []
        for upload in self._uploads.values():
            if upload.used > oldest:
                break
            if not upload.is_kept:
                gone.append(upload)
        for upload in gone:
            self._drop(upload)
        return len(gone)

    def close(self, refusal: Refusal) -> None:
        """At the gateway's end: whoever still waits is refused."""
        for upload in self._uploads.values():
            if not upload.done.is_set():
                upload.state, upload.refusal = UploadState.FAILED, refusal
                upload.done.set()

    # Below, the only places where sizes and order change.

    def _make_room(self, key: str, size: int) -> None:
        limits = self.limits
        if size > min(limits.key_bytes, limits.total_bytes):
            most = min(limits.key_bytes, limits.total_bytes) - ENTRY_BYTES
            raise Refused(
                Refusal(
                    413,
                    "upload_too_large",
                    f"The upload has {size - ENTRY_BYTES} bytes: at most {most} are kept for one key. Send a smaller one.",
                )
            )
        mine = self._evict(key, self._key_bytes.get(key, 0) + size - limits.key_bytes)
        if mine > 0 or self._evict(None, self._bytes + size - limits.total_bytes) > 0:
            whose = "this key's uploads" if mine > 0 else "all uploads"
            most = limits.key_bytes if mine > 0 else limits.total_bytes
            raise Refused(
                Refusal(
                    503,
                    "uploads_full",
                    f"There is no room for {size - ENTRY_BYTES} bytes more: {whose} may have {most} bytes together, and those"
                    " here are in use. Try again.",
                    retry_after_s=BUSY_RETRY_S,
                )
            )

    def _evict(self, key: str | None, excess: int) -> int:
        """Drops the least recently used, of one key or of all, until ``excess`` bytes are free; what could not be freed.

        Nothing goes if that would not be enough."""
        if excess <= 0:
            return 0
        going = []
        for upload in self._uploads.values():
            if not upload.is_kept and (key is None or upload.key == key):
                going.append(upload)
                excess -= upload.size
                if excess <= 0:
                    break
        if excess <= 0:
            for upload in going:
                self._drop(upload)
            self.evicted += len(going)
        return excess

    def _use(self, upload: Upload[Content], now: float) -> None:
        upload.used = now
        if self._uploads.get(upload.id) is upload:
            self._uploads.move_to_end(upload.id)

    def _end(self, upload_id: str, state: UploadState, size: int, now: float) -> Upload[Content]:
        upload = self._uploads[upload_id]
        self._resize(upload, size + ENTRY_BYTES)
        self._use(upload, now)
        if self._shed(upload.key) and state is UploadState.READY:
            state = UploadState.FAILED
            self._resize(upload, ENTRY_BYTES)
            upload.refusal = Refusal(
                503,
                "uploads_full",
                f"There is no room for the {size} bytes that the picture came to.",
                retry_after_s=BUSY_RETRY_S,
            )
        upload.state = state
        upload.done.set()
        return upload

    def _shed(self, key: str) -> bool:
        """Drops what is over the limits; whether more would have to go, which is in use."""
        over = self._evict(key, self._key_bytes.get(key, 0) - self.limits.key_bytes)
        return max(over, self._evict(None, self._bytes - self.limits.total_bytes)) > 0

    def _drop(self, upload: Upload[Content]) -> None:
        self._resize(upload, 0)
        del self._uploads[upload.id]

    def _resize(self, upload: Upload[Content], size: int) -> None:
        change, upload.size = size - upload.size, size
        self._bytes += change
        left = self._key_bytes.get(upload.key, 0) + change
        if left:
            self._key_bytes[upload.key] = left
        else:
            del self._key_bytes[upload.key]

    def _unknown(self, upload_id: str, param: str | None) -> Refused:
        if len(upload_id) != _ID_LENGTH or not _ID_LETTERS.issuperset(upload_id):
            shown = upload_id if len(upload_id) <= _ID_LENGTH else upload_id[:_ID_LENGTH] + "…"
            return bad_request(
                "upload_id_invalid",
                f"'{shown}' is no upload's upload_id: POST /api/upload answers one of {_ID_LENGTH} letters.",
                param,
            )
        return Refused(
            Refusal(
                404,
                "upload_unknown",
                f"The upload {upload_id} is unknown here. Uploads are kept for {_span(self.limits.kept_s)} after their last use,"
                " less if room is needed, for the key that sent them alone, and not over a restart. Upload it again.",
                param,
            )
        )

    def __repr__(self) -> str:
        return f"<UploadStore {len(self._uploads)} uploads, {self._bytes}/{self.limits.total_bytes} bytes, evicted={self.evicted}>"


def _span(seconds: float) -> str:
    return f"{seconds / 60:g} minutes" if seconds >= 120 else f"{seconds:g} s"
