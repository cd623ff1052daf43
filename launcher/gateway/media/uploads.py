"""POST /api/upload and GET /api/upload/{id}: a picture sent ahead of the requests that use it, as ``upload:ID``.

The id is answered as soon as the bytes are in; decoding goes on behind it, so that the picture is ready when the question is.
"""

from __future__ import annotations

import asyncio
import json
import logging
from binascii import b2a_base64
from collections import Counter
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

from launcher.gateway.admit import mode_asked
from launcher.gateway.media import sniff
from launcher.gateway.media.costs import Budgets, PictureCosts
from launcher.gateway.media.found import UPLOAD
from launcher.gateway.media.intake import STOPPING, Intake, Kept
from launcher.gateway.media.limits import check_bytes, check_kind, check_pixels
from launcher.gateway.media.multipart import uploaded_file
from launcher.gateway.media.store import Upload, UploadState
from launcher.gateway.pictures import picture_size
from launcher.gateway.refusal import BUG, Refusal, Refused, bad_request

if TYPE_CHECKING:
    from launcher.gateway.http1 import ClientConnection
    from launcher.gateway.requests import Request
    from launcher.gateway.server import Gateway

log = logging.getLogger("launcher.gateway")
JSON = b"content-type: application/json"
HASHED_HERE = (
    256 * 1024
)  # bytes that are hashed within the event loop, in a quarter of a millisecond; more go to a thread
HEAD_BYTES = 64 * 1024  # of a picture: where a JPEG has its size, a colour profile before it included
PER_KEY = 32  # uploads of one key that wait to be decoded
BUSY_RETRY_S = 1.0
LONGEST_WAIT_S = 30.0  # ?wait=


class Uploads:
    """The two routes. Written by the gateway's event loop only."""

    def __init__(self, gateway: Gateway, intake: Intake, budgets: Budgets) -> None:
        self._gateway, self._intake, self._budgets = gateway, intake, budgets
        self._decoding: Counter[str] = Counter()  # by key
        self._receptions: set[Reception] = set()
        self._closed = False

    def close(self) -> None:
        """Tells whoever waits that the gateway stops."""
        self._closed = True
        for reception in tuple(self._receptions):
            reception.stop()

    def handle(self, connection: ClientConnection, request: Request) -> None:
        """Answers, or sets the answer going. Raises Refused."""
        if request.head.method == b"POST":
            self._receive(connection, request)
        else:
            self._tell(connection, request)

    def _receive(self, connection: ClientConnection, request: Request) -> None:
        head = request.head
        file = uploaded_file(_content_type(request), request.body)
        images = self._gateway.settings.images
        costs = self._costs(request)
        start = b2a_base64(file.data[:HEAD_BYTES], newline=False)
        beginning = bytes(file.data[: sniff.HEAD_BYTES])
        check_kind(sniff.kind_of(beginning), beginning, images, "The picture")
        check_bytes(len(file.data), images, "The picture")
        check_pixels(picture_size(start, 0, len(start)), images, "The picture")
        key = head.identity.key_id
        self._gateway.charge(head.identity, 0, request.arrived_at)
        if len(file.data) <= HASHED_HERE:
            upload_id = self._intake.store.id_of(key, file.data)
            self._answer(connection, request, self._keep(upload_id, key, file.data, costs))
        else:
            self._later(connection, request, self._hash_and_keep(key, file.data, costs))

    async def _hash_and_keep(self, key: str, data: memoryview, costs: PictureCosts) -> Upload[Kept]:
        upload_id = await asyncio.to_thread(self._intake.store.id_of, key, data)
        return self._keep(upload_id, key, data, costs)

    def _keep(self, upload_id: str, key: str, data: memoryview, costs: PictureCosts) -> Upload[Kept]:
        """Takes it in, and has it decoded unless it is here already. Raises Refused."""
        store, now = self._intake.store, self._gateway.now()
        if self._closed:
            raise Refused(STOPPING)
        if self._decoding[key] >= PER_KEY:
            message = f"{PER_KEY} uploads of this key wait to be decoded already. Send it again later."
            raise Refused(Refusal(429, "uploads_busy", message, retry_after_s=BUSY_RETRY_S))
        if store.receive(upload_id, key, len(data), now):
            self._decoding[key] += 1
            self._gateway.spawn(self._decode(upload_id, key, bytes(data), costs))
        return store.find(upload_id, key, now)

    async def _decode(self, upload_id: str, key: str, data: bytes, costs: PictureCosts) -> None:
        store, gateway = self._intake.store, self._gateway
        failure = BUG
        try:
            store.start(upload_id)
            kept = Kept(data, await self._intake.shrink(data, costs, param=None), costs)
            gateway.books.decoded(kept.made)
            store.finish(upload_id, kept, kept.size, gateway.now())
            return
        except Refused as refused:
            failure = refused.refusal
        except asyncio.CancelledError:  # the gateway closes, and has told whoever waits
            raise
        except Exception:  # nobody awaits this task
            log.exception(BUG.message)
        finally:
            self._decoding[key] -= 1
            if not self._decoding[key]:
                del self._decoding[key]
        store.fail(upload_id, failure, gateway.now())

    def _tell(self, connection: ClientConnection, request: Request) -> None:
        """The state of one; with ?wait=SECONDS as soon as it is ready, or the time is over."""
        head = request.head
        path, _, query = head.target.partition(b"?")
        upload = self._intake.store.find(
            path.rpartition(b"/")[2].decode("latin-1"), head.identity.key_id, self._gateway.now()
        )
        seconds = _seconds(query.decode("latin-1"))
        if not seconds or upload.done.is_set():
            self._answer(connection, request, upload)
        else:
            self._later(connection, request, self._wait(upload, seconds))

    async def _wait(self, upload: Upload[Kept], seconds: float) -> Upload[Kept]:
        with self._intake.store.hold(upload, self._gateway.now()):
            try:
                async with asyncio.timeout(seconds):
                    await upload.done.wait()
            except TimeoutError:
                pass
        return upload

    def _costs(self, request: Request) -> PictureCosts:
        """What it is made ready for: the budget of the mode, or of ?detail=. Another is made of it when it is asked for."""
        rules = mode_asked(request.head, self._gateway.modes)
        query = parse_qs(request.head.target.partition(b"?")[2].decode("latin-1"))
        mode = self._gateway.mode if rules is None else rules.mode
        return self._budgets.of(mode, query.get("detail", [""])[-1])

    def _later(self, connection: ClientConnection, request: Request, work: Coroutine[Any, Any, Upload[Kept]]) -> None:
        connection.answering = Reception(self, connection, request, work)

    def _answer(self, connection: ClientConnection, request: Request, upload: Upload[Kept]) -> None:
        status = 202 if upload.state in (UploadState.RECEIVED, UploadState.DECODING) else 200
        body = json.dumps(self._described(upload)).encode() + b"\n"
        connection.answer(request.head, status, [JSON], body, False)
        self._gateway.books.page(request, status, self._gateway.now())

    def _described(self, upload: Upload[Kept]) -> dict[str, Any]:
        kept_s = self._intake.store.limits.kept_s
        told: dict[str, Any] = {"id": upload.id, "url": UPLOAD + upload.id, "state": upload.state.value}
        told["expires_in_s"] = round(max(0.0, upload.used + kept_s - self._gateway.now()), 1)
        if upload.refusal is not None:
            told["error"] = upload.refusal.error()
        elif upload.content is not None:
            made = upload.content.made
            told |= {"bytes": len(upload.content.data), "format": made.kind}
            told |= {"width_in": made.width_in, "height_in": made.height_in, "width": made.width, "height": made.height}
            told |= {"tokens": made.tokens}
            told["ms"] = {name.decode(): round(seconds * 1000, 1) for name, seconds in made.stages}
        return told


