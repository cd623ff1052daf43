"""Rows of cells as HTML, as Markdown and for a terminal. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

SENTENCE = 24  # characters; a longer cell is no figure and no name


def text_rows(rows: Sequence[Sequence[str]]) -> str:
    """Columns of one width each, to the right; the first row is the head."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)


def markdown_table(rows: Sequence[Sequence[str]]) -> str:
    """The first row is the head; a row that ends early is filled with empty cells."""
    head, *lines = rows
    filled = [[*line, *[""] * (len(head) - len(line))] for line in lines]
    shown = [head, ["---"] * len(head), *filled]
    return "\n".join("| " + " | ".join(cell.replace("|", "/") for cell in line) + " |" for line in shown)


def html_table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A row may end early, or in empty cells: where a sentence is its last word, that takes their place."""
    titles = "".join(f"<th scope=col>{escape(cell)}</th>" for cell in head)
    body = "".join(f"<tr>{_html_cells(line, len(head))}</tr>" for line in lines)
    return f"<table><thead><tr>{titles}</tr></thead><tbody>{body}</tbody></table>"


def _html_cells(line: Sequence[str], width: int) -> str:
    told = list(line)
    while told and not told[-1]:
        told.pop()
    *before, last = told or [""]
    rest = width - len(before)
    end = _html_cell(last, rest) if len(last) > SENTENCE else _html_cell(last) + "<td></td>" * (rest - 1)
    return "".join(map(_html_cell, before)) + end


def _html_cell(text: str, columns: int = 1) -> str:
    marks = (" class=sentence" if len(text) > SENTENCE else "") + (f" colspan={columns}" if columns > 1 else "")
    return f"<td{marks}>{escape(text)}</td>"
