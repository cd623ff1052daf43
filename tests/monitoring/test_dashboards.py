"""The dashboards: what is committed is what the code writes, and Grafana and Prometheus can read it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from launcher.render.dashboards import BOARDS, SOURCE, dashboard, files
from launcher.render.panels import Board
from tests.monitoring.expressions import panel_expressions
from tests.monitoring.promtool import ROOT, needs_promtool, promtool

GRAFANA = ROOT / "deploy" / "grafana"
UNITS = {"none", "s", "reqps", "cps", "percentunit", "bytes", "Bps"}  # of Grafana's


def test_what_is_committed_is_what_the_code_writes() -> None:
    there = {str(path.relative_to(GRAFANA)): path.read_text() for path in GRAFANA.rglob("*") if path.is_file()}
    assert there == dict(files()), "launcher render dashboards -o deploy/grafana"


@needs_promtool
def test_prometheus_understands_every_panel(tmp_path: Path) -> None:
    rules = [
        {"record": f"panel:{number}", "expr": expr.replace("$__rate_interval", "5m")}
        for number, (_, expr) in enumerate(panel_expressions())
    ]
    path = tmp_path / "panels.yml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}))
    assert f"SUCCESS: {len(rules)} rules found" in promtool("check", "rules", path)


@pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.uid)
def test_panels_lie_side_by_side(board: Board) -> None:
    taken: set[tuple[int, int]] = set()
    for panel in dashboard(board)["panels"]:
        x, y, w, h = (panel["gridPos"][key] for key in "xywh")
        cells = {(column, line) for column in range(x, x + w) for line in range(y, y + h)}
        assert x + w <= 24
        assert not cells & taken, panel["title"]
        taken |= cells


@pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.uid)
def test_panels_are_told_apart_and_explained(board: Board) -> None:
    panels = dashboard(board)["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    assert len({panel["title"] for panel in panels}) == len(panels)
    for panel in (panel for panel in panels if panel["type"] != "row"):
        assert panel["description"].endswith("."), panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"] in UNITS
        assert panel["targets"]
        assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"])


@pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.uid)
def test_every_variable_is_defined(board: Board) -> None:
    made = dashboard(board)
    defined = {variable["name"] for variable in made["templating"]["list"]}
    used = set(re.findall(r"\$\{?(?!__)(\w+)", json.dumps([made["panels"], SOURCE])))
    assert used == defined
    assert "@" not in json.dumps([panel.get("targets") for panel in made["panels"]])


def test_grafana_finds_what_it_is_given() -> None:
    """The paths and names that docker-compose.yml and the chart put them at."""
    provider = yaml.safe_load(files()["provisioning/dashboards/launcher.yaml"])["providers"][0]
    assert provider["options"]["path"] == "/var/lib/grafana/dashboards"
    source = yaml.safe_load(files()["provisioning/datasources/prometheus.yaml"])["datasources"][0]
    assert (source["type"], source["url"]) == ("prometheus", "http://prometheus:9090")


# The command.


def render(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "launcher", "render", "dashboards", *arguments], cwd=ROOT, capture_output=True, text=True
    )


def test_the_command_writes_the_folder(tmp_path: Path) -> None:
    done = render("-o", str(tmp_path / "new"))
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr == f"{len(files())} files written below {tmp_path / 'new'}\n"
    assert {name: (tmp_path / "new" / name).read_text() for name in files()} == files()


def test_the_command_prints_one_or_all() -> None:
    one = render("engines")
    assert one.stdout == files()["dashboards/launcher-engines.json"]
    every = json.loads(render().stdout)
    assert every == {f"{board.uid}.json": dashboard(board) for board in BOARDS}


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("gpus",), 2, "There is no dashboard 'gpus'. There are: overview, engines, machine."),
        (("engines", "-o", "x"), 2, "-o writes all dashboards: leave NAME out, or print that one with > FILE."),
        (("-o", "/dev/null/x"), 1, "cannot be written: Not a directory"),
    ],
)
def test_what_the_command_refuses(arguments: tuple[str, ...], code: int, said: str) -> None:
    done = render(*arguments)
    assert done.returncode == code
    assert said in done.stderr
