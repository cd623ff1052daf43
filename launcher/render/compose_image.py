"""Which image a service of a compose file runs, and how it is built where this project's source is at hand."""

from __future__ import annotations

from typing import Any

from launcher.render import container
from launcher.render.compose_part import Part
from launcher.render.compose_words import literal
from launcher.render.placed_files import host_path


def image_of(part: Part, role: str) -> dict[str, Any]:
    """Image, how it is built where there is a checkout to build it from, and the compose profile that starts it."""
    packages = container.engine_packages(part.profile) if role == "engine" else ()
    if role == "gateway":
        variable, name, build = "LAUNCHER_IMAGE", container.IMAGE, {"dockerfile": "deploy/Dockerfile"}
    elif part.kind == "cpu":
        variable, name = "LAUNCHER_ENGINE_CPU_IMAGE", container.ENGINE_CPU_IMAGE
        build = {"dockerfile": "deploy/Dockerfile.engine", "target": "cpu"}
    else:
        variable, name = "LAUNCHER_ENGINE_IMAGE", container.ENGINE_IMAGE
        build = {"dockerfile": "deploy/Dockerfile.engine", "target": "gpu"}
    image: dict[str, Any] = {"image": f"${{{variable}:-{name}{'-bnb' if packages else ''}}}"}
    if part.checkout is not None:
        context = host_path(part.checkout, part.folder)
        arguments = {"args": {"PACKAGES": " ".join(packages)}} if packages else {}
        image["build"] = {"context": literal(context), **build, **arguments}
        # Compose would else ask a registry first. Who names an image of a registry says LAUNCHER_PULL=missing too.
        image["pull_policy"] = "${LAUNCHER_PULL:-never}"
    if part.compose_profile is not None:
        image["profiles"] = [part.compose_profile]
    return image
