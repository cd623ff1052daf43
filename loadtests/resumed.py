"""What an earlier run has measured, so that the same measurement goes on where it was, and no other is mixed into it."""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from launcher.probe.vllm_build import planned_build
from launcher.profile.load import load_profile
from launcher.profile.model import VllmEngine
from loadtests.driver import machine
from loadtests.facts import fact
from loadtests.failures import Failed
from loadtests.figures import limits_of
from loadtests.masked import masked

Rows = list[dict[str, Any]]
COMMANDS = {"starts": "python -m loadtests.starts"}


def fingerprint(profile: str) -> str:
    """Of the profile's text: figures of another text are of another profile."""
    return hashlib.sha256(Path(profile).read_bytes()).hexdigest()


def identity(profile: str, sets: Sequence[str] = ()) -> dict[str, str]:
    """What figures are of, beside the load. Raises LauncherError for an unsound profile, Failed for one that starts nothing."""
    loaded = load_profile(Path(profile), sets=sets)
    if not isinstance(loaded.profile.engine, VllmEngine):
        raise Failed(
            f"{profile}: engine.kind is external: there is no engine to start with other settings; name a profile that starts its "
            "engines (engine.kind: vllm), or measure the servers as they are with `launcher bench URL`"
        )
    build = planned_build(loaded.profile, loaded.base_dir)
    return {"profile_sha256": fingerprint(profile), "machine": machine(), "vllm": str(build)}


def kept_sets(sets: Sequence[str]) -> list[str]:
    """KEY=VALUE as they are shown and stored: every figures file and report has them from here, without secrets."""
    return masked(sets)


def load_of(chosen: argparse.Namespace, *options: str) -> dict[str, Any]:
    """What a run is asked to do, as it is stored and shown."""
    fixed = {"profile": chosen.target, "set": kept_sets(chosen.set), "slo": limits_of(chosen.slo)}
    return fixed | {name: getattr(chosen, name) for name in options}


def earlier(path: Path, load: dict[str, Any], about: dict[str, str], measurement: str) -> Rows:
    """The rows that have figures; what failed is tried again. Raises Failed for a file of another measurement."""
    if (run := same_run(path, load, about, measurement)) is None:
        return []
    rows = run.get("rows")
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise Failed(f"{path} has no rows of figures: name another --out, or remove it")
    return [row for row in rows if "figures" in row]


def same_run(path: Path, load: dict[str, Any], about: dict[str, str], measurement: str) -> dict[str, Any] | None:
    """What is in a figures file; None: there is none. Raises Failed with what differs where it is of anything else."""
    if not path.exists():
        return None
    try:
        run = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise Failed(f"{path} cannot be read: {error}; name another --out, or remove it") from None
    if not isinstance(run, dict) or run.get("measurement") != measurement or not isinstance(run.get("load"), dict):
        command = COMMANDS.get(measurement, f"launcher bench {measurement}")
        raise Failed(f"{path} is no figures of `{command}`: name another --out, or remove it")
    now = json.loads(json.dumps(load))
    found = [
        f"{_option(name)} {fact(now.get(name))}, there {fact(run['load'].get(name))}"
        for name in {**now, **run["load"]}
        if now.get(name) != run["load"].get(name)
    ]
    found += [
        f"{name} {about[name]}, there {run.get(name) or 'not told'}"
        for name in ("machine", "vllm")
        if run.get(name) != about[name]
    ]
    if found:
        raise Failed(
            f"{path} has figures of another load or machine ({'; '.join(found)}): take the same again, name another --out, or remove it"
        )
    if run.get("profile_sha256") != about["profile_sha256"]:
        raise Failed(f"{path} has figures of another version of {load['profile']}: name another --out, or remove it")
    return run


def _option(name: str) -> str:
    return name if name == "profile" else f"--{name.replace('_', '-')}"
