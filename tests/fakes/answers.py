"""The fake engine's answers: completions in vLLM's shape, paced and streamed, and the faults in them."""

from __future__ import annotations

import asyncio
import json
import os
from collections import Counter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.fakes.engine import Connection, Engine

HEAD_END = b"\r\n\r\n"
STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\ndate: Sat, 21 Nov 2026 00:00:00 GMT\r\nserver: uvicorn\r\n"
    b"content-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked" + HEAD_END
)
TOOL_CALL = {"id": "call_1", "type": "function", "function": {"name": "look", "arguments": "{}"}}
KV_CACHE_TOKENS = 26_214
DEATH = "The server had an error while processing your request."


def metrics_text(model: str, running: int, kv_tokens: int, tokens: Counter[str], counts: Counter[str]) -> str:
    """The part of vLLM's /metrics that a supervisor reads. ``kv_tokens``: of what runs, in the KV cache."""
    label = f'{{engine="0",model_name="{model}"}}'
    rows = [
        ("gauge", "vllm:num_requests_running", label, running),
        ("gauge", "vllm:num_requests_waiting", label, 0),
        ("gauge", "vllm:kv_cache_usage_perc", label, min(1.0, kv_tokens / KV_CACHE_TOKENS)),
        ("counter", "vllm:prompt_tokens_total", label, tokens["prompt"]),
        ("counter", "vllm:generation_tokens_total", label, tokens["generation"]),
        *(
            ("counter", "vllm:request_success_total", f'{label[:-1]},finished_reason="{reason}"}}', counts[event])
            for reason, event in (("stop", "done"), ("abort", "abort"))
        ),
    ]
    lines: dict[str, list[str]] = {}
    for kind, name, labels, value in rows:
        lines.setdefault(f"# TYPE {name} {kind}", []).append(f"{name}{labels} {float(value)}")
    return "".join(f"{head}\n" + "\n".join(values) + "\n" for head, values in lines.items())


