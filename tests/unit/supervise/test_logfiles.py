"""Log files rotate at the profile's size and keep as many as it says."""

from __future__ import annotations

from pathlib import Path

from launcher.profile.model import LoggingSection
from launcher.supervise.logfiles import engine_logger


def test_rotation(tmp_path: Path) -> None:
    logger = engine_logger(7, tmp_path, LoggingSection.model_validate({"max_size": "1kB", "keep": 2}))
    for number in range(200):
        logger.info("line %03d of an engine's log", number)
    files = sorted(path.name for path in tmp_path.iterdir())
    assert files == ["engine-7.log", "engine-7.log.1", "engine-7.log.2"]
    assert all(path.stat().st_size <= 1000 for path in tmp_path.iterdir())
    assert "line 199" in (tmp_path / "engine-7.log").read_text()
