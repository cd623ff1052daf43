"""Runs the command line as a user does: a process of its own, off a terminal or on one."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]
COLOUR = "\x1b["


def clean_env(**more: str) -> dict[str, str]:
    """The environment without what changes the output."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("LAUNCHER", "NO_COLOR", "FORCE_COLOR", "HF_"))}
    return {**kept, "TERM": "xterm-256color", "PYTHONPATH": str(ROOT), **more}


def launch(*argv: str, cwd: Path = ROOT, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run `launcher` with pipes."""
    return subprocess.run(
        [sys.executable, "-m", "launcher", *argv],
        cwd=cwd,
        env=env or clean_env(),
        capture_output=True,
        text=True,
        timeout=60,
    )


def launch_on_terminal(*argv: str, env: dict[str, str] | None = None) -> tuple[int, str]:
    """Run `launcher` on a pseudo-terminal; (exit code, all that it showed)."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "launcher", *argv],
        cwd=ROOT,
        env=env or clean_env(),
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    shown = b""
    while True:
        try:
            chunk = os.read(ours, 4096)
        except OSError:  # Linux says EIO when the last process has closed the terminal
            break
        if not chunk:
            break
        shown += chunk
    os.close(ours)
    return process.wait(timeout=60), shown.decode()
