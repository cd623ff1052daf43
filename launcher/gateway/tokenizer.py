"""Counts a text's tokens with the model's own tokenizer, in a thread: its Rust code lets the event loop run meanwhile."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from pathlib import Path
from typing import Any

from launcher.errors import PreconditionError

# Worth it within these: a short text's estimate is off by a few tokens at most, and the way to a thread and back takes
# longer than the whole price; a text of half a megabyte takes some tenths of a second, which is the queue's deadline.
SHORTEST_BYTES = 512
LONGEST_BYTES = 128 * 1024
THREADS = 1  # tokenizing is all computation, and the engine needs the other cores
HINT = "Set admission.counting: estimate, which learns the model's bytes per token from its answers."


class TokenCounter:
    """One model's tokenizer."""

    def __init__(self, folder: Path) -> None:
        """``folder``: the model's, with tokenizer.json. Raises PreconditionError."""
        file = folder / "tokenizer.json"
        if not file.is_file():
            raise PreconditionError(f"admission.counting is exact, and there is no {file} to count tokens with.", HINT)
        try:
            tokenizers: Any = import_module("tokenizers")
        except ImportError:
            message = (
                "admission.counting is exact, and the Python package tokenizers, which counts them, is not installed."
            )
            raise PreconditionError(message, f"It comes with vLLM; or: pip install tokenizers. {HINT}") from None
        # One thread of ours does the work: the library's own would take every core from the engine.
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        try:
            self._tokenizer = tokenizers.Tokenizer.from_file(str(file))
        except Exception as error:  # the library raises plain Exception
            message = f"admission.counting is exact, and {file} cannot be read: {error}."
            raise PreconditionError(message, HINT) from None
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._threads = ThreadPoolExecutor(THREADS, "tokenizer")

    @staticmethod
    def is_worth(text_bytes: int) -> bool:
        """Whether a text of this length is counted; if not, it is estimated."""
        return SHORTEST_BYTES <= text_bytes <= LONGEST_BYTES

    async def count(self, texts: Sequence[str]) -> int:
        """Tokens of all these texts together, each by itself and without the template's own."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, self.count_now, texts)

    def count_now(self, texts: Sequence[str]) -> int:
        """As ``count``, in the caller's thread."""
        clean = [text if text.isascii() else text.encode("utf-8", "replace").decode() for text in texts]
        return sum(map(len, self._tokenizer.encode_batch_fast(clean, add_special_tokens=False)))

    def close(self) -> None:
        """Ends the thread; what it counts is still counted."""
        self._threads.shutdown(wait=False)
