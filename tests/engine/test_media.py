"""What the installed vLLM fetches by itself, started as we start it: nothing; and for which models our rule on sound holds.

vLLM's own MediaConnector runs in a process of its own, with the argument and the environment of our command. An audit hook
tells of every look-up and connection, and the pictures lie on a server here, so that a fetch would succeed.
"""

from __future__ import annotations

import base64
import importlib.util
import io
import json
import os
import re
import subprocess
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from PIL import Image

from launcher.engine.command import EngineCommand, engine_command
from launcher.plan.placement import Placement
from launcher.plan.sound import ARCHITECTURES, SECTIONS
from launcher.probe.arguments import KnownArguments, check_arguments, groups, known_arguments
from launcher.probe.vllm_build import VllmBuild
from launcher.profile.model import Profile

pytestmark = pytest.mark.engine

# Reads [[domains, method, url, redirects], …] as JSON and prints for each what came and what was looked up or connected
# to. Redirects are as the environment has them where null.
FETCH = """
import asyncio, inspect, json, os, sys
reached = []
def watch(event, args):
    if event == "socket.connect" and isinstance(args[1], tuple):
        reached.append(str(args[1][0]))
    elif event in ("socket.getaddrinfo", "socket.gethostbyname"):
        reached.append(str(args[0]))
from vllm.multimodal.media.connector import MediaConnector
sys.addaudithook(watch)
async def answers():  # in one loop, which vLLM's connections belong to
    for domains, method, url, redirects in json.loads(sys.argv[1]):
        reached.clear()
        if redirects is not None:
            os.environ["VLLM_MEDIA_URL_ALLOW_REDIRECTS"] = redirects
        try:
            got = getattr(MediaConnector(allowed_media_domains=domains), method)(url)
            came = type(await got if inspect.isawaitable(got) else got).__name__
        except Exception as error:
            came = f"{type(error).__name__}: {error}"
        yield [came, sorted(set(reached))]
async def main():
    print("\\n" + json.dumps([answer async for answer in answers()]))
asyncio.run(main())
"""

METHODS = ["fetch_image", "fetch_image_async", "fetch_audio_async", "fetch_video_async"]


def png() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (3, 2)).save(file, "PNG")
    return file.getvalue()


