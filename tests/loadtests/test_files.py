"""A file is there whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

from loadtests.files import write_whole


def test_nothing_is_left_beside_it(tmp_path: Path) -> None:
    for text in ("one", "two"):
        write_whole(tmp_path / "x.json", text)
        assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"x.json": text}


def test_a_link_stays_one(tmp_path: Path) -> None:
    (tmp_path / "link.html").symlink_to(tmp_path / "x.html")
    write_whole(tmp_path / "link.html", "text")
    assert (tmp_path / "link.html").is_symlink()
    assert (tmp_path / "x.html").read_text() == "text"


def test_a_pipe_is_not_replaced(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    write_whole(tmp_path / "pipe", "text")
    assert os.read(reader, 9) == b"text"
    assert (tmp_path / "pipe").is_fifo()
    os.close(reader)