class Reception:
    """An answer that takes a moment: a task, and the connection that waits for it."""

    def __init__(
        self, uploads: Uploads, connection: ClientConnection, request: Request, work: Coroutine[Any, Any, Upload[Kept]]
    ) -> None:
        self._uploads, self._connection, self._request = uploads, connection, request
        self._task = uploads._gateway.spawn(self._run(work))

    def stop(self) -> None:
        """The gateway closes."""
        self._uploads._receptions.discard(self)
        self._task.cancel()
        self._refuse(STOPPING)

    async def _run(self, work: Coroutine[Any, Any, Upload[Kept]]) -> None:
        uploads, connection, request = self._uploads, self._connection, self._request
        uploads._receptions.add(self)
        try:
            uploads._answer(connection, request, await work)
        except Refused as refused:
            self._refuse(refused.refusal)
        except Exception:  # nobody awaits this task
            log.exception(BUG.message)
            self._refuse(BUG)
        finally:
            uploads._receptions.discard(self)

    def _refuse(self, refusal: Refusal) -> None:
        self._uploads._gateway.refused(refusal, self._request.head)
        self._connection.refuse(refusal, self._request.head)

    def client_gone(self) -> None:
        self._task.cancel()

    def client_full(self) -> None:
        """Nothing is written before the answer."""

    def client_drained(self) -> None:
        """Nothing waits to be written."""

    def crashed(self) -> None:
        self._task.cancel()
        self._refuse(BUG)


def _content_type(request: Request) -> str:
    for line in request.head.lines:
        name, _, value = line.partition(b":")
        if name.lower() == b"content-type":
            return value.strip().decode("latin-1")
    return ""


def _seconds(query: str) -> float:
    words = parse_qs(query, keep_blank_values=True).get("wait")
    if words is None:
        return 0.0
    try:
        seconds = float(words[-1])
        if not 0 <= seconds <= LONGEST_WAIT_S:
            raise ValueError
    except ValueError:
        message = f"wait={words[-1][:20]!r} must be a number of seconds from 0 to {LONGEST_WAIT_S:g}."
        raise bad_request("bad_value", message, "wait") from None
    return seconds
