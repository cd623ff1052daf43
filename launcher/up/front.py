"""The gateway of a deployment, put together: what the profile, the plan and the run directory say of it."""

from __future__ import annotations

import json
import os
from pathlib import Path

from launcher import __version__
from launcher.errors import PreconditionError
from launcher.gateway.access import AccessLog
from launcher.gateway.audit import AuditLog
from launcher.gateway.ledger import Capacity
from launcher.gateway.media.audio import missing
from launcher.gateway.media.costs import Budgets, ClipCosts
from launcher.gateway.prefix import BLOCK_BYTES, TOKEN_BYTES
from launcher.gateway.price import Pricer
from launcher.gateway.replicas import Replicas
from launcher.gateway.server import Gateway
from launcher.gateway.tokenizer import TokenCounter
from launcher.plan.image_budget import Budget, budgets_of, fault_of
from launcher.plan.image_tokens import ImageRule
from launcher.plan.plan import Plan
from launcher.profile.load import LoadedProfile
from launcher.profile.model import GatewaySection, Profile, VllmEngine
from launcher.up.keys import open_gate
from launcher.up.prepare import Prepared, make_certificate
from launcher.up.tracing import make_tracer

GENERATION = "--override-generation-config"
UNKNOWN_PREFIX_TOKENS = 1_000_000  # of a replica's prefix cache, where the plan does not know: a mid-size card's


def make_replicas(plan: Plan) -> Replicas:
    """The replicas' register, none in it yet; what their prefix caches hold is the plan's figure."""
    tokens = plan.kv_tokens or UNKNOWN_PREFIX_TOKENS
    return Replicas(prefix_blocks=max(1, tokens * TOKEN_BYTES // BLOCK_BYTES))


def make_gateway(
    loaded: LoadedProfile,
    prepared: Prepared,
    replicas: Replicas,
    logs: Path | None,
    audit: AuditLog,
    control_socket: Path,
) -> Gateway:
    """``logs``: the folder for access.log; None: the standard output.

    Raises PreconditionError for a certificate, keys or a tokenizer that cannot be used.
    """
    profile = loaded.profile
    access = None
    if profile.logging.access:
        access = AccessLog(logs and logs / "access.log", max_size=profile.logging.max_size, keep=profile.logging.keep)
    return Gateway(
        profile.gateway,
        replicas,
        model=profile.model,
        admission=profile.admission,
        capacity=capacity(prepared.plan),
        pricer=make_pricer(loaded, prepared),
        gatekeeper=open_gate(loaded, os.environ, audit),
        certificate=make_certificate(loaded),
        access=access,
        tracer=make_tracer(profile),
        control_socket=str(control_socket),
        default_temperature=default_temperature(profile),
        has_audio=prepared.plan.has_audio if isinstance(profile.engine, VllmEngine) else None,
        has_images=None if prepared.plan.shape is None else not prepared.plan.is_text_only,
        version=__version__,
    )


def default_temperature(profile: Profile) -> float | None:
    """The temperature of requests that name none, where the profile sets it; None: the model's own, which is not known."""
    if not isinstance(profile.engine, VllmEngine) or GENERATION not in profile.engine.extra_args:
        return None
    words = profile.engine.extra_args
    value = json.loads(words[words.index(GENERATION) + 1]).get("temperature")  # the installed vLLM has checked it
    return float(value) if isinstance(value, int | float) else None


def make_pricer(loaded: LoadedProfile, prepared: Prepared) -> Pricer:
    """What prices requests: the model's rule for images, its context, and for exact counting its tokenizer."""
    plan, profile = prepared.plan, loaded.profile
    counter = None
    if profile.admission.counting == "exact":
        if not prepared.model_path:
            raise PreconditionError(
                "admission.counting is exact, but nothing is started here, so there is no model folder with a tokenizer",
                "Set admission.counting: estimate.",
            )
        counter = TokenCounter(Path(prepared.model_path))
    rule = plan.shape.image if plan.shape is not None else None
    return Pricer(
        model=profile.model.public_name or "",
        budgets=budgets(profile.gateway, rule),
        context_tokens=plan.settings.max_len if plan.settings is not None else profile.model.max_len,
        counter=counter,
    )


def budgets(gateway: GatewaySection, rule: ImageRule | None) -> Budgets:
    """What pictures and clips are brought to. Raises PreconditionError for a budget that no picture can keep."""
    found, audio = budgets_of(gateway.images), gateway.audio.budget
    for key, budget in found.items():
        if (fault := fault_of(budget, rule)) is not None:
            raise PreconditionError(f"gateway.images.{key}: {fault[0]}", fault[1])
    details: dict[str, Budget] = {name: found[f"detail.{name}"] for name in gateway.images.detail}
    modes: dict[str, Budget] = {name: found[f"modes.{name}"] for name in gateway.images.modes}
    clip = None if audio == "original" else ClipCosts(audio.max_tokens, audio.pad)
    if clip is not None and (why := missing()) is not None:
        raise PreconditionError(f"gateway.audio.budget: {why}", "Install what is missing, or write budget: original.")
    return Budgets(rule, found["budget"], details, modes, clip)


def capacity(plan: Plan) -> Capacity:
    """What one replica can take, as the plan has it; vLLM's own defaults where it does not know."""
    usual = Capacity()
    settings = plan.settings
    if settings is None:
        own = plan.profile.engine.max_num_seqs if isinstance(plan.profile.engine, VllmEngine) else None
        return Capacity(sequences=own or usual.sequences)
    return Capacity(settings.max_num_batched_tokens, settings.max_num_seqs, plan.kv_tokens)
