"""Profiles as one compose file: what `docker compose up` needs to serve them, and to watch them. Text in, text out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from launcher.errors import PreconditionError
from launcher.plan.placement import why_not_placed
from launcher.render import container
from launcher.render.compose_monitoring import GRAFANA_PORT, PROMETHEUS_PORT, monitoring_services
from launcher.render.compose_part import Given, Part, kind_of, refuse_what_has_no_place
from launcher.render.compose_services import engine_services, gateway_service, secret_files
from launcher.render.yaml_text import Anchored, Note, Spaced, comment, to_yaml

NAME_OF_MANY = "launcher"


def compose_file(given: Sequence[Given], *, folder: Path, checkout: Path | None = None, written_by: str = "") -> str:
    """The file for ``folder``, where relative paths in it start.

    Of one profile the services always start; of several each has a compose profile: cpu, gpu or external. ``checkout``
    is this project's source: images are built from it, and monitoring is configured by it. ``written_by``: the command.
    Raises PreconditionError for what has no place in such a file.
    """
    parts = _parts(given, folder, checkout)
    for part in parts:
        refuse_what_has_no_place(part)
        if (why := why_not_placed(part.profile)) is not None:
            raise PreconditionError(
                f"{part.loaded.path}: {why}",
                "`launcher plan` shows what fits; each engine is given its cards by number.",
            )
    tree: dict[Any, Any] = {
        "name": parts[0].profile.name if len(parts) == 1 else NAME_OF_MANY,
        "x-container": _hardening(),
        "services": Spaced(_services(parts)),
        "networks": _networks(parts),
        "volumes": _volumes(parts),
    }
    if secrets := {name: {"file": file} for part in parts for name, file in secret_files(part).items()}:
        tree["secrets"] = secrets
    return f"{comment(_head(parts, written_by))}\n\n{to_yaml(Spaced(tree))}"


def _parts(given: Sequence[Given], folder: Path, checkout: Path | None) -> list[Part]:
    kinds = [kind_of(one.loaded.profile) for one in given]
    for kind in set(kinds):
        if len(same := [str(one.loaded.path) for one, of in zip(given, kinds, strict=True) if of == kind]) > 1:
            raise PreconditionError(
                f"{' and '.join(same)} would both be started by --profile {kind}",
                "Render a file for each, and choose with docker compose -f FILE.",
            )
    return [
        Part(
            one,
            folder,
            checkout,
            suffix=f"-{kind}" if index else "",
            compose_profile=kind if len(given) > 1 else None,
        )
        for index, (one, kind) in enumerate(zip(given, kinds, strict=True))
    ]


def _head(parts: Sequence[Part], written_by: str) -> str:
    lines = ["Written by: " + written_by] if written_by else []
    lines += [
        "Change the profile and write it anew; what is this machine's alone belongs in docker-compose.override.yml."
    ]
    lines += ["", *_usage(parts)]
    lines += [
        "",
        "HF_TOKEN_FILE=FILE      a file with your token for the hub, for models that want one",
        "LAUNCHER_UID=$(id -u)   run as you, so that files which only you may read can be read",
    ]
    return "\n".join(lines)


def _usage(parts: Sequence[Part]) -> list[str]:
    def row(flags: str, what: str) -> str:
        return f"docker compose {flags}up".ljust(62) + what

    rows = []
    for part in parts:
        flag = f"--profile {part.compose_profile} " if part.compose_profile else ""
        rows.append(row(flag, f"{part.profile.name}, on {_address(part)}"))
    first = f"--profile {parts[0].compose_profile} " if parts[0].compose_profile else ""
    if parts[0].checkout is not None:
        what = f"and Grafana on http://127.0.0.1:{GRAFANA_PORT}, Prometheus on :{PROMETHEUS_PORT}"
        rows.append(row(f"{first}--profile monitoring ", what))
    if parts[0].compose_profile:
        rows.append(row("", f"with COMPOSE_PROFILES={parts[0].compose_profile} in .env: the first of these"))
    return rows


def _address(part: Part) -> str:
    host, port = part.published
    scheme = "https" if part.profile.gateway.tls_cert else "http"
    return f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}" if port else f"a free port of {host}"


def _hardening() -> Anchored:
    return Anchored(
        "container",
        {
            Note("Group 0 may write to the images' folders, so that any user may run them."): None,
            "user": f"${{LAUNCHER_UID:-{container.UID}}}:0",
            Note(
                "A first process that hands on SIGTERM while the launcher still starts, and reaps what others leave."
            ): None,
            "init": True,
            "restart": "unless-stopped",
            "read_only": True,
            "tmpfs": ["/tmp:exec,mode=1777", "/run/launcher:mode=1777"],
            "cap_drop": ["ALL"],
            "security_opt": ["no-new-privileges:true"],
        },
    )


def _services(parts: Sequence[Part]) -> dict[str, Any]:
    services: dict[str, Any] = {}
    for part in parts:
        services |= engine_services(part)
        services[part.gateway] = gateway_service(part)
    if (checkout := parts[0].checkout) is not None:
        reachable = [part.network for part in parts if not part.on_host_network]
        services |= monitoring_services(checkout, parts[0].folder, reachable)
    return services


def _networks(parts: Sequence[Part]) -> dict[str, None]:
    names = [part.network for part in parts if not part.on_host_network]
    return dict.fromkeys([*names, "monitoring"] if parts[0].checkout is not None else names)


def _volumes(parts: Sequence[Part]) -> dict[str, None]:
    names = ["models", "caches"] if any(part.engines for part in parts) else []
    names += [part.state for part in parts]
    return dict.fromkeys([*names, "metrics", "grafana"] if parts[0].checkout is not None else names)
