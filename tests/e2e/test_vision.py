"""A vision model on the real engine: warmed with a picture, and each picture costs what the plan says."""

from __future__ import annotations

import base64
import importlib.util
import io
import json
import random
import re
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from launcher.plan.image_tokens import ImageRule
from tests.e2e.conftest import require_vllm
from tests.e2e.endpoint import ENGINE_KEY, ROOT, Endpoint

TORCHVISION = "torchvision==0.28.0"  # the release that goes with torch 2.13
# A CUDA build of torchvision cannot load its operators beside a CPU torch; the image processor needs none of them.
OPERATORS = """\
import torch as _torch
_operators = _torch.library.Library("torchvision", "DEF")
for _name in ("nms", "qnms"):
    _operators.define(_name + "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
"""
PROFILE = """\
name: tiny-glm
model: {{path: {model}, load_format: dummy, served_name: glm, max_len: 4096, images_per_prompt: 2, dtype: float32}}
hardware: {{device: cpu, memory: 4GiB}}
engine: {{kv_cache_memory: 256MiB, max_num_batched_tokens: 8192, compile: eager, max_num_seqs: 4, env: {{PYTHONPATH: "{path}"}}}}
gateway: {{images: {{detail: {{low: {{max_tokens: 324}}}}}}, fetch: {{hosts: [example.org]}}}}
warmup: {{system_prompt: Be brief., prompts: [Hello]}}
timeouts: {{stall: 2m, probe_interval: 30s, probe: 1m}}
"""


def torchvision_folder() -> str:
    """Where the engine finds a torchvision that loads; '' when it has its own."""
    if importlib.util.find_spec("torchvision") is not None:
        return ""
    folder = Path(sys.prefix) / "share" / "torchvision-for-tests"
    package = folder / "torchvision" / "__init__.py"
    if not package.exists():
        pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(folder), TORCHVISION]
        subprocess.run(pip, check=True, stderr=subprocess.PIPE)
        package.write_text(OPERATORS + package.read_text())
    return str(folder)


@pytest.fixture(scope="module")
def glm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoint]:
    require_vllm()
    folder = tmp_path_factory.mktemp("glm")
    subprocess.run([sys.executable, "-m", "tests.e2e.tiny_glm", str(folder / "model")], check=True, cwd=ROOT)
    profile = folder / "tiny-glm.yaml"
    profile.write_text(PROFILE.format(model=folder / "model", path=torchvision_folder()))
    endpoint = Endpoint(folder / "state", "tiny-glm")
    started = endpoint.up(f"engine.env.VLLM_API_KEY={ENGINE_KEY}", profile=profile)
    assert started.returncode == 0, started.stderr
    yield endpoint
    endpoint.down("--now")


def picture(width: int, height: int, detail: str = "auto") -> dict[str, object]:
    file = io.BytesIO()
    Image.linear_gradient("L").resize((width, height)).convert("RGB").save(file, "JPEG")
    return {
        "type": "image_url",
        "image_url": {
            "url": "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode(),
            "detail": detail,
        },
    }


def asked(endpoint: Endpoint, *parts: dict[str, object]) -> tuple[int, str]:
    """The prompt's tokens, as the engine counts them, and what the gateway says that it did with the pictures."""
    content = [*parts, {"type": "text", "text": "What is this?"}]
    request = endpoint.chat(endpoint.url, model="glm", messages=[{"role": "user", "content": content}], max_tokens=1)
    with urllib.request.urlopen(request, timeout=120) as response:
        return int(json.load(response)["usage"]["prompt_tokens"]), response.headers.get("X-Launcher-Images", "")


def prompt_tokens(endpoint: Endpoint, *parts: dict[str, object]) -> int:
    return asked(endpoint, *parts)[0]


def test_warmed_with_text_and_a_picture(glm: Endpoint) -> None:
    assert "warming up 1/2: text" in glm.said
    assert "warming up 2/2: image" in glm.said


@pytest.mark.parametrize("size", [(512, 512), (1280, 720), (333, 777), (50, 50)], ids=str)
def test_a_picture_costs_what_the_plan_says(glm: Endpoint, size: tuple[int, int]) -> None:
    begin_and_end = 2
    cost = prompt_tokens(glm, picture(*size)) - prompt_tokens(glm)
    assert cost == ImageRule("glm4v").tokens(*size) + begin_and_end


