"""Pictures and clips on their way in: what is refused before anything is done, and what is got and made smaller before the
engine sees it.

A request is admitted by its price first; only then are its pictures fetched and decoded. A picture whose first bytes say that
it is within its budget is not decoded at all.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from launcher.gateway import cutting
from launcher.gateway.media.audio import AudioJob, Cut
from launcher.gateway.media.costs import Budgets, PictureCosts
from launcher.gateway.media.found import UPLOAD, Found, Picture
from launcher.gateway.media.jobs import Job, Shrunk
from launcher.gateway.media.limits import (
    HEAD_LETTERS,
    check_bytes,
    check_clips,
    check_kind,
    check_pictures,
    check_pixels,
    head_of,
)
from launcher.gateway.media.pool import Pool, memory_for
from launcher.gateway.media.report import Report, clip_told, picture_told, report_of, stages_of
from launcher.gateway.media.rewrite import rewritten
from launcher.gateway.media.sniff import kind_of
from launcher.gateway.media.store import StoreLimits, UploadStore
from launcher.gateway.pictures import Size, picture_size
from launcher.gateway.prompts import Prompt
from launcher.gateway.refusal import Refusal, bad_request
from launcher.gateway.timing import Stage
from launcher.profile.media import FetchSection

if TYPE_CHECKING:
    from launcher.gateway.media.fetch import Fetcher
    from launcher.profile.model import GatewaySection

MOST_WORKERS = 4  # unless the profile says otherwise
FORM_BYTES = 4096  # of an upload's body, around the picture
AT_ONCE = 8  # pictures of one request that are worked on, or wait for it: others want their turn too
WAITING = 32  # files for each process that may wait for it: about a second's work
FETCH_OFF = (
    "This server fetches no URLs (its profile has no gateway.fetch.hosts). Send the bytes as data:…;base64,…, or upload a"
    " picture first."
)
TOO_MUCH = f"The body has more than {cutting.MAX_DECODED // 2**20} MiB of JSON, or more than {cutting.MAX_OPENED:,} brackets, in a request"
STOPPING = Refusal(503, "draining", "The gateway is stopping.", close=True)


class Kept(NamedTuple):
    """An upload that is ready: the picture as it came, and what it was made into under one budget."""

    data: bytes
    made: Shrunk
    costs: PictureCosts  # that it was made for

    @property
    def size(self) -> int:
        """Bytes."""
        return len(self.data) + len(self.made.data)


class Got(NamedTuple):
    """A picture that is ready. ``data`` is empty where the string in the body can stay."""

    data: bytes
    mime: str
    made: Shrunk | Cut | None  # None: it was only fetched
    fetch_s: float = 0.0
    is_new: bool = True  # made for this request


Work = Callable[[], Awaitable[Got]]


class Done(NamedTuple):
    """What became of a request's pictures and clips."""

    body: bytes  # of the request, as it goes on
    report: Report
    outcomes: Sequence[tuple[str, int]]  # for the metrics: shrunk, untouched or cut, and how many
    stages: Sequence[Stage]  # seconds for each, all pictures together


