"""A profile as a systemd service: `launcher up` with readiness, a watchdog, a drain on stop, and no more rights than it needs.

See systemd.service(5), systemd.exec(5) and systemd.resource-control(5). What the profile names and the sandbox hides is
refused here, by its key, rather than missing at the start.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from launcher.engine.flags import value_of
from launcher.engine.nodes import has_nodes
from launcher.errors import EXIT_INTERRUPTED, EXIT_PRECONDITION, EXIT_PROFILE, EXIT_USAGE, PreconditionError
from launcher.profile.load import LoadedProfile
from launcher.profile.model import Profile, VllmEngine
from launcher.profile.units import GIB, MIB, format_duration, format_size
from launcher.render.placed_files import FILE_KEYS, NO_FILE
from launcher.render.systemd_unit import UNIT

PROGRAM = "/opt/launcher/.venv/bin/launcher"
PROFILES = "/etc/launcher"
MARGIN_S = 20  # of the time to stop above the waits that it covers; `launcher down` kills after 15 s more than these
OWN_BYTES = GIB  # launcher, gateway, control app and the processes that decode pictures
FILES_BESIDE = 1024  # logs, models and the like, beside connections
HOPELESS = {EXIT_USAGE: "wrong command line", EXIT_PROFILE: "invalid profile", EXIT_PRECONDITION: "something missing"}
HIDDEN = {"/home": "ProtectHome", "/root": "ProtectHome", "/run/user": "ProtectHome"}
HIDDEN |= {"/tmp": "PrivateTmp", "/var/tmp": "PrivateTmp"}


@dataclass(frozen=True)
class Place:
    """Where things are on the machine that is to run it.

    ``profile`` '': NAME.yaml in PROFILES. ``interpreter``: the Python that ``program`` really runs on, where that is known.
    """

    program: str = PROGRAM
    profile: str = ""
    user: str = "launcher"
    interpreter: str = ""


def service_unit(loaded: LoadedProfile, place: Place, arguments: Sequence[str] = ()) -> str:
    """The text of launcher-NAME.service; ``arguments`` are more words for `launcher up`.

    Raises PreconditionError for a path that the service could not see or write, and for a host whose rank is not given.
    """
    profile = loaded.profile
    where = place.profile or f"{PROFILES}/{profile.name}.yaml"
    interpreter = [("the Python of --program", place.interpreter)] if place.interpreter else []
    for what, path in (("--program", place.program), *interpreter, ("--profile-path", where), *_paths(profile)):
        _refuse_hidden(what, path)
    _refuse_unranked(profile, arguments)
    argv = [place.program, "up", where, *_log_folder(profile), *arguments]
    return UNIT.substitute(_life(profile), **_confinement(profile), command=" ".join(map(_word, argv)), user=place.user)


def _life(profile: Profile) -> dict[str, object]:
    """How it starts, ends and is started again."""
    served = profile.model.public_name
    return {
        "name": profile.name,
        "description": _plain(f"launcher: {profile.name}" + (f" serves {served}" if served else "")),
        "wants": " ".join(_wants(profile)),
        "folder": PROFILES,
        "drain": format_duration(profile.timeouts.drain),
        "stop": format_duration(profile.timeouts.stop),
        "margin": MARGIN_S,
        "stop_s": stop_s(profile),
        "hopeless": ", ".join(f"{why} ({code})" for code, why in HOPELESS.items()),
        "hopeless_codes": " ".join(map(str, HOPELESS)),
        "interrupted": EXIT_INTERRUPTED,
    }


def _confinement(profile: Profile) -> dict[str, object]:
    """What it may use, and how much."""
    return {
        "writable": f"ReadWritePaths={_word(profile.logging.dir)}\n" if profile.logging.dir else "",
        "connections": profile.gateway.max_connections,
        "files": 2 * profile.gateway.max_connections + FILES_BESIDE,
        "memory": "\n".join(_memory(profile)),
        "devices": "\n".join(_devices(profile)),
        "capability": "CAP_NET_BIND_SERVICE" if 0 < _port(profile) < 1024 else "",
    }


def stop_s(profile: Profile) -> int:
    """From the signal to stop to the one that nothing can ignore."""
    return math.ceil(profile.timeouts.drain + profile.timeouts.stop) + MARGIN_S


def _has_cards(profile: Profile) -> bool:
    return profile.hardware.device == "cuda" and isinstance(profile.engine, VllmEngine)


def _wants(profile: Profile) -> Iterator[str]:
    yield "network-online.target"
    if _has_cards(profile):  # the service may load no modules, and which devices there are is settled at its start
        yield "modprobe@nvidia_uvm.service"
        yield "nvidia-persistenced.service"


def _memory(profile: Profile) -> Iterator[str]:
    """Limits of main memory, where the profile says what there is for the engines."""
    given = profile.hardware.memory
    if given is None:
        why = (
            "what engines on cards take of it is in no plan" if _has_cards(profile) else "hardware.memory is not given"
        )
        yield f"# No limit of main memory: {why}."
        return
    high = given + OWN_BYTES + profile.gateway.uploads.memory
    yield f"# hardware.memory ({format_size(given)}), uploads, and 1 GiB for the launcher itself; above the second figure the kernel"
    yield "# kills an engine, which is then started again."
    yield f"MemoryHigh={math.ceil(high / MIB)}M"
    yield f"MemoryMax={math.ceil(high * 1.1 / MIB)}M"
    yield "MemorySwapMax=0"


def _devices(profile: Profile) -> Iterator[str]:
    if not _has_cards(profile):
        yield "PrivateDevices=yes"
        return
    yield "# The cards and no other device. CUDA may not make /dev/nvidia-uvm itself here, so it is made before."
    yield "ExecStartPre=-+/usr/bin/nvidia-modprobe -u"
    yield "DevicePolicy=closed"
    yield "DeviceAllow=char-nvidia* rw"
    if has_nodes(profile):
        yield "DeviceAllow=char-infiniband* rw"
    yield "LimitMEMLOCK=infinity"


def _port(profile: Profile) -> int:
    return int(profile.gateway.listen.rpartition(":")[2])


def _log_folder(profile: Profile) -> list[str]:
    return [] if profile.logging.dir else ["--set", f"logging.dir=/var/log/launcher/{profile.name}"]


def _paths(profile: Profile) -> Iterator[tuple[str, str]]:
    """The files that the profile names outside its own folder, by key."""
    keys = [row.key for row in FILE_KEYS] + ["logging.dir"] + ["engine.python"] * isinstance(profile.engine, VllmEngine)
    for key in keys:
        path = value_of(profile, key)
        if path is None or path in NO_FILE.get(key, ()):
            continue
        if key == "logging.dir" and not path.startswith("/"):
            raise PreconditionError(
                f"logging.dir: {path} is relative to the profile's file, where the service cannot write",
                "Take it out, so that logs go to /var/log/launcher, or give an absolute path.",
            )
        if path.startswith(("/", "~")):
            yield key, path


def _refuse_hidden(what: str, path: str) -> None:
    if not path.startswith("/"):
        raise PreconditionError(
            f"{what}: {path} is not an absolute path", "Give the path on the machine that is to run the service."
        )
    for folder, setting in HIDDEN.items():
        if PurePosixPath(path).is_relative_to(folder):
            raise PreconditionError(
                f"{what}: {path} lies in {folder}, which the service cannot see ({setting})",
                "Put it elsewhere, such as below /opt or /srv.",
            )


def _refuse_unranked(profile: Profile, arguments: Sequence[str]) -> None:
    if has_nodes(profile) and not any(word.startswith("--node-rank") for word in arguments):
        raise PreconditionError(
            f"engine.nodes: {profile.engine.nodes} hosts run one replica, and each needs a unit with its own rank",  # type: ignore[union-attr]
            "Give what `launcher up` is to be told on this host behind two dashes, such as: -- --node-rank 0",
        )


def _plain(text: str) -> str:
    """As the value of a setting: one line, and % is a specifier of systemd's."""
    return " ".join(text.split()).replace("%", "%%")


def _word(word: str) -> str:
    """One word of a command line, as systemd reads it."""
    escaped = word.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("%", "%%").replace("$", "$$")
    return escaped if re.fullmatch(r"[^\s\\\"';]+", escaped) else f'"{escaped}"'
