"""YAML text → plain data, with the place of every key and value, and a sentence for everything that is not plain.

PyYAML composes the nodes (safe loader, no Python objects); the values are made here, because YAML 1.1, which PyYAML
speaks, and YAML 1.2, which editors speak, read some unquoted words differently (no, 0123, 1:30): those are refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import yaml

from launcher.profile.faults import Fault, KeyPath, Place
from launcher.profile.syntax import syntax_fault, syntax_sentence

MOST_NODES = 20_000  # more can only come from aliases that multiply each other

TAG = "tag:yaml.org,2002:"
WORDS = {"true": True, "false": False, "null": None, "~": None}


@dataclass
class Document:
    """Plain data (dicts, lists, str, int, float, bool, None) and the place of every key path in it."""

    data: Any = None
    places: dict[KeyPath, Place] = field(default_factory=dict)  # of a value; of a mapping or list: where it begins
    key_places: dict[KeyPath, Place] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)

    def fault(self, place: Place, path: KeyPath, sentence: str) -> None:
        """Note a fault; reading goes on, so that all are told at once."""
        self.faults.append(Fault(place, path, sentence))


def read_document(text: str, source: str) -> Document:
    """Parse one YAML document; ``source`` is the name that places carry. What cannot be read is in ``faults``."""
    document = Document()
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        if node is None:
            document.fault(Place(source, 1, 1), (), "the file is empty: a profile needs at least a name and a model")
        else:
            _Reader(document, source).read(node, ())
    except yaml.YAMLError as error:
        document.faults.append(syntax_fault(error, text, source))
    except RecursionError:
        sentence = "lists or mappings are nested too deeply: a profile needs five levels"
        document.faults = [Fault(Place(source, 1, 1), (), sentence)]
    return document


def read_value(text: str, place: Place, path: KeyPath) -> Document:
    """Parse the value of an override (a scalar, or a list or mapping in flow style); every place in it is ``place``."""
    document = Document()
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        document.fault(place, path, f"{text!r} is not a YAML value: {syntax_sentence(error)}; put it in quotes")
        return document
    except RecursionError:
        document.fault(place, path, "is nested too deeply")
        return document
    if node is None:
        document.fault(place, path, "has no value: write one, or null for none")
    else:
        _Reader(document, place.source, fixed=place).read(node, path)
    return document


class _TooMany(Exception):
    """The document is no profile, however little text it is."""

    def __init__(self, place: Place) -> None:
        super().__init__(place)
        self.place = place


class _Reader:
    """Turns nodes into data. One for each document."""

    def __init__(self, document: Document, source: str, fixed: Place | None = None) -> None:
        self.document, self.source, self.fixed = document, source, fixed
        self.nodes = 0
        self.open: set[int] = set()  # ids of the nodes that are being read: an alias to one of them never ends

    def read(self, node: yaml.Node, path: KeyPath) -> None:
        try:
            self.document.data = self._value(node, path)
        except _TooMany as error:
            sentence = f"more than {MOST_NODES} values, counting what aliases (*name) repeat: write it out"
            self.document.faults = [Fault(error.place, (), sentence)]

    def _place(self, node: yaml.Node) -> Place:
        text = node.value if isinstance(node, yaml.ScalarNode) else ""
        if self.fixed:
            return self.fixed._replace(text=text)
        mark = node.start_mark
        return Place(self.source, mark.line + 1, mark.column + 1, text)

    def _value(self, node: yaml.Node, path: KeyPath) -> Any:
        place = self.document.places[path] = self._place(node)
        self.nodes += 1
        if self.nodes > MOST_NODES:
            raise _TooMany(place)
        if id(node) in self.open:
            self.document.fault(place, path, "the alias points at what it is part of: write the value out")
            return None
        self.open.add(id(node))
        try:
            if isinstance(node, yaml.MappingNode) and node.tag == f"{TAG}map":
                return self._mapping(node, path)
            if isinstance(node, yaml.SequenceNode) and node.tag == f"{TAG}seq":
                return [self._value(item, (*path, index)) for index, item in enumerate(node.value)]
            if isinstance(node, yaml.ScalarNode):
                return self._scalar(node, path, place)
            self._refuse_tag(node, path, place)
            return None
        finally:
            self.open.discard(id(node))

    def _mapping(self, node: yaml.MappingNode, path: KeyPath) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for key_node, value_node in self._pairs(node, path):
            key_place = self._place(key_node)
            if not isinstance(key_node, yaml.ScalarNode):
                self.document.fault(key_place, path, "a key must be a word, not a list or mapping")
                continue
            if is_broken(key_node.value):
                self.document.fault(key_place, path, BROKEN)
                continue
            # Keys are taken as written: 'on' and '1' are names here, never a truth or a number.
            inner = (*path, key_node.value)
            if key_node.value in values:
                first = self.document.key_places[inner]
                also = f" (first in line {first.line})" if first.line else ""
                self.document.fault(key_place, inner, f"is given twice{also}: keep one")
                continue
            self.document.key_places[inner] = key_place
            values[key_node.value] = self._value(value_node, inner)
        return values

    def _pairs(self, node: yaml.MappingNode, path: KeyPath) -> Iterator[tuple[yaml.Node, yaml.Node]]:
        """A mapping's own pairs, then those merged in with ``<<`` that it does not have itself (the first merged wins)."""
        own = [(k, v) for k, v in node.value if k.tag != f"{TAG}merge"]
        taken = {k.value for k, _ in own if isinstance(k, yaml.ScalarNode)}
        yield from own
        for _, value in (pair for pair in node.value if pair[0].tag == f"{TAG}merge"):
            for source in value.value if isinstance(value, yaml.SequenceNode) else [value]:
                if not isinstance(source, yaml.MappingNode) or id(source) in self.open:
                    self.document.fault(self._place(value), path, "<< merges mappings only, such as <<: *base")
                    continue
                self.open.add(id(source))
                merged = [pair for pair in self._pairs(source, path) if pair[0].value not in taken]
                self.open.discard(id(source))
                taken |= {k.value for k, _ in merged if isinstance(k, yaml.ScalarNode)}
                yield from merged

    def _scalar(self, node: yaml.ScalarNode, path: KeyPath, place: Place) -> Any:
        text, kind = node.value, node.tag.removeprefix(TAG)
        if is_broken(text):
            self.document.fault(place, path, BROKEN)
            return ""
        if kind == "str" and (node.style or not _is_number_in_1_2(text)):
            return text
        if node.style:  # quoted, with a tag such as !!int in front
            self._refuse_tag(node, path, place)
            return text
        if kind in ("bool", "null") and text.lower() in WORDS:
            return WORDS[text.lower()]
        if kind == "null":
            self.document.fault(place, path, "has no value: write one, or null for none")
            return None
        if kind == "int" and re.fullmatch(r"[-+]?(0|[1-9][0-9]{0,17})", text):
            return int(text)
        if kind == "float" and re.fullmatch(r"[-+]?(0|[1-9][0-9]*)?\.?[0-9]*([eE][-+]?[0-9]+)?", text):
            return float(text)
        if kind in ("merge", "value"):
            return text
        if kind in ("str", "bool", "int", "float", "timestamp"):
            self._refuse_ambiguous(node, kind, path, place)
        else:
            self._refuse_tag(node, path, place)
        return text

    def _refuse_tag(self, node: yaml.Node, path: KeyPath, place: Place) -> None:
        tag = node.tag.replace(TAG, "!!", 1)
        self.document.fault(place, path, f"the tag {tag} is not allowed in a profile: write the plain value")

    def _refuse_ambiguous(self, node: yaml.ScalarNode, kind: str, path: KeyPath, place: Place) -> None:
        text = node.value
        if re.fullmatch(r"[-+]?\.(inf|nan)", text, re.IGNORECASE):
            sentence = f"{text} is not a number that a setting can take"
        elif kind == "bool":
            plain = str(text.lower() in ("yes", "on", "y")).lower()
            sentence = f'{text} is a truth in YAML 1.1 and a word in YAML 1.2: write {plain}, or quote it: "{text}"'
        elif kind == "timestamp":
            sentence = f'{text} is a date in YAML 1.1 and a word in YAML 1.2: quote it: "{text}"'
        elif number := _in_yaml_1_1(node, kind):
            sentence = (
                f'YAML 1.1 reads {text} as {number}, YAML 1.2 does not: write a plain number, or quote it: "{text}"'
            )
        else:
            sentence = (
                f'YAML 1.2 reads {text} as a number, YAML 1.1 does not: write a plain number, or quote it: "{text}"'
            )
        self.document.fault(place, path, sentence)


BROKEN = "half of a UTF-16 pair, or a byte that is no UTF-8, is in the text: write the character itself"


def is_broken(text: str) -> bool:
    """Whether there are lone surrogates in a text: from a YAML escape, or from bytes in the environment."""
    return any("\ud800" <= character <= "\udfff" for character in text)


def _is_number_in_1_2(text: str) -> bool:
    """Whether YAML 1.2's core schema sees a number in a word that PyYAML takes as text, such as 1e5 or 0o17."""
    number = r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|0o[0-7]+|0x[0-9a-fA-F]+"
    return re.fullmatch(number, text) is not None


def _in_yaml_1_1(node: yaml.ScalarNode, kind: str) -> str:
    """The number that YAML 1.1 sees in it, in plain digits; empty where it sees none (08 is no octal number)."""
    try:
        return str(yaml.SafeLoader("").construct_object(node)) if kind in ("int", "float") else ""
    except (ValueError, yaml.YAMLError):
        return ""
