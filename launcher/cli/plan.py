"""``launcher plan``: the verdict on a profile, the memory of each card, and exactly what ``up`` would run."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from launcher.cli.output import OUTPUT_OPTION, SET_OPTION, print_json
from launcher.cli.plan_text import LINES, show_plan
from launcher.errors import EXIT_OK, EXIT_PRECONDITION, LauncherError

if TYPE_CHECKING:
    from launcher.engine.nodes import Node
    from launcher.plan.finding import Finding
    from launcher.plan.memory import MemoryBudget
    from launcher.plan.placement import Placement
    from launcher.plan.plan import Plan
    from launcher.profile.load import LoadedProfile

FIRST_PORT = 20000  # shown only: `up` takes a free port for each replica

# Names of environment variables whose values are nobody's business: HF_TOKEN, AWS_SECRET_ACCESS_KEY, DBPASSWORD…
SECRET = re.compile(r"(KEY|SECRET|CREDENTIAL)S?(_|$)|TOKEN(_|$)|PASSW(OR)?D", re.IGNORECASE)
HIDDEN = "(hidden)"
HEAD = "ADDRESS"  # of the first host; `up` is told by --head


@click.command("plan", epilog="Example: launcher plan profiles/2x4090.yaml --set engine.max_num_seqs=64")
@click.argument("path", metavar="PROFILE", type=click.Path(path_type=Path))
@SET_OPTION
@click.option("--all", "show_all", is_flag=True, help="Every setting with its origin, defaults too.")
@click.option("--offline", is_flag=True, help="Ask no hub, only the profile's folder and the shipped facts.")
@OUTPUT_OPTION
def plan_command(path: Path, sets: Sequence[str], show_all: bool, offline: bool, output: str) -> int:
    """Say whether and how a profile fits, before anything starts. Needs no GPU, no vLLM and, for known models, no network.

    Exits with 0 when the profile fits or that cannot be told, with 4 when it does not fit or when the vLLM that is
    installed would not take its arguments.
    """
    from launcher.plan.plan import make_plan
    from launcher.probe.main_memory import main_memory
    from launcher.probe.model_files import read_model_facts
    from launcher.profile.load import load_profile

    loaded = load_profile(path, sets=sets)
    facts = read_model_facts(loaded.profile, loaded.base_dir, offline=offline)
    plan = make_plan(loaded.profile, facts, machine_memory=main_memory())
    commands = planned_commands(loaded, plan)
    if output == "json":
        print_json(plan_data(loaded, plan, commands))
    else:
        show_plan(plan, settings_of(loaded), commands, show_all)
    refused = any(command["argv"] is None and command["installed"] for command in commands)
    return EXIT_PRECONDITION if plan.verdict == "does_not_fit" or refused else EXIT_OK


def planned_commands(loaded: LoadedProfile, plan: Plan) -> list[dict[str, Any]]:
    """What ``up`` would run for each replica; a replica that cannot be started has its reason instead of an argv."""
    if not plan.placements:
        return []
    from launcher.engine.command import engine_command, shell_line
    from launcher.probe.vllm_build import planned_build

    profile = loaded.profile
    commands = []
    for placement, node in placements_on_hosts(plan):
        row: dict[str, Any] = {"replica": placement.replica, "gpus": list(placement.gpus), "installed": True}
        row |= {} if node is None else {"node": node.rank, "nodes": node.count}
        try:
            build = planned_build(profile, loaded.base_dir)
            row |= {"vllm": str(build), "installed": build.installed}
            port = FIRST_PORT + placement.replica
            command = engine_command(
                profile,
                placement,
                port=port,
                model_path=model_word(loaded),
                build=build,
                base_dir=loaded.base_dir,
                text_only=plan.is_text_only,
                node=node,
            )
            command = replace(command, env=without_secrets(command.env))
            row |= {"argv": list(command.argv), "env": dict(command.env), "unset": list(command.unset)}
            row |= {"shell": shell_line(command), "notes": list(command.notes)}
        except LauncherError as error:
            row |= {"argv": None, "problem": error.message, "hint": error.hint}
        commands.append(row)
    return commands


def placements_on_hosts(plan: Plan) -> Iterator[tuple[Placement, Node | None]]:
    """Each replica with each of its hosts; None where it has one, or where Ray knows them."""
    from launcher.engine.nodes import Node, has_nodes

    for placement in plan.placements:
        if has_nodes(plan.profile):
            yield from ((placement, Node(rank, placement.nodes, HEAD)) for rank in range(placement.nodes))
        else:
            yield placement, None


def model_word(loaded: LoadedProfile) -> str:
    """The model as it stands in the command: the local path, or a name for the folder that ``up`` makes or downloads."""
    from launcher.engine.weights import planned_model_path

    path = Path(planned_model_path(loaded.profile, loaded.base_dir))
    return str(path) if path.is_absolute() and path.suffix != ".gguf" else f"<folder of {loaded.profile.model.source}>"


def without_secrets(env: Mapping[str, str]) -> dict[str, str]:
    """The same variables, with a placeholder for values whose names say that they are secret; empty ones stay."""
    return {name: HIDDEN if value and SECRET.search(name) else value for name, value in env.items()}


def plan_data(loaded: LoadedProfile, plan: Plan, commands: list[dict[str, Any]]) -> dict[str, Any]:
    """The plan as JSON: sizes in bytes, KV figures for one replica."""
    shape, settings = plan.shape, plan.settings
    return {
        "profile": str(loaded.path),
        "name": loaded.profile.name,
        "verdict": plan.verdict,
        "summary": plan.summary,
        "findings": [_finding_data(finding) for finding in plan.findings],
        "model": {
            "source": loaded.profile.model.source,
            "facts": plan.facts_origin or None,
            "architecture": shape.architecture if shape else None,
            "attention": shape.attention if shape else None,
            "max_len": shape.longest if shape else None,
        },
        "placements": [
            {"replica": place.replica, "gpus": list(place.gpus), "nodes": place.nodes} for place in plan.placements
        ],
        "budgets": [_budget_data(budget) for budget in plan.budgets],
        "kv": {
            "bytes_per_token": plan.kv_bytes_per_token,
            "tokens": plan.kv_tokens,
            "requests_at_full_length": plan.requests_at_full_length,
            "max_len": settings.max_len if settings else None,
        },
        "images": [
            {
                "width": i.width,
                "height": i.height,
                "sent": [i.sent_width, i.sent_height],
                "seen": [i.seen_width, i.seen_height],
                "tokens": i.tokens,
            }
            for i in plan.image_tokens
        ],
        "settings": {key: {"value": value, "origin": origin} for key, value, origin in settings_of(loaded)},
        "commands": commands,
    }


def _finding_data(finding: Finding) -> dict[str, str | None]:
    return {
        "severity": finding.severity,
        "code": finding.code,
        "key": finding.key,
        "message": finding.message,
        "remedy": finding.remedy or None,
    }


def _budget_data(budget: MemoryBudget) -> dict[str, int | None]:
    lines = {name: getattr(budget, name) for name, _ in LINES}
    return {"stage": budget.stage, "visible": budget.visible, "requested": budget.requested, **lines}


def settings_of(loaded: LoadedProfile) -> list[tuple[str, Any, str]]:
    """Every setting: its dotted key, its value as a profile writes it, and where it came from.

    A mapping with members of its own in the list is shown by them only; secrets in engine.env are not shown.
    """
    written = loaded.profile.model_dump(mode="json")
    if env := written["engine"].get("env"):
        written["engine"]["env"] = without_secrets(env)
    rows = []
    for key, origin in loaded.origins.items():
        if any(other.startswith(f"{key}.") for other in loaded.origins):
            continue
        value: Any = written
        for part in key.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        rows.append((key, value, origin))
    return rows
