"""Files of the host that a profile names, and where they lie in a container: mounted, with the profile told so."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from launcher.engine.flags import value_of
from launcher.profile.load import LoadedProfile

FILES = "/mnt/launcher"
SECRETS = "/run/secrets"
ENGINE, GATEWAY = "engine", "gateway"
NO_FILE = {"warmup.image": ("auto", "none")}  # words that stand where else a path does


class FileKey(NamedTuple):
    """A key whose value is a path on the host, and who reads that file."""

    key: str
    readers: tuple[str, ...]
    is_secret: bool = False


FILE_KEYS = (
    FileKey("model.path", (ENGINE, GATEWAY)),  # the gateway reads its config.json: lengths, and what images cost
    FileKey("model.chat_template", (ENGINE,)),
    FileKey("warmup.image", (ENGINE,)),
    FileKey("gateway.tls_cert", (GATEWAY,), is_secret=True),
    FileKey("gateway.tls_key", (GATEWAY,), is_secret=True),
    FileKey("gateway.keys_file", (GATEWAY,), is_secret=True),
)


class PlacedFile(NamedTuple):
    """One such file: ``source`` on the host, absolute; ``target`` in the container."""

    key: str
    source: Path
    target: str
    is_secret: bool

    @property
    def setting(self) -> str:
        """What the profile in the container is told: the argument of --set."""
        return f"{self.key}={self.target}"

    @property
    def secret_name(self) -> str:
        return self.key.replace(".", "-").replace("_", "-")


def placed_files(loaded: LoadedProfile, reader: str) -> Iterator[PlacedFile]:
    """The files that ``reader`` (ENGINE or GATEWAY) needs."""
    for row in FILE_KEYS:
        written = value_of(loaded.profile, row.key)
        if reader not in row.readers or written is None or written in NO_FILE.get(row.key, ()):
            continue
        source = Path(os.path.normpath(loaded.resolve(written)))
        # The name is kept: a model's folder gives the model its name, and a file's suffix tells what it is.
        target = f"{FILES}/{row.key}/{source.name}"
        placed = PlacedFile(row.key, source, target, row.is_secret)
        yield placed._replace(target=f"{SECRETS}/{placed.secret_name}") if row.is_secret else placed


def host_path(path: Path, folder: Path) -> str:
    """A path of the host as a file in ``folder`` writes it: relative where it lies below that folder."""
    absolute = Path(os.path.normpath(path.absolute()))
    try:
        below = absolute.relative_to(folder.absolute())
    except ValueError:
        return str(absolute)
    return f"./{below}" if below.parts else "."
