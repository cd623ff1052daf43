"""Every key of the profile as a table, made from the model: its type in words, default and meaning."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any, NamedTuple

from launcher.profile.schema import build_schema


class Key(NamedTuple):
    """One key as a user sees it."""

    path: str  # dotted
    type: str
    default: str  # as one would write it in YAML; empty for a key that must be given
    description: str
    kind: str = ""  # for a key of engine: which engine.kind has it


@cache
def profile_keys() -> tuple[Key, ...]:
    """All keys in the order of the model; sections themselves are not among them."""
    return tuple(_walk(build_schema(), ()))


def _walk(schema: dict[str, Any], path: tuple[str, ...], kind: str = "") -> Iterator[Key]:
    for name, field in schema["properties"].items():
        inner = (*path, name)
        if name == "engine" and not path:
            for engine_kind in ("vllm", "external"):
                yield from _walk(_section(f"{engine_kind}_engine"), inner, engine_kind)
        elif section := _section_of(field):
            if words := _words_of(field):  # a word may stand in the section's place
                yield Key(".".join(inner), f"mapping, or {words}", _yaml(field.get("default")), field["description"])
            yield from _walk(section, inner)
        else:
            required = name in schema.get("required", ())
            default = "" if required else _yaml(field.get("default"))
            words = type_in_words(field)
            if inner == ("engine", "kind"):  # one key that chooses between two sections
                if kind == "external":
                    continue
                words, kind_of_key = "vllm | external", ""
            else:
                kind_of_key = kind
            yield Key(".".join(inner), words, default, field.get("description", ""), kind_of_key)


def _section(name: str) -> dict[str, Any]:
    found: dict[str, Any] = build_schema()["$defs"][name]
    return found


def _section_of(field: dict[str, Any]) -> dict[str, Any] | None:
    """The section that a field refers to, directly or as one that may be null (warmup.canary)."""
    for choice in (field, *field.get("anyOf", ())):
        if "$ref" in choice:
            return _section(choice["$ref"].rsplit("/", 1)[-1])
    return None


def _words_of(field: dict[str, Any]) -> str:
    """The words that may stand where a section stands; '': none."""
    return " | ".join(choice["const"] for choice in field.get("anyOf", ()) if "const" in choice)


def _yaml(value: Any) -> str:
    return value if isinstance(value, str) and value else json.dumps(value)


def type_in_words(field: dict[str, Any]) -> str:
    """A schema's type as a person says it: ``whole number, 1 or more``."""
    choices = [choice for choice in field.get("anyOf", ()) if choice.get("type") != "null"]
    field = {**field, **choices[0]} if choices else field
    if "const" in field or "enum" in field:
        return " | ".join(map(str, field.get("enum", [field.get("const")])))
    if "examples" in field and field["type"] == "string" and "pattern" in field:
        return "duration" if "200ms" in field["examples"] else "size"
    if field["type"] == "array":
        return "list of text"
    if field["type"] == "object":
        values = field.get("additionalProperties")
        return "names and texts" if isinstance(values, dict) and values.get("type") == "string" else "mapping"
    words = {"string": "text", "boolean": "true or false", "integer": "whole number", "number": "number"}[field["type"]]
    return words + _range(field)


def _range(field: dict[str, Any]) -> str:
    low, above, high = field.get("minimum"), field.get("exclusiveMinimum"), field.get("maximum")
    if high is not None:
        return f", {f'more than {above}' if low is None else low} to {high}"
    return f", {low} or more" if low is not None else ""


def keys_below(path: Sequence[str], kind: str = "vllm") -> list[str]:
    """The names that may stand below a key path (() for the top); none for a key that holds a value."""
    names: dict[str, None] = {}
    for key in profile_keys():
        parts = key.path.split(".")
        if len(parts) > len(path) and parts[: len(path)] == list(path) and key.kind in ("", kind):
            names[parts[len(path)]] = None
    return list(names)


def _find(path: Sequence[str]) -> Key | None:
    return next((key for key in profile_keys() if key.path == ".".join(path)), None)


def is_free_form(path: Sequence[str]) -> bool:
    """Whether the names at or below this path are the user's own, as in engine.env and model.hf_overrides."""
    return any(key is not None and key.type in ("names and texts", "mapping") for key in _prefixes(path))


def _prefixes(path: Sequence[str]) -> list[Key | None]:
    return [_find(path[:depth]) for depth in range(1, len(path) + 1)]


def takes_text(path: Sequence[str]) -> bool:
    """Whether a value here is text, of any form: a name, a choice, a duration, a size, an environment variable's value."""
    if len(path) > 1 and (parent := _find(path[:-1])) and parent.type == "names and texts":
        return True
    key = _find(path)
    words = ("whole number", "number", "true or false", "list of text", "names and texts", "mapping", "1")
    return key is not None and not key.type.startswith(words)


def markdown_table(keys: Sequence[Key]) -> str:
    """The keys as a Markdown table, for the README."""
    lines = ["| key | type | default | meaning |", "|---|---|---|---|"]
    for key in keys:
        default = f"`{key.default}`" if key.default else "required"
        meaning = key.description + (f" (kind: {key.kind})" if key.kind == "external" else "")
        cells = (f"`{key.path}`", key.type, default, meaning)
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"
