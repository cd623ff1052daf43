"""YAML file, ``--set`` and environment → a checked ``Profile``, with the origin of every value; all faults at once."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from launcher.errors import ProfileError
from launcher.profile.complaints import Complaint, complaints_of
from launcher.profile.document import Document, read_document
from launcher.profile.faults import Fault, KeyPath, Place, ProfileFaults, closest, dotted
from launcher.profile.model import Profile
from launcher.profile.overrides import apply_overrides

LARGEST_FILE_BYTES = 2**20


@dataclass(frozen=True)
class LoadedProfile:
    """A valid profile and where it came from."""

    profile: Profile
    path: Path
    base_dir: Path  # absolute; relative paths in the profile start here
    # Dotted key → 'profiles/x.yaml:12', '--set engine.replicas=2', 'env LAUNCHER__ENGINE__REPLICAS' or 'default'. A list
    # is one entry, a mapping (engine.env) has one for each of its names beside its own.
    origins: Mapping[str, str]

    def resolve(self, written: str) -> Path:
        """A path as the profile writes it → an absolute one; ``~`` is the home folder."""
        return self.base_dir / Path(written).expanduser()


def load_profile(path: Path, *, sets: Sequence[str] = (), env: Mapping[str, str] | None = None) -> LoadedProfile:
    """Read, override and check a profile.

    ``sets`` are ``key=value`` texts, ``env`` the environment (None: the process's own), of which the names that begin
    with LAUNCHER__ count. Raises ProfileFaults with every fault, each with its place, or ProfileError if the file
    cannot be read.
    """
    document = read_document(_read_text(path), str(path))
    if document.faults and document.data is None:
        raise ProfileFaults(document.faults, _hint(path))
    if not isinstance(document.data, dict):
        document.faults = [
            Fault(Place(str(path), 1, 1), (), "is not a mapping: begin with a key, such as name: my-model")
        ]
        raise ProfileFaults(document.faults, _hint(path))
    apply_overrides(document, sets, os.environ if env is None else env)
    profile, faults = _check(document, str(path))
    if profile is None or faults:
        raise ProfileFaults(faults, _hint(path))
    return LoadedProfile(profile, path, path.absolute().parent, _origins(profile, document))


def _hint(path: Path) -> str:
    return f"`launcher schema --keys` lists every key; check again with: launcher validate {path}"


def _read_text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST_FILE_BYTES + 1)
        if len(content) > LARGEST_FILE_BYTES:
            raise ProfileError(f"{path}: is larger than 1 MiB, so it is no profile", _suggest(path, "name a profile"))
        return content.decode("utf-8-sig")
    except IsADirectoryError:
        raise ProfileError(f"{path}: is a folder, not a profile", _suggest(path / "*", "name a file")) from None
    except FileNotFoundError:
        raise ProfileError(f"{path}: there is no such file", _suggest(path, "give the path of a profile")) from None
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ProfileError(f"{path}:{line}: is not UTF-8 text", "save the file as UTF-8") from None
    except OSError as error:
        raise ProfileError(f"{path}: cannot be read: {error.strerror}", "check the file and its permissions") from None


def _suggest(path: Path, otherwise: str) -> str:
    """The profiles that are there, beside the path that is not, or in profiles/."""
    for folder in (path.parent, Path("profiles")):
        names = sorted(found.name for found in folder.glob("*.y*ml") if found.is_file()) if folder.is_dir() else []
        if names:
            stems = {Path(name).stem: name for name in names}
            near = stems.get(path.stem) or closest(path.name, names)
            meant = f'did you mean "{folder / near}"? ' if near else ""
            return f"{meant}{folder}/ has {', '.join(names)}"
    return otherwise


def _check(document: Document, source: str) -> tuple[Profile | None, list[Fault]]:
    """Validate, and where keys are faulty once more without them, so that rules across keys are told in the same go."""
    faults = list(document.faults)
    bad = {fault.path for fault in faults if fault.path}
    profile, complaints = _validate(document.data)
    faults += [_locate(document, complaint, source) for complaint in complaints if not _covered(complaint.path, bad)]
    if not complaints:
        return profile, faults
    broken = bad | {complaint.path for complaint in complaints}
    if any(complaint.is_rule for complaint in complaints):
        return None, faults
    for complaint in _validate(_without(document.data, broken))[1]:
        untouched = not any(_covered(about, broken) or _covers(about, broken) for about in complaint.about)
        if complaint.is_rule and untouched:
            faults.append(_locate(document, complaint, source))
    return None, faults


def _validate(data: Any) -> tuple[Profile | None, list[Complaint]]:
    # JSON, since that mode is strict about types ("2" is no number) and takes lists where tuples are kept.
    text = json.dumps(data)
    try:
        return Profile.model_validate_json(text, strict=True), []
    except ValidationError as error:
        return None, complaints_of(error, data)


def _covered(path: KeyPath, by: set[KeyPath]) -> bool:
    return any(path[: len(other)] == other for other in by)


def _covers(path: KeyPath, others: set[KeyPath]) -> bool:
    return any(other[: len(path)] == path for other in others)


def _without(data: Any, bad: set[KeyPath]) -> Any:
    """A copy without the faulty keys; a missing name gets a stand-in."""

    def prune(value: Any, path: KeyPath) -> Any:
        if isinstance(value, dict):
            return {key: prune(inner, (*path, key)) for key, inner in value.items() if (*path, key) not in bad}
        if isinstance(value, list) and _covers(path, bad):
            return []
        return value

    return {"name": "x"} | prune(data, ())


def _locate(document: Document, complaint: Complaint, source: str) -> Fault:
    """The complaint as a fault: at its key or value, or at the nearest thing above that is written somewhere."""
    path = complaint.path
    if complaint.at_key and path in document.key_places:
        return Fault(document.key_places[path], path, complaint.sentence)
    if path in document.places:
        place = document.places[path]
        return Fault(place, path, complaint.sentence.replace("{text}", place.text))
    while path and path not in document.key_places:
        path = path[:-1]
    place = document.key_places[path] if path else Place(source, 1, 1)
    return Fault(place, complaint.path, complaint.sentence)


def _origins(profile: Profile, document: Document) -> dict[str, str]:
    origins: dict[str, str] = {}

    def walk(value: Any, path: KeyPath) -> None:
        if isinstance(value, BaseModel):
            for name in type(value).model_fields:
                walk(getattr(value, name), (*path, name))
            return
        place = document.key_places.get(path)
        origins[dotted(path)] = place.origin if place else "default"
        if isinstance(value, dict):
            for name, inner in value.items():
                walk(inner, (*path, name))

    walk(profile, ())
    return origins
