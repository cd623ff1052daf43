"""Where a deployment's API keys are, and who keeps its gate: the profile's settings, the file and the environment put together."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

from launcher.gateway.audit import AuditLog
from launcher.gateway.auth import Gatekeeper, keys_required
from launcher.gateway.keyring import VARIABLE, KeyRing, keys_of_environment
from launcher.profile.load import LoadedProfile
from launcher.supervise.rundir import state_root

log = logging.getLogger("launcher.up")
KEYS_FILE = "keys.json"
# The key that engines ask of the gateway where each runs under a launcher of its own: both are given it.
ENGINE_KEY = "LAUNCHER_ENGINE_KEY"


def keys_path(loaded: LoadedProfile) -> Path:
    """gateway.keys_file, or keys.json in the deployment's state folder; absolute."""
    own = loaded.profile.gateway.keys_file
    return (loaded.resolve(own) if own else state_root() / loaded.profile.name / KEYS_FILE).absolute()


def open_gate(loaded: LoadedProfile, environ: Mapping[str, str], audit: AuditLog | None = None) -> Gatekeeper:
    """The gatekeeper that the profile asks for.

    Raises KeyFault for keys that cannot be read, PreconditionError where keys are needed and there are none.
    """
    gateway = loaded.profile.gateway
    if gateway.auth == "none":
        if environ.get(VARIABLE):
            log.warning("%s is set, but gateway.auth is none: nobody is asked for a key", VARIABLE)
        return Gatekeeper(KeyRing(None), required=False)
    ring = KeyRing(keys_path(loaded), keys_of_environment(environ.get(VARIABLE, "")), audit)
    return Gatekeeper(ring, keys_required(gateway.auth, gateway.listen, bool(ring.keys)))
