"""Prometheus and Grafana in a compose file, with the rules and dashboards of this project; read only, for this machine."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from launcher.render.compose_words import literal
from launcher.render.placed_files import host_path
from launcher.render.yaml_text import Inline, Note

PROMETHEUS, PROMETHEUS_PORT = "prom/prometheus:v3.5.0", 9090
GRAFANA, GRAFANA_PORT = "grafana/grafana:12.2.0", 3000
# Relative to deploy/ of the checkout → in the container.
PROMETHEUS_FILES = {
    "prometheus/prometheus.yml": "/etc/prometheus/prometheus.yml",
    "prometheus/rules.yml": "/etc/prometheus/rules.yml",
}
GRAFANA_FILES = {
    "grafana/provisioning": "/etc/grafana/provisioning",
    "grafana/dashboards": "/var/lib/grafana/dashboards",
}
KEPT = "15d"
GRAFANA_SETTINGS = {
    "GF_AUTH_ANONYMOUS_ENABLED": "true",
    "GF_AUTH_ANONYMOUS_ORG_ROLE": "Viewer",
    "GF_AUTH_BASIC_ENABLED": "false",
    "GF_AUTH_DISABLE_LOGIN_FORM": "true",
    "GF_ANALYTICS_REPORTING_ENABLED": "false",
    "GF_ANALYTICS_CHECK_FOR_UPDATES": "false",
    "GF_ANALYTICS_CHECK_FOR_PLUGIN_UPDATES": "false",
    "GF_PLUGINS_PREINSTALL_DISABLED": "true",
}


def monitoring_services(checkout: Path, folder: Path, networks: Sequence[str]) -> dict[str, Any]:
    """Both, in the compose profile monitoring. ``networks``: where engines and gateways are found by these names."""
    return {"prometheus": _prometheus(checkout, folder, networks), "grafana": _grafana(checkout, folder)}


def _prometheus(checkout: Path, folder: Path, networks: Sequence[str]) -> dict[str, Any]:
    return {
        "image": f"${{PROMETHEUS_IMAGE:-{PROMETHEUS}}}",
        **_common(checkout, folder, PROMETHEUS_FILES, "metrics:/prometheus"),
        "command": [
            "--config.file=/etc/prometheus/prometheus.yml",
            "--storage.tsdb.path=/prometheus",
            f"--storage.tsdb.retention.time={KEPT}",
        ],
        "ports": [Inline(target=9090, published=str(PROMETHEUS_PORT), host_ip="127.0.0.1")],
        "networks": ["monitoring", *networks],
        "healthcheck": _asked("http://127.0.0.1:9090/-/ready"),
    }


def _grafana(checkout: Path, folder: Path) -> dict[str, Any]:
    why = "Who reaches the port may look and not change, so there is no password to guess. Nothing is asked of the internet."
    return {
        "image": f"${{GRAFANA_IMAGE:-{GRAFANA}}}",
        **_common(checkout, folder, GRAFANA_FILES, "grafana:/var/lib/grafana"),
        Note(why): None,
        "environment": GRAFANA_SETTINGS,
        "ports": [Inline(target=3000, published=str(GRAFANA_PORT), host_ip="127.0.0.1")],
        "networks": ["monitoring"],
        "depends_on": ["prometheus"],
        "healthcheck": _asked("http://127.0.0.1:3000/api/health"),
    }


def _common(checkout: Path, folder: Path, files: dict[str, str], volume: str) -> dict[str, Any]:
    mounts = [
        {
            "type": "bind",
            "source": literal(host_path(checkout / "deploy" / source, folder)),
            "target": target,
            "read_only": True,
            "bind": Inline(create_host_path=False),
        }
        for source, target in files.items()
    ]
    return {
        "profiles": ["monitoring"],
        "restart": "unless-stopped",
        "read_only": True,
        "tmpfs": ["/tmp"],
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges:true"],
        "volumes": [volume, *mounts],
    }


def _asked(url: str) -> dict[str, Any]:
    return {"test": ["CMD", "wget", "-q", "--spider", url], "interval": "15s", "timeout": "5s", "retries": 3}
