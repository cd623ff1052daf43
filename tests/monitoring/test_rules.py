"""The rules for Prometheus, by Prometheus's own checker; and that an alarm says what to do."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.monitoring.expressions import GROUPS
from tests.monitoring.promtool import PROMETHEUS, RULES, needs_promtool, promtool

ALERTS: dict[str, dict[str, Any]] = {
    rule["alert"]: rule for group in GROUPS for rule in group["rules"] if "alert" in rule
}
TESTS = (PROMETHEUS / "rules_test.yml").read_text()


@needs_promtool
def test_the_rules_are_valid() -> None:
    count = sum(len(group["rules"]) for group in GROUPS)
    assert f"SUCCESS: {count} rules found" in promtool("check", "rules", RULES)


@needs_promtool
def test_the_alarms_ring_when_they_should() -> None:
    assert "SUCCESS" in promtool("test", "rules", PROMETHEUS / "rules_test.yml")


@needs_promtool
def test_the_configuration_is_valid_and_finds_the_rules() -> None:
    said = promtool("check", "config", PROMETHEUS / "prometheus.yml")
    assert "SUCCESS: 1 rule files found" in said


def test_the_jobs_are_those_that_the_rules_name() -> None:
    jobs = {job["job_name"] for job in yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text())["scrape_configs"]}
    assert jobs == {"launcher-gateway", "launcher-engine"}
    assert set(re.findall(r'job="([^"]+)"', RULES.read_text())) == jobs


def test_each_alarm_has_a_test_in_which_it_rings() -> None:
    """promtool says nothing of alerts that no test names."""
    assert {
        name for name in ALERTS if f'alertname="{name}"' not in TESTS and f"alertname: {name}" not in TESTS
    } == set()


@pytest.mark.parametrize("name", ALERTS)
def test_an_alarm_says_what_is_wrong_what_to_do_and_where_to_look(name: str) -> None:
    rule = ALERTS[name]
    assert re.fullmatch(r"Launcher[A-Z]\w+", name)
    assert rule["labels"]["severity"] in ("critical", "warning", "info")
    summary, description, runbook = (rule["annotations"][key] for key in ("summary", "description", "runbook"))
    assert summary[0].isupper() or summary.startswith("{{ $")
    assert not summary.endswith(".")
    assert len(summary) <= 120
    assert description.endswith(".")
    assert description.count(". ") >= 1
    assert runbook


@needs_promtool
def test_the_form_for_one_machine_that_a_comment_gives_is_valid(tmp_path: Path) -> None:
    text = (PROMETHEUS / "prometheus.yml").read_text()
    config = yaml.safe_load(text) | {"rule_files": [str(RULES)]}
    instead = re.findall(r"^#   (\w+_configs: .+)$", text, re.MULTILINE)
    for job, line in zip(config["scrape_configs"], instead, strict=True):
        del job["dns_sd_configs"]
        job |= yaml.safe_load(line)
    path = tmp_path / "prometheus.yml"
    path.write_text(yaml.safe_dump(config))
    assert "SUCCESS" in promtool("check", "config", path)
