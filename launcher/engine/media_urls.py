"""vLLM fetches no URL that a request names: the gateway in front fetches what the profile allows, or refuses.

Read in vLLM's source (multimodal/media/connector.py, envs.py; the wheels of 0.24.0 and 0.32.0): without
--allowed-media-domains any host may be fetched, this machine's own among them, and redirects are followed. With it,
http and https URLs of other hosts are refused before anything is looked up or connected to; the host of a redirect is not
checked, so VLLM_MEDIA_URL_ALLOW_REDIRECTS has to be 0 as well. `data:` URLs are taken in any case, `file:` URLs only below
--allowed-local-media-path, which is unset by default. Models of text alone take the flag too, and never read it.
"""

from __future__ import annotations

from collections.abc import Iterator

from launcher.engine.extra_args import full_name
from launcher.engine.flags import MEDIA_DOMAINS, MEDIA_REDIRECTS
from launcher.probe.arguments import groups
from launcher.profile.model import VllmEngine

# A slash ends the host of a URL, so that no URL's host can be this. Plain nothing.invalid (RFC 2606) would be let through:
# a request that names it has vLLM look it up three times within five seconds, or hand it to a proxy.
NO_HOST = "nothing.invalid/"


def no_domains(engine: VllmEngine) -> list[str]:
    """The argument that leaves vLLM no host to fetch from; [] where engine.extra_args says from which it may."""
    return [MEDIA_DOMAINS, NO_HOST] if given_domains(engine) is None else []


def fetch_notes(engine: VllmEngine) -> Iterator[str]:
    """What engine.extra_args lets vLLM fetch by itself."""
    domains = given_domains(engine)
    if domains is None:
        return
    # vLLM's own reading of the variable: bool(int(…))
    redirects = engine.env.get(MEDIA_REDIRECTS, "0").strip() not in ("", "0")
    how = f"follows redirects to any host ({MEDIA_REDIRECTS} in engine.env)" if redirects else "follows no redirect"
    yield f"engine.extra_args: {MEDIA_DOMAINS}: vLLM itself fetches URLs of {', '.join(domains)} that reach it, and {how}"


def given_domains(engine: VllmEngine) -> tuple[str, ...] | None:
    """The domains that engine.extra_args gives; None where it does not give the flag."""
    for group in groups(engine.extra_args):
        if full_name(group) == MEDIA_DOMAINS:
            return group.values
    return None
