"""What a user does on the chat page, and what is then to be seen there."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import Locator, Page, expect

from tests.browser.watch import PATIENCE_MS, PageWatch
from tests.gateway.media.pictures import photo, saved

expect.set_options(timeout=PATIENCE_MS)
PNG_HEAD = b"\x89PNG\r\n\x1a\n"


@dataclass
class Chat:
    """The chat page in one browser window."""

    watch: PageWatch

    @property
    def page(self) -> Page:
        return self.watch.page

    @property
    def question(self) -> Locator:
        return self.page.locator("#question")

    @property
    def answers(self) -> Locator:
        return self.page.locator("article.message[data-role=assistant]")

    @property
    def questions(self) -> Locator:
        return self.page.locator("article.message[data-role=user]")

    @property
    def answer(self) -> Locator:
        """The last one, whole, with its buttons."""
        return self.answers.last

    @property
    def text(self) -> Locator:
        """What the last answer says."""
        return self.answer.locator(".answer")

    @property
    def notice(self) -> Locator:
        """What is said to be wrong with the last answer."""
        return self.answer.locator(".notice")

    def act(self, name: str, within: Locator | None = None) -> Locator:
        """The button or box for this, of the last answer unless told otherwise."""
        return (within or self.answer).locator(f"[data-act={name}]")

    def ready(self) -> Chat:
        """Once the page can be used."""
        expect(self.question).to_be_visible(timeout=PATIENCE_MS)
        return self

    def ask(self, text: str) -> None:
        """Sends a question; returns when it stands in the conversation with an answer below it."""
        before = self.answers.count()
        self.question.fill(text)
        self.page.locator("#send").click()
        expect(self.answers).to_have_count(before + 1)

    def until(self, state: str) -> Locator:
        """The last answer, once it is in this state: waiting, streaming, done, stopped, broken or refused."""
        expect(self.answer).to_have_attribute("data-state", state)
        return self.answer

    def asked(self, text: str) -> str:
        """Asks, and returns the whole answer's text once it is there."""
        self.ask(text)
        self.until("done")
        return self.text.inner_text()

    def stages(self) -> dict[str, float]:
        """Where the time of the last answer went, in milliseconds; those of several pictures added up."""
        expect(self.answer.locator("figure.waterfall")).to_be_visible()
        found: dict[str, float] = {}
        for bar in self.answer.locator("figure.waterfall li").all():
            stage = bar.get_attribute("data-stage") or ""
            found[stage] = found.get(stage, 0.0) + float(bar.get_attribute("data-ms") or "nan")
        return found

    def pick(self, *pictures: Path | tuple[str, bytes]) -> None:
        """Chooses files as the file dialog would: paths, or names with bytes."""
        given: list[Any] = [
            one if isinstance(one, Path) else {"name": one[0], "mimeType": _kind(one[0]), "buffer": one[1]}
            for one in pictures
        ]
        self.page.locator("#files").set_input_files(given)

    @property
    def tray(self) -> Locator:
        """The pictures of the question that is being written."""
        return self.page.locator("#tray figure")

    def drop(self, *pictures: tuple[str, bytes]) -> None:
        """Drops files onto the page."""
        self._transfer("drop", "dataTransfer", pictures, "document.body")

    def paste(self, *pictures: tuple[str, bytes]) -> None:
        """Pastes files into the question."""
        self._transfer("paste", "clipboardData", pictures, "document.getElementById('question')")

    def _transfer(self, kind: str, field: str, pictures: Sequence[tuple[str, bytes]], target: str) -> None:
        event = "DragEvent" if kind == "drop" else "ClipboardEvent"
        files = [{"name": name, "kind": _kind(name), "bytes": list(data)} for name, data in pictures]
        self.page.evaluate(
            f"""files => {{
              const transfer = new DataTransfer()
              for (const {{name, kind, bytes}} of files) transfer.items.add(new File([new Uint8Array(bytes)], name, {{type: kind}}))
              {target}.dispatchEvent(new {event}('{kind}', {{{field}: transfer, bubbles: true, cancelable: true}}))
            }}""",
            files,
        )


def _kind(name: str) -> str:
    """The media type that a browser tells of a file by its name."""
    return {".jpg": "image/jpeg", ".png": "image/png", ".bmp": "image/bmp", ".txt": "text/plain"}[Path(name).suffix]


@cache
def picture(width: int = 640, height: int = 480, seed: int = 1) -> tuple[str, bytes]:
    """A photo's name and bytes."""
    return f"photo-{width}x{height}-{seed}.jpg", saved(photo(width, height, seed), "JPEG", quality=88)


def broken_picture() -> tuple[str, bytes]:
    """Begins as a PNG does, and goes on as none."""
    return "broken.png", PNG_HEAD + bytes(2000)


def half_a_picture() -> tuple[str, bytes]:
    """A photo whose second half was never written: its size can be read, its pixels cannot."""
    _, data = picture()
    return "half.jpg", data[: len(data) // 2]


def bitmap(width: int = 2600, height: int = 2560) -> bytes:
    """A BMP of noise: 20 MB, just within the largest that is let in unless it is told otherwise."""
    out = io.BytesIO()
    Image.frombytes("RGB", (width, height), os.urandom(width * height * 3)).save(out, "BMP")
    return out.getvalue()
