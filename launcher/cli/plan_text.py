"""How ``launcher plan`` shows a plan to people: the verdict, the memory, what it buys, what to change, the commands."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from launcher.cli.output import print_table, styled
from launcher.profile.units import format_gib

if TYPE_CHECKING:
    from launcher.plan.plan import Plan

Settings = Sequence[tuple[str, Any, str]]  # key, value, origin

COLORS = {"error": "red", "warning": "yellow", "note": "blue"}
VERDICT_COLORS = {"fits": "green", "does_not_fit": "red", "unknown": "yellow"}

# The lines of a budget in the order in which they are shown; they add up to the last one's total.
LINES = (
    ("weights_language", "weights, language model"),
    ("weights_vision", "weights, vision encoder"),
    ("buffers", "input buffers"),
    ("encoder_cache", "encoder cache (profiled images or video)"),
    ("activations", "activations, a full batch"),
    ("vision_extra", "vision encoder, on top of that"),
    ("sampler_extra", "sampler warm-up, on top of that"),
    ("cuda_graphs", "CUDA graphs (estimate)"),
    ("outside_torch", "libraries outside torch (estimate)"),
    ("kv", "KV cache"),
)
CPU_NAMES = {"outside_torch": "processes (estimate)"}


def show_plan(plan: Plan, settings: Settings, commands: list[dict[str, Any]], show_all: bool) -> None:
    """The plan for people: the verdict first, then the memory, what it buys, what to change, settings and commands."""
    color = VERDICT_COLORS[plan.verdict]
    click.echo(styled(plan.summary, sys.stdout, bold=True, fg=color))
    for problem in dict.fromkeys(command["problem"] for command in commands if command["argv"] is None):
        click.echo(styled(f"But it cannot be started: {problem}", sys.stdout, bold=True, fg="red"))
    _show_findings(plan)
    _show_memory(plan)
    _show_images(plan)
    _show_settings(settings, show_all)
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
    on_host = " on each host" if any(place.nodes > 1 for place in plan.placements) else ""
    _heading(f"Main memory of one replica{on_host}" if on_cpu else "Memory of each card" + _stages(plan))
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
    cards = sum(len(place.gpus) * place.nodes for place in placements) or hardware.gpus
    return [f"{cards} × {hardware.gpu or 'card'}"]


def _show_images(plan: Plan) -> None:
    if not plan.image_tokens:
        return
    _heading("Images")
    has_budget = plan.profile.gateway.images.budget != "original"
    head = ("SENT", *(("BROUGHT TO",) if has_budget else ()), "SEEN", "TOKENS", "KV CACHE")
    rows = [
        (
            f"{i.width}×{i.height}",
            *((f"{i.sent_width}×{i.sent_height}",) if has_budget else ()),
            f"{i.seen_width}×{i.seen_height}",
            f"{i.tokens:,}",
            _kib(plan, i.tokens),
        )
        for i in plan.image_tokens
    ]
    print_table(head, rows)


def _kib(plan: Plan, tokens: int) -> str:
    return format_gib(tokens * (plan.kv_bytes_per_token or 0))


def _show_settings(settings: Settings, show_all: bool) -> None:
    rows = [(key, _short(value), origin) for key, value, origin in settings if show_all or origin != "default"]
    _heading("Settings" if show_all else "Settings (--all: defaults too)")
    print_table(("KEY", "VALUE", "FROM"), rows)


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    text = " ".join(text.split())
    return text if len(text) <= 60 else text[:57] + "…"


def _show_commands(commands: list[dict[str, Any]]) -> None:
    if not commands:
        return
    _heading("What `launcher up` runs (ports are chosen then)")
    for command in commands:
        cards = f", cards {', '.join(map(str, command['gpus']))}" if command["gpus"] else ""
        host = f", host {command['node']} of {command['nodes']}" if "node" in command else ""
        click.echo(f"# replica {command['replica']}{host}{cards}")
        if command["argv"] is None:
            click.echo(f"{styled('error:', sys.stdout, fg='red')} {command['problem']}")
            click.echo(f"→ {command['hint']}")
        else:
            click.echo(command["shell"])
    for note in dict.fromkeys(note for command in commands for note in command.get("notes", ())):
        click.echo(f"{styled('note:', sys.stdout, fg='blue')} {note}")
