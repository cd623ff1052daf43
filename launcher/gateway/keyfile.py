"""The file of API keys: what an entry says, how it is checked, and how it is changed while others read it.

Only hashes are kept. A plain SHA-256 is right for them: slow, salted hashes make up for secrets that can be guessed, and
a secret of 32 random bytes cannot; a slow one would only cost its time again with every request.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from launcher.errors import LauncherError
from launcher.gateway.modes import PRIORITIES, PRIORITY_NAMES, Priority

SCHEMA_VERSION = 1
PREFIX = "sk-"
SECRET_BYTES = 32
LARGEST_FILE = 16 * 2**20
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
_ID = re.compile(r"[0-9a-f]{8}")
_HASH = re.compile(r"[0-9a-f]{64}")


class KeyFault(LauncherError):
    """A file or a variable of keys that cannot be used."""


@dataclass(frozen=True)
class Key:
    """One API key. Times are seconds since the epoch; ``revoked`` and ``expires`` None: it is not, it does not."""

    id: str  # short, shown everywhere, no secret
    name: str
    sha256: str  # of the secret, in hexadecimal
    priority: Priority = Priority.NORMAL  # of its requests unless they ask for another
    max_priority: Priority = Priority.NORMAL  # the highest that they may ask for
    weight: float = 1.0  # its share of a full engine, beside the other keys' weights
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    is_admin: bool = False  # may switch modes, drain and the like
    created: float = 0.0
    expires: float | None = None
    revoked: float | None = None  # a revoked key stays here, so that its holder is told so

    def is_usable(self, now: float) -> bool:
        return self.revoked is None and (self.expires is None or now < self.expires)


def new_secret() -> str:
    """A new key, to be shown once."""
    return PREFIX + secrets.token_urlsafe(SECRET_BYTES)


def hash_of(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


# What each field may be: a reader that returns the value or raises ValueError, which says what it should be.


def _matching(pattern: re.Pattern[str], what: str) -> Callable[[Any], str]:
    def read(value: Any) -> str:
        if isinstance(value, str) and pattern.fullmatch(value):
            return value
        raise ValueError(what)

    return read


def _priority(value: Any) -> Priority:
    if isinstance(value, str) and value in PRIORITIES:
        return PRIORITIES[value]
    raise ValueError(f"one of {', '.join(PRIORITIES)}")


def _weight(value: Any) -> float:
    if isinstance(value, (int, float)) and not isinstance(value, bool) and 0.001 <= value <= 1000:
        return float(value)
    raise ValueError("a number from 0.001 to 1000")


def _limit(value: Any) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= 10**12:
        return value
    raise ValueError("a whole number, 1 or more; leave it out for no limit")


def _flag(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    raise ValueError("true or false")


def _time(value: Any) -> float:
    try:
        moment = datetime.fromisoformat(value)
    except (TypeError, ValueError):
        raise ValueError("a time such as 2026-11-21T22:59:00Z") from None
    if moment.tzinfo is None:
        raise ValueError("a time with its zone, such as 2026-11-21T22:59:00Z")
    return moment.timestamp()


NAME_RULE = "1 to 64 letters, digits, dots, hyphens, underscores or @, the first a letter or digit"
_READERS: dict[str, Callable[[Any], Any]] = {
    "id": _matching(_ID, "8 hexadecimal digits"),
    "name": _matching(NAME, NAME_RULE),
    "sha256": _matching(_HASH, "64 hexadecimal digits"),
    "priority": _priority,
    "max_priority": _priority,
    "weight": _weight,
    "requests_per_minute": _limit,
    "tokens_per_minute": _limit,
    "is_admin": _flag,
    "created": _time,
    "expires": _time,
    "revoked": _time,
}
_NEEDED = ("id", "name", "sha256", "created")
_NULLABLE = ("requests_per_minute", "tokens_per_minute", "expires", "revoked")
_REMEDY = "Correct the file, or make keys with `launcher key add` alone."


def parse_keys(text: str, source: str) -> tuple[Key, ...]:
    """The keys in a file's text. Raises KeyFault with ``source``, the place in it and the remedy."""
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise KeyFault(f"{source}: is not JSON: {error}", _REMEDY) from None
    if not isinstance(document, dict) or not isinstance(document.get("keys"), list):
        raise KeyFault(f'{source}: is not {{"schema_version": {SCHEMA_VERSION}, "keys": […]}}', _REMEDY)
    if document.get("schema_version") != SCHEMA_VERSION:
        version = document.get("schema_version")
        raise KeyFault(f"{source}: schema_version: {version!r} is not known (known: {SCHEMA_VERSION})", _REMEDY)
    _refuse_unknown(document, ("schema_version", "keys"), f"{source}: ")
    keys = tuple(_read_key(entry, f"{source}: keys[{number}]") for number, entry in enumerate(document["keys"]))
    refuse_doubles(keys, source)
    return keys


