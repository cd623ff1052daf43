"""What pydantic objects to → sentences in the profile's own words, with choices, 'did you mean' and the right place."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, NamedTuple

from pydantic import ValidationError

from launcher.profile.agreement import Disagreement
from launcher.profile.faults import KeyPath, closest, dotted
from launcher.profile.keys import Key, keys_below, profile_keys


class Complaint(NamedTuple):
    """A fault that has no place yet. ``{text}`` in the sentence stands for the value as it was written."""

    path: KeyPath
    sentence: str
    at_key: bool = False  # the key is wrong, not its value
    is_rule: bool = False  # a rule over the keys in ``about``
    about: tuple[KeyPath, ...] = ()


# Names that people know from vLLM's command line and that are too unlike ours to be guessed.
VLLM_NAMES = {
    "max_model_len": "model.max_len",
    "served_model_name": "model.served_name",
    "enforce_eager": "engine.compile",
    "tensor_parallel_size": "engine.tensor_parallel",
    "pipeline_parallel_size": "engine.pipeline_parallel",
    "data_parallel_size": "engine.replicas",
    "enable_prefix_caching": "engine.prefix_caching",
    "enable_chunked_prefill": "engine.chunked_prefill",
    "kv_cache_memory_bytes": "engine.kv_cache_memory",
    "limit_mm_per_prompt": "model.images_per_prompt",
    "tool_call_parser": "model.tool_parser",
    "chat_template_content_format": "model.template.content_format",
    "default_chat_template_kwargs": "model.chat_template_kwargs",
    "host": "gateway.listen",
    "port": "gateway.listen",
}
# Other words for a choice of ours.
SAME_CHOICE = {
    "fp16": "float16",
    "half": "float16",
    "bf16": "bfloat16",
    "fp32": "float32",
    "float": "float32",
    "gpu": "cuda",
    "warn": "warning",
}


def complaints_of(error: ValidationError, data: Any) -> list[Complaint]:
    """One complaint for each thing that is wrong; ``data`` is what was validated."""
    found: list[Complaint] = []
    for item in error.errors(include_url=False, include_input=True):
        cause = item.get("ctx", {}).get("error")
        if isinstance(cause, Disagreement):
            found += [
                Complaint(_split(rule.key), rule.sentence, is_rule=True, about=tuple(map(_split, rule.about)))
                for rule in cause.rules
            ]
            continue
        path = _own_path(item["loc"])
        # An item that is wrong leaves its list too short: that is one fault, not two.
        if item["type"] == "too_short" and any(known.path[: len(path)] == path for known in found):
            continue
        sentence = _sentence(item["type"], path, item.get("input"), item.get("ctx", {}), data)
        found.append(Complaint(path, sentence or item["msg"], at_key=item["type"] == "extra_forbidden"))
    return found


def _split(key: str) -> KeyPath:
    return tuple(key.split("."))


def _own_path(loc: tuple[int | str, ...]) -> KeyPath:
    """The key path as the user wrote it: pydantic adds the chosen kind of engine after 'engine'."""
    return (loc[0], *loc[2:]) if loc[:1] == ("engine",) and loc[1:2] in (("vllm",), ("external",)) else loc


def _sentence(kind: str, path: KeyPath, value: Any, ctx: dict[str, Any], data: Any) -> str:
    if kind == "extra_forbidden":
        return _unknown_key(path, data)
    if kind == "missing":
        return f"is missing: {_meaning(path)}"
    if value is None and kind in WANTED:
        return f"null is no value for it: {_wanted(kind, path)}, or leave the key out"
    if path == ("engine", "kind"):
        return _no_choice(value, ["vllm", "external"])
    if kind == "literal_error":
        return _no_choice(value, _choices(path))
    if kind in LIMITS:
        return LIMITS[kind](value, ctx)
    if kind == "value_error":
        return str(ctx["error"])
    if kind in WANTED:
        return f"{_shown(value)} is {_type_name(value)}, but {_wanted(kind, path, value)}"
    return ""


LIMITS: dict[str, Callable[[Any, dict[str, Any]], str]] = {
    "greater_than_equal": lambda value, ctx: f"{value} is too small: {ctx['ge']} or more",
    "greater_than": lambda value, ctx: f"{value} is too small: more than {ctx['gt']:g}",
    "less_than_equal": lambda value, ctx: f"{value} is too large: {ctx['le']:g} at most",
    "too_short": lambda value, ctx: f"the list is empty: give {ctx['min_length']} or more",
    "string_too_short": lambda value, ctx: "is an empty text: write one, or leave the key out",
}
WANTED = {
    "int_type": "a whole number is wanted",
    "int_from_float": "a whole number is wanted",
    "float_type": "a number is wanted",
    "bool_type": "true or false is wanted",
    "string_type": "text is wanted",
    "tuple_type": "a list is wanted: write [one, another]",
    "dict_type": "a mapping is wanted: names with values, indented below the key",
    "model_type": "a section is wanted: keys with values, indented below it",
}


def _wanted(kind: str, path: KeyPath, value: Any = None) -> str:
    wanted = WANTED[kind]
    if kind == "string_type" and isinstance(value, int | float):
        return f'{wanted}: quote it: "{{text}}"'
    if kind in ("int_type", "float_type", "bool_type") and isinstance(value, str) and _is_plain(value):
        return f"{wanted}: take the quotes away"
    if kind == "tuple_type" and isinstance(value, str):
        return f"a list is wanted: write [{_shown(value)}]"
    return wanted


def _is_plain(text: str) -> bool:
    return text in ("true", "false") or text.replace(".", "", 1).isdigit()


def _type_name(value: Any) -> str:
    if isinstance(value, bool):
        return "a truth"
    names = {str: "text", int: "a number", float: "a number", list: "a list", dict: "a mapping"}
    return names[type(value)]


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}…"


def _no_choice(value: Any, choices: list[str]) -> str:
    near = SAME_CHOICE.get(value, closest(value, choices)) if isinstance(value, str) else None
    near = near if near in choices else None
    meant = f' did you mean "{near}"?' if near and len(choices) > 1 else ""
    return f"{_shown(value)} is not a choice: {' | '.join(choices)};{meant}".removesuffix(";")


def _key(path: KeyPath) -> Key | None:
    return next((key for key in profile_keys() if key.path == dotted(path)), None)


def _choices(path: KeyPath) -> list[str]:
    key = _key(path)
    return key.type.split(" | ") if key else []


def _meaning(path: KeyPath) -> str:
    key = _key(path)
    return key.description[:1].lower() + key.description[1:].rstrip(".") if key else "give it"


def _engine_kind(data: Any) -> str:
    engine = data.get("engine") if isinstance(data, dict) else None
    return "external" if isinstance(engine, dict) and engine.get("kind") == "external" else "vllm"


def _unknown_key(path: KeyPath, data: Any) -> str:
    """Guesses, the surest first: the other kind of engine, vLLM's name, a slip in this section, another section's key."""
    section, name = [str(part) for part in path[:-1]], str(path[-1])
    kind = _engine_kind(data)
    other = "external" if kind == "vllm" else "vllm"
    here = keys_below(section, kind)
    if section == ["engine"] and name in keys_below(section, other):
        return f"belongs to engine.kind: {other}, but this engine's kind is {kind}"
    vllm_key = VLLM_NAMES.get(name.lower().replace("-", "_"), "")
    owner, _, last = vllm_key.rpartition(".")
    if vllm_key and owner == dotted(section):
        return f'there is no such key; did you mean "{last}"?'
    if near := closest(name, here):
        return f'there is no such key; did you mean "{near}"?'
    if vllm_key:
        return f"there is no such key; here it is {vllm_key}"
    return _from_elsewhere(section, name, kind) or f"there is no such key; {_owner(section)} has {', '.join(here)}"


def _from_elsewhere(section: list[str], name: str, kind: str) -> str:
    """'max_len belongs under model', or a guess at a key of another section; empty when there is none."""
    keys = {key.path: key.path.rpartition(".")[2] for key in profile_keys() if key.kind in ("", kind)}
    place = f"in {dotted(section)}" if section else "at the top"
    owners = [full.rpartition(".")[0] or "the top" for full, last in keys.items() if last == name]
    if owners:
        return f"there is no such key {place}; {name} belongs under {' or '.join(owners)}"
    if near := closest(name, keys.values()):
        return f'there is no such key {place}; did you mean "{next(k for k, v in keys.items() if v == near)}"?'
    return ""


def _owner(section: list[str]) -> str:
    return dotted(section) or "a profile"
