"""What `helm test` runs in its pod: one question over HTTP, here to a server that answers as the gateway does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from tests.deploy.helm.cases import gpu
from tests.deploy.helm.chart import Helm, one

ANSWER = {"choices": [{"message": {"role": "assistant", "content": "Paris."}}]}
REFUSAL = {"error": {"message": "No engine is ready: starting.", "code": 503}}


class Endpoint(BaseHTTPRequestHandler):
    key, ready = "sk-0123456789abcdef", True
    asked: dict[str, Any] = {}  # noqa: RUF012

    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002
        pass

    def do_GET(self) -> None:
        self._answer(200, {"data": [{"id": "served"}]})

    def do_POST(self) -> None:
        self.asked.update(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        if self.headers.get("Authorization") != f"Bearer {self.key}":
            self._answer(401, {"error": {"message": "The API key is not known."}})
        else:
            self._answer(200, ANSWER) if self.ready else self._answer(503, REFUSAL)

    def _answer(self, code: int, answer: object) -> None:
        body = json.dumps(answer).encode()
        self.send_response(code)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def endpoint() -> Iterator[tuple[str, type[Endpoint]]]:
    handler = type("Fresh", (Endpoint,), {"asked": {}})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}", handler
    server.shutdown()
    server.server_close()


def ask(helm: Helm, url: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """The pod's own words, run here."""
    pod = one(helm.template(gpu()), "Pod", "-test")["spec"]["containers"][0]
    _, option = pod["command"]
    env = {entry["name"]: entry["value"] for entry in pod["env"] if "value" in entry}
    assert env == {"ENDPOINT": "http://demo-gateway:80", "MODEL": "autoglm-phone-9b"}
    given = {**os.environ, **env, "ENDPOINT": url, "no_proxy": "*", **environment}
    return subprocess.run([sys.executable, option, *pod["args"]], env=given, capture_output=True, text=True)


@pytest.mark.parametrize("keys", ["default={}", "{}", " {}, other=sk-another-0123456789"])
def test_it_gets_its_answer(helm: Helm, endpoint: tuple[str, type[Endpoint]], keys: str) -> None:
    url, server = endpoint
    done = ask(helm, url, LAUNCHER_API_KEYS=keys.format(server.key))
    assert (done.returncode, done.stdout) == (0, "autoglm-phone-9b: Paris.\n"), done.stderr
    assert server.asked["model"] == "autoglm-phone-9b"


def test_it_asks_for_the_model_where_only_the_servers_know_it(helm: Helm, endpoint: tuple[str, type[Endpoint]]) -> None:
    url, server = endpoint
    assert ask(helm, url, LAUNCHER_API_KEYS=server.key, MODEL="").stdout == "served: Paris.\n"


def test_it_fails_and_says_why(helm: Helm, endpoint: tuple[str, type[Endpoint]]) -> None:
    url, server = endpoint
    unknown = ask(helm, url)
    assert (unknown.returncode, "401" in unknown.stderr) == (1, True)
    server.ready = False
    starting = ask(helm, url, LAUNCHER_API_KEYS=server.key)
    assert starting.returncode == 1
    assert "503" in starting.stderr
    assert "No engine is ready: starting." in starting.stderr
    nobody = ask(helm, "http://127.0.0.1:9")
    assert nobody.returncode == 1
    assert "http://127.0.0.1:9" in nobody.stderr
