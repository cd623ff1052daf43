"""What a PromQL expression asks for: its metrics with their labels, and the labels that it groups by.

Not a parser (promtool is one): it knows enough of the syntax to name what must exist.
"""

from __future__ import annotations

import re
from typing import NamedTuple

TOKEN = re.compile(r'\[[^\]]*\]|"(?:[^"\\]|\\.)*"|[A-Za-z_:][A-Za-z0-9_:]*|\d[\w.]*|\$\w+|[!=<>]=|=~|!~|\S')
OPERATORS = {"and", "or", "unless", "bool", "offset", "inf", "nan"}
GROUPING = {"by", "without", "on", "ignoring", "group_left", "group_right"}


class Selector(NamedTuple):
    """``matchers`` maps a label to the value or pattern that it is compared with."""

    metric: str
    matchers: dict[str, str]


class Asked(NamedTuple):
    selectors: list[Selector]
    grouped: set[str]


def asked(expr: str) -> Asked:
    tokens = TOKEN.findall(expr)
    found = Asked([], set())
    at = 0
    while at < len(tokens):
        token, follows = tokens[at], tokens[at + 1] if at + 1 < len(tokens) else ""
        at += 1
        if not re.match(r"[A-Za-z_:]", token) or token in OPERATORS:
            continue
        if token in GROUPING:
            end = tokens.index(")", at)
            found.grouped.update(name for name in tokens[at + 1 : end] if name != ",")
            at = end + 1
        elif follows == "{":
            end = tokens.index("}", at)
            found.selectors.append(Selector(token, matchers(tokens[at + 1 : end])))
            at = end + 1
        elif follows not in ("(", "by", "without"):  # else a function
            found.selectors.append(Selector(token, {}))
    return found


def matchers(tokens: list[str]) -> dict[str, str]:
    """``label op "value"``, parted by commas."""
    return {tokens[n]: tokens[n + 2].strip('"') for n in range(0, len(tokens), 4)}
