"""The picture comparison: what is sent, what it works out, and one small round of it against a fake engine."""

from __future__ import annotations

import base64
import io
import json
import sys
from pathlib import Path

import pytest
from PIL import Image

from loadtests import pictures
from loadtests.pictures import ASKED, BARE, BUDGET, ORIGINAL, SCALED, Asked, figures, main, table
from loadtests.tally import Record
from loadtests.workloads import Planned


def picture_of(body: bytes) -> Image.Image:
    url = json.loads(body)["messages"][0]["content"][0]["image_url"]["url"]
    return Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2])))


def test_each_seed_is_another_picture_of_that_size() -> None:
    asked = Asked("m", "low", 320, 200, 5)
    one, other = picture_of(asked.body(1)), picture_of(asked.body(2))
    assert (one.format, one.size, other.size) == ("JPEG", (320, 200), (320, 200))
    assert one.tobytes() != other.tobytes()
    assert asked.body(1) == asked.body(1)


def test_pictures_can_be_scaled_beforehand() -> None:
    assert picture_of(Asked("m", "auto", 320, 200, 5, sent=(56, 28)).body(1)).size == (56, 28)


def served(ended_at: float) -> Record:
    return Record(Planned(0, 1.0, ASKED, 0), status=200, first_event_at=1.5, ended_at=ended_at, prompt_tokens=300)


def test_figures_are_of_whole_answers() -> None:
    """The rate is of the last three quarters; times are of the answer, too, that came after the end."""
    cut_off = Record(Planned(0, 1.0, ASKED, 0), status=200, first_event_at=1.5, ended_at=70.0, reason="unfinished")
    refused = Record(Planned(0, 1.0, ASKED, 0), status=429, ended_at=1.1, reason="queue_full")
    found = figures([served(2.0), served(3.0), served(4.0), served(21.0), cut_off, refused], 16.0 / 3)
    assert found == {
        "requests_s": 0.75, "prompt_tokens": 300, "ttft_p50_ms": 500, "p50_ms": 2000, "p99_ms": 20000, "failed": 2,
    }  # fmt: skip


def test_the_ratio_is_of_the_same_round() -> None:
    rounds = lambda *rates: [figures([served(2.0)] * rate, 2.0) for rate in rates]  # noqa: E731
    text = table({BARE: rounds(1, 10), ORIGINAL: rounds(1, 10), BUDGET: rounds(4, 40)})
    assert f"| {BUDGET} | 300 | 14.7 | 4.00 |" in text


def test_one_round_over_the_command_line(fake_profile: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "pictures.md"
    told = ["--users", "2", "--seconds", "1", "--rounds", "1", "--size", "400x300", "--markdown", str(out)]
    monkeypatch.setattr(sys, "argv", ["pictures", str(fake_profile), *told])
    monkeypatch.setattr(pictures, "WARM_UP_S", 0.5)
    main()
    rows = [line.split("|")[1:-1] for line in out.read_text().splitlines() if line.startswith("| ")][1:]
    assert [row[0].strip() for row in rows] == [BARE, ORIGINAL, SCALED, BUDGET]
    assert all(float(row[2]) > 0 and int(row[-1]) == 0 for row in rows), rows
