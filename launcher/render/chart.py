"""The parts of the Helm chart that are made from the code, so that they cannot fall behind it.

``python -m launcher.render.chart`` in a checkout writes them into ``helm/``; a test checks that they are current.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from launcher.profile.keys import Key, is_free_form, profile_keys
from launcher.render import container
from launcher.render.chart_schema import values_schema_text

DEFAULT_PROFILE = "profiles/cpu-smollm2.yaml"
COPIES = {"files/default-profile.yaml": DEFAULT_PROFILE, "files/rules.yml": "deploy/prometheus/rules.yml"}
DASHBOARDS = "deploy/grafana"
HEAD = "# Made by `python -m launcher.render.chart`: every key of a profile with its default, and figures for containers.\n"


def launcher_facts_text() -> str:
    """What the templates know: a profile's keys by engine.kind with their defaults, which are free within; and figures."""
    parts: dict[str, Any] = {"common": {}, "vllm": {}, "external": {}}
    for key in profile_keys():
        parts[key.kind or "common"][key.path] = _default(key)
    parts["free"] = [key.path for key in profile_keys() if is_free_form(key.path.split("."))]
    parts["container"] = _figures()
    return HEAD + yaml.safe_dump(parts, sort_keys=False, allow_unicode=True)


def _figures() -> dict[str, Any]:
    """Seconds and bytes; see ``launcher.render.container``."""
    shm = {
        "engine": container.BROADCAST_RING + container.GROUP_RING,
        "eachProcess": container.ANSWER_RING,
        "eachCard": container.NCCL_ROOM,
        "rayStore": container.RAY_STORE,
    }
    return {
        "noticeSeconds": container.NOTICE_S,
        "marginSeconds": container.MARGIN_S,
        "unknownFetchSeconds": container.UNKNOWN_FETCH_S,
        "shortestFetchSeconds": container.SHORTEST_FETCH_S,
        "shm": shm,
    }


def _default(key: Key) -> Any:
    """As a profile would have it; None also where a key must be given."""
    return yaml.safe_load(key.default) if key.default else None


def chart_files(root: Path) -> Iterator[tuple[str, str]]:
    """(path within helm/, text) of each file that is made, from the checkout at ``root``."""
    yield "values.schema.json", values_schema_text()
    yield "files/launcher.yaml", launcher_facts_text()
    for target, source in COPIES.items():
        yield target, (root / source).read_text(encoding="utf-8")
    for dashboard in sorted((root / DASHBOARDS).rglob("*.json")):
        yield f"files/dashboards/{dashboard.name}", dashboard.read_text(encoding="utf-8")


def write_chart_files(root: Path) -> None:
    """Write them, and take away dashboards that are no more."""
    chart = root / "helm"
    wanted = dict(chart_files(root))
    for old in (chart / "files" / "dashboards").glob("*.json"):
        if f"files/dashboards/{old.name}" not in wanted:
            old.unlink()
    for path, text in wanted.items():
        (chart / path).parent.mkdir(parents=True, exist_ok=True)
        (chart / path).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    write_chart_files(Path(__file__).resolve().parents[2])
