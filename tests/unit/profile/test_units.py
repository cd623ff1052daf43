"""Durations and sizes: what is read, what is refused, and that what is written is read back exactly."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from launcher.profile.units import format_duration, format_size, parse_duration, parse_size


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("200ms", 0.2), ("9ms", 0.009), ("1.5s", 1.5), ("10m", 600), ("2h", 7200), ("1d", 86400), (" 5 s ", 5), ("0s", 0)],
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["10", "10 sec", "-1s", "1e3s", "s", "", "1,5s", "٣s", "400d", 10, None, True])
def test_no_durations(text: object) -> None:
    with pytest.raises(ValueError, match=r"is not a duration|is too long"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("text", "size"), [("10MiB", 10 * 2**20), ("1.5GiB", 3 * 2**29), ("24GB", 24 * 10**9), ("7B", 7), ("1 kB", 1000)]
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["10", "10M", "10mb", "10KB", "-1B", "", "9999999TiB", 10, None])
def test_no_sizes(text: object) -> None:
    with pytest.raises(ValueError, match=r"is not a size|is too large"):
        parse_size(text)


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.2, "200ms"), (90.5, "90.5s"), (75.0, "75s"), (600.0, "10m"), (86400.0, "1d"), (0.0, "0s")]
)
def test_durations_are_written_as_people_do(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


@given(st.floats(min_value=0, max_value=365 * 86400))
def test_durations_come_back(seconds: float) -> None:
    assert parse_duration(format_duration(seconds)) == seconds


@given(st.integers(min_value=0, max_value=2**50))
def test_sizes_come_back(size: int) -> None:
    assert parse_size(format_size(size)) == size
