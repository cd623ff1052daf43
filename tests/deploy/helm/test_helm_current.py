"""What the chart takes from the code is current; its version, its values and their schema belong together."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from launcher import __version__
from launcher.gateway.metrics import TABLE
from launcher.plan.known_gpus import CARDS
from launcher.render.chart import chart_files
from launcher.render.chart_schema import values_schema
from launcher.render.helm import PRODUCTS
from tests.deploy.helm.chart import CHART, ROOT

MADE = dict(chart_files(ROOT))


@pytest.mark.parametrize("path", MADE)
def test_it_is_as_the_code_makes_it(path: str) -> None:
    assert (CHART / path).read_text(encoding="utf-8") == MADE[path], "run: python -m launcher.render.chart"


def test_no_dashboard_is_left_that_is_no_more() -> None:
    there = {f"files/dashboards/{path.name}" for path in (CHART / "files" / "dashboards").iterdir()}
    assert there == {path for path in MADE if path.startswith("files/dashboards/")}


def test_the_chart_is_of_this_version() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert (chart["version"], chart["appVersion"]) == (__version__, __version__)
    assert "dependencies" not in chart


def test_the_schema_is_one() -> None:
    Draft202012Validator.check_schema(values_schema())


def test_the_values_and_their_schema_have_the_same_names() -> None:
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    schema = values_schema()
    del schema["properties"]["profile"], schema["properties"]["global"]
    assert names_of_values(values, schema) == names_of_schema(schema)


def names_of_schema(schema: dict[str, Any], path: str = "") -> set[str]:
    if not schema.get("properties"):
        return {path}
    return {name for key, inner in schema["properties"].items() for name in names_of_schema(inner, f"{path}.{key}")}


def names_of_values(values: Any, schema: dict[str, Any], path: str = "") -> set[str]:
    if not isinstance(values, dict) or not schema.get("properties"):
        return {path}
    inner = schema["properties"]
    return {
        name for key, value in values.items() for name in names_of_values(value, inner.get(key, {}), f"{path}.{key}")
    }


def test_every_card_that_plans_know_has_its_product() -> None:
    assert set(PRODUCTS) == {card.name for card in CARDS}


def test_autoscalers_ask_for_metrics_that_there_are() -> None:
    scaled = (CHART / "templates" / "autoscaling-keda.yaml").read_text() + (CHART / "values.yaml").read_text()
    for name in ("launcher_queued", "launcher_in_flight", "launcher_refusals"):
        assert name in TABLE
        assert name in scaled
