"""``launcher plan``: the verdict on a profile, the memory of each card, and exactly what ``up`` would run."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from launcher.cli.output import OUTPUT_OPTION, SET_OPTION, print_json, print_table, styled
from launcher.errors import EXIT_OK, EXIT_PRECONDITION, LauncherError
from launcher.profile.units import format_gib

if TYPE_CHECKING:
    from launcher.plan.finding import Finding
    from launcher.plan.memory import MemoryBudget
    from launcher.plan.plan import Plan
    from launcher.profile.load import LoadedProfile

FIRST_PORT = 20000  # shown only: `up` takes a free port for each replica
COLORS = {"error": "red", "warning": "yellow", "note": "blue"}
VERDICT_COLORS = {"fits": "green", "does_not_fit": "red", "unknown": "yellow"}

# The lines of a budget in the order in which they are shown; they add up to the last one's total.
LINES = (
    ("weights_language", "weights, language model"),
    ("weights_vision", "weights, vision encoder"),
    ("buffers", "input buffers"),
    ("encoder_cache", "encoder cache (profiled images)"),
    ("activations", "activations, a full batch"),
    ("vision_extra", "vision encoder, on top of that"),
    ("sampler_extra", "sampler warm-up, on top of that"),
    ("cuda_graphs", "CUDA graphs (estimate)"),
    ("outside_torch", "libraries outside torch (estimate)"),
    ("kv", "KV cache"),
)
CPU_NAMES = {"outside_torch": "processes (estimate)"}


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
    from launcher.probe.model_files import read_model_facts
    from launcher.profile.load import load_profile

    loaded = load_profile(path, sets=sets)
    plan = make_plan(loaded.profile, read_model_facts(loaded.profile, loaded.base_dir, offline=offline))
    commands = planned_commands(loaded, plan)
    if output == "json":
        print_json(plan_data(loaded, plan, commands))
    else:
        show_plan(loaded, plan, commands, show_all)
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
    for placement in plan.placements:
        row: dict[str, Any] = {"replica": placement.replica, "gpus": list(placement.gpus), "installed": True}
        try:
            build = planned_build(profile, loaded.base_dir)
            row |= {"vllm": str(build), "installed": build.installed}
            port = FIRST_PORT + placement.replica
            command = engine_command(profile, placement, port=port, model_path=model_word(loaded), build=build)
            notes = list(command.notes)
            row |= {"argv": list(command.argv), "env": dict(command.env), "unset": list(command.unset)}
            row |= {"shell": shell_line(command), "notes": notes}
        except LauncherError as error:
            row |= {"argv": None, "problem": error.message, "hint": error.hint}
        commands.append(row)
    return commands


def model_word(loaded: LoadedProfile) -> str:
    """The model as it stands in the command: the local path, or a name for the folder that ``up`` makes or downloads."""
    model = loaded.profile.model
    if model.path is not None:
        return str(loaded.resolve(model.path))
    return f"<folder of {model.source}>"


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
        "placements": [{"replica": place.replica, "gpus": list(place.gpus)} for place in plan.placements],
        "budgets": [_budget_data(budget) for budget in plan.budgets],
        "kv": {
            "bytes_per_token": plan.kv_bytes_per_token,
            "tokens": plan.kv_tokens,
            "requests_at_full_length": plan.requests_at_full_length,
            "max_len": settings.max_len if settings else None,
        },
        "images": [
            {"width": i.width, "height": i.height, "seen": [i.seen_width, i.seen_height], "tokens": i.tokens}
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
    """Every setting: its dotted key, its value as a profile writes it, and where it came from."""
    written = loaded.profile.model_dump(mode="json")
    rows = []
    for key, origin in loaded.origins.items():
        value: Any = written
        for part in key.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        rows.append((key, value, origin))
    return rows


def show_plan(loaded: LoadedProfile, plan: Plan, commands: list[dict[str, Any]], show_all: bool) -> None:
    """The plan for people: the verdict first, then the memory, what it buys, what to change, settings and commands."""
    color = VERDICT_COLORS[plan.verdict]
    click.echo(styled(plan.summary, sys.stdout, bold=True, fg=color))
    for problem in dict.fromkeys(command["problem"] for command in commands if command["argv"] is None):
        click.echo(styled(f"But it cannot be started: {problem}", sys.stdout, bold=True, fg="red"))
    _show_findings(plan)
    _show_memory(plan)
    _show_images(plan)
    _show_settings(loaded, show_all)
    _show_commands(commands)


def _heading(text: str) -> None:
    click.echo()
    click.echo(styled(text, sys.stdout, bold=True))


def _show_findings(plan: Plan) -> None:
    if not plan.findings:
        return
    click.echo()
    for finding in plan.findings:
        label = styled(f"{finding.severity}:", sys.stdout, fg=COLORS[finding.severity])
        subject = "" if finding.severity == "note" else f"{finding.key}: "
        click.echo(f"{label} {subject}{finding.message}")
        if finding.remedy:
            click.echo(f"{styled('→', sys.stdout, fg='cyan')} {finding.remedy}")


def _show_memory(plan: Plan) -> None:
    budget, shape, settings = plan.budget, plan.shape, plan.settings
    if budget is None or shape is None or settings is None:
        return
    on_cpu = plan.profile.hardware.device == "cpu"
    names = {**dict(LINES), **(CPU_NAMES if on_cpu else {})}
    _heading("Main memory of one replica" if on_cpu else "Memory of each card" + _stages(plan))
    rows = []
    for budget_line, _ in LINES:
        values = [getattr(stage, budget_line) for stage in plan.budgets]
        if any(values) or budget_line == "kv":
            rows.append((names[budget_line], *(_kv_word(budget_line, value, plan) for value in values)))
    rows.append(("all together", *(format_gib(b.requested) if b.requested else "not known" for b in plan.budgets)))
    if any(b.visible for b in plan.budgets):
        share = "" if on_cpu or plan.kv_tokens is None else f" (× {settings.utilization:g})"
        given = getattr(plan.profile.engine, "kv_cache_memory", None)
        label = "there is" if on_cpu or given else f"the card has, as CUDA sees it{share}"
        rows.append((label, *(format_gib(b.visible) if b.visible else "not known" for b in plan.budgets)))
    print_table(("", *(_card_names(plan))), rows)
    _heading("KV cache of one replica")
    tokens = "not known" if plan.kv_tokens is None else f"{plan.kv_tokens:,} tokens"
    held = plan.requests_at_full_length
    click.echo(f"{shape.attention} attention, {plan.kv_bytes_per_token} bytes a token a card, {tokens}")
    if held is not None:
        click.echo(f"{held:.1f} requests of {settings.max_len:,} tokens at once (model.max_len)")


def _kv_word(line: str, value: int, plan: Plan) -> str:
    if line == "kv" and plan.kv_tokens is None:
        return "not known"
    return f"−{format_gib(-value)}" if value < 0 else format_gib(value)


def _stages(plan: Plan) -> str:
    return ", by pipeline stage" if len(plan.budgets) > 1 else ""


def _card_names(plan: Plan) -> list[str]:
    hardware, placements = plan.profile.hardware, plan.placements
    if hardware.device == "cpu":
        return [f"{len(placements)} replica{'s' if len(placements) > 1 else ''}"]
    if len(plan.budgets) > 1:
        return [f"stage {budget.stage}" for budget in plan.budgets]
    cards = sum(len(place.gpus) for place in placements) or hardware.gpus
    return [f"{cards} × {hardware.gpu or 'card'}"]


def _show_images(plan: Plan) -> None:
    if not plan.image_tokens:
        return
    _heading("Images")
    rows = [
        (f"{i.width}×{i.height}", f"{i.seen_width}×{i.seen_height}", f"{i.tokens:,}", _kib(plan, i.tokens))
        for i in plan.image_tokens
    ]
    print_table(("SENT", "SEEN", "TOKENS", "KV CACHE"), rows)


def _kib(plan: Plan, tokens: int) -> str:
    return format_gib(tokens * (plan.kv_bytes_per_token or 0))


def _show_settings(loaded: LoadedProfile, show_all: bool) -> None:
    rows = [
        (key, _short(value), origin) for key, value, origin in settings_of(loaded) if show_all or origin != "default"
    ]
    _heading("Settings" if show_all else "Settings (--all: defaults too)")
    print_table(("KEY", "VALUE", "FROM"), rows)


def _short(value: Any) -> str:
    import json

    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    text = " ".join(text.split())
    return text if len(text) <= 60 else text[:57] + "…"


def _show_commands(commands: list[dict[str, Any]]) -> None:
    if not commands:
        return
    _heading("What `launcher up` runs (ports are chosen then)")
    for command in commands:
        cards = f", cards {', '.join(map(str, command['gpus']))}" if command["gpus"] else ""
        click.echo(f"# replica {command['replica']}{cards}")
        if command["argv"] is None:
            click.echo(f"{styled('error:', sys.stdout, fg='red')} {command['problem']}")
            click.echo(f"→ {command['hint']}")
        else:
            click.echo(command["shell"])
    for note in dict.fromkeys(note for command in commands for note in command.get("notes", ())):
        click.echo(f"{styled('note:', sys.stdout, fg='blue')} {note}")
