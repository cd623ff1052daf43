"""YAML that cannot be read: PyYAML's errors → sentences that say what to do."""

from __future__ import annotations

import re

import yaml

from launcher.profile.faults import Fault, Place

# What PyYAML says, and what to say instead; the first that is found in its words.
SYNTAX = (
    (r"cannot start any token", "this character cannot begin a value: put the value in quotes"),
    (r"expected a single document", "a second document begins here: a profile is one document, take out the ---"),
    (r"mapping values are not allowed", "a colon where no key can be: put a value that has ': ' in it in quotes"),
    (r"could not find expected ':'", "a line that is neither 'key: value' nor a list item: is a colon missing?"),
    (
        r"expected <block end>",
        "the indentation does not match the lines above: keys of one section begin in one column",
    ),
    (r"unknown escape", "an unknown escape in double quotes: write \\\\ for a backslash, or use single quotes"),
    (r"expected '<document start>'", "something is left over after the end: is a bracket closed twice?"),
    (r"sequence entries are not allowed", "a list item where none can be: begin a list on a line of its own"),
    (r"mapping keys are not allowed", "a question mark where no key can be: put the value in quotes"),
    (r"expected the node content", "a value is missing here, or a bracket closes what was never opened"),
    (r"scanning a block scalar", "a value that begins with | or > is a block of lines: put it in quotes if it is none"),
    (
        r"scanning an (alias|anchor)",
        "a value that begins with * or & is an alias or anchor: put it in quotes if it is none",
    ),
    (r"scanning a directive|%YAML|document \(version", "a line that begins with % is a directive: take it out"),
    (r"undefined alias", "the alias has no anchor (&name) above it"),
    (r"duplicate anchor", "the anchor is defined twice"),
    (
        r"unexpected end of stream|expected ',' or|found unexpected ':'",
        "a quote or bracket is not closed, or a comma is missing",
    ),
    (r"tag handle|could not determine a constructor", "tags (words that begin with !) are not allowed in a profile"),
    (r"special characters are not allowed", "a control character: take it out"),
)


def syntax_sentence(error: yaml.YAMLError) -> str:
    """What is wrong with the YAML and what to do, in our words."""
    parts = (getattr(error, part, None) for part in ("context", "problem", "reason"))
    words = " ".join(str(part) for part in parts if part)
    return next((said for pattern, said in SYNTAX if re.search(pattern, words)), f"not valid YAML ({words})")


def syntax_fault(error: yaml.YAMLError, text: str, source: str) -> Fault:
    """PyYAML's error as a fault with its position in ``text``."""
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    if mark is None:  # ReaderError has an index only
        index = int(getattr(error, "position", 0))
        line, column = text.count("\n", 0, index), index - (text.rfind("\n", 0, index) + 1)
    else:
        line, column = mark.line, mark.column
    lines = text.split("\n")
    rest = lines[line][column:] if line < len(lines) else ""
    sentence = "a tab: indent with spaces" if rest.startswith("\t") else syntax_sentence(error)
    return Fault(Place(source, line + 1, column + 1), (), sentence)
