"""Dashboards for Grafana, and what makes it take them up, as text by file name. Pure; what they show is in the tables."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from launcher.render.board_engines import ENGINES, MACHINE
from launcher.render.board_overview import OVERVIEW
from launcher.render.panels import Board, Panel, Query, Variable

BOARDS = (OVERVIEW, ENGINES, MACHINE)
SOURCE = {"type": "prometheus", "uid": "${datasource}"}
SCHEMA_VERSION = 39  # of Grafana 11: later ones bring it to their own when they load it
ROW_HEIGHT, STAT_HEIGHT, PANEL_HEIGHT, COLUMNS = 1, 4, 8, 24
TAG = "launcher"
DATASOURCES = """\
# Where Grafana finds the figures: the service `prometheus` beside it. Written by `launcher render dashboards`.
apiVersion: 1
datasources:
  - name: Prometheus
    uid: launcher-prometheus
    type: prometheus
    access: proxy
    url: http://prometheus:9090
    isDefault: true
    jsonData: {timeInterval: 15s}  # scrape_interval of prometheus.yml
"""
PROVIDERS = """\
# Where Grafana finds the dashboards. Written by `launcher render dashboards`.
apiVersion: 1
providers:
  - name: launcher
    folder: Launcher
    type: file
    allowUiUpdates: true
    options: {path: /var/lib/grafana/dashboards}
"""


def files() -> Mapping[str, str]:
    """All that Grafana is given, by path below a folder such as deploy/grafana."""
    boards = {f"dashboards/{board.uid}.json": text(board) for board in BOARDS}
    return {
        **boards,
        "provisioning/datasources/prometheus.yaml": DATASOURCES,
        "provisioning/dashboards/launcher.yaml": PROVIDERS,
    }


def text(board: Board) -> str:
    """A dashboard's JSON, as Grafana imports it."""
    return json.dumps(dashboard(board), indent=1, ensure_ascii=False) + "\n"


def dashboard(board: Board) -> dict[str, Any]:
    """Source: https://grafana.com/docs/grafana/latest/dashboards/build-dashboards/view-dashboard-json-model/"""
    return {
        "uid": board.uid,
        "title": board.title,
        "description": board.description,
        "tags": [TAG],
        "schemaVersion": SCHEMA_VERSION,
        "editable": True,
        "graphTooltip": 1,  # the cross-hair is shown in all panels
        "refresh": "30s",
        "time": {"from": "now-1h", "to": "now"},
        "timezone": "browser",
        "links": [{"type": "dashboards", "tags": [TAG], "title": "Launcher", "includeVars": False, "keepTime": True}],
        "templating": {"list": [_datasource(), *map(_variable, board.variables)]},
        "annotations": {"list": [_alarms()]},
        "panels": list(_panels(board)),
    }


def _panels(board: Board) -> Iterator[dict[str, Any]]:
    """Row by row, from left to right, as they fit in."""
    number, y = 1, 0
    for row in board.rows:
        place = {"x": 0, "y": y, "w": COLUMNS, "h": ROW_HEIGHT}
        yield {"id": number, "type": "row", "title": row.title, "collapsed": False, "gridPos": place, "panels": []}
        number, y, x, height = number + 1, y + ROW_HEIGHT, 0, 0
        for panel in row.panels:
            if x + panel.width > COLUMNS:
                x, y = 0, y + height
            height = STAT_HEIGHT if panel.kind == "stat" else PANEL_HEIGHT
            yield {"id": number, "gridPos": {"x": x, "y": y, "w": panel.width, "h": height}, **_panel(panel, board)}
            number, x = number + 1, x + panel.width
        y += height


def _panel(panel: Panel, board: Board) -> dict[str, Any]:
    defaults: dict[str, Any] = {"unit": panel.unit}
    if panel.unit == "percentunit":
        defaults |= {"min": 0, "max": 1}
    if panel.kind == "timeseries":
        defaults |= {"custom": {"fillOpacity": 8, "showPoints": "never", "spanNulls": False}}
    return {
        "type": panel.kind,
        "title": panel.title,
        "description": panel.description,
        "datasource": SOURCE,
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "options": OPTIONS[panel.kind] | ({"yAxis": {"unit": panel.unit}} if panel.kind == "heatmap" else {}),
        "targets": [_target(query, panel, board, "ABCDEFGH"[n]) for n, query in enumerate(panel.queries)],
    }


OPTIONS: dict[str, dict[str, Any]] = {
    "timeseries": {
        "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True},
        "tooltip": {"mode": "multi", "sort": "desc"},
    },
    "stat": {"colorMode": "none", "graphMode": "area", "reduceOptions": {"calcs": ["lastNotNull"]}},
    "heatmap": {"calculate": False, "color": {"mode": "scheme", "scheme": "Blues"}, "cellGap": 1},
}


def _target(query: Query, panel: Panel, board: Board, ref: str) -> dict[str, Any]:
    return {
        "refId": ref,
        "datasource": SOURCE,
        "expr": query.expr.replace("@", board.chosen),
        "legendFormat": query.legend or "__auto",
        "format": "heatmap" if panel.kind == "heatmap" else "time_series",
        "range": True,
    }


def _datasource() -> dict[str, Any]:
    return {"name": "datasource", "label": "Prometheus", "type": "datasource", "query": "prometheus", "hide": 0}


def _variable(variable: Variable) -> dict[str, Any]:
    query = f"label_values({variable.selector}, {variable.label})"
    return {
        "name": variable.name,
        "type": "query",
        "datasource": SOURCE,
        "query": {"query": query, "refId": variable.name},
        "definition": query,
        "refresh": 2,  # whenever the time range changes: engines come and go
        "multi": True,
        "includeAll": True,
        "allValue": ".*",
        "current": {"text": ["All"], "value": ["$__all"]},
        "sort": 1,
    }


def _alarms() -> dict[str, Any]:
    """Firing alerts, as marks in all panels."""
    return {
        "name": "Alarms",
        "datasource": SOURCE,
        "enable": True,
        "iconColor": "red",
        "expr": 'ALERTS{alertname=~"Launcher.+",alertstate="firing"}',
        "titleFormat": "{{alertname}}",
        "textFormat": "{{severity}} {{instance}}",
        "step": "60s",
    }
