"""A tree of plain values as YAML that people read: blocks, short lists in one line, and notes where they belong."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import yaml

LONGEST_LINE = 112
MERGE = "<<"  # the key that merges a mapping into this one; quoted it would not


class Note(str):
    """A comment. As a key of a mapping it stands before the entry that follows; its value is not looked at."""


class Alias(str):
    """A reference to the mapping of this anchor."""


class Anchored(dict[str, Any]):
    """A mapping that others refer to by ``anchor``."""

    def __init__(self, anchor: str, entries: Mapping[str, Any]) -> None:
        super().__init__(entries)
        self.anchor = anchor


class Inline(dict[str, Any]):
    """A short mapping that stands in one line."""


class Spaced(dict[str, Any]):
    """A mapping whose entries are set apart by an empty line."""


def to_yaml(tree: Mapping[str, Any]) -> str:
    """The tree as one YAML document. Values are text, numbers, booleans, None (nothing is written), lists, mappings."""
    return "\n".join(_mapping(tree, "")) + "\n"


def comment(text: str, indent: str = "") -> str:
    """The lines of a text, each as a comment."""
    return "\n".join(f"{indent}# {line}".rstrip() for line in text.splitlines())


def _mapping(tree: Mapping[str, Any], indent: str) -> Iterator[str]:
    is_first, after_note = True, False
    for key, value in tree.items():
        if isinstance(tree, Spaced) and not is_first and not after_note:
            yield ""
        is_first, after_note = False, isinstance(key, Note)
        if isinstance(key, Note):
            yield comment(key, indent)
        else:
            yield from _entry(MERGE if key == MERGE else _scalar(key), value, indent)


def _entry(key: str, value: Any, indent: str) -> Iterator[str]:
    if isinstance(value, Alias):
        yield f"{indent}{key}: *{value}"
    elif isinstance(value, Inline):
        yield f"{indent}{key}: {_flow(value)}"
    elif isinstance(value, Mapping) and value:
        yield f"{indent}{key}:" + (f" &{value.anchor}" if isinstance(value, Anchored) else "")
        yield from _mapping(value, indent + "  ")
    elif isinstance(value, Sequence) and not isinstance(value, str):
        line = f"{indent}{key}: {_flow(value)}"
        has_mappings = any(isinstance(item, Mapping) for item in value)
        if not has_mappings and len(line) <= LONGEST_LINE:
            yield line
        else:
            yield f"{indent}{key}:"
            yield from _items(value, indent + "  ")
    else:
        yield f"{indent}{key}: {_scalar(value)}".rstrip()


def _items(items: Sequence[Any], indent: str) -> Iterator[str]:
    for item in items:
        if isinstance(item, Mapping) and not isinstance(item, Inline):
            first, *more = _mapping(item, indent + "  ")
            yield f"{indent}- {first.lstrip()}"
            yield from more
        else:
            yield f"{indent}- {_flow(item) if isinstance(item, Inline) else _scalar(item)}"


def _flow(value: Any) -> str:
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{_flow(key)}: {_flow(inner)}' for key, inner in value.items())}}}"
    if isinstance(value, str):  # what is plain in a block may not be within braces: a list of one is written as there
        return _dumped([value], value)[1:-1]
    if isinstance(value, Sequence):
        return f"[{', '.join(_flow(item) for item in value)}]"
    return "null" if value is None else _scalar(value)


def _scalar(value: Any) -> str:
    if value is None:
        return ""
    return _dumped(value, value)


def _dumped(tree: Any, text: Any) -> str:
    # Quoted where there are line ends: other styles would spread over several lines.
    is_one_line = not isinstance(text, str) or (text.isprintable() and text == text.strip())
    style = None if is_one_line else '"'
    dumped = yaml.safe_dump(tree, default_flow_style=True, width=10**6, allow_unicode=True, default_style=style)
    return dumped.removesuffix("...\n").strip()
