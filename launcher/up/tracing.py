"""Traces as a profile asks for them: the tracer, and what has to be installed for it."""

from __future__ import annotations

from launcher import __version__
from launcher.errors import PreconditionError
from launcher.gateway.tracing import Tracer
from launcher.profile.model import ExternalEngine, Profile


def require_exporter(profile: Profile) -> None:
    """Raises PreconditionError where traces are asked for and the packages that send them are not there."""
    if profile.gateway.tracing is None:
        return
    try:
        import launcher.gateway.spans  # noqa: F401  # here: only who asks for traces needs the packages
    except ImportError as error:
        raise PreconditionError(
            f"gateway.tracing is set, but what sends traces is not installed here: {error}",
            "pip install 'vllm-profile-launcher[otel]', or take gateway.tracing out of the profile.",
        ) from None


def make_tracer(profile: Profile) -> Tracer | None:
    """What traces the gateway's requests; None: nobody asks for it. Raises PreconditionError as ``require_exporter``."""
    tracing = profile.gateway.tracing
    if tracing is None:
        return None
    require_exporter(profile)
    from launcher.gateway.spans import OtlpSpans

    spans = OtlpSpans(
        tracing.url,
        service=f"{profile.name}-gateway",
        version=__version__,
        # Of servers that run elsewhere only the protocol is known, and the conventions take its name then.
        provider="openai" if isinstance(profile.engine, ExternalEngine) else "vllm",
        model=profile.model.public_name or "",
    )
    return Tracer(spans, tracing.sample)
