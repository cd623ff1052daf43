"""How this gateway was installed: as plain Python, or compiled (`make compile`); it behaves the same."""

from __future__ import annotations

from importlib.util import find_spec

HOT_MODULE = "launcher.gateway.relay"  # of those that hatch_build.py compiles: it has all or none


def is_compiled() -> bool:
    """Whether requests go through machine code. Imports nothing of the gateway."""
    spec = find_spec(HOT_MODULE)
    return spec is not None and spec.origin is not None and not spec.origin.endswith(".py")
