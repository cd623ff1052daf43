"""Checks engine.extra_args and engine.env against what the launcher writes itself. Pure; vLLM's parser is asked later."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from launcher.engine.flags import MEDIA_DOMAINS, RESERVED, RESERVED_ENV, SHORT, TABLE
from launcher.probe.arguments import Group, groups, resolve
from launcher.profile.model import VllmEngine

# Further flags that a key of ours writes or replaces, beside the one in its row.
_KEY_OF = {row.flag: row.key for row in TABLE} | {
    "--enforce-eager": "engine.compile",
    "--language-model-only": "model.images_per_prompt",
    "--enable-auto-tool-choice": "model.tool_parser",
    "--kv-cache-memory": "engine.kv_cache_memory",
}
_NAMES = {**_KEY_OF, **RESERVED, MEDIA_DOMAINS: "see media_urls.py"}
_REPEATABLE = ("--middleware",)


def extra_faults(engine: VllmEngine, keys_set: Sequence[str]) -> Iterator[str]:
    """Sentences on arguments that are reserved, that clash with a key in ``keys_set``, or that stand there twice."""
    seen: set[str] = set()
    for group in groups(engine.extra_args):
        flag = full_name(group)
        if flag in RESERVED:
            yield f"engine.extra_args: {group.written} is not allowed: {RESERVED[flag]}"
        elif (key := _KEY_OF.get(flag)) in keys_set:
            yield f"engine.extra_args: {group.written} clashes with {key}, which writes it too: keep {key} and take it out here"
        elif flag in seen and not group.key and flag not in _REPEATABLE:
            yield f"engine.extra_args: {group.written} stands there twice, and vLLM would take the last"
        seen.add(flag)


def extra_notes(engine: VllmEngine, keys_set: Sequence[str]) -> Iterator[str]:
    """Remarks on arguments that have a key of their own, which the profile leaves unset."""
    for group in groups(engine.extra_args):
        key = _KEY_OF.get(full_name(group))
        if key is not None and key not in keys_set:
            yield f"engine.extra_args: {group.written} has a key of its own, {key}; the plan counts with that key only"


def env_faults(engine: VllmEngine) -> Iterator[str]:
    """Sentences on variables that would undo what the launcher decides."""
    for name in engine.env:
        if name in RESERVED_ENV:
            yield f"engine.env: {name} is not allowed: {RESERVED_ENV[name]}"


def full_name(group: Group) -> str:
    """The flag in the one spelling that the tables use: ``-tp``, ``--no-x``, ``--x_y`` and unique beginnings resolved."""
    name = SHORT.get(group.flag, group.flag)
    if name.startswith("--no-") and "--" + name[5:] in _NAMES:
        name = "--" + name[5:]
    meant = resolve(name, _NAMES)
    return meant[0] if len(meant) == 1 else name
