"""POST /api/v1/generate: plain JSON in, plain JSON out, through the same path as every chat request."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from launcher.gateway.generate import chat_of
from launcher.gateway.media.costs import Budgets
from launcher.gateway.price import Pricer
from launcher.gateway.refusal import Refused
from launcher.plan.image_budget import Budget
from tests.fakes.process import FakeEngine
from tests.gateway.harness import Desk, events, gateway_to
from tests.gateway.media.test_intake import GLM, LARGE, SMALL, got, size_of

PATH = "/api/v1/generate"


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


async def test_a_question(desk: Desk, engine: FakeEngine) -> None:
    answer = await desk.post({"prompt": "hello", "max_tokens": 5}, path=PATH)
    assert answer.status == 200
    told = answer.json()
    assert set(told) == {"id", "model", "text", "finish_reason", "usage"}
    assert told["text"]
    assert told["usage"]["completion_tokens"] == 5
    request = (await engine.seen())["requests"][-1]
    assert request["target"] == "/v1/chat/completions"
    as_a_form = "Content-Type: application/x-www-form-urlencoded"  # what curl -d says
    await desk.post({"prompt": "hello", "max_tokens": 5}, as_a_form, path=PATH)
    sent = (await engine.seen())["requests"][-1]["headers"]
    assert [value for name, value in dict(sent).items() if name.lower() == "content-type"] == ["application/json"]
    assert json.loads(request["body"]) == {"max_tokens": 5, "messages": [{"role": "user", "content": "hello"}]}
    assert await desk.metric(f'launcher_requests_total{{code="200",route="{PATH}"}}') == 2


async def test_a_picture_under_a_budget(engine: FakeEngine) -> None:
    pricer = Pricer(budgets=Budgets(GLM, Budget(max_tokens=324)))
    async with gateway_to(engine.url, parts={"pricer": pricer}) as desk:
        answer = await desk.post({"image": b64(LARGE), "prompt": "What is it?", "system": "Be brief."}, path=PATH)
        assert answer.headers["x-launcher-images"] == "1920x1080>672x364=314"
        (info,) = answer.json()["image_info"]
        assert info == {"width_in": 1920, "height_in": 1080, "width": 672, "height": 364, "tokens": 314}
        system, user = (await got(engine))["messages"]
        assert system == {"role": "system", "content": "Be brief."}
        assert size_of(user["content"][0]["image_url"]["url"])[1] == (672, 364)
        assert user["content"][1] == {"type": "text", "text": "What is it?"}
        several = {"images": [b64(SMALL), "data:image/jpeg;base64," + b64(LARGE)], "prompt": "Which is larger?"}
        answer = await desk.post(several, path=PATH)
        assert answer.headers["x-launcher-images"] == "300x200=79, 1920x1080>672x364=314"


async def test_a_stream(desk: Desk, engine: FakeEngine) -> None:
    answer = await desk.post({"image": b64(SMALL), "prompt": "hello", "max_tokens": 5, "stream": True}, path=PATH)
    assert answer.headers["content-type"].startswith("text/event-stream")
    *told, end = events(answer.body)
    assert end == "[DONE]"
    whole = (await desk.post({"image": b64(SMALL), "prompt": "hello", "max_tokens": 5}, path=PATH)).json()
    assert "".join(event.get("text", "") for event in told) == whole["text"]
    assert told[0]["image_info"][0]["width"] == 300
    assert [event["finish_reason"] for event in told if "finish_reason" in event] == [whole["finish_reason"]]
    assert told[-1]["usage"]["completion_tokens"] == 5
    assert all("choices" not in event for event in told)


@pytest.mark.parametrize(
    ("asked", "param", "words"),
    [
        ([], None, "must be a JSON object"),
        ({"image": "AAAA"}, "prompt", "prompt must be a text"),
        ({"prompt": "x", "image": 5}, "image", "a picture is a text"),
        ({"prompt": "x", "image": ""}, "image", "a picture is a text"),
        ({"prompt": "x", "images": "AAAA"}, "images", "images must be a list"),
        ({"prompt": "x", "image": "A", "images": ["A"]}, "images", "not both"),
        ({"prompt": "x", "messages": []}, "messages", "belong to /v1/chat/completions"),
        ({"prompt": "x", "system": 5}, "system", "system must be a text"),
        ({"prompt": "x", "n": 2}, "n", "one answer"),
    ],
)
def test_what_is_refused(asked: Any, param: str | None, words: str) -> None:
    with pytest.raises(Refused, match=words) as caught:
        chat_of(json.dumps(asked).encode())
    assert (caught.value.refusal.status, caught.value.refusal.param) == (400, param)


async def test_errors_are_the_usual_ones(desk: Desk, engine: FakeEngine) -> None:
    answer = await desk.post(b"{", path=PATH)
    assert (answer.status, answer.error["reason"]) == (400, "bad_json")
    answer = await desk.post({"image": "no base64!", "prompt": "x"}, path=PATH)
    assert (answer.status, answer.error["reason"]) == (400, "picture_format")
    answer = await desk.post({"prompt": "x", "max_tokens": -1}, path=PATH)
    assert answer.status in (200, 400)
