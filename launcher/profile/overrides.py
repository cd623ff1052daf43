"""Overrides: ``--set engine.replicas=2`` and ``LAUNCHER__ENGINE__REPLICAS=2``, laid over the data of the file.

The order, strongest first: --set (of two for one key the later), then the environment, then the file, then the default.
A mapping or list replaces the file's whole.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from launcher.profile.document import BROKEN, Document, is_broken, read_value
from launcher.profile.faults import Fault, KeyPath, Place, dotted
from launcher.profile.keys import is_free_form, takes_text

ENV_PREFIX = "LAUNCHER__"


class Override(NamedTuple):
    """One value to lay over the file's."""

    place: Place
    path: tuple[str, ...]
    text: str


def apply_overrides(document: Document, sets: Sequence[str], env: Mapping[str, str]) -> None:
    """Lay the environment, then ``sets``, over the document's data; faults and places go into the document."""
    for override in [*_from_env(env), *_from_sets(document, sets)]:
        value = _read(override)
        document.faults += value.faults
        if not value.faults:
            _lay(document, override, value)


def _from_env(env: Mapping[str, str]) -> list[Override]:
    found = []
    for name in sorted(name for name in env if name.startswith(ENV_PREFIX)):
        path: list[str] = []
        parts = name.removeprefix(ENV_PREFIX).split("__")
        for index, part in enumerate(parts):
            if path == ["engine", "env"]:
                # The rest is one name, in its own letter case: environment variables may have double underscores.
                path.append("__".join(parts[index:]))
                break
            path.append(part if is_free_form(path) else part.lower())
        found.append(Override(Place(f"env {name}"), tuple(path), env[name]))
    return found


def _from_sets(document: Document, sets: Sequence[str]) -> list[Override]:
    found = []
    for written in sets:
        key, equals, text = written.partition("=")
        # The value of an engine's environment variable may be a secret (a hub token): it is not shown.
        place = Place(f"--set {key if key.startswith('engine.env.') else written}")
        path = tuple(key.strip().split(".", 2 if key.startswith("engine.env.") else -1))
        if not equals or not all(path):
            document.fault(place, (), "write key=value, such as --set engine.replicas=2")
        else:
            found.append(Override(place, path, text))
    return found


def _read(override: Override) -> Document:
    """The override's value. Where the profile wants text, it is taken as written: the command line has only text."""
    place, path, text = override
    value = text.strip()
    if is_broken(text) or is_broken("".join(path)):
        return Document(faults=[Fault(place, (), BROKEN)])
    if takes_text(path) and value[:1] not in ("'", '"') and value not in ("null", "~", ""):
        return Document(text, {path: place._replace(text=text)})
    return read_value(text, place, path)


def _forget(document: Document, path: KeyPath) -> None:
    for places in (document.places, document.key_places):
        for known in [known for known in places if known[: len(path)] == path]:
            del places[known]


def _lay(document: Document, override: Override, value: Document) -> None:
    place, path, _ = override
    if document.data is None:
        document.data = {}
    inner: Any = document.data
    for depth, key in enumerate(path[:-1], start=1):
        if not isinstance(inner, dict):
            return  # the file has no mapping here, and is told so
        if inner.get(key) is None:
            inner[key] = {}
            document.places[path[:depth]] = document.key_places[path[:depth]] = place
        inner = inner[key]
    if isinstance(inner, list):
        whole = dotted(path[:-1])
        document.fault(place, path, f"{whole} is a list: give all of it, such as {whole}=[a, b]")
        return
    if not isinstance(inner, dict):
        return
    _forget(document, path)
    document.faults = [
        fault for fault in document.faults if fault.path[: len(path)] != path or fault.place.source == place.source
    ]
    inner[path[-1]] = value.data
    document.key_places[path] = place
    document.places |= value.places or {path: place}
    document.key_places |= value.key_places
