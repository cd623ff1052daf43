"""The plan: whether a profile fits, where the memory goes, and what to change. Pure: no I/O, no clock, no GPU."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from launcher.plan import checks_memory, checks_model, checks_nodes, checks_precision
from launcher.plan.finding import Case, Finding, make_case
from launcher.plan.image_budget import Budget, fault_of, fit
from launcher.plan.image_tokens import USUAL_SIZES
from launcher.plan.memory import MemoryBudget
from launcher.plan.model_shape import ModelFacts, ModelShape, UnknownShape, merged_config
from launcher.plan.placement import Placement, place, why_not_placed
from launcher.plan.settings import Settings
from launcher.plan.sound import takes_sound
from launcher.profile.model import ExternalEngine, Profile
from launcher.profile.units import format_gib

__all__ = ["Finding", "ImageTokens", "Plan", "Verdict", "make_plan"]

Verdict = Literal["fits", "does_not_fit", "unknown"]
CHECKS = (*checks_model.CHECKS, *checks_precision.CHECKS, *checks_memory.CHECKS, *checks_nodes.CHECKS)
ORDER = {"error": 0, "warning": 1, "note": 2}


@dataclass(frozen=True)
class ImageTokens:
    """What an image of this size becomes: under the gateway's budget, as the model sees it, and in prompt tokens."""

    width: int
    height: int
    sent_width: int
    sent_height: int
    seen_width: int
    seen_height: int
    tokens: int


@dataclass(frozen=True)
class Plan:
    """What ``up`` will do and whether it can. Sizes in bytes; KV figures are of one replica."""

    profile: Profile
    verdict: Verdict
    summary: str
    findings: tuple[Finding, ...]
    placements: tuple[Placement, ...]
    facts_origin: str = ""
    shape: ModelShape | None = None
    settings: Settings | None = None
    budget: MemoryBudget | None = None
    budgets: tuple[MemoryBudget, ...] = ()
    kv_bytes_per_token: int | None = None
    kv_tokens: int | None = None
    requests_at_full_length: float | None = None
    image_tokens: tuple[ImageTokens, ...] = ()
    has_audio: bool | None = None  # whether the model takes clips of sound, by its config; None: not known

    @property
    def is_text_only(self) -> bool:
        """Whether the model is known to have no vision encoder; False where nothing is known."""
        return self.shape is not None and self.shape.vision is None

    @property
    def errors(self) -> tuple[Finding, ...]:
        """What cannot work."""
        return tuple(finding for finding in self.findings if finding.severity == "error")


def make_plan(profile: Profile, facts: ModelFacts | None, *, machine_memory: int | None = None) -> Plan:
    """The plan for a profile and what is known of its model (None: nothing).

    ``machine_memory`` is this machine's main memory in bytes: what is counted with on device: cpu where hardware.memory
    is not given.
    """
    if isinstance(profile.engine, ExternalEngine):
        summary = f"Cannot tell: nothing is started here; {len(profile.engine.urls)} server(s) run already and are only watched."
        return Plan(profile, "unknown", summary, (), ())
    if facts is None:
        return _blind(profile, f"nothing is known of the model {profile.model.source}")
    try:
        case = make_case(profile, facts, machine_memory)
    except UnknownShape as error:
        return _blind(profile, str(error), facts)
    return _plan_of(case)


def _blind(profile: Profile, why: str, facts: ModelFacts | None = None) -> Plan:
    """A plan without the model's shape: only the cards are counted."""
    findings: list[Finding] = [
        Finding(
            "warning",
            "model-unknown",
            "model",
            f"{why}, so neither memory nor divisibility was checked.",
            "Give model.path with a local folder, or run the plan once with network access to the hub.",
        )
    ]
    findings += [Finding("note", "facts", "model", note) for note in (facts.notes if facts else ())]
    if sentence := why_not_placed(profile):
        findings.append(Finding("error", "too-few-gpus", "hardware.gpus", f"{sentence}."))
        return Plan(profile, "does_not_fit", f"Does not fit: {sentence}.", tuple(sorted(findings, key=_rank)), ())
    return Plan(
        profile,
        "unknown",
        f"Cannot tell: {why}.",
        tuple(findings),
        place(profile),
        facts.origin if facts else "",
        has_audio=None if facts is None else _has_audio(profile, facts),
    )


def _has_audio(profile: Profile, facts: ModelFacts) -> bool | None:
    """Qwen-Omni's config, Whisper's and others are none that a shape can be read from, but do say this."""
    return None if facts.config is None else takes_sound(merged_config(facts.config, profile.model.hf_overrides))


def _rank(finding: Finding) -> int:
    return ORDER[finding.severity]


