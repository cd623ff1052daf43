"""Durations and sizes mean in the templates what they mean to the launcher; the grace is always longer than the drain."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from launcher.profile.units import BYTES, SECONDS, parse_duration, parse_size
from tests.deploy.helm.chart import CHART, Helm, one, pod_of

SHEET = """
apiVersion: v1
kind: ConfigMap
metadata: {name: sheet}
data:
  seconds: {{ $found := list }}{{ range .Values.durations }}
    {{- $found = append $found (include "launcher.seconds" (dict "key" "x" "value" .)) }}{{ end }}{{ toJson $found | quote }}
  bytes: {{ $found := list }}{{ range .Values.sizes }}
    {{- $found = append $found (include "launcher.bytes" (dict "key" "x" "value" .)) }}{{ end }}{{ toJson $found | quote }}
"""


@pytest.fixture(scope="module")
def sheet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A chart of nothing but the units, so that one rendering reads many values."""
    chart = tmp_path_factory.mktemp("sheet")
    (chart / "templates").mkdir()
    (chart / "Chart.yaml").write_text("apiVersion: v2\nname: sheet\nversion: 0.0.0\n")
    (chart / "templates" / "_units.tpl").write_text((CHART / "templates" / "_units.tpl").read_text())
    (chart / "templates" / "sheet.yaml").write_text(SHEET)
    return chart


def written(numbers: random.Random, units: list[str]) -> str:
    value = numbers.choice([str(numbers.randrange(5000)), f"{numbers.uniform(0, 300):.3f}"])
    return f"{numbers.choice(['', ' '])}{value}{numbers.choice(['', ' '])}{numbers.choice(units)}"


def test_they_are_read_as_the_launcher_reads_them(helm: Helm, sheet: Path) -> None:
    numbers = random.Random(6)
    durations = [written(numbers, ["ms", "s", "m", "h"]) for _ in range(300)]
    sizes = [written(numbers, sorted(BYTES.keys() - {"TB", "TiB"})) for _ in range(299)] + ["2TiB"]
    [doc] = helm.template({"durations": durations, "sizes": sizes}, chart=sheet)
    seconds, counts = (yaml.safe_load(doc["data"][name]) for name in ("seconds", "bytes"))
    for text, found in zip(durations, seconds, strict=True):
        assert float(found) == pytest.approx(parse_duration(text), abs=1e-4), text
    for text, found in zip(sizes, counts, strict=True):
        assert int(found) == pytest.approx(parse_size(text), abs=1), text


@pytest.mark.parametrize("wrong", ["30", 30, "", "1.s", "-1s", "1 s s", "1S", "1e3s", "٣s", "1w"])
def test_what_the_launcher_refuses_is_refused(helm: Helm, sheet: Path, wrong: object) -> None:
    with pytest.raises(ValueError, match="is not a duration"):
        parse_duration(wrong)
    with pytest.raises(AssertionError, match="is not a duration"):
        helm.template({"durations": [wrong], "sizes": []}, chart=sheet)


DURATIONS = st.builds(
    lambda n, unit: f"{n}{unit}", st.integers(0, 900), st.sampled_from(sorted(SECONDS.keys() - {"d", "h"}))
)


@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(drain=DURATIONS, stop=DURATIONS, engine=st.integers(0, 60), gateway=st.integers(0, 60))
def test_the_grace_is_longer_than_what_it_covers(helm: Helm, drain: str, stop: str, engine: int, gateway: int) -> None:
    """Also of each other: an engine serves at least until the gateway that sends to it has ended."""
    engine = max(engine, gateway)
    profile = {"name": "x", "model": {"id": "a/b"}, "timeouts": {"drain": drain, "stop": stop}}
    docs = helm.template({"profile": profile, "engine": {"preStop": engine}, "gateway": {"preStop": gateway}})
    graces = {}
    for name, before in (("engine", engine), ("gateway", gateway)):
        pod = pod_of(one(docs, "Deployment", f"-{name}"))
        slept = pod["containers"][0]["lifecycle"]["preStop"]["exec"]["command"]
        assert slept == ["sleep", str(before)]
        graces[name] = pod["terminationGracePeriodSeconds"]
    drain_s, stop_s = parse_duration(drain), parse_duration(stop)
    assert graces["engine"] > engine + 3 + drain_s + stop_s
    assert graces["gateway"] > gateway + drain_s
    assert graces["engine"] >= graces["gateway"]
