"""The frame of every report: one HTML file that asks nobody for anything and runs nothing. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

from loadtests.facts import facts_of

STYLE = """
:root { color-scheme: light dark; --ink: #1f2328; --soft: #59636e; --line: #d1d9e0; --paper: #fff }
@media (prefers-color-scheme: dark) { :root { --ink: #e6edf3; --soft: #9198a1; --line: #3d444d; --paper: #0d1117 } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper);
  max-width: 1180px; margin: 2rem auto; padding: 0 1rem }
h1 { font-size: 1.5rem }
h2 { font-size: 1.15rem; margin-top: 2rem }
p, li { max-width: 75ch }
h1, p, li, dd { overflow-wrap: anywhere }
.plots { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 480px), 1fr)); gap: 1rem; margin-top: 1rem }
svg { width: 100%; height: auto; font-size: 13px }
svg text { fill: var(--soft) }
svg .title { fill: var(--ink); font-size: 14px; font-weight: 600 }
.grid { stroke: var(--line); stroke-width: .6 }
.axis { stroke: var(--soft); fill: none }
.line { fill: none; stroke-width: 1.8 }
.spread { stroke-width: 1; opacity: .8 }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: 14px; display: block; overflow-x: auto }
th, td { padding: .25rem .7rem; text-align: right; border-bottom: 1px solid var(--line); white-space: nowrap }
th { color: var(--soft); font-weight: 600 }
td.sentence { text-align: left; white-space: normal; min-width: 24ch }
dl { display: grid; grid-template-columns: max-content minmax(0, 1fr); gap: .1rem 1rem }
dt, figure.empty { color: var(--soft) }
figure { margin: 0 }
figcaption { color: var(--ink); font-size: 14px; font-weight: 600 }
dd { margin: 0 }
"""
# The policy of the page: nothing is loaded, nothing runs.
POLICY = "default-src 'none'; style-src 'unsafe-inline'"


def page(title: str, body: str) -> str:
    """The file. ``title`` is text; ``body`` is HTML."""
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{POLICY}">
<title>{escape(title)}</title><style>{STYLE}</style></head>
<body>{body}</body></html>
"""


def facts(told: Mapping[str, Any]) -> str:
    """What a report says of its run before its tables: names with their values, both in words."""
    return f"<dl>{''.join(f'<dt>{escape(name)}</dt><dd>{escape(value)}</dd>' for name, value in facts_of(told).items())}</dl>"
