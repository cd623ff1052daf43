"""What the plan says of a start, and what vLLM says when it is really started: one setting after the other.

    python -m loadtests.starts profile.yaml settings.yaml --out starts.json --markdown starts.md --only long,short

``settings.yaml`` names each start and what it changes in the profile, as `launcher --set` takes it:

    as it is: []
    long: [model.max_len=65536, engine.max_num_seqs=8]

All plans are made before anything is started, so that a slip costs no time on a card. Then one replica of each is started as
`launcher up` would, what the plan refuses too, and stopped once vLLM has allocated and warmed up everything. The figures go to
--out after each start, and the engines' logs beside it; the same command goes on where it was cut off, and measures anew only
what is not in --out or has changed. Where the profile names no card, the plan is made for the first one of this machine.
"""

from __future__ import annotations

import argparse
import json
import secrets
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from launcher.engine.command import EngineCommand, engine_command
from launcher.engine.weights import prepare_model
from launcher.errors import EXIT_INTERRUPTED, LauncherError
from launcher.plan.plan import Plan, make_plan
from launcher.probe.gpus import find_gpus, gpu_use
from launcher.probe.main_memory import main_memory
from launcher.probe.model_files import read_model_facts
from launcher.profile.load import LoadedProfile, load_profile
from launcher.profile.model import VllmEngine
from launcher.profile.units import MIB
from launcher.up.hosts import free_port
from launcher.up.prepare import require_vllm
from loadtests.deployment import say, stoppable
from loadtests.failures import Failed
from loadtests.files import make_room, write_whole
from loadtests.resumed import identity, kept_sets, same_run
from loadtests.starts_engine import start, wait_for_memory
from loadtests.starts_table import table


@dataclass(frozen=True)
class Case:
    """One start: its name, what it changes in the profile, and the plan that was made for it."""

    name: str
    sets: tuple[str, ...]
    loaded: LoadedProfile
    plan: Plan

    @property
    def engine(self) -> VllmEngine:
        engine = self.loaded.profile.engine
        assert isinstance(engine, VllmEngine)
        return engine

    def predicted(self) -> dict[str, Any]:
        """What is known before the start. Bytes are of one card, tokens of the replica."""
        budget = self.plan.budget
        return {
            "sets": kept_sets(self.sets),
            "card": self.loaded.profile.hardware.gpu,
            "verdict": self.plan.verdict,
            "errors": [finding.code for finding in self.plan.errors],
            "summary": self.plan.summary,
            "kv_bytes": budget.kv if budget and self.plan.kv_tokens is not None else None,
            "kv_tokens": self.plan.kv_tokens,
            "kv_is_given": self.engine.kv_cache_memory is not None,
            "weights_bytes": budget.weights if budget else None,
            "peak_bytes": budget.peak if budget else None,
            "graphs_bytes": budget.cuda_graphs if budget else None,
        }


def read_settings(path: Path) -> dict[str, tuple[str, ...]]:
    """Name → changes. Raises ValueError with a sentence for anything else."""
    try:
        read = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise ValueError(f"{path} cannot be read: {error}") from None
    if not isinstance(read, dict) or not read:
        raise ValueError(f"{path}: is no mapping of names to lists, such as long: [model.max_len=65536]")
    for name, sets in read.items():
        if not isinstance(sets, list) or not all(isinstance(one, str) and "=" in one for one in sets):
            raise ValueError(f"{path}: {name}: is no list of KEY=VALUE, such as [model.max_len=65536]")
    return {str(name): tuple(sets) for name, sets in read.items()}


def chosen_of(settings: dict[str, tuple[str, ...]], only: str) -> dict[str, tuple[str, ...]]:
    """Those that ``--only`` names, in its order; all where it is empty."""
    names = [name.strip() for name in only.split(",") if name.strip()] or list(settings)
    if unknown := [name for name in names if name not in settings]:
        raise ValueError(f"--only: there is no setting {', '.join(unknown)} (there are: {', '.join(settings)})")
    return {name: settings[name] for name in names}


def make_case(profile: Path, name: str, sets: tuple[str, ...]) -> Case:
    """The plan for one start, without the network. Raises LauncherError, also where a card is needed to tell and there is none."""
    loaded = load_profile(profile, sets=sets)
    hardware = loaded.profile.hardware
    if hardware.device == "cuda" and hardware.gpu is None and hardware.gpu_memory is None:
        card = find_gpus()[0]
        here = (f"hardware.gpu={card.name}", f"hardware.gpu_memory={card.total_bytes // MIB}MiB")
        loaded = load_profile(profile, sets=(*sets, *here))
    if not isinstance(loaded.profile.engine, VllmEngine):
        raise ValueError(f"{profile}: engine.kind is external: there is nothing to start")
    facts = read_model_facts(loaded.profile, loaded.base_dir, offline=True)
    return Case(name, sets, loaded, make_plan(loaded.profile, facts, machine_memory=main_memory()))


