"""What the autoscalers ask Prometheus, played by promtool: who wakes engines, who keeps them, and who asks for more."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from tests.deploy.helm.cases import KEDA, gpu
from tests.deploy.helm.chart import Helm, one
from tests.monitoring.promtool import needs_promtool, promtool

GATEWAY = 'namespace="serving",service="demo-gateway"'
ENGINE = 'namespace="serving",service="demo-engine"'
REFUSED = f'launcher_refusals_total{{reason="not_ready",{GATEWAY},pod="%s"}}'


def queries(helm: Helm) -> dict[str, str]:
    scaled = one(helm.template(gpu(autoscaling=KEDA)), "ScaledObject", "-engine")
    return {trigger["name"]: trigger["metadata"]["query"] for trigger in scaled["spec"]["triggers"]}


def value_at(helm: Helm, folder: Path, trigger: str, at: str, series: dict[str, str], expected: float) -> None:
    """That the trigger's query gives so much then; series are sampled each 15 s."""
    test = {
        "interval": "15s",
        "input_series": [{"series": name, "values": values} for name, values in series.items()],
        "promql_expr_test": [
            {"expr": queries(helm)[trigger], "eval_time": at, "exp_samples": [{"labels": "{}", "value": expected}]}
        ],
    }
    (folder / "test.yaml").write_text(yaml.safe_dump({"evaluation_interval": "15s", "tests": [test]}))
    promtool("test", "rules", folder / "test.yaml")


@needs_promtool
@pytest.mark.parametrize(
    ("series", "at", "expected"),
    [
        ({}, "10m", 0),  # nobody has ever asked
        ({REFUSED % "a": "_x20 1x40"}, "5m30s", 1),  # the first refusal: the series begins with it
        ({REFUSED % "a": "_x20 1x40"}, "10m", 0),  # and is over
        ({REFUSED % "a": "5x20 6x40"}, "5m30s", 1),  # one more of a gateway that has refused before
        ({REFUSED % "a": "0x20 500x40"}, "5m30s", 1),  # a crowd wakes one engine, not a hundred
        ({REFUSED % "a": "7x60", REFUSED % "b": "_x20 1x40"}, "5m30s", 1),  # of a gateway that is new
        ({f"launcher_queued{{{GATEWAY},pod='a'}}": "9x60", f"launcher_queued{{{GATEWAY},pod='b'}}": "3x60"}, "10m", 12),
        ({"launcher_queued{namespace='other',service='demo-gateway'}": "9x60"}, "10m", 0),
    ],
)
def test_who_waits_or_was_turned_away_counts(
    helm: Helm, tmp_path: Path, series: dict[str, str], at: str, expected: float
) -> None:
    value_at(helm, tmp_path, "queued", at, series, expected)


@needs_promtool
def test_who_is_served_keeps_engines_awake(helm: Helm, tmp_path: Path) -> None:
    series = {
        f"launcher_in_flight{{{GATEWAY},replica='0'}}": "1x60",
        f"launcher_in_flight{{{GATEWAY},replica='1'}}": "0x60",
    }
    value_at(helm, tmp_path, "in-flight", "10m", series, 1)
    kept = {f"vllm:kv_cache_usage_perc{{{ENGINE},pod='{pod}'}}": "0.5x60" for pod in "ab"}
    value_at(helm, tmp_path, "kv-cache", "10m", kept, 1.0)
    for trigger in ("in-flight", "kv-cache"):
        value_at(helm, tmp_path, trigger, "10m", {}, 0)


def test_an_engine_is_given_up_only_after_as_long_as_its_start(helm: Helm) -> None:
    values = gpu(autoscaling=KEDA)
    spec = one(helm.template(values), "ScaledObject", "-engine")["spec"]
    assert spec["cooldownPeriod"] == 15 * 60 + 5 * 60
    assert (spec["minReplicaCount"], spec["maxReplicaCount"]) == (0, 8)
    assert spec["triggers"][1]["metadata"]["threshold"] == "128"  # engine.max_num_seqs


def test_an_hpa_asks_for_the_same(helm: Helm) -> None:
    spec = one(helm.template(gpu(autoscaling={"kind": "hpa"})), "HorizontalPodAutoscaler", "-engine")["spec"]
    queue, kv = spec["metrics"]
    assert queue["external"]["metric"]["selector"]["matchLabels"] == {"namespace": "serving", "job": "demo-gateway"}
    assert kv["pods"]["target"]["averageValue"] == "800m"
    assert spec["behavior"]["scaleDown"]["stabilizationWindowSeconds"] == 1200
