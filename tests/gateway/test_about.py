"""GET /api/about: the shape that the chat page relies on, and what is told of what is not known."""

from __future__ import annotations

from typing import Any

import pytest

from launcher import __version__
from launcher.gateway.auth import Gatekeeper
from launcher.gateway.keyring import KeyRing, keys_of_environment
from launcher.gateway.media.costs import Budgets
from launcher.gateway.price import Pricer
from launcher.gateway.replicas import Replica
from launcher.plan.image_budget import Budget
from launcher.plan.image_tokens import ImageRule
from launcher.profile.images import ImagesSection
from launcher.profile.media import UploadsSection
from launcher.profile.model import ModelSection
from tests.fakes.process import FakeEngine
from tests.gateway.harness import Desk, gateway_to, request_bytes

GLM = ImageRule("glm4v")
SECRET = "sk-0123456789abcdef"
NOTHING_KNOWN = {
    "version": __version__,
    "model": "fake-model",
    "mode": "balanced",
    "modes": [
        {
            "mode": "low-latency",
            "deadline_s": {"high": 0.2, "normal": 0.2, "low": 0.5},
            "deadline_per_1k_s": 0.2,
            "window_s": 0.0,
            "window_when": "never",
            "prefill_budgets": 0.75,
            "image": {"max_tokens": None, "long_side": None, "most_tokens": None},
        },
        {
            "mode": "balanced",
            "deadline_s": {"high": 0.2, "normal": 0.2, "low": 2.0},
            "deadline_per_1k_s": 0.2,
            "window_s": 0.05,
            "window_when": "when_saturated",
            "prefill_budgets": 1.0,
            "image": {"max_tokens": None, "long_side": None, "most_tokens": None},
        },
        {
            "mode": "high-throughput",
            "deadline_s": {"high": 1.0, "normal": 1.0, "low": 30.0},
            "deadline_per_1k_s": 0.5,
            "window_s": 0.05,
            "window_when": "when_saturated",
            "prefill_budgets": 2.0,
            "image": {"max_tokens": None, "long_side": None, "most_tokens": None},
        },
    ],
    "images": {
        "max_bytes": 20 * 2**20,
        "max_pixels": 50_000_000,
        "max_count": None,
        "kinds": ["jpeg", "png", "webp", "gif", "bmp", "tiff", "avif"],
    },
    "takes_images": None,
    "upload_keep_s": 900.0,
    "context_tokens": None,
    "keys_required": False,
    "thinking": {"usual": None, "is_parted": False},
}


async def asked(desk: Desk) -> Any:
    answer = await desk.get("/api/about")
    assert (answer.status, answer.headers["content-type"]) == (200, "application/json")
    return answer.json()


async def test_the_shape(engine: FakeEngine) -> None:
    async with gateway_to(engine.url, deadline=None) as desk:
        assert await asked(desk) == NOTHING_KNOWN


async def test_what_the_profile_says(engine: FakeEngine) -> None:
    images = ImagesSection(max_count=3, max_bytes="1MiB", max_pixels=10**6, formats=("png",))
    budgets = Budgets(GLM, Budget(max_tokens=324), modes={"low-latency": Budget(long_side=280), "balanced": Budget()})
    pricer = Pricer(budgets=budgets, context_tokens=8192)
    own = {
        "images": images,
        "uploads": UploadsSection(keep="60s"),
        "deadline": 5.0,
        "window": 0.0,
        "mode": "low-latency",
    }
    async with gateway_to(engine.url, parts={"pricer": pricer}, **own) as desk:
        told = await asked(desk)
        assert (told["mode"], told["takes_images"], told["context_tokens"]) == ("low-latency", True, 8192)
        assert told["images"] == {"max_bytes": 2**20, "max_pixels": 10**6, "max_count": 3, "kinds": ["png"]}
        assert told["upload_keep_s"] == 60
        assert {mode["mode"]: mode["image"] for mode in told["modes"]} == {
            "low-latency": {"max_tokens": None, "long_side": 280, "most_tokens": GLM.tokens(280, 280) + 2},
            "balanced": {"max_tokens": None, "long_side": None, "most_tokens": GLM.largest_tokens + 2},
            "high-throughput": {"max_tokens": 324, "long_side": None, "most_tokens": 324},
        }
        assert [mode["deadline_s"] for mode in told["modes"]] == [{"high": 5.0, "normal": 5.0, "low": 5.0}] * 3
        assert {mode["window_s"] for mode in told["modes"]} == {0.0}
        desk.gateway.set_mode("high-throughput")
        assert (await asked(desk))["mode"] == "high-throughput"


@pytest.mark.parametrize(
    ("per_prompt", "rule", "has_images", "takes"),
    [
        (None, None, None, None),
        (None, None, True, True),  # pictures, and no rule for what they cost
        (None, None, False, False),
        (None, GLM, None, True),
        (4, None, None, None),
        (0, GLM, True, False),
    ],
)
async def test_whether_pictures_are_taken(
    engine: FakeEngine, per_prompt: int | None, rule: ImageRule | None, has_images: bool | None, takes: bool | None
) -> None:
    parts = {"pricer": Pricer(image_rule=rule), "has_images": has_images}
    async with gateway_to(engine.url, parts=parts) as desk:
        desk.gateway.model = desk.gateway.model.model_copy(update={"images_per_prompt": per_prompt})
        told = await asked(desk)
        assert (told["takes_images"], told["images"]["max_count"]) == (takes, per_prompt)


@pytest.mark.parametrize(
    ("model", "thinking"),
    [
        ({}, {"usual": None, "is_parted": False}),
        ({"chat_template_kwargs": {"enable_thinking": False}}, {"usual": False, "is_parted": False}),
        (
            {"chat_template_kwargs": {"enable_thinking": True}, "reasoning_parser": "glm45"},
            {"usual": True, "is_parted": True},
        ),
        ({"chat_template_kwargs": {"enable_thinking": "yes"}}, {"usual": None, "is_parted": False}),
    ],
)
async def test_thinking(desk: Desk, model: dict[str, Any], thinking: dict[str, Any]) -> None:
    desk.gateway.model = ModelSection(served_name="m", **model)
    assert (await asked(desk))["thinking"] == thinking


async def test_it_needs_a_key_where_others_do(desk: Desk) -> None:
    desk.gateway.gatekeeper = Gatekeeper(KeyRing(None, keys_of_environment(f"page={SECRET}")), True)
    refused = await desk.get("/api/about")
    assert (refused.status, refused.error["reason"]) == (401, "missing_key")
    told = await desk.get("/api/about", f"Authorization: Bearer {SECRET}")  # no admin's key is needed
    assert told.json()["keys_required"] is True


async def test_the_control_app_is_not_asked(desk: Desk) -> None:
    desk.gateway.control = Replica.at_socket("/nowhere/control.sock")
    assert (await desk.get("/api/about")).status == 200
    assert (await desk.get("/api/about/")).status == 503
    assert (await desk.raw(request_bytes("POST", "/api/about"))).headers["allow"] == "GET, HEAD"
    assert await desk.metric('launcher_requests_total{code="200",route="/api/about"}') == 1


async def test_while_it_drains_and_no_engine_is_ready(engine: FakeEngine) -> None:
    async with gateway_to(engine.url, ready=False) as desk:
        desk.gateway.stop_admitting("the test says so")
        assert (await asked(desk))["model"] == "fake-model"
