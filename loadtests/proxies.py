"""The proxies that loadtests/peers.py compares, each as it is meant to be run in front of one engine."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.error import URLError
from urllib.request import Request, urlopen

ROOT = Path(__file__).resolve().parents[1]
START_S = 120.0  # LiteLLM takes half a minute
COMPILED = "launcher, compiled"
KEY = "sk-test-key"  # the one that load.c sends
CHAT = b'{"model": "m", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 1}'

# Nothing that a proxy has for its own protection is to end or delay a stream of the measurement.
NGINX = """
worker_processes 1; worker_rlimit_nofile {files}; daemon off; pid {folder}/nginx.pid; error_log {folder}/nginx.log;
events {{ worker_connections {files}; }}
http {{
  access_log off; keepalive_requests 100000000;
  client_max_body_size 100m; client_body_buffer_size 2m;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
  upstream engine {{ server 127.0.0.1:{engine}; keepalive 2000; keepalive_requests 100000000; }}
  server {{
    listen 127.0.0.1:{port} backlog=8192;
    location / {{
      proxy_pass http://engine; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_buffering off;
      proxy_read_timeout 600s;
    }}
  }}
}}
"""
LAUNCHER = """
name: peers
model: {{served_name: m}}
engine: {{kind: external, urls: ["http://127.0.0.1:{engine}"]}}
gateway: {{listen: "127.0.0.1:{port}"}}
admission: {{max_in_flight: 1000000, max_prefill: 1000000000}}  # as the others: all is let in; the books are kept
timeouts: {{stall: 2h}}  # the mock's held streams are silent
"""
LITELLM = """
model_list: [{{model_name: m, litellm_params: {{model: openai/m, api_base: "http://127.0.0.1:{engine}/v1", api_key: x}}}}]
"""


@dataclass(frozen=True)
class Place:
    """Where a proxy is to run: its port, the engine's, a folder of its own, and how many files it may open."""

    port: int
    engine: int
    folder: Path
    files: int

    def write(self, name: str, template: str) -> Path:
        path = self.folder / name
        path.write_text(template.format(port=self.port, engine=self.engine, folder=self.folder, files=self.files))
        return path


@dataclass(frozen=True)
class Proxy:
    """One of those compared. ``program`` is '' where it is not installed; ``get`` says how it is."""

    name: str
    program: str
    get: str
    version: Callable[[str], str]
    command: Callable[[str, Place], list[str]]
    all_processes: bool = True  # the launcher's control app is no part of what stands in a request's way


def _run_launcher(program: str, place: Place) -> list[str]:
    return [program, "-m", "launcher", "up", str(place.write("peers.yaml", LAUNCHER))]


def _run_compiled(program: str, place: Place) -> list[str]:
    """Isolated (-I), so that it is the one installed there and not the sources here."""
    return [program, "-I", *_run_launcher(program, place)[1:]]


def _run_nginx(program: str, place: Place) -> list[str]:
    return [program, "-c", str(place.write("nginx.conf", NGINX)), "-p", str(place.folder)]


def _run_vllm_router(program: str, place: Place) -> list[str]:
    own = ["--host", "127.0.0.1", "--port", str(place.port), "--prometheus-port", str(place.port + 1)]
    engine = ["--worker-urls", f"http://127.0.0.1:{place.engine}", "--policy", "round_robin"]
    return [program, *own, *engine, "--max-concurrent-requests", "100000"]


def _run_litellm(program: str, place: Place) -> list[str]:
    return [
        program,
        "--config",
        str(place.write("litellm.yaml", LITELLM)),
        "--host",
        "127.0.0.1",
        "--port",
        str(place.port),
    ]


def _nginx_version(program: str) -> str:
    return subprocess.run([program, "-v"], capture_output=True, text=True, check=True).stderr.strip().rpartition("/")[2]


def _package_version(package: str) -> Callable[[str], str]:
    """The version of a Python package beside the program that it installed."""

    def version(program: str) -> str:
        ask = f"import importlib.metadata as m; print(m.version('{package}'))"
        python = Path(program).with_name("python")
        done = subprocess.run([str(python), "-c", ask], capture_output=True, text=True, check=False)
        return done.stdout.strip() or "version unknown"

    return version