def _plan_of(case: Case) -> Plan:
    found = [finding for check in CHECKS for finding in check(case)]
    found += _notes(case)
    findings = tuple(sorted(found, key=_rank))
    verdict, summary = _verdict(case, findings)
    known = case.kv_known
    return Plan(
        profile=case.profile,
        verdict=verdict,
        summary=summary,
        findings=findings,
        placements=place(case.profile),
        facts_origin=case.facts.origin,
        shape=case.shape,
        settings=case.settings,
        budget=case.tightest,
        budgets=case.budgets,
        kv_bytes_per_token=case.token_bytes(case.tightest.stage),
        kv_tokens=case.kv_tokens if known else None,
        requests_at_full_length=case.requests_at_full_length if known else None,
        image_tokens=_image_table(case),
        has_audio=case.shape.has_audio,
    )


def _verdict(case: Case, findings: tuple[Finding, ...]) -> tuple[Verdict, str]:
    errors = [finding for finding in findings if finding.severity == "error"]
    if errors:
        more = f" ({len(errors) - 1} more below)" if len(errors) > 1 else ""
        return "does_not_fit", f"Does not fit: {errors[0].key}: {errors[0].message.rstrip('.')}{more}."
    if not case.kv_known:
        return "unknown", (
            "Cannot tell: the card's memory is not known; name the card in hardware.gpu or its memory in hardware.gpu_memory. "
            f"Before any KV cache it takes {format_gib(case.tightest.before_kv)} a card."
        )
    held = f"{case.kv_tokens} tokens of KV cache a replica, {case.requests_at_full_length:.1f} requests of {case.settings.max_len} tokens at once"
    if case.profile.hardware.device == "cpu":
        assert case.tightest.requested is not None
        need = f"about {format_gib(case.tightest.requested)} of main memory a replica"
        if case.tightest.visible is None:
            return "unknown", f"Cannot tell: it takes {need}, and hardware.memory does not say what there is; {held}."
        hardware = case.profile.hardware
        of = "hardware.memory is" if hardware.memory else "this machine has"
        there = f"{of} {format_gib(case.tightest.visible * case.engine.replicas)}"
        return "fits", f"Fits: {need}, {there}; {held}."
    return "fits", f"Fits: {held}."


def _notes(case: Case) -> list[Finding]:
    notes = [Finding("note", "facts", "model", f"The model's shape is from {case.facts.origin}.")]
    notes += [Finding("note", "facts", "model", note) for note in case.facts.notes]
    shape = case.shape
    inexact = not shape.exact_language or (shape.vision is not None and not shape.vision.exact)
    if inexact and case.facts.weights is None:
        name = shape.architecture or "this architecture"
        message = f"Weight bytes are estimated from the shape: {name} is none that the arithmetic was checked for."
        notes.append(Finding("note", "weights-estimated", "model", message))
    if shape.vision is not None and shape.image is None:
        message = f"How many tokens an image becomes is not known for {shape.architecture}; the vision encoder's memory is left out."
        notes.append(
            Finding("warning", "image-rule-unknown", "model", message, "Keep some gpu_memory_utilization in hand.")
        )
    if defaults := case.settings.defaults:
        message = f"Left to vLLM's defaults: {', '.join(_default_told(case, key) for key in defaults)}."
        notes.append(Finding("note", "vllm-defaults", "engine", message))
    if case.kv_known and case.requests_at_full_length < case.settings.max_num_seqs and not _is_tiny(case):
        message = (
            f"The KV cache holds {case.requests_at_full_length:.1f} requests of {case.settings.max_len} tokens; engine.max_num_seqs is "
            f"{case.settings.max_num_seqs}, so long ones wait for each other and short ones do not."
        )
        notes.append(Finding("note", "kv-below-seqs", "engine.max_num_seqs", message))
    return notes


def _is_tiny(case: Case) -> bool:
    return case.requests_at_full_length < 1  # said as an error already


def _default_told(case: Case, key: str) -> str:
    settings = case.settings
    value = {
        "model.max_len": settings.max_len,
        "engine.max_num_batched_tokens": settings.max_num_batched_tokens,
        "engine.max_num_seqs": settings.max_num_seqs,
        "engine.gpu_memory_utilization": settings.utilization,
        "model.images_per_prompt": settings.images_per_prompt,
    }[key]
    return f"{key} {value:g}"


def _image_table(case: Case) -> tuple[ImageTokens, ...]:
    rule = case.shape.image
    if rule is None or case.settings.images_per_prompt == 0:
        return ()
    budget = Budget.of(case.profile.gateway.images.budget)
    if fault_of(budget, rule) is not None:
        return ()
    fits = {size: fit(rule, budget, *size) for size in USUAL_SIZES}
    return tuple(
        ImageTokens(*size, sent.width, sent.height, *rule.resized(sent.width, sent.height), sent.tokens)
        for size, sent in fits.items()
    )