class Answer:
    """One completion: what it says and how it is sent."""

    def __init__(self, engine: Engine, connection: Connection, path: str, request: dict[str, Any], fault: str) -> None:
        self.engine, self.connection, self.fault = engine, connection, fault
        self.request, self.behaviour = request, engine.behaviour
        self.chat = "chat" in path
        self.stream = bool(request.get("stream"))
        self.choices = int(request.get("n") or 1)
        self.reasoning = self._reasoning()
        self.words = self._words()
        self.prompt_tokens = max(1, len(json.dumps(request.get("messages", request.get("prompt", "")))) // 4)
        self.made = 0  # tokens so far
        self.pending = bytearray()

    def _reasoning(self) -> list[str]:
        """vLLM sends reasoning unless include_reasoning or the template's enable_thinking is false."""
        thinks = (self.request.get("chat_template_kwargs") or {}).get("enable_thinking", True)
        if not self.chat or not thinks or self.request.get("include_reasoning") is False:
            return []
        return pieces(self.behaviour.reasoning)

    def _words(self) -> list[str]:
        prompt = json.dumps(self.request.get("messages", self.request.get("prompt", "")))
        if self.behaviour.reply:
            return pieces(self.behaviour.reply)
        limit = self.request.get("max_completion_tokens") or self.request.get("max_tokens")
        if "capital of France" in prompt:
            return pieces("The capital of France is Paris.")[:limit]
        if self.request.get("continue_final_message"):
            said = self.request["messages"][-1]["content"].split()
            last = len(said) + limit if limit else self.behaviour.tokens
            return [f"{' ' if i else ''}w{i}" for i in range(len(said), last)]
        pad = "x" * max(0, self.behaviour.chunk_bytes - 5)
        return [f"{' ' if i else ''}w{i}{pad}" for i in range(limit or self.behaviour.tokens)]

    @property
    def usage(self) -> dict[str, int]:
        made = (len(self.reasoning) + len(self.words)) * self.choices
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": made,
            "total_tokens": made + self.prompt_tokens,
        }

    def envelope(self, choices: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
        kind = ("chat.completion" if self.chat else "text_completion") + (".chunk" if self.stream and self.chat else "")
        identity = f"{'chatcmpl' if self.chat else 'cmpl'}-{len(self.engine.record.requests):032x}"
        base = {"id": identity, "object": kind, "created": 1790000000, "model": self.engine.line.name}
        return base | {"choices": choices} | more

    async def send(self) -> bool:
        """Sends the answer, or what the fault makes of it. False: close the connection."""
        record = self.engine.record
        record.tokens["prompt"] += self.prompt_tokens
        record.kv_tokens += self.prompt_tokens
        try:
            if self.fault and not await self._fault_before_head():
                return False
            if self.fault in ("refuse_503", "error_500", "engine_death"):
                return True
            return await (self._send_stream() if self.stream else self._send_whole())
        finally:
            record.kv_tokens -= self.prompt_tokens + self.made

    async def _fault_before_head(self) -> bool:
        """The faults that come before or instead of a proper head. False: nothing more is sent."""
        connection, fault = self.connection, self.fault
        if fault == "close_before":
            return False
        if fault == "garbage":
            await connection.write(b"\x00\x16\x03 this is not HTTP\r\n\r\n")
            return False
        if fault == "half_head":
            await connection.write(b"HTTP/1.1 200 OK\r\nserver: uvi")
            return False
        if fault == "endless_head":
            await connection.write(b"HTTP/1.1 200 OK\r\n")
            while True:
                await connection.write(b"x-filler: " + b"y" * 1000 + b"\r\n")
        if fault == "both_lengths":
            await connection.write(
                b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"
            )
            return False
        if fault == "interim":
            await connection.write(b"HTTP/1.1 103 Early Hints\r\nlink: </a>; rel=preload\r\n\r\n")
        if fault in ("refuse_503", "error_500", "engine_death"):
            code = 503 if fault == "refuse_503" else 500
            text = "The server is at capacity: too many queued requests." if code == 503 else DEATH
            kind = "ServiceUnavailableError" if code == 503 else "InternalServerError"
            body = {"error": {"message": text, "type": kind, "param": None, "code": code}}
            await connection.respond_json(code, body)
            if fault == "engine_death":
                self.engine.die_like_vllm()
        return True

    async def _token(self, index: int) -> bool:
        """Paces token ``index`` and lets the fault strike before it. False: stop here without an end."""
        behaviour, connection, record = self.behaviour, self.connection, self.engine.record
        if index == behaviour.hold_after:
            await self._flush()
            await self._wait_release()
        if self.fault and index == behaviour.fault_after:
            await self._flush()
            if self.fault == "die":
                os._exit(behaviour.exit_code)
            if self.fault == "hang":
                await record.note("hang")
                await connection.lost.wait()
            if self.fault == "reset":
                connection.transport.abort()
            if self.fault in ("close", "reset", "hang"):
                return False
        delay = behaviour.first_token_s if index == 0 else behaviour.inter_token_s
        if delay:
            await self._flush()
            await connection.pause(delay)
        elif index % 16 == 15:
            await asyncio.sleep(0)
        record.tokens["generation"] += 1
        record.kv_tokens += 1
        self.made += 1
        return True

    async def _wait_release(self) -> None:
        """Holds until POST /_fake/release lets this answer go on."""
        record, lost = self.engine.record, asyncio.ensure_future(self.connection.lost.wait())
        turn = record.hold()
        await record.note("hold")
        await asyncio.wait([turn, lost], return_when=asyncio.FIRST_COMPLETED)
        lost.cancel()
        await self.connection.write(b"")  # raises where the client has left

    async def _send_whole(self) -> bool:
        for index in range(len(self.reasoning) + len(self.words)):
            if not await self._token(index):
                return False
        text, tool_calls = "".join(self.words), [dict(TOOL_CALL)] if self.behaviour.tool_call else []
        message = {"role": "assistant", "content": text, "reasoning": "".join(self.reasoning) or None}
        message |= {"tool_calls": tool_calls, "refusal": None}
        finish = {"logprobs": None, "finish_reason": "tool_calls" if tool_calls else "stop", "stop_reason": None}
        what = {"message": message} if self.chat else {"text": text}
        choices = [{"index": i} | what | finish for i in range(self.choices)]
        body = json.dumps(self.envelope(choices, usage=self.usage)).encode()
        return await self._send_body(body)

    async def _send_body(self, body: bytes) -> bool:
        """A response with a length, and the faults of such ones."""
        connection, length = self.connection, len(body)
        if self.fault == "wrong_length":
            length += 100
        elif self.fault == "short_length":
            length -= 10
        head = (
            f"HTTP/1.1 200 OK\r\nserver: uvicorn\r\ncontent-length: {length}\r\ncontent-type: application/json\r\n\r\n"
        )
        if self.fault == "until_close":
            head = "HTTP/1.1 200 OK\r\nserver: uvicorn\r\ncontent-type: application/json\r\nconnection: close\r\n\r\n"
        if self.fault == "close_after_head":
            await connection.write(head.encode())
            return False
        if self.fault == "slow_head":
            await connection.write(head[:30].encode())
            await self._wait_release()
            head = head[30:]
        await connection.write(head.encode() + body)
        return self.fault not in ("wrong_length", "until_close", "short_length")

    async def _send_stream(self) -> bool:
        head = STREAM_HEAD
        if self.fault == "slow_head":
            await self.connection.write(head[:30])
            await self._wait_release()
            head = head[30:]
        self.pending += head
        if self.fault != "until_close":
            await self._flush()
        if self.fault == "close_after_head":
            return False
        if self.fault == "bad_chunk":
            await self.connection.write(b"zz\r\nhello\r\n")
            return False
        if self.chat:
            await self._event([self._delta(i, {"role": "assistant", "content": ""}) for i in range(self.choices)])
        deltas = [{"reasoning": text} for text in self.reasoning] + [{"content": text} for text in self.words]
        for index, delta in enumerate(deltas):
            if not await self._token(index):
                return False
            if self.fault == "stream_error" and index == self.behaviour.fault_after:
                return await self._end_with_error()
            await self._event([self._delta(i, delta) for i in range(self.choices)])
            if (index + 1) % self.behaviour.together == 0:
                await self._flush()
        return await self._end_stream()

    async def _end_stream(self) -> bool:
        reason = "stop"
        if self.behaviour.tool_call and self.chat:
            reason = "tool_calls"
            await self._event([self._delta(i, {"tool_calls": [{"index": 0} | TOOL_CALL]}) for i in range(self.choices)])
        await self._event([self._delta(i, {"content": ""}, reason) for i in range(self.choices)])
        if (self.request.get("stream_options") or {}).get("include_usage"):
            self._add(json.dumps(self.envelope([], usage=self.usage)))
        self._add("[DONE]")
        self.pending += b"0\r\n\r\n"
        await self._flush()
        return True

    async def _end_with_error(self) -> bool:
        self._add(json.dumps({"error": {"message": DEATH, "type": "InternalServerError", "param": None, "code": 500}}))
        self._add("[DONE]")
        self.pending += b"0\r\n\r\n"
        await self._flush()
        return True

    def _delta(self, index: int, delta: dict[str, Any], reason: str | None = None) -> dict[str, Any]:
        what = {"delta": delta} if self.chat else {"text": delta.get("content", "")}
        return {"index": index, **what, "logprobs": None, "finish_reason": reason}

    async def _event(self, choices: list[dict[str, Any]]) -> None:
        for choice in choices:
            self._add(json.dumps(self.envelope([choice])))

    def _add(self, data: str) -> None:
        """One event as one chunk, as vLLM sends it."""
        end = "\r\n" if self.behaviour.crlf else "\n"
        comment = f": keep-alive{end}{end}" if self.behaviour.crlf else ""
        event = f"{comment}data: {data}{end}{end}".encode()
        self.pending += b"%x\r\n%b\r\n" % (len(event), event)

    async def _flush(self) -> None:
        data, step = bytes(self.pending), self.behaviour.split_bytes or len(self.pending)
        self.pending.clear()
        for start in range(0, len(data), step or 1):
            await self.connection.write(data[start : start + step])
            if self.behaviour.split_bytes:
                await asyncio.sleep(0)


def pieces(text: str) -> list[str]:
    """Words with the blank before them, as tokens come."""
    words = text.split(" ") if text else []
    return [word if i == 0 else f" {word}" for i, word in enumerate(words)]