class Pictures(ThreadingHTTPServer):
    """/picture is one, /moved sends there by another name of this machine. ``asked`` holds every path in order."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        super().__init__(("127.0.0.1", 0), Answer)

    @property
    def port(self) -> int:
        return int(self.server_address[1])


class Answer(BaseHTTPRequestHandler):
    server: Pictures

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        if self.path == "/moved":
            self.send_response(302)
            self.send_header("Location", f"http://localhost:{self.server.port}/picture")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(png())))
        self.end_headers()
        self.wfile.write(png())

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        pass


@pytest.fixture
def pictures() -> Iterator[Pictures]:
    with Pictures() as server:
        thread = Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def command(build: VllmBuild, **engine: Any) -> EngineCommand:
    hardware = {"device": build.device}
    kv = {"kv_cache_memory": "1GiB"} if build.device == "cpu" else {}
    profile = Profile.model_validate(
        {"name": "media", "model": {"path": "m"}, "hardware": hardware, "engine": kv | engine}
    )
    return engine_command(profile, Placement(0, (0,)), port=1, model_path="/m", build=build, environ={})


def domains_of(made: EngineCommand) -> list[str]:
    return next(list(group.values) for group in groups(made.arguments) if group.flag == "--allowed-media-domains")


def fetched(
    build: VllmBuild, made: EngineCommand, asked: list[tuple[str, str]], redirects: list[str | None] | None = None
) -> list[tuple[str, list[str]]]:
    """What came of each (method, URL), and what was looked up or connected to for it."""
    rows = [
        [domains_of(made), method, url, moves]
        for (method, url), moves in zip(asked, redirects or [None] * len(asked), strict=True)
    ]
    proxies = {"no_proxy": "*"}  # a proxy of this machine's would be connected to instead
    done = subprocess.run(
        [build.python, "-c", FETCH, json.dumps(rows)],
        cwd="/",
        env=made.environment(os.environ) | proxies,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return [(came, reached) for came, reached in json.loads(done.stdout.splitlines()[-1])]


def test_nothing_is_fetched_and_data_urls_are_taken(build: VllmBuild, pictures: Pictures) -> None:
    urls = [
        f"http://127.0.0.1:{pictures.port}/picture",
        f"HTTP://localhost:{pictures.port}/picture",
        f"http://127.0.0.1:{pictures.port}/moved",
        f"http://nothing.invalid@127.0.0.1:{pictures.port}/picture",
        f"http://127.0.0.1:{pictures.port}\\@nothing.invalid/picture",
        "https://example.org/picture.png",
        "http://169.254.169.254/latest/meta-data",
        "http://nothing.invalid/picture",
        "http://nothing.invalid%2F/picture",
        "file:///etc/hostname",
    ]
    asked = [(method, url) for url in urls for method in METHODS]
    inline = "data:image/png;base64," + base64.b64encode(png()).decode()
    answers = fetched(build, command(build), [*asked, ("fetch_image", inline), ("fetch_image_async", inline)])
    for (method, url), (came, reached) in zip(asked, answers, strict=False):
        assert re.match(r"(ValueError|RuntimeError|LocationParseError)", came), (method, url, came)
        assert reached == [], (method, url, came)
    assert answers[len(asked) :] == [("MediaWithBytes", []), ("MediaWithBytes", [])]
    assert pictures.asked == []


def test_a_domain_that_extra_args_allows_cannot_send_elsewhere(build: VllmBuild, pictures: Pictures) -> None:
    """With redirects on it can, so what our command sets is what keeps it from that."""
    made = command(build, extra_args=["--allowed-media-domains", "127.0.0.1"])
    urls = [f"http://127.0.0.1:{pictures.port}/{path}" for path in ("picture", "moved", "moved")]
    picture, ours, on = fetched(build, made, [("fetch_image_async", url) for url in urls], [None, None, "1"])
    assert picture == ("MediaWithBytes", ["127.0.0.1"])
    assert not ours[0].startswith("MediaWithBytes")
    assert (on[0], "localhost" in on[1]) == ("MediaWithBytes", True)
    assert pictures.asked == ["/picture", "/moved", "/moved", "/picture"]


def test_the_parser_takes_the_flag_with_one_domain_or_several(build: VllmBuild) -> None:
    assert check_arguments(build, command(build).argv) == []
    assert check_arguments(build, ["--allowed-media-domains", "a.example", "b.example"]) == []


def test_every_model_of_vllm_that_takes_sound_is_known() -> None:
    """Of those whose code allows `audio`, what reads none of our sections of the config has to be in our table."""
    spec = importlib.util.find_spec("vllm")  # finds, does not import
    if spec is None or spec.origin is None:
        pytest.skip("no vLLM is installed here")
    root = Path(spec.origin).parent
    registry = (root / "model_executor/models/registry.py").read_text()
    rows = re.findall(r'"(\w+)":\s*\(\s*"([\w.]+)",\s*"\w+",?\s*\)', registry)
    assert len(rows) > 200
    hearing = {name: text for name, module in rows if '"audio"' in limits(text := source(root, module))}
    assert len(hearing) > 20
    unknown = {
        name
        for name, text in hearing.items()
        if name not in ARCHITECTURES and not any(section in text for section in SECTIONS)
    }
    assert unknown == set(), f"put into launcher/plan/sound.py: {sorted(unknown)}"


def test_the_architectures_of_our_table_are_vllms(build: VllmBuild) -> None:
    known: KnownArguments = known_arguments(build)
    assert set(known.architectures) >= ARCHITECTURES


def source(root: Path, module: str) -> str:
    """The text of a model's module, or of all modules of its package."""
    path = (
        root.parent / module.replace(".", "/")
        if module.startswith("vllm.")
        else root / "model_executor/models" / module
    )
    files = sorted(path.rglob("*.py")) if path.is_dir() else [path.with_suffix(".py")]
    return "".join(file.read_text() for file in files if file.is_file())


def limits(text: str) -> str:
    """The functions that tell how many of which media a model takes."""
    return "".join(re.findall(r"def get_supported_mm_limits.*?(?=\n    def |\n    @|\nclass )", text, re.DOTALL))
