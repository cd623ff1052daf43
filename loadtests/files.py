"""The files that a measurement leaves: room is made before it starts, and each is there whole or not at all."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any


def write_whole(path: Path, text: str) -> None:
    """Beside it, then in its place: who is stopped meanwhile leaves the earlier file, never half of this one."""
    path = path.resolve()  # a link stays one
    if path.exists() and not path.is_file():  # a device or a pipe: there is nothing to put in its place
        path.write_text(text, encoding="utf-8")
        return
    part = path.with_name(f"{path.name}.part")
    part.write_text(text, encoding="utf-8")
    part.replace(path)


def write_report(path: Path, run: dict[str, Any], page: str) -> None:
    """The figures beside the report, first: they are what cannot be had again."""
    write_whole(path.with_suffix(".json"), json.dumps(run) + "\n")
    write_whole(path, page)


def make_room(path: Path, option: str = "--out") -> None:
    """Makes the folder of a file that will be written. Raises ValueError with a sentence where it cannot be."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            raise ValueError(f"{option}: {path} is a folder; name a file in it")
    except OSError as error:
        raise ValueError(f"{option}: {path.parent} cannot be made: {error.strerror}; name a file elsewhere") from None
    # The folder too: the file is written beside, and then put in its place.
    if not os.access(path.parent, os.W_OK) or (path.exists() and not os.access(path, os.W_OK)):
        raise ValueError(f"{option}: {path} cannot be written; name a file elsewhere")


def make_room_for_report(path: Path) -> None:
    """The same for a report, whose figures lie beside it as .json."""
    if path.suffix == ".json":
        raise ValueError(f"--out: {path} is where the figures go; name the report, such as {path.with_suffix('.html')}")
    make_room(path)
    make_room(path.with_suffix(".json"))
