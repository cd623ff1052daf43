"""Values of a page in Prometheus' text format."""

from __future__ import annotations

import math

from launcher.engine.metrics_page import samples

PAGE = """# HELP vllm:num_requests_running Number of requests.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="odd } name"} 3.0
vllm:num_requests_running{engine="1"} 1e+01
vllm:num_requests_running_by_lora 7.0
vllm:num_requests_waiting NaN
"""


def test_one_value_for_each_set_of_labels() -> None:
    assert samples(PAGE, "vllm:num_requests_running") == [3.0, 10.0]
    assert samples(PAGE, "vllm:kv_cache_usage_perc") == []
    assert samples(PAGE, "vllm:num_requests") == []


def test_several_series_at_once() -> None:
    *running, waiting = samples(PAGE, "vllm:num_requests_waiting", "vllm:num_requests_running")
    assert running == [3.0, 10.0]
    assert math.isnan(waiting)