def command_of(case: Case) -> tuple[EngineCommand, str]:
    """The first replica's command as `launcher up` would start it, and the vLLM that it runs."""
    profile, base_dir = case.loaded.profile, case.loaded.base_dir
    build = require_vllm(profile, case.engine, base_dir)
    model = prepare_model(profile, base_dir, progress=say, python=build.python)
    if not case.plan.placements:
        raise ValueError(f"{case.name}: {case.plan.summary}")
    command = engine_command(
        profile,
        case.plan.placements[0],
        port=free_port(),
        model_path=model.path,
        build=build,
        base_dir=base_dir,
        text_only=case.plan.is_text_only,
        api_key=secrets.token_urlsafe(32),
    )
    return command, str(build)


def measure(cases: Sequence[Case], results: dict[str, Any], out: Path) -> None:
    """Starts one case after the other; each result is written at once, its prediction before the start."""
    logs = out.with_suffix(".logs")
    logs.mkdir(exist_ok=True)
    for case in cases:
        command_of(case)  # what cannot be started at all is said before anything is
    for case in cases:
        before = gpu_use()
        row = results["starts"][case.name] = case.predicted() | {"held_bytes": [card.used_bytes for card in before]}
        write(out, results)
        say(f"{case.name}: {case.plan.summary}")
        command, row["vllm"] = command_of(case)
        row |= start(command, case.loaded.profile, logs / f"{case.name.replace('/', '-')}.log")
        write(out, results)
        say(f"{case.name}: {row['outcome']} after {row['seconds']:.0f} s{': ' + row['why'] if 'why' in row else ''}")
        wait_for_memory(before)


def write(out: Path, results: dict[str, Any]) -> None:
    write_whole(out, json.dumps(results, indent=1) + "\n")


def earlier_starts(out: Path, profile: Path) -> dict[str, Any]:
    """What is in --out with its starts, or the beginning of it. Raises Failed for a file of anything else, and as `identity`."""
    load, about = {"profile": str(profile)}, identity(str(profile))
    run = same_run(out, load, about, "starts") or {"starts": {}}
    if not isinstance(run.get("starts"), dict):
        raise Failed(f"{out} has no starts in it: name another --out, or remove it")
    return {"version": 1, "measurement": "starts", **about, "load": load, "starts": run["starts"]}


def is_measured(results: dict[str, Any], name: str, sets: tuple[str, ...]) -> bool:
    row = results["starts"].get(name, {})
    return "outcome" in row and row["sets"] == kept_sets(sets)


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m loadtests.starts", description=__doc__.partition("\n")[0])
    add = parser.add_argument
    add("profile", type=Path)
    add("settings", type=Path, help="a YAML file: a name and a list of KEY=VALUE for each start")
    add(
        "--out",
        type=Path,
        required=True,
        help="a .json file for the figures; what is in it already is not started again",
    )
    add("--markdown", type=Path, help="a file for the table; default: the terminal")
    add("--only", default="", metavar="NAME,…", help="these settings, in this order")
    return parser.parse_args()


def main() -> None:
    chosen = options()
    try:
        make_room(chosen.out)
        if chosen.markdown:
            make_room(chosen.markdown, "--markdown")
        settings = chosen_of(read_settings(chosen.settings), chosen.only)
        results = earlier_starts(chosen.out, chosen.profile)
        left = {name: sets for name, sets in settings.items() if not is_measured(results, name, sets)}
        cases = [make_case(chosen.profile, name, sets) for name, sets in left.items()]
    except (LauncherError, ValueError, Failed) as error:
        raise SystemExit(sentence(error)) from None
    try:
        measure(cases, results, chosen.out)
    except (LauncherError, ValueError) as error:
        raise SystemExit(sentence(error)) from None
    except KeyboardInterrupt:
        raise SystemExit(EXIT_INTERRUPTED) from None
    finally:  # whatever ended it, what was measured is shown
        show(results, chosen.markdown)


def sentence(error: Exception) -> str:
    return f"{error.message}\n→ {error.hint}" if isinstance(error, LauncherError) else str(error)


def show(results: dict[str, Any], markdown: Path | None) -> None:
    text = table(results["starts"])
    if markdown:
        write_whole(markdown, text)
    sys.stdout.write(text)


if __name__ == "__main__":
    with stoppable():
        main()
