"""The audit log: who did what to keys and to the deployment, one JSON object a line, only ever added to.

Each line is one write to a file opened for appending, so `launcher key` may add to it while the gateway runs. Only the
gateway's process, which has the limits, rotates.
"""

from __future__ import annotations

import json
import logging
import os
import re
import time
from pathlib import Path

from launcher.gateway.keyfile import show_time

log = logging.getLogger("launcher.gateway")
FILE = "audit.log"
_SECRET = re.compile(r"sk-[A-Za-z0-9_-]{8,}")


class AuditLog:
    """Adds to a file; rotated at ``max_bytes`` with ``keep`` old files, as the other logs are. 0: not rotated."""

    def __init__(self, path: Path, *, max_bytes: int = 0, keep: int = 0) -> None:
        self.path, self._max_bytes, self._keep = path, max_bytes, keep

    def record(self, actor: str, act: str, target: str, result: str = "done", address: str = "") -> bool:
        """One act: by whom, what (``key.add``, ``mode``), on what, how it ended, from where. Whether it was written.

        A full disk stops no act: the act may be the remedy. The launcher's log then says what is missing here.
        """
        entry = {"time": show_time(time.time()), "actor": actor, "act": act, "object": target, "result": result}
        if address:
            entry["address"] = address
        # No caller has a secret to give; should one come along in a name or an error, it stops here.
        entry = {name: _SECRET.sub("sk-…", value) for name, value in entry.items()}
        line = json.dumps(entry, ensure_ascii=False)
        try:
            self._append(line.encode("utf-8", "backslashreplace") + b"\n")
        except OSError as error:
            log.error("%s: cannot be written: %s; what it should hold: %s", self.path, error.strerror, line)
            return False
        return True

    def _append(self, line: bytes) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if self._max_bytes:
            self._rotate(len(line))
        descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.write(descriptor, line)
        finally:
            os.close(descriptor)

    def _rotate(self, more: int) -> None:
        """audit.log → audit.log.1 → … → audit.log.``keep``, which falls off; like logging's RotatingFileHandler."""
        try:
            size = self.path.stat().st_size
        except FileNotFoundError:
            return
        if not size or size + more <= self._max_bytes:
            return
        names = [self.path, *(self.path.with_name(f"{self.path.name}.{number}") for number in range(1, self._keep + 1))]
        for older, newer in zip(reversed(names[1:]), reversed(names[:-1]), strict=True):
            if newer.exists():
                newer.replace(older)
        self.path.unlink(missing_ok=True)  # where none is kept

    def __repr__(self) -> str:
        return f"<AuditLog {self.path}>"