class Intake:
    """What one gateway does with pictures and clips. ``per_prompt``: most pictures that the engine takes in a prompt, None:
    not known; ``has_audio``: whether the model takes clips, None: not known."""

    def __init__(self, settings: GatewaySection, per_prompt: int | None = None, has_audio: bool | None = None) -> None:
        images, uploads = settings.images, settings.uploads
        self._images, self._audio, self._per_prompt, self._has_audio = images, settings.audio, per_prompt, has_audio
        workers = images.workers or min(MOST_WORKERS, max(1, (os.cpu_count() or 2) // 2))
        self.pool = Pool(
            workers=workers,
            memory_bytes=memory_for(images.max_pixels, max(images.max_bytes, settings.audio.max_bytes)),
            cpu_s=images.timeout,
            max_waiting=WAITING * workers,
        )
        self.store: UploadStore[Kept] = UploadStore(StoreLimits(uploads.memory, uploads.per_key, uploads.keep))
        self.fetcher = make_fetcher(settings.fetch, max(images.max_bytes, settings.audio.max_bytes))

    # Before anything is done.

    def glimpse(self, beginning: bytes, budgets: Budgets, mode: str) -> int:
        """The first picture of a body that has begun: the least prompt tokens of it, 0 if it is not to be seen. Raises Refused
        for one that would be refused with the whole body too."""
        found = cutting.first_data_url(beginning)
        if found is None or len(beginning) - found < HEAD_LETTERS:
            return 0
        size = picture_size(beginning, found, len(beginning))
        head = head_of(Found(None, None, "", beginning, found, len(beginning), True))
        check_kind(kind_of(head), head, self._images, "Picture 1")
        check_pixels(size, self._images, "Picture 1")
        return budgets.least(size, mode)

    def glimpse_upload(self, size: int) -> None:
        """Whether an upload's body is too large for any picture that is taken. Raises Refused."""
        if size > self._images.max_bytes + FORM_BYTES:
            check_bytes(size, self._images, "The upload")

    def check(self, prompt: Prompt, key: str) -> Report:
        """Looks at numbers and first bytes only. What can be told without work; raises Refused."""
        begun = time.perf_counter()
        most = self._images.max_count
        if most is None and self._per_prompt is not None:
            most = self._per_prompt * prompt.count
        check_pictures(prompt.pictures, self._images, most)
        check_clips(prompt.clips, self._audio, self._has_audio)
        if prompt.video_links:
            raise bad_request(
                "url_fetch_off",
                "Videos are not fetched by their URL: send the bytes as data:video/…;base64,….",
                "messages",
            )
        for found in (*prompt.pictures, *prompt.clips):
            if found.link:
                self._check_link(found, key)
        told = [picture_told(picture) for picture in prompt.pictures]
        return report_of(told, [], [(b"sniff", time.perf_counter() - begun)])

    def _check_link(self, found: Found, key: str) -> None:
        if found.link.startswith(UPLOAD):
            if not isinstance(found, Picture):
                raise bad_request(
                    "upload_kind", "An upload is a picture: a clip's bytes go into the request itself.", "messages"
                )
            self.store.find(found.link[len(UPLOAD) :], key, asyncio.get_running_loop().time(), "messages")
        elif self.fetcher is None:
            raise bad_request("url_fetch_off", FETCH_OFF, "messages")
        else:
            self.fetcher.check(found.link, "messages")

    def refuse_unread(self, body: bytes) -> None:
        """A body that nobody here can look into may name no picture or clip: nobody would check it. Raises Refused."""
        if not cutting.may_name_media(body):
            return
        if cutting.is_too_much(body):
            raise bad_request(
                "too_much_json",
                f"{TOO_MUCH} that names pictures, clips or videos. Send less text with them.",
                "messages",
            )
        if cutting.has_link(
            body
        ):  # a route whose bodies are not known here; JSON that is none is the engine's to refuse
            raise bad_request("url_fetch_off", "Nothing is fetched for this route: send the bytes as data:…;base64,….")

    def refuse_links(self, prompt: Prompt) -> None:
        """Of a request that an engine answers at once: nothing is fetched for it. Raises Refused."""
        if prompt.video_links or any(found.link for found in (*prompt.pictures, *prompt.clips)):
            raise bad_request(
                "url_fetch_off", "Nothing is fetched for this route: send the bytes as data:…;base64,….", "messages"
            )

    def has_work(self, prompt: Prompt) -> bool:
        """Whether something has to be got, decoded or cut."""
        if prompt.clips and (self._audio.budget != "original" or any(clip.link for clip in prompt.clips)):
            return True
        return any(picture.needs_work for picture in prompt.pictures)

    def upload_size(self, upload_id: str) -> Size | None:
        """Of an upload that is ready, whoever has sent it: for the price, which tells nobody anything."""
        kept = self.store.peek(upload_id)
        return None if kept is None else (kept.made.width_in, kept.made.height_in)

    # The work.

    async def bring_down(self, prompt: Prompt, key: str) -> Done:
        """Gets and makes smaller, all of a request at once. Raises Refused; then nothing goes on."""
        pictures = [picture for picture in prompt.pictures if picture.needs_work]
        clips = [clip for clip in prompt.clips if clip.link or self._audio.budget != "original"]
        work: list[Work] = [partial(self._picture, picture, key) for picture in pictures]
        work += [partial(self._clip, clip) for clip in clips]
        turns = asyncio.Semaphore(AT_ONCE)
        tasks = [asyncio.ensure_future(_in_turn(turns, one)) for one in work]
        try:
            got = await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
        results: dict[Found, Got] = dict(zip([*pictures, *clips], got, strict=True))
        body = rewritten(prompt, {found: one for found, one in results.items() if one.data})
        made = {found: one.made for found, one in results.items()}
        told = [picture_told(picture, made.get(picture)) for picture in prompt.pictures]
        report = report_of(told, [clip_told(made.get(clip)) for clip in prompt.clips], stages_of(got))
        return Done(body, report, _outcomes(got), report.stages)

    async def _picture(self, picture: Picture, key: str) -> Got:
        if picture.link.startswith(UPLOAD):
            return await self._uploaded(picture, key)
        data, fetch_s = b"", 0.0
        if picture.link:
            data, fetch_s = await self._fetched(picture.link, self._images.max_bytes)
            made = await self.shrink(data, picture.costs)
        else:
            made = await self.shrink(picture.data[picture.start : picture.end], picture.costs, is_base64=True)
        return Got(made.data or data, made.mime, made, fetch_s)

    async def _uploaded(self, picture: Picture, key: str) -> Got:
        now = asyncio.get_running_loop().time()
        kept = await self.store.wait(picture.link[len(UPLOAD) :], key, now, "messages")
        if kept.costs.budget == picture.costs.budget:
            # That took its time before, and was counted then.
            made = msgspec.structs.replace(kept.made, decode_s=0.0, scale_s=0.0, encode_s=0.0)
            return Got(made.data or kept.data, made.mime, made, is_new=False)
        made = await self.shrink(kept.data, picture.costs)
        return Got(made.data or kept.data, made.mime, made)

    async def _fetched(self, link: str, max_bytes: int) -> tuple[bytes, float]:
        assert self.fetcher is not None, "check() has refused it"
        fetched = await self.fetcher.fetch(link, "messages")
        if len(fetched.data) > max_bytes:
            raise bad_request(
                "url_too_large",
                f"What the URL gave has {len(fetched.data)} bytes: at most {max_bytes} are taken.",
                "messages",
            )
        return fetched.data, fetched.seconds

    async def shrink(
        self, data: bytes, costs: PictureCosts, is_base64: bool = False, param: str | None = "messages"
    ) -> Shrunk:
        """A picture brought to its budget by a worker. Raises Refused."""
        images = self._images
        job = Job(costs.budget, costs.rule, images.formats, images.max_pixels, images.quality, is_base64=is_base64)
        return await self.pool.shrink(data, job, param)

    async def _clip(self, clip: Found) -> Got:
        budget, audio = self._audio.budget, self._audio
        data, fetch_s = clip.data[clip.start : clip.end], 0.0
        if clip.link:
            data, fetch_s = await self._fetched(clip.link, audio.max_bytes)
        if budget == "original":
            return Got(data, "application/octet-stream", None, fetch_s)
        job = AudioJob(
            budget.tokens_per_second,
            budget.max_tokens,
            budget.pad,
            budget.sample_rate,
            max_seconds=audio.max_length,
            is_base64=not clip.link,
        )
        made = await self.pool.cut(data, job, "messages")
        return Got(made.data, made.mime, made, fetch_s)

    # Life.

    def refuse_waiting(self) -> None:
        """The gateway closes: whoever waits for an upload is told so."""
        self.store.close(STOPPING)

    async def close(self) -> None:
        await self.pool.close()

    def __repr__(self) -> str:
        return f"<Intake {self.pool!r} {self.store!r}>"


async def _in_turn(turns: asyncio.Semaphore, work: Work) -> Got:
    async with turns:
        return await work()


def make_fetcher(settings: FetchSection, max_bytes: int) -> Fetcher | None:
    """None where nothing may be fetched: httpx2 alone takes a quarter of a second to import."""
    if not settings.hosts:
        return None
    from launcher.gateway.media.fetch import Fetcher
    from launcher.gateway.media.hop import FetchLimits
    from launcher.gateway.media.targets import Allowed

    limits = FetchLimits(max_bytes, total_s=settings.timeout, at_once=settings.at_once)
    return Fetcher(Allowed.of(settings.hosts, http=settings.http, more_ports=settings.ports), limits)


def _outcomes(got: Sequence[Got]) -> list[tuple[str, int]]:
    counts = dict.fromkeys(("shrunk", "untouched", "cut"), 0)
    for one in got:
        if not one.is_new:
            continue
        if isinstance(one.made, Cut):
            counts["cut" if one.made.was_cut else "untouched"] += 1
        elif one.made is not None:
            counts["untouched" if one.made.is_untouched else "shrunk"] += 1
    return [(name, count) for name, count in counts.items() if count]