def _read_key(entry: Any, place: str) -> Key:
    if not isinstance(entry, dict):
        raise KeyFault(f"{place}: is not an object", _REMEDY)
    _refuse_unknown(entry, tuple(_READERS), f"{place}.")
    for name in _NEEDED:
        if name not in entry:
            raise KeyFault(f"{place}.{name}: is missing", _REMEDY)
    values = {}
    for name, value in entry.items():
        if value is None and name in _NULLABLE:
            continue
        try:
            values[name] = _READERS[name](value)
        except ValueError as error:
            shown = "" if name == "sha256" else f"{value!r} "
            raise KeyFault(f"{place}.{name}: {shown}is not {error}", _REMEDY) from None
    values.setdefault("max_priority", values.get("priority", Priority.NORMAL))
    key = Key(**values)
    if key.priority < key.max_priority:
        raise KeyFault(f"{place}.max_priority: {priority_fault(key.priority, key.max_priority)}", _REMEDY)
    return key


def priority_fault(priority: Priority, highest: Priority) -> str:
    """The sentence for a default priority above the highest allowed."""
    return f"{PRIORITY_NAMES[highest]} is below priority, {PRIORITY_NAMES[priority]}"


def _refuse_unknown(values: dict[str, Any], known: Sequence[str], place: str) -> None:
    for name in values:
        if name not in known:
            near = get_close_matches(name, known, n=1)
            guess = f"did you mean {near[0]}?" if near else f"known are: {', '.join(known)}"
            raise KeyFault(f"{place}{name}: there is no such field; {guess}", _REMEDY)


def refuse_doubles(keys: Sequence[Key], source: str) -> None:
    """Raises KeyFault where two keys cannot be told apart. A revoked key's name may be given again."""
    seen: dict[tuple[str, str], str] = {}
    for key in keys:
        for what, value in (("id", key.id), ("sha256", key.sha256), ("name", key.name)):
            if what == "name" and key.revoked is not None:
                continue
            if (what, value) in seen:
                shown = "the same sha256" if what == "sha256" else f"the {what} {value!r}"
                raise KeyFault(f"{source}: {seen[what, value]!r} and {key.name!r} have {shown}", _REMEDY)
            seen[what, value] = key.name


def read_keys(path: Path) -> tuple[Key, ...]:
    """The keys in a file; none where there is no file. Raises KeyFault."""
    try:
        with path.open("rb") as file:
            if os.fstat(file.fileno()).st_mode & 0o002:
                raise KeyFault(f"{path}: every user of this machine can write to it", f"chmod 600 {path}")
            content = file.read(LARGEST_FILE + 1)
        if len(content) > LARGEST_FILE:
            raise KeyFault(f"{path}: is larger than {LARGEST_FILE // 2**20} MiB, so it is no file of keys", _REMEDY)
        text = content.decode("utf-8-sig")
    except FileNotFoundError:
        return ()
    except OSError as error:
        raise KeyFault(f"{path}: cannot be read: {error.strerror}", "Give this user the right to read it.") from None
    except UnicodeDecodeError:
        raise KeyFault(f"{path}: is not UTF-8 text", _REMEDY) from None
    return parse_keys(text, str(path))


@contextmanager
def changing(path: Path) -> Iterator[list[Key]]:
    """The keys of a file, to be changed; written when the block ends, and not if it raises.

    One at a time: the lock is a file of its own, since the keys' file is replaced whole. Raises KeyFault.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = os.open(path.with_name(path.name + ".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise KeyFault(f"{path.parent}: cannot be written to: {error.strerror}", "Name another with --file.") from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        keys = list(read_keys(path))
        yield keys
        _replace(path, keys)
    finally:
        os.close(lock)


def _replace(path: Path, keys: Sequence[Key]) -> None:
    """Writes beside the file, then puts it in its place: a reader never sees half of one."""
    document = {"schema_version": SCHEMA_VERSION, "keys": [written(key) for key in keys]}
    text = json.dumps(document, indent=1, ensure_ascii=False) + "\n"
    parse_keys(text, str(path))  # what no reader would take must not get there
    partial = path.with_name(path.name + ".partial")
    try:
        partial.unlink(missing_ok=True)  # one that a killed `launcher key` left may have another mode
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        raise KeyFault(f"{path}: cannot be written: {error.strerror}", "Nothing was changed.") from None


def written(key: Key) -> dict[str, Any]:
    """A key as the file has it; what is at its default and may be left out is left out."""
    entry: dict[str, Any] = {}
    for field in fields(Key):
        value = getattr(key, field.name)
        if field.name in _NULLABLE and value is None:
            continue
        if field.name in ("created", "expires", "revoked"):
            value = show_time(value)
        elif isinstance(value, Priority):
            value = PRIORITY_NAMES[value]
        entry[field.name] = value
    return entry


def show_time(seconds: float) -> str:
    """Seconds since the epoch as the file and people read them."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
