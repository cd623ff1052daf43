"""Main memory as the kernel tells it."""

from __future__ import annotations

from pathlib import Path

from launcher.probe.main_memory import main_memory


def test_the_total_in_bytes(tmp_path: Path) -> None:
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemFree:          100 kB\nMemTotal:       16384 kB\n")
    assert main_memory(meminfo) == 16 * 2**20


def test_none_where_the_kernel_does_not_say(tmp_path: Path) -> None:
    assert main_memory(tmp_path / "none") is None
    (tmp_path / "empty").write_text("")
    assert main_memory(tmp_path / "empty") is None
