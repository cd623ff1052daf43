"""Log files that rotate: one for the launcher with its gateway, one for each engine; in a container stderr instead."""

from __future__ import annotations

import logging
import logging.handlers
from pathlib import Path

from launcher.profile.model import LoggingSection

LAUNCHER_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


def open_log(logger: logging.Logger, path: Path, section: LoggingSection, pattern: str = "%(message)s") -> None:
    """Send ``logger`` to ``path`` (and nowhere else), rotated at section.max_size with section.keep old files."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handler = logging.handlers.RotatingFileHandler(
        path, maxBytes=section.max_size, backupCount=section.keep, encoding="utf-8", delay=True
    )
    _use(logger, handler, pattern)


def _use(logger: logging.Logger, handler: logging.Handler, pattern: str) -> None:
    handler.setFormatter(logging.Formatter(pattern))
    for old in logger.handlers[:]:
        logger.removeHandler(old)
        old.close()
    logger.addHandler(handler)
    logger.propagate = False


def engine_console(index: int) -> logging.Logger:
    """An engine's own lines on stderr, where a container's logs are looked for."""
    logger = logging.getLogger(f"engine.{index}")
    logger.setLevel(logging.INFO)
    _use(logger, logging.StreamHandler(), "%(message)s")
    return logger


def launcher_console(section: LoggingSection) -> None:
    """The launcher's own log, with the gateway's, on stderr."""
    logger = logging.getLogger("launcher")
    logger.setLevel(section.level.upper())
    _use(logger, logging.StreamHandler(), LAUNCHER_FORMAT)


def engine_logger(index: int, folder: Path, section: LoggingSection) -> logging.Logger:
    """The log of one engine: its own lines as they come, in ``engine-INDEX.log``."""
    logger = logging.getLogger(f"engine.{index}")
    logger.setLevel(logging.INFO)
    open_log(logger, folder / f"engine-{index}.log", section)
    return logger


def launcher_logger(folder: Path, section: LoggingSection) -> None:
    """The launcher's own log, with the gateway's, in ``launcher.log``."""
    logger = logging.getLogger("launcher")
    logger.setLevel(section.level.upper())
    open_log(logger, folder / "launcher.log", section, LAUNCHER_FORMAT)
