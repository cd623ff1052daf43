"""Profiles and models for the planner's tests, small enough to read in one glance."""

from __future__ import annotations

from typing import Any

from launcher.plan.model_shape import ModelFacts
from launcher.plan.plan import Plan, make_plan
from launcher.probe.model_files import shipped_facts
from launcher.profile.model import Profile

GLM = "zai-org/GLM-4.1V-9B-Thinking"


def profile_of(
    model: dict[str, Any] | None = None, hardware: dict[str, Any] | None = None, engine: dict[str, Any] | None = None
) -> Profile:
    """A profile of GLM-4.1V-9B on one H200, with changes."""
    return Profile.model_validate(
        {
            "name": "test",
            "model": {"id": GLM, **(model or {})},
            "hardware": {"gpu": "H200", **(hardware or {})},
            "engine": engine or {},
        }
    )


def facts_of(name: str = GLM) -> ModelFacts:
    """The shipped facts of a model."""
    facts = shipped_facts(name)
    assert facts is not None
    return facts


def plan_of(
    model: dict[str, Any] | None = None,
    hardware: dict[str, Any] | None = None,
    engine: dict[str, Any] | None = None,
    facts: ModelFacts | None = None,
) -> Plan:
    """The plan of such a profile, with the shipped facts unless others are given."""
    profile = profile_of(model, hardware, engine)
    return make_plan(profile, facts or facts_of(profile.model.source or GLM))


def said(plan: Plan, code: str) -> str:
    """What the plan says under this code: 'severity key: message → remedy'; fails when it says nothing."""
    for finding in plan.findings:
        if finding.code == code:
            return f"{finding.severity} {finding.key}: {finding.message} → {finding.remedy}"
    raise AssertionError(f"no finding {code} among {[finding.code for finding in plan.findings]}")


def codes(plan: Plan) -> set[str]:
    """The codes of all findings."""
    return {finding.code for finding in plan.findings}


def llama(**changes: Any) -> ModelFacts:
    """A text model of 8 B parameters that has 8 KV heads."""
    config = {
        "architectures": ["LlamaForCausalLM"],
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "vocab_size": 128256,
        "max_position_embeddings": 131072,
        "dtype": "bfloat16",
        **changes,
    }
    return ModelFacts("a test", config)