def known_proxies(vllm_router: str | None, litellm: str | None, compiled: str | None = None) -> list[Proxy]:
    """All that can be compared; LiteLLM only where it is asked for.

    ``compiled``: the Python of an environment in which the launcher's gateway is compiled.
    """
    nginx = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin") or ""
    router = vllm_router or shutil.which("vllm-router") or ""
    venv = "python3 -m venv peer && peer/bin/pip install"
    found = [
        Proxy("nginx", nginx, "apt-get install nginx-light", _nginx_version, _run_nginx),
        Proxy(
            "vllm-router",
            router,
            f"{venv} vllm-router, then --vllm-router peer/bin/vllm-router",
            _package_version("vllm-router"),
            _run_vllm_router,
        ),
        Proxy("launcher", sys.executable, "", _launcher_version, _run_launcher, all_processes=False),
    ]
    if compiled is not None:
        compiled = os.path.abspath(compiled)  # run in another folder; not resolved: a venv is told by its link
        _compiled_version(compiled)
        found.append(Proxy(COMPILED, compiled, "", _compiled_version, _run_compiled, all_processes=False))
    if litellm is not None:
        get = f"{venv} 'litellm[proxy]==1.105.3', then --litellm peer/bin/litellm"
        found.append(Proxy("litellm", litellm, get, _package_version("litellm"), _run_litellm))
    return found


def _launcher_version(_: str) -> str:
    from launcher import __version__

    return f"{__version__}, uvloop {importlib.metadata.version('uvloop')}"


def _compiled_version(program: str) -> str:
    """As --version says it. Ends the run if that Python's launcher is not compiled: it would be a wrong figure's name."""
    command = [program, "-I", "-m", "launcher", "--version"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        said = done.stdout.strip() or done.stderr.strip()
    except OSError as error:
        said = str(error)
    if "(gateway compiled)" not in said:
        raise SystemExit(
            f"--launcher-compiled {program}: no compiled launcher is there ({said}). Make one: make compile."
        )
    return said.removeprefix("launcher, version ")


class Running:
    """A proxy that runs, alone on its core."""

    def __init__(self, proxy: Proxy, place: Place, core: int) -> None:
        self.name, self.port = proxy.name, place.port
        self._proxy = proxy
        place.folder.mkdir(mode=0o777)
        place.folder.chmod(0o777)  # nginx's worker is another user
        more = {
            "LAUNCHER_STATE_DIR": str(place.folder),
            "PYTHONPATH": str(ROOT),
            "NO_COLOR": "1",
            "LITELLM_LOCAL_MODEL_COST_MAP": "True",
            "LITELLM_MASTER_KEY": KEY,  # it does not start without one
        }
        with (place.folder / "output").open("wb") as output:
            self._process = subprocess.Popen(
                ["taskset", "-c", str(core), *proxy.command(proxy.program, place)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=place.folder,
                env={**os.environ, **more},
            )
        try:
            self._until_it_answers(place)
        except BaseException:
            self.stop()
            raise

    def _until_it_answers(self, place: Place) -> None:
        url, late = f"http://127.0.0.1:{place.port}/v1/chat/completions", time.monotonic() + START_S
        request = Request(url, CHAT, {"content-type": "application/json", "authorization": f"Bearer {KEY}"})
        while True:
            try:
                with urlopen(request, timeout=10) as answer:
                    answer.read()
                return
            except (URLError, OSError) as error:
                if self._process.poll() is not None or time.monotonic() > late:
                    said = (place.folder / "output").read_text(errors="replace")[-2000:]
                    raise SystemExit(f"{self.name} does not answer ({error}). What it said:\n{said}") from None
                time.sleep(0.1)

    @property
    def pids(self) -> list[int]:
        """The processes whose cost is counted."""
        pids = [self._process.pid]
        for pid in pids if self._proxy.all_processes else ():
            pids += [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
        return pids

    @property
    def rss_kb(self) -> int:
        lines = (line for pid in self.pids for line in Path(f"/proc/{pid}/status").read_text().splitlines())
        return sum(int(line.split()[1]) for line in lines if line.startswith("VmRSS:"))

    def stop(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