def test_two_pictures(glm: Endpoint) -> None:
    one = prompt_tokens(glm, picture(512, 512)) - prompt_tokens(glm)
    assert prompt_tokens(glm, picture(512, 512), picture(512, 512)) - prompt_tokens(glm) == 2 * one


def test_under_a_budget_the_engine_counts_what_we_say(glm: Endpoint) -> None:
    """Fifty sizes, from strips to large photos: at most 324 tokens, and to the token what the header says."""
    dice = random.Random(4)
    sizes = [(1920, 1080), (1080, 2400), (4000, 3000), (90, 1400), (28, 28)]
    sizes += [(dice.randrange(30, 2600), dice.randrange(30, 2600)) for _ in range(45)]
    text = prompt_tokens(glm)
    for size in sizes:
        counted, told = asked(glm, picture(*size, detail="low"))
        assert counted - text == int(told.rpartition("=")[2]) <= 324, (size, told)
    _, told = asked(glm, picture(1920, 1080, "low"), picture(300, 200, "low"))
    assert told == "1920x1080>672x364=314, 300x200=79"


def post(endpoint: Endpoint, path: str, body: bytes, kind: str) -> dict[str, object]:
    request = urllib.request.Request(endpoint.url + path, body, {"Content-Type": kind})
    with urllib.request.urlopen(request, timeout=120) as response:
        answer: dict[str, object] = json.load(response)
        return answer


def jpeg(width: int, height: int) -> bytes:
    url = picture(width, height)["image_url"]["url"]  # type: ignore[index]
    return base64.b64decode(url.partition(",")[2])


def test_sent_ahead_and_asked_about(glm: Endpoint) -> None:
    sent = post(glm, "/api/upload?detail=low", jpeg(1920, 1080), "image/jpeg")
    part = {"type": "image_url", "image_url": {"url": sent["url"], "detail": "low"}}
    counted, told = asked(glm, part)
    assert told == "1920x1080>672x364=314"
    assert counted - prompt_tokens(glm) == 314


def test_by_plain_json(glm: Endpoint) -> None:
    body = {"image": base64.b64encode(jpeg(300, 200)).decode(), "prompt": "What is this?", "max_tokens": 2}
    answer = post(
        glm, "/api/v1/generate", json.dumps(body).encode(), "application/x-www-form-urlencoded"
    )  # as curl -d has it
    assert answer["usage"]["completion_tokens"] <= 2  # type: ignore[index]
    assert answer["finish_reason"] in ("stop", "length")
    assert answer["image_info"][0]["tokens"] == 79  # type: ignore[index]


def test_the_engine_itself_fetches_nothing(glm: Endpoint) -> None:
    """Asked past the gateway; it would otherwise fetch from this machine's own services."""
    engine = glm.engine()
    body = {
        "model": "glm",
        "messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": glm.url}}]}],
    }
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {ENGINE_KEY}"}
    request = urllib.request.Request(engine["url"] + "/v1/chat/completions", json.dumps(body).encode(), headers)
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(request, timeout=60)
    assert "nothing.invalid" in refused.value.read().decode()


def rss_kib(pid: int) -> int:
    return int(re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())[1])  # type: ignore[index]


def test_a_hundred_rounds_about_one_picture(glm: Endpoint) -> None:
    """No error, and the gateway is no larger after a hundred rounds than after the first ten."""
    url, pid = glm.url, glm.record()["pid"]
    messages: list[dict[str, object]] = [{"role": "user", "content": [picture(1920, 1080, "low")]}]
    sizes = []
    for number in range(100):
        request = glm.chat(url, model="glm", messages=messages, max_tokens=2)
        with urllib.request.urlopen(request, timeout=120) as response:
            assert response.headers["X-Launcher-Images"] == "1920x1080>672x364=314"
            answer = json.load(response)["choices"][0]["message"]
        messages += [{"role": "assistant", "content": answer["content"]}, {"role": "user", "content": f"And {number}?"}]
        sizes.append(rss_kib(pid))
    assert sizes[-1] - sizes[9] < 8 * 1024, sizes
