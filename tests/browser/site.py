"""The whole deployment behind a page: `launcher up` over fake engines, as processes of their own.

What is called here blocks: Playwright's sync API holds the event loop of its thread, so nothing may need it.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from launcher.supervise.rundir import read_record
from tests.e2e.endpoint import ROOT, Endpoint, metric, wait_for
from tests.e2e.tiny_glm import TEXT, VISION
from tests.fakes.process import Controls
from tests.process.deployment import FAKE_PYTHON

# GLM-4.xV's layout, so that the gateway knows what a picture costs. Budgets differ by mode, so that a switch is seen.
CONFIG = {
    "architectures": ["Glm4vForConditionalGeneration"],
    "model_type": "glm4v",
    "text_config": TEXT,
    "vision_config": VISION,
    "dtype": "float32",
}
MODEL = "glm-4v-tiny"
PROFILE = f"""\
name: site
model: {{path: model, load_format: dummy, served_name: {MODEL}, max_len: 8192, images_per_prompt: 16, image_longest_edge: 3211264}}
hardware: {{device: cpu}}
engine: {{kv_cache_memory: 64MiB, python: {FAKE_PYTHON}, max_num_seqs: 8}}
gateway:
  listen: "127.0.0.1:0"
  images: {{budget: {{max_tokens: 324}}, modes: {{low-latency: {{max_tokens: 160}}, high-throughput: {{max_tokens: 640}}}}, workers: 1}}
  uploads: {{memory: 48MiB}}
# An engine is held for as long as a test takes, and is asked by nobody else meanwhile: a probe would use up its release.
timeouts: {{start: 30s, warmup: 10s, stall: 5m, probe_interval: 10m, probe: 5s, drain: 0s, stop: 1s}}
restart: {{backoff: 10ms, budget: 100}}
"""


class Engine(Controls):
    """One of a site's fake engines, told how to behave (tests/fakes/behaviour.py)."""

    def set(self, **behaviour: Any) -> None:
        self.call_now("/_fake/set", behaviour)

    def reset(self) -> None:
        """As if started anew; answers that still run are cut off."""
        self.call_now("/_fake/reset", {})

    def release(self, count: int = 1) -> None:
        self.call_now(f"/_fake/release?count={count}", {})

    def seen(self) -> dict[str, Any]:
        return self.call_now("/_fake/seen")

    def wait(self, event: str, count: int = 1, timeout_s: float = 20) -> dict[str, Any]:
        """What was seen, once ``event`` has come so often in all."""
        return self.call_now(f"/_fake/wait?event={event}&count={count}&timeout={timeout_s}")

    def last_request(self) -> dict[str, Any]:
        """The body of the last chat request."""
        found = [one for one in self.seen()["requests"] if one["target"] == "/v1/chat/completions"]
        request: dict[str, Any] = json.loads(found[-1]["body"])
        return request


class Site(Endpoint):
    """A running deployment and its fake engines. ``address`` is where its pages are."""

    address: str

    def __init__(self, folder: Path) -> None:
        super().__init__(folder / "state", "site")
        self._killed = 0  # engines, by us
        (folder / "model").mkdir(parents=True)
        (folder / "model" / "config.json").write_text(json.dumps(CONFIG))
        (folder / "model" / "tokenizer.json").write_text("{}")
        self.profile = folder / "site.yaml"
        self.profile.write_text(PROFILE)
        self.environment |= {"FAKE_ENGINE_PYTHON": sys.executable, "PYTHONPATH": str(ROOT)}

    def record(self) -> dict[str, Any]:
        """What the launcher itself wrote down last: quicker than `launcher ps`, which asks the gateway too."""
        return read_record(self.state_dir / self.name)

    def begin(self, *sets: str) -> None:
        """Starts it with these settings changed, and waits until it serves. Raises AssertionError where it does not."""
        result = self.up(*sets, profile=self.profile)
        assert result.returncode == 0, self.said
        record = self.record()
        self.address = record["url"]
        self.gateway_pid: int = record["pid"]
        self.engines = [Engine(engine["url"]) for engine in record["engines"]]

    @property
    def fake(self) -> Engine:
        """The first engine, often the only one."""
        return self.engines[0]

    def reset(self) -> None:
        """The engines as at their start. One that has died meanwhile is waited for."""
        if self._killed:
            self.until_ready()
        for engine in self.engines:
            engine.reset()

    def until_ready(self) -> None:
        """Until every engine serves, those that were killed again; one that was restarted may have another port."""

        def urls() -> list[str]:
            record = self.record()
            is_noticed = sum(engine["restarts"] for engine in record["engines"]) >= self._killed
            return [engine["url"] for engine in record["engines"]] if is_noticed and record["state"] == "ready" else []

        self.engines = [Engine(url) for url in wait_for("a ready site", urls, within_s=30)]

    def until_down(self) -> None:
        """Until none serves any more."""
        wait_for("a site without engines", lambda: self.record()["state"] not in ("ready", "degraded"), within_s=30)

    def kill_engine(self, index: int = 0) -> None:
        """As the kernel does when memory runs out."""
        os.kill(self.record()["engines"][index]["pid"], signal.SIGKILL)
        self._killed += 1

    def add_key(self, name: str, *options: str) -> str:
        """The secret of a new key, once it holds. The first closes the site to everybody without one."""
        made = self.launcher("key", "add", name, "--deployment", self.name, *options)
        assert made.returncode == 0, made.stderr
        secret = made.stdout.strip()
        wait_for("the new key", lambda: self.about(secret).get("keys_required"), within_s=20)
        return secret

    def revoke_key(self, name: str, secret: str) -> None:
        """Returns once it holds: a running gateway looks at its keys each second."""
        gone = self.launcher("key", "revoke", name, "--deployment", self.name)
        assert gone.returncode == 0, gone.stderr
        wait_for("the key's end", lambda: "error" in self.about(secret), within_s=20)

    def about(self, secret: str) -> dict[str, Any]:
        """What the gateway says of itself to who has this key: an error to who may not know."""
        asked = urllib.request.Request(f"{self.address}/api/about", headers={"Authorization": f"Bearer {secret}"})
        try:
            with urllib.request.urlopen(asked, timeout=20) as answer:
                told: dict[str, Any] = json.load(answer)
        except urllib.error.HTTPError as error:
            told = json.load(error)
        return told

    def gateway_bytes(self) -> int:
        """Memory of the gateway's process that is in use (RSS), without its decoders."""
        pages = int(Path(f"/proc/{self.gateway_pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGESIZE")

    def figure(self, name: str, labels: str = "") -> float:
        """The sum of a series on the gateway's /metrics."""
        return metric(self.address, name, labels)


@contextmanager
def running_site(folder: Path, *sets: str) -> Iterator[Site]:
    """A site with these settings (``admission.max_queued=0``), stopped at the end. ``folder`` need not be there yet."""
    site = Site(folder)
    try:
        site.begin(*sets)
        yield site
    finally:
        site.down("--now")
