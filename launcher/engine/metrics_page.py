"""What an engine or the gateway says on /metrics, in Prometheus' text format. Pure."""

from __future__ import annotations

import re


def samples(text: str, *series: str) -> list[float]:
    """The values of these series, one for each set of labels, as they stand on the page; [] where none of them is there."""
    names = "|".join(map(re.escape, series))
    return [float(value) for value in re.findall(rf"^(?:{names})(?:\{{.*\}})? (\S+)$", text, re.MULTILINE)]
