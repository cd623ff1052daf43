"""What the supervisor asks an engine over HTTP: health, one token, a chat, its token counters."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import httpx2

from launcher.engine.metrics_page import samples
from launcher.errors import LauncherError

TOKEN_COUNTERS = ("vllm:prompt_tokens_total", "vllm:generation_tokens_total")  # vllm/v1/metrics/loggers.py
REQUEST_GAUGES = ("vllm:num_requests_running", "vllm:num_requests_waiting")


class Load(NamedTuple):
    """An engine's requests, running and waiting, and the prompt and answer tokens that it has counted so far."""

    requests: int
    tokens: float


class EngineRefused(LauncherError):
    """An engine answered, but not with 200. ``status`` is None when it did not answer at all."""

    def __init__(self, message: str, status: int | None) -> None:
        super().__init__(message)
        self.status = status


class EngineClient:
    """One engine at ``url`` (without /v1), serving ``model``. Time-outs are seconds for a whole request."""

    def __init__(self, url: str, model: str, headers: Mapping[str, str] | None = None) -> None:
        self.url = url
        self.model = model
        # trust_env off: a proxy set for the internet must not come between us and an engine on loopback
        self._http = httpx2.AsyncClient(base_url=url, headers=dict(headers or {}), trust_env=False)

    async def close(self) -> None:
        await self._http.aclose()

    async def health_fault(self, timeout_s: float, path: str = "/health") -> str | None:
        """None when ``path`` answers 200 in time; else what it did instead."""
        try:
            async with asyncio.timeout(timeout_s):
                response = await self._http.get(path, timeout=None)
        except TimeoutError:
            return f"{path} was not answered within {timeout_s:g} s"
        except httpx2.HTTPError as error:
            return f"{path} failed: {error or type(error).__name__}"
        if response.status_code == 200:
            return None
        return f"{path} answered {response.status_code}{_reason(response)}"

    async def one_token(self, timeout_s: float) -> None:
        """Have it generate a single token. Raises EngineRefused when none comes."""
        await self._post("/v1/completions", {"model": self.model, "prompt": ".", "max_tokens": 1}, timeout_s)

    async def chat(self, messages: Sequence[Mapping[str, Any]], max_tokens: int, timeout_s: float) -> str:
        """A greedy answer: reasoning (if any) and content as one text."""
        body = {"model": self.model, "messages": list(messages), "max_tokens": max_tokens, "temperature": 0}
        answer = await self._post("/v1/chat/completions", body, timeout_s)
        message = answer["choices"][0]["message"]
        return f"{message.get('reasoning') or ''}{message.get('content') or ''}"

    async def complete(self, prompt: str, max_tokens: int, timeout_s: float) -> str:
        """A greedy continuation, for a model without a chat template."""
        body = {"model": self.model, "prompt": prompt, "max_tokens": max_tokens, "temperature": 0}
        return str((await self._post("/v1/completions", body, timeout_s))["choices"][0]["text"])

    async def token_count(self, timeout_s: float) -> float | None:
        """Prompt and answer tokens that it has counted so far; None when it does not say."""
        found = samples(await self._metrics(timeout_s), *TOKEN_COUNTERS)
        return sum(found) if found else None

    async def load(self, timeout_s: float) -> Load | None:
        """What it has in hand and has done, by its own count; None when it does not say."""
        page = await self._metrics(timeout_s)
        requests, tokens = samples(page, *REQUEST_GAUGES), samples(page, *TOKEN_COUNTERS)
        return Load(round(sum(requests)), sum(tokens)) if requests and tokens else None

    async def _metrics(self, timeout_s: float) -> str:
        try:
            return (await self._http.get("/metrics", timeout=timeout_s)).text
        except httpx2.HTTPError:
            return ""

    async def _post(self, path: str, body: Mapping[str, Any], timeout_s: float) -> Any:
        try:
            async with asyncio.timeout(timeout_s):
                response = await self._http.post(path, json=body, timeout=None)
        except TimeoutError:
            raise EngineRefused(f"{path} was not answered within {timeout_s:g} s", None) from None
        except httpx2.HTTPError as error:
            raise EngineRefused(f"{path} failed: {error or type(error).__name__}", None) from None
        if response.status_code != 200:
            raise EngineRefused(f"{path} answered {response.status_code}: {_message(response)}", response.status_code)
        return response.json()


def _reason(response: httpx2.Response) -> str:
    """What a launcher says of its engine; '' where it is none that answered."""
    try:
        return f": {str(response.json()['reason'])[:300]}"
    except (ValueError, KeyError, TypeError):
        return ""


def _message(response: httpx2.Response) -> str:
    try:
        error = response.json()["error"]
        return str(error["message"] if isinstance(error, dict) else error)
    except (ValueError, KeyError, TypeError):
        return response.text[:300]
